"""Which core computed a checkpoint is recorded, and what goes on from it keeps that core, or says that it cannot."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from plastic_rl import _native
from plastic_rl.algorithms import CMAES, PlasticA2C
from plastic_rl.algorithms.saved_policy import load_policy
from plastic_rl.checkpoint import read_checkpoint, write_checkpoint
from plastic_rl.errors import CheckpointError
from tests.algorithms.a2c_cases import BANDIT, SMALL, equal, make, params_of

pytestmark = pytest.mark.skipif(not _native.levels(), reason="the package is installed without its compiled core")
UPDATE = 80
"""Steps of an update."""


@pytest.fixture(autouse=True)
def _chosen_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(_native.VARIABLE, raising=False)


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A checkpoint after one update, by the core."""
    folders = {}
    for core in ("torch", "native"):
        monkeypatch.setenv(_native.VARIABLE, core)
        folders[core] = tmp_path / core
        write_checkpoint(folders[core], make().learn(UPDATE).get_checkpoint())
    monkeypatch.delenv(_native.VARIABLE)
    return folders


def loaded(folder: Path) -> tuple[PlasticA2C, list[str]]:
    """An agent that goes on, and what it warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        agent = PlasticA2C.load(folder, env=BANDIT, force_reset=False)
    return agent, [str(warning.message) for warning in caught]


def ended(agent: PlasticA2C) -> dict[str, torch.Tensor]:
    return params_of(agent.learn(UPDATE, reset_num_timesteps=False))


def undisturbed(core: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    with monkeypatch.context() as within:
        within.setenv(_native.VARIABLE, core)
        return params_of(make().learn(UPDATE).learn(UPDATE, reset_num_timesteps=False))


def test_a_manifest_says_what_computed_it(begun: dict[str, Path]) -> None:
    capability = torch.backends.cpu.get_cpu_capability()
    levels = {"torch": None, "native": _native.levels()[-1]}
    for core, folder in begun.items():
        stored = json.loads((folder / "manifest.json").read_text())["core"]
        assert stored == {"name": core, "level": levels[core], "torch": capability}


@pytest.mark.parametrize("core", ["torch", "native"])
def test_what_goes_on_keeps_the_core_to_the_bit(
    core: str, begun: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, warned = loaded(begun[core])
    assert warned == []
    assert agent.policy.network.core_in_use.name == core
    whole = {name: undisturbed(name, monkeypatch) for name in begun}
    assert not equal(whole["torch"], whole["native"])
    assert equal(ended(agent), whole[core])


def test_a_checkpoint_from_before_this_was_recorded_goes_on_on_torch(tmp_path: Path, begun: dict[str, Path]) -> None:
    old = tmp_path / "old"
    write_checkpoint(old, replace(read_checkpoint(begun["torch"]), core={}))
    assert "core" not in json.loads((old / "manifest.json").read_text())
    agent, warned = loaded(old)
    assert warned == []
    assert str(agent.policy.network.core_in_use) == "torch (it began on torch)"


def test_an_agent_that_only_acts_is_computed_by_the_present_core(begun: dict[str, Path]) -> None:
    for folder in begun.values():
        assert load_policy(read_checkpoint(folder)).network.core_in_use.name == "native"
        assert PlasticA2C.load(folder).policy.network.core_in_use.name == "native"


@pytest.mark.parametrize(("core", "other"), [("torch", "native"), ("native", "torch")])
def test_a_core_asked_for_goes_before_the_stored_one_with_a_warning(
    core: str, other: str, begun: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(_native.VARIABLE, other)
    agent, [warned] = loaded(begun[core])
    assert agent.policy.network.core_in_use.name == other
    assert f"it was computed by {core} so far, and goes on by {other}" in warned
    assert f"(PLASTIC_RL_CORE={other})" in warned
    assert "its bits may differ" in warned


def test_where_there_is_no_extension_a_warning_says_so(begun: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "extension", lambda: None)
    agent, [warned] = loaded(begun["native"])
    assert agent.policy.network.core_in_use.name == "torch"
    assert "goes on by torch (the package was installed without its compiled core)" in warned


def test_another_level_is_no_difference(begun: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(_native.VARIABLE, "native:baseline")
    agent, warned = loaded(begun["native"])
    assert warned == []
    assert agent.policy.network.core_in_use.level == "baseline"
    assert equal(ended(agent), undisturbed("native", monkeypatch))


def test_another_capability_of_torch_is_warned_of(begun: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    here = torch.backends.cpu.get_cpu_capability()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "ANOTHER")
    _, [warned] = loaded(begun["native"])
    assert f"torch computed it with {here} so far, and has ANOTHER here" in warned
    assert "its bits may differ" in warned


@pytest.mark.parametrize("core", [{"name": "gpu"}, {"name": ["torch"]}])
def test_a_core_that_there_is_not_is_refused(core: Any, tmp_path: Path, begun: dict[str, Path]) -> None:
    write_checkpoint(tmp_path / "altered", replace(read_checkpoint(begun["torch"]), core=core))
    with pytest.raises(CheckpointError, match="'core' must say torch or native under 'name'"):
        read_checkpoint(tmp_path / "altered")


def test_what_does_not_run_natively_has_torch_on_record() -> None:
    for network in ({"kind": "plastic_rnn", "rule": "bcm"}, {"kind": "gru"}):
        kwargs = {"policy_kwargs": {"network": {**SMALL["network"], **network}}}
        agent = make(policy="PlasticPolicy", **kwargs)
        assert agent.get_checkpoint().core["name"] == "torch"


def test_individuals_of_evolution_follow_to_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"population_size": 4, "lifetimes": 2, "seed": 3, "env_kwargs": {"steps": 10}}
    monkeypatch.setenv(_native.VARIABLE, "torch")
    agent = CMAES("BackpropaminePolicy", BANDIT, policy_kwargs=SMALL, **settings).learn(generations=1)
    agent.save(tmp_path / "agent.zip")
    whole = params_of(agent.learn(generations=1, reset_num_timesteps=False))
    monkeypatch.delenv(_native.VARIABLE)
    again = CMAES.load(tmp_path / "agent.zip", env=BANDIT, force_reset=False)
    assert equal(params_of(again.learn(generations=1, reset_num_timesteps=False)), whole)
    assert again.evaluator is not None
    assert again.evaluator._policy is not None
    assert again.evaluator._policy.network.core_in_use.name == "torch"
