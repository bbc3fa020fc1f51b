"""Which tasks an environment id has, how they are dealt out, and the random agent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from plastic_rl import BUILT_IN_DISTRIBUTIONS
from plastic_rl.envs import (
    DISTRIBUTIONS,
    RandomAgent,
    Task,
    distribution_for,
    number_of,
    register_distribution,
)
from plastic_rl.errors import ConfigError, SpaceError, TaskError, UnknownNameError
from plastic_rl.families.bernoulli_bandit import BernoulliBanditTasks, BernoulliBanditVectorEnv


@pytest.mark.parametrize(("env_id", "entry_point"), BUILT_IN_DISTRIBUTIONS.items())
def test_a_built_in_id_has_its_own_tasks_where_no_family_was_imported(env_id: str, entry_point: str) -> None:
    code = (
        "import sys\n"
        "from plastic_rl.envs import DISTRIBUTIONS, distribution_for\n"
        "assert not [name for name in sys.modules if name.startswith('plastic_rl.families')]\n"
        f"assert {env_id!r} in list(DISTRIBUTIONS)\n"
        f"print(type(distribution_for({env_id!r})).__qualname__)\n"
    )
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert result.stdout.strip() == entry_point.partition(":")[2]
    assert env_id == f"plastic_rl/{result.stdout.strip().removesuffix('Tasks')}-v0"


def test_registering_distributions(monkeypatch):
    monkeypatch.setattr(DISTRIBUTIONS, "_entries", dict(DISTRIBUTIONS._entries))  # other tests list them

    class Own(BernoulliBanditTasks):
        pass

    with pytest.raises(ValueError, match="registered already"):
        register_distribution("plastic_rl/BernoulliBandit-v0", Own)
    register_distribution("tests/Own-v0", Own)
    assert DISTRIBUTIONS["tests/Own-v0"] is Own
    with pytest.raises(ConfigError, match=r"no keyword 'arm' \(did you mean 'arms'\?\)"):
        distribution_for("plastic_rl/BernoulliBandit-v0", {"arm": 3})
    with pytest.raises(UnknownNameError, match="unknown environment"):
        distribution_for("tests/NoSuchEnvironment-v0")


def test_number_of_a_task():
    task = Task("F", "test", 0, 0, {"p": 0.5, "name": "x"})
    assert number_of(task, "p") == 0.5
    for bad in ("name", "missing"):
        with pytest.raises(TaskError, match=f"needs a number '{bad}'"):
            number_of(task, bad)


def test_random_agent_refuses_other_spaces():
    from gymnasium import spaces

    with pytest.raises(SpaceError, match="Discrete, MultiDiscrete, MultiBinary or Box"):
        RandomAgent(spaces.Text(2))
    agent = RandomAgent(spaces.MultiDiscrete([2, 5]))
    agent.begin([], seed=0)
    actions, _ = agent.predict(np.zeros((2000, 1)))
    assert actions.max(axis=0).tolist() == [1, 4]
    assert actions.mean(axis=0) == pytest.approx([0.5, 2.0], abs=0.15)
    agent = RandomAgent(spaces.MultiBinary(3))
    agent.begin([], seed=0)
    actions, _ = agent.predict(np.zeros((2000, 1)))
    assert set(np.unique(actions)) == {0, 1}
    assert actions.mean(axis=0) == pytest.approx([0.5, 0.5, 0.5], abs=0.05)


@pytest.mark.parametrize("value", [2.5, True, "two", None, [2]])
def test_whole_numbers_are_whole(value: object) -> None:
    with pytest.raises(ConfigError, match=r"BernoulliBandit-v0: arms must be a whole number, got "):
        distribution_for("plastic_rl/BernoulliBandit-v0", {"arms": value})
    with pytest.raises(ConfigError, match=r"BernoulliBanditVectorEnv: arms must be a whole number, got "):
        BernoulliBanditVectorEnv(2, arms=value)
    assert distribution_for("plastic_rl/BernoulliBandit-v0", {"arms": np.int64(3)}).task("test", 0).index == 0
