"""What `envs check` finds wrong with the tasks of a plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from plastic_rl.cli.environments import checks
from plastic_rl.evaluation import evaluate
from plastic_rl.tasks import distribution_for

PLUGIN = """
import gymnasium
import numpy as np

from plastic_rl.tasks import RandomAgent, TaskDistribution, register_distribution


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
    assert [check.problem for check in checks(f"plastic_rl/{name}-v0")] == [None] * 5


def test_evaluation_warns_of_a_limit_that_is_no_reference_agent(call: Any, plugin: Path) -> None:
    call("envs", "check", "check_tests/Misnamed-v0", "--plugin", plugin)
    agent = distribution_for("check_tests/Good-v0").reference_agents("test")["random"]
    with pytest.warns(UserWarning, match=r"the limit 'randm' is no reference agent .* Valid: random, none"):
        evaluation = evaluate(agent, "check_tests/Misnamed-v0", tasks=3, resamples=5)
    assert evaluation.splits["test"].normalised_score is None
