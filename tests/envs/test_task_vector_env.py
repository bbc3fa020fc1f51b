"""What `TaskVectorEnv` does for families of other kinds: vector actions, lives of varying length, unbounded rewards."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from plastic_rl.envs import Outcome, Params, Task, TaskDistribution, TaskEnv, TaskVectorEnv, make_vector, number_of
from plastic_rl.errors import CheckpointError, ConfigError, SpaceError, TaskError

SAME_STEP, DISABLED = AutoresetMode.SAME_STEP, AutoresetMode.DISABLED


class FuelTasks(TaskDistribution):
    family = "Fuel"

    def __init__(self, action_space: spaces.Space[Any] = spaces.Discrete(2)) -> None:  # noqa: B008 - it is not changed
        super().__init__()
        self.action_space = action_space

    def sample_params(self, generator: np.random.Generator, split: str) -> Params:
        return {"fuel": float(generator.integers(2, 6))}


class FuelVectorEnv(TaskVectorEnv[FuelTasks]):
    """A life ends when the fuel is used up; the reward is 100 times the thrust used."""

    tasks_class = FuelTasks
    state_arrays: ClassVar[tuple[str, ...]] = ("fuel",)

    def __init__(self, num_envs: int = 1, **arguments: Any) -> None:
        tasks, options = self.tasks_and_options(arguments)
        super().__init__(
            num_envs,
            distribution=tasks,
            action_space=tasks.action_space,
            steps=5,
            reward_range=(-50.0, 50.0),
            options=options,
        )
        self.fuel = np.zeros(num_envs)

    def begin_rows(self, rows: Any, tasks: Sequence[Task], generators: Sequence[np.random.Generator]) -> None:
        self.fuel[rows] = [number_of(task, "fuel") for task in tasks]

    def transition(self, actions: Any) -> Outcome:
        thrust = actions.astype(np.float64).reshape(self.num_envs, -1).sum(axis=1)
        self.fuel -= np.abs(thrust)
        empty = self.fuel <= 0
        return Outcome(100.0 * thrust, trial_end=empty, ended=empty)


def test_vector_actions_and_clipped_feedback():
    env = FuelVectorEnv(2, action_space=spaces.Box(-1.0, 1.0, (2,), np.float32), autoreset_mode=DISABLED)
    assert env.single_observation_space.shape == (5,)
    assert env.single_observation_space.low.tolist() == [-1, -1, -50, 0, 0]
    env.reset(seed=0, options={"tasks": [Task("Fuel", "train", 0, 0, {"fuel": 9.0})] * 2})
    observations, rewards, *_, info = env.step(np.array([[0.25, 0.125], [-3.0, 0.5]]))
    assert rewards.tolist() == [37.5, -250.0]
    assert observations.tolist() == [[0.25, 0.125, 37.5, 0, np.float32(0.2)], [-1, 0.5, -50, 0, np.float32(0.2)]]
    assert "expected_reward" not in info
    with pytest.raises(SpaceError, match=r"shape \(2, 2\)"):
        env.step(np.zeros((2, 3)))


def test_several_discrete_actions():
    env = FuelVectorEnv(2, action_space=spaces.MultiDiscrete([2, 3]), autoreset_mode=DISABLED)
    env.reset(seed=0)
    observations = env.step(np.array([[1, 0], [0, 2]]))[0]
    assert observations[:, :5].tolist() == [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]]
    with pytest.raises(SpaceError, match="must lie in MultiDiscrete"):
        env.step(np.array([[1, 0], [0, 3]]))


def test_lives_of_varying_length_end_by_themselves_or_at_the_horizon():
    env = FuelVectorEnv(3, action_space=spaces.Discrete(2), autoreset_mode=SAME_STEP)
    tasks = [Task("Fuel", "train", 0, 0, {"fuel": fuel}) for fuel in (2.0, 3.0, 9.0)]
    env.reset(seed=0, options={"tasks": tasks})
    ends = [env.step(np.ones(3, dtype=np.int64)) for _ in range(5)]
    assert ends[0][2].tolist() == [False, False, False]
    assert ends[1][2].tolist() == [True, False, False]
    assert ends[2][2][1:].tolist() == [True, False]
    assert ends[4][2][2]
    info = ends[1][4]
    assert info["_final_obs"].tolist() == [True, False, False]
    assert info["final_obs"][0].tolist() == [0, 1, 50, 1, np.float32(0.4)]
    assert info["final_obs"][1] is None
    assert info["final_info"]["_trial_end"].tolist() == [True, False, False]
    assert info["final_info"]["task"][0] is tasks[0]
    assert ends[1][0][0].tolist() == [0, 0, 0, 1, 0]
    assert ends[1][0][1].tolist() == [0, 1, 50, 0, np.float32(0.4)]


class MeteredVectorEnv(FuelVectorEnv):
    """As `FuelVectorEnv`, and tells what is left in the tank where the engine ran."""

    metadata: ClassVar[dict[str, Any]] = {**FuelVectorEnv.metadata, "measures": {"left": "fuel that is left"}}

    def transition(self, actions: Any) -> Outcome:
        outcome = super().transition(actions)
        return outcome._replace(measures={"left": np.where(actions > 0, self.fuel, np.nan)})


def test_measures_stand_in_the_info_of_their_step():
    env = MeteredVectorEnv(2, action_space=spaces.Discrete(2), autoreset_mode=SAME_STEP)
    env.reset(seed=0, options={"tasks": [Task("Fuel", "train", 0, 0, {"fuel": fuel}) for fuel in (1.0, 9.0)]})
    info = env.step(np.array([1, 0]))[4]
    assert info["_left"].tolist() == [True, False]
    assert info["final_info"]["_left"].tolist() == [True, False]
    assert info["final_info"]["left"][0] == 0.0

    class MeteredEnv(TaskEnv):
        vector_class = MeteredVectorEnv

    scalar = MeteredEnv(action_space=spaces.Discrete(2))
    scalar.reset(seed=0, options={"task": Task("Fuel", "train", 0, 0, {"fuel": 9.0})})
    assert "left" not in scalar.step(0)[4]
    assert scalar.step(1)[4]["left"] == 8.0


def test_a_scalar_environment_refuses_options_of_reset_that_it_does_not_take():
    class FuelEnv(TaskEnv):
        vector_class = FuelVectorEnv

    scalar = FuelEnv(action_space=spaces.Discrete(2))
    task = Task("Fuel", "train", 0, 0, {"fuel": 9.0})
    with pytest.raises(TaskError, match=r"unknown option of reset 'tasks'\. Did you mean 'task'\? Valid: task\."):
        scalar.reset(seed=0, options={"tasks": [task]})
    assert scalar.reset(seed=0, options={})[1]["task"].params != task.params
    assert scalar.reset(seed=0, options={"task": None})[1]["task"].params != task.params
    assert scalar.reset(seed=0, options={"task": task})[1]["task"] is task


def test_a_state_of_another_family_is_refused():
    env = FuelVectorEnv(2, action_space=spaces.Discrete(2))
    env.reset(seed=0)
    state = env.get_state()
    state["family"] = {"water": np.zeros(2)}
    with pytest.raises(CheckpointError, match=r"holds \['water'\], but FuelVectorEnv needs \['fuel'\]"):
        env.set_state(state)


def test_the_scalar_environment_carries_its_state_too():
    class FuelEnv(TaskEnv):
        vector_class = FuelVectorEnv

    env, other = (FuelEnv(action_space=spaces.Discrete(2)) for _ in range(2))
    env.reset(seed=1)
    env.step(1)
    other.reset(seed=7)
    other.set_state(env.get_state())
    for action in (0, 1):
        one, two = env.step(action), other.step(action)
        np.testing.assert_array_equal(one[0], two[0])
        assert one[1:] == two[1:]


def test_environment_and_distribution_have_the_same_arguments():
    class TankTasks(FuelTasks):
        def __init__(self, size: int = 3, entropy: int = 0) -> None:
            super().__init__()
            self.size = size

    class TankVectorEnv(FuelVectorEnv):
        tasks_class = TankTasks

    signature = inspect.signature(TankVectorEnv)
    defaults = {name: each.default for name, each in signature.parameters.items()}
    assert defaults == {"num_envs": 1, "size": 3, "entropy": 0, "options": inspect.Parameter.empty}
    assert list(inspect.signature(FuelVectorEnv).parameters) == ["num_envs", "action_space", "options"]
    assert TankVectorEnv(2, size=7, split="valid").distribution.size == 7
    given = TankTasks(9)
    assert TankVectorEnv(2, distribution=given).distribution is given
    with pytest.raises(ConfigError, match=r"TankVectorEnv takes no keyword 'sise' \(did you mean 'size'\?\)"):
        TankVectorEnv(2, sise=7)
    with pytest.raises(ConfigError, match="has its arguments from the distribution that it is given; leave size away"):
        TankVectorEnv(2, size=7, distribution=given)
    with pytest.raises(ConfigError, match="needs TankTasks or a subclass, got FuelTasks"):
        TankVectorEnv(2, distribution=FuelTasks())


def test_a_misspelled_argument_of_a_scalar_family_is_refused():
    with pytest.raises(ConfigError, match=r"takes no keyword 'arm' \(did you mean 'arms'\?\)"):
        gymnasium.make("plastic_rl/BernoulliBandit-v0", arm=3)


def test_a_family_without_its_distribution_is_told_at_once():
    with pytest.raises(AttributeError, match="'Forgetful' has no attribute 'tasks_class'"):
        type("Forgetful", (TaskVectorEnv,), {})


def test_a_misspelled_argument_is_told_of_the_environment():
    with pytest.raises(ConfigError, match=r"^plastic_rl/GridMaze-v0 takes no keyword 'sid' \(did you mean 'side'\?\)"):
        make_vector("plastic_rl/GridMaze-v0", 2, env_kwargs={"sid": 9})
