"""Which synapses there are: how many, which go, which come, and what the others are worth."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from plastic_rl.errors import ConfigError
from plastic_rl.plasticity import RuleConfig, Synapse, SynapseConfig
from plastic_rl.plasticity.structure import Rewire, Sparse, lowest


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(
    post=st.integers(1, 12),
    pre=st.integers(1, 12),
    density=st.floats(0.01, 1),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_rewiring_keeps_the_number_of_synapses_and_replaces_the_weakest(
    post: int, pre: int, density: float, share: float, seed: int
) -> None:
    structure = Rewire(density=density, share=share)
    count = max(1, round(density * post * pre))
    before = structure.first(uniform(3, post * pre, seed=seed), post, pre)
    assert before.sum((-2, -1)).tolist() == [count] * 3
    weight = uniform(3, post, pre, seed=seed + 1) - 0.5
    after = structure.rewired(weight, before, None, uniform(3, post * pre, seed=seed + 2))
    assert after.sum((-2, -1)).tolist() == [count] * 3
    replaced = min(round(share * count), post * pre - count)
    gone, kept = before & ~after, before & after
    assert gone.sum((-2, -1)).tolist() == [replaced] * 3
    for lost, stays, own in zip(gone, kept, weight.abs(), strict=True):
        if bool(lost.any()) and bool(stays.any()):
            assert own[lost].max() < own[stays].min()


def test_synapses_grow_at_random_among_those_that_were_not_there() -> None:
    structure = Rewire(density=0.25, share=0.5)
    before = torch.zeros(1, 4, 4, dtype=torch.bool)
    before[0, 0] = True
    weight = torch.arange(16.0).view(1, 4, 4)
    grown = torch.zeros(4, 4)
    for seed in range(2000):
        after = structure.rewired(weight, before, None, uniform(1, 16, seed=seed))[0]
        # The two smallest of the first row, 0 and 1, go: they do not come back at once.
        assert after[0].tolist() == [False, False, True, True]
        grown += after
    # 2 of 12, each in 2000: 333 on average, with a standard deviation of 17.
    assert grown[1:].min().item() > 333 - 60
    assert grown[1:].max().item() < 333 + 60


def test_synapses_grow_by_the_largest_eligibility() -> None:
    structure = Rewire(density=0.5, share=0.5, grow="eligibility")
    before = torch.tensor([[[True, True, False, False]]])
    weight = torch.tensor([[[0.1, -0.3, 9.0, 9.0]]])
    eligibility = torch.tensor([[[5.0, 5.0, 0.2, -0.4]]])
    after = structure.rewired(weight, before, eligibility, uniform(1, 4))
    assert after.tolist() == [[[False, True, False, True]]]


def test_without_loops_no_unit_is_joined_to_itself() -> None:
    structure = Rewire(density=0.5, share=1.0, loops=False)
    assert (structure.places(4, 4), structure.count(4, 4)) == (12, 6)
    connected, seen = structure.first(uniform(3, 16), 4, 4), torch.zeros(4, 4)
    for seed in range(200):
        assert connected.sum((-2, -1)).tolist() == [6] * 3
        seen += connected.sum(0)
        connected = structure.rewired(uniform(3, 4, 4, seed=seed), connected, None, uniform(3, 16, seed=seed + 1))
    assert (seen == 0).tolist() == torch.eye(4, dtype=torch.bool).tolist()
    # A full matrix without its diagonal has nowhere to grow.
    full = Rewire(density=1.0, loops=False).first(uniform(16), 4, 4)
    assert torch.equal(full, ~torch.eye(4, dtype=torch.bool))
    for sizes in ((3, 4), (1, 1)):
        with pytest.raises(ConfigError, match=f"these are of {sizes[1]} units onto {sizes[0]}: leave loops out"):
            structure.first(uniform(12)[: sizes[0] * sizes[1]], *sizes)


def test_of_equals_the_lowest_numbers_choose() -> None:
    chosen = torch.zeros(5)
    for seed in range(1000):
        chosen += lowest(torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0]), uniform(5, seed=seed), 2)
    assert chosen[0] == 0
    assert chosen[1:].tolist() == pytest.approx([500] * 4, abs=70)


def test_density_and_start_of_a_fixed_structure() -> None:
    parameter = Sparse(density=0.3).parameters(5, 4, torch.Generator().manual_seed(0))["connected"]
    assert parameter.value.sum().item() == 6
    assert set(parameter.value.unique().tolist()) == {0.0, 1.0}
    assert not parameter.trainable
    again = Sparse(density=0.3).parameters(5, 4, torch.Generator().manual_seed(0))["connected"]
    assert torch.equal(parameter.value, again.value)
    assert Sparse(density=0.3).state_entries(5, 4) == {}
    assert Sparse(drawn="lifetime").parameters(5, 4) == {}
    assert Sparse(drawn="lifetime").state_entries(5, 4)["connected"].dtype == torch.bool
    assert Sparse(density=1e-6).count(5, 4) == 1


def synapse_of(**config: Any) -> tuple[Synapse, dict[str, Tensor], dict[str, Tensor]]:
    """A synapse of 3 x 4, with its parameters and a state in which every number is 1, and M the last two columns."""
    synapse = Synapse(SynapseConfig(**config), 3, 4)
    params = {name: parameter.value.double() for name, parameter in synapse.parameters().items()}
    state = {name: torch.ones(2, *entry.shape).double() for name, entry in synapse.state_entries().items()}
    state["connected"] = torch.tensor([False, False, True, True]).expand(2, 3, 4)
    return synapse, params, state


LIFETIME = {"name": "rewire", "drawn": "lifetime", "density": 0.5, "share": 1.0}


def test_a_synapse_that_is_not_there_is_worth_exactly_nothing() -> None:
    synapse, params, state = synapse_of(structure=LIFETIME)
    state["trace"][..., 0] = torch.nan
    start = torch.full((3, 4), torch.inf).double()
    start[:, 2:] = 0.5
    weight = synapse.weight(params, start, state)
    assert torch.equal(weight[..., :2], torch.zeros(2, 3, 2).double())
    torch.testing.assert_close(weight[..., 2:], (0.5 + params["alpha"][:, 2:]).expand(2, 3, 2), atol=1e-12, rtol=0)
    pre = torch.tensor([[1e30, -1e30, 1.0, 1.0]]).double().expand(2, 4)
    drive = synapse.driven(params, start, pre, state)
    torch.testing.assert_close(drive, weight[..., 2:].sum(-1), atol=1e-12, rtol=0)


@pytest.mark.parametrize("normalise", ["none", "incoming_l2", "layer_maximum"])
def test_a_synapse_that_is_not_there_does_not_change_or_count(normalise: str) -> None:
    synapse, params, state = synapse_of(structure=LIFETIME, normalise=normalise)
    state["trace"] = state["trace"] * state["connected"]
    updated = synapse.update(
        params, torch.tensor([[9.0, 9.0, 1.0, 2.0]] * 2).double(), torch.ones(2, 3).double(), state
    )
    assert not updated["trace"][..., :2].any()
    # eta .1: F = (1.1, 1.2), divided by its length or its largest.
    divisor = {"none": 1.0, "incoming_l2": (1.1**2 + 1.2**2) ** 0.5, "layer_maximum": 1.2}[normalise]
    expected = (torch.tensor([1.1, 1.2]).double() / divisor).expand(2, 3, 2)
    torch.testing.assert_close(updated["trace"][..., 2:], expected, atol=1e-7, rtol=0)


def test_a_grown_synapse_starts_from_nothing_and_only_where_it_is_due() -> None:
    synapse, params, state = synapse_of(
        structure=LIFETIME,
        eligibility="trace",
        consolidation={"name": "benna_fusi", "variables": 3},
        metaplasticity="importance",
    )
    due = torch.tensor([True, False])
    rewired = synapse.rewired(params, None, state, uniform(2, 12), due)
    # All six are replaced: those that were not there come, the others go.
    assert torch.equal(rewired["connected"][0], ~state["connected"][0])
    assert torch.equal(rewired["connected"][1], state["connected"][1])
    there = state["connected"].double()
    for name in ("trace", "importance", "chain"):
        assert not rewired[name][0].any(), name
        # One lifetime's rewiring is none of the other's business.
        assert torch.equal(rewired[name][1], state[name][1]), name
    # E goes on where there is no synapse, and starts anew where one grew.
    assert torch.equal(rewired["eligibility"][0], there[0])
    assert torch.equal(rewired["eligibility"][1], torch.ones(3, 4).double())


def test_lifetimes_rewire_every_so_many_steps_but_not_as_they_start() -> None:
    assert Rewire(every=3).due(torch.arange(8)).tolist() == [False, False, False, True, False, False, True, False]


def test_growth_by_eligibility_needs_one() -> None:
    by_eligibility = {"name": "rewire", "grow": "eligibility"}
    with pytest.raises(ValidationError, match=r"structure\.grow: .* eligibility is 'none'; use one with a trace"):
        RuleConfig.model_validate({"rule": "oja", "structure": by_eligibility})
    RuleConfig.model_validate({"rule": "backpropamine_retroactive", "structure": by_eligibility})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"density": 0}, r"structure\.density: must be greater than 0"),
        ({"density": 1.5}, r"structure\.density: must be less than or equal to 1"),
        ({"grows": "random"}, r"structure\.grows: unknown key\. Did you mean 'grow'"),
        ({"grow": "gradient"}, r"structure\.grow: "),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    from plastic_rl.config import check, describe

    _, problems = check(RuleConfig, {"rule": "oja", "structure": {"name": "rewire", **options}})
    with pytest.raises(Exception, match=message):
        raise ValueError(describe(problems, "the rule"))
