"""What every part of a synapse keeps to, whatever its kind: documentation, names, ranges, purity."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from plastic_rl.config.signatures import arguments_of
from plastic_rl.feedback import Feedback
from plastic_rl.plasticity import PARTS, Part, Synapse, SynapseConfig

OF_SYNAPSE = [kind for kind in PARTS if kind in SynapseConfig.model_fields]
EVERY = [(kind, name) for kind in OF_SYNAPSE for name in PARTS[kind]]
everywhere = pytest.mark.parametrize(("kind", "name"), EVERY, ids=[f"{kind}-{name}" for kind, name in EVERY])


def synapse_of(kind: str, name: str) -> Synapse:
    needs: dict[str, Any] = {"eligibility": "trace"} if name == "rewire" else {}
    return Synapse(SynapseConfig(**{kind: name, **needs}), 3, 4)


@everywhere
def test_the_first_line_of_the_documentation_says_the_equation(kind: str, name: str) -> None:
    first = (PARTS[kind][name].__doc__ or "").split("\n")[0]
    assert first.endswith((".", "`")), first
    assert "`" in first or name == "none" or kind == "normalise", first


@everywhere
def test_every_option_is_told_in_a_line(kind: str, name: str) -> None:
    part = PARTS[kind][name]
    if isinstance(part, type) and issubclass(part, Part):
        assert [option for option, one in arguments_of(part, Part).items() if not one.help] == []


@everywhere
def test_no_part_has_a_name_that_another_kind_has(kind: str, name: str) -> None:
    """Parameters and state entries of a synapse's parts stand side by side: one of two of a name would be lost."""
    own, plain = synapse_of(kind, name), Synapse(SynapseConfig(), 3, 4)
    parameters = set(own.parameters()) - set(plain.parameters())
    entries = (set(own.state_entries()) | set(own.structure_entries())) - set(plain.state_entries())
    for other, another in EVERY:
        if other != kind:
            others = synapse_of(other, another)
            assert not parameters & (set(others.parameters()) - set(plain.parameters()) - {"eta_eligibility"})
            assert not entries & (set(others.state_entries()) - set(plain.state_entries()) - {"eligibility"})


@everywhere
def test_an_update_changes_no_argument_and_gives_every_entry(kind: str, name: str) -> None:
    synapse = synapse_of(kind, name)
    generator = torch.Generator().manual_seed(0)
    params = {key: one.value for key, one in synapse.parameters(generator).items()}
    entries = synapse.state_entries() | synapse.structure_entries()
    state = {key: torch.rand(2, *one.shape, generator=generator) > 0.5 for key, one in entries.items()}
    state = {key: one if entries[key].dtype is torch.bool else 0.5 * one for key, one in state.items()}
    pre, post = torch.randn(2, 4, generator=generator), torch.randn(2, 3, generator=generator)
    no = torch.zeros(2, dtype=torch.bool)
    told = Feedback(torch.zeros(2, 2), torch.ones(2), no, ~no) if synapse.reward_modulated else None
    before = {key: one.clone() for key, one in (params | {f"state {key}": one for key, one in state.items()}).items()}
    updated = synapse.update(params, pre, post, state, told)
    assert set(updated) == set(synapse.state_entries())
    for key, one in updated.items():
        assert one.shape == state[key].shape
        assert bool(one.isfinite().all())
    for key, one in (params | {f"state {key}": one for key, one in state.items()}).items():
        assert torch.equal(one, before[key])
