"""What `envs check` finds wrong with the tasks of a plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from plastic_rl.cli.environments import checks
from plastic_rl.envs import distribution_for
from plastic_rl.evaluation import evaluate

PLUGIN = """
import gymnasium
import numpy as np

from plastic_rl.envs import RandomAgent, TaskDistribution, register_distribution


class Slot(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, heeds=True, limit="random", render_mode=None):
        self.render_mode, self.heeds = render_mode, heeds

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.pays = 0, 0.5
        if self.heeds and options and "task" in options:
            self.pays = options["task"].params["pays"]
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.time += 1
        reward = float(self.np_random.random() < self.pays)
        return np.zeros(1, np.float32), reward, self.time == 20, False, {}


class SlotTasks(TaskDistribution):
    family = "Slot"

    def __init__(self, heeds=True, limit="random"):
        super().__init__()
        self.limit_kind = limit

    def sample_params(self, generator, split):
        return {"pays": float(generator.random())}

    def reference_agents(self, split):
        return {"random": RandomAgent(Slot.action_space)}


for name, arguments in {
    "Good": {}, "Deaf": {"heeds": False}, "Misnamed": {"limit": "randm"}, "Unlimited": {"limit": "none"}
}.items():
    env_id = f"check_tests/{name}-v0"
    if env_id not in gymnasium.registry:
        gymnasium.register(env_id, Slot, kwargs=arguments)
    register_distribution(env_id, SlotTasks, replace=True)
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "slots.py"
    path.write_text(PLUGIN)
    return path


@pytest.mark.parametrize("name", ["Good", "Unlimited"])
def test_a_sound_family_passes(call: Any, plugin: Path, name: str) -> None:
    code, out, _ = call("envs", "check", f"check_tests/{name}-v0", "--plugin", plugin)
    assert (code, out.count("FAILED")) == (0, 0)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("Deaf", 'the task changes nothing: 6 tasks whose parameters differ (pays)'),
        ("Deaf", 'Does reset read options["task"]?'),
        ("Misnamed", "the limit 'randm' is no reference agent of Slot on the split train (did you mean 'random'?)"),
        ("Misnamed", "Valid: random, none"),
    ],
)  # fmt: skip
def test_an_unsound_family_fails(call: Any, plugin: Path, name: str, problem: str) -> None:
    code, out, _ = call("envs", "check", f"check_tests/{name}-v0", "--plugin", plugin)
    assert code != 0
    assert out.count("FAILED") == 1
    assert problem in " ".join(out.split())


@pytest.mark.parametrize("name", ["BernoulliBandit", "ReversalBandit", "GridMaze"])
def test_the_families_here_pass(name: str) -> None:
    assert [check.problem for check in checks(f"plastic_rl/{name}-v0")] == [None] * 6


class Unruly(gymnasium.Env[Any, Any]):
    """Draws its starts, or its steps, from a generator that no seed reaches."""

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float64)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, drawn: str) -> None:
        self.drawn = drawn
        self.own = np.random.default_rng(0)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return self.own.random(1) if self.drawn == "starts" else np.zeros(1), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        return self.own.random(1) if self.drawn == "steps" else np.zeros(1), 0.0, self.time == 5, False, {}


def test_what_trials_of_the_same_seed_share_is_looked_at(call: Any, plugin: Path) -> None:
    for drawn in ("starts", "steps"):
        gymnasium.register(f"check_tests/Unruly{drawn}-v0", Unruly, kwargs={"drawn": drawn})
    name = "two trials of one lifetime with same_task_each_trial: "
    equal = "their first observations are equal, "
    repeats = "starts and noise repeat with the task, so an agent may replay a lucky path"
    found = {
        "CartPole-v1": f"ok      {name}{equal}and so are the steps of the same 14 actions: {repeats}",
        "FrozenLake-v1": f"ok      {name}{equal}and so are the steps of the same 12 actions: {repeats}",
        "check_tests/Good-v0": f"ok      {name}{equal}and so are the steps of the same 20 actions: {repeats}",
        "check_tests/Unrulysteps-v0": f"ok      {name}{equal}the steps of the same 5 actions are not: some noise does "
        "not follow from the seed",
        "check_tests/Unrulystarts-v0": f"note    {name}their first observations differ: they are not one task, since "
        "reset draws from more than its seed",
        "CliffWalking-v1": f"note    {name}not seen, since the first had not ended after 2,000 steps",
        "plastic_rl/ReversalBandit-v0": f"ok      {name}none, since it is a lifetime already",
    }
    for env_id, line in found.items():
        _, out, _ = call("envs", "check", env_id, "--plugin", plugin)
        assert out.splitlines()[-1] == line


def test_evaluation_warns_of_a_limit_that_is_no_reference_agent(call: Any, plugin: Path) -> None:
    call("envs", "check", "check_tests/Misnamed-v0", "--plugin", plugin)
    agent = distribution_for("check_tests/Good-v0").reference_agents("test")["random"]
    with pytest.warns(UserWarning, match=r"the limit 'randm' is no reference agent .* Valid: random, none"):
        evaluation = evaluate(agent, "check_tests/Misnamed-v0", tasks=3, resamples=5)
    assert evaluation.splits["test"].normalised_score is None
