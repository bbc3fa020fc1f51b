"""Lifetimes of other people's environments: `Lifetime`, `ScalarVectorEnv` and `make_vector`."""

from __future__ import annotations

import json
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.toy_text.frozen_lake import generate_random_map
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from plastic_rl.envs import (
    Lifetime,
    ScalarVectorEnv,
    SeedTasks,
    TaskDistribution,
    distribution_for,
    make_vector,
    register_distribution,
)
from plastic_rl.errors import CheckpointError, ConfigError, SpaceError, TaskError, UnknownNameError
from plastic_rl.feedback import FeedbackLayout

NEXT_STEP, SAME_STEP, DISABLED = AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED


class Counter(gymnasium.Env[Any, Any]):
    """Counts its steps; ends by itself or by a limit of its own, as told. Knows no tasks, records its resets."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        observation_space: spaces.Space[Any] | None = None,
        action_space: spaces.Space[Any] | None = None,
        length: int = 3,
        truncates: bool = False,
    ) -> None:
        self.observation_space = observation_space or spaces.Box(0.0, 100.0, (1,), np.float64)
        self.action_space = action_space or spaces.Discrete(2)
        self.length = length
        self.truncates = truncates
        self.resets: list[tuple[int | None, Any]] = []
        self.actions: list[Any] = []
        self.time = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.resets.append((seed, options))
        self.time = 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.actions.append(action)
        self.time += 1
        over = self.time == self.length
        return self._observation(), 10.0 * self.time, over and not self.truncates, over and self.truncates, {}

    def _observation(self) -> Any:
        if isinstance(self.observation_space, spaces.Box):
            return np.full(self.observation_space.shape, self.time, dtype=self.observation_space.dtype)
        self.observation_space.seed(self.time)
        return self.observation_space.sample()


def columns(observation: Any, layout: FeedbackLayout) -> tuple[list[float], float, float, float]:
    """Action columns, reward, trial_start and time."""
    return (
        observation[slice(*layout.action)].tolist(),
        float(observation[layout.reward[0]]),
        float(observation[layout.trial_start[0]]),
        float(observation[layout.time[0]]),
    )


@pytest.mark.parametrize("truncates", [False, True])
def test_one_trial_passes_the_inner_end_through(truncates):
    env = Lifetime(Counter(truncates=truncates))
    observation, _ = env.reset(seed=0)
    assert observation.tolist() == [0, 0, 0, 0, 1, 0]
    assert env.step(1)[0].tolist() == [1, 0, 1, 10, 0, 0]
    assert env.step(0)[0].tolist() == [2, 1, 0, 20, 0, 0]
    observation, reward, terminated, truncated, info = env.step(1)
    assert (reward, terminated, truncated) == (30.0, not truncates, truncates)
    assert info == {"trial_end": True}
    assert columns(observation, env.feedback) == ([0, 1], 30, 1, 0)


@pytest.mark.parametrize("truncates", [False, True])
def test_several_trials_are_one_lifetime_that_terminates_however_its_trials_end(truncates):
    inner = Counter(truncates=truncates)
    env = Lifetime(inner, trials=3)
    env.reset(seed=5, options={"task": "kept"})
    ends, seen = [], []
    for _ in range(9):
        observation, _, terminated, truncated, info = env.step(1)
        assert not truncated
        ends.append((info["trial_end"], terminated))
        seen.append((float(observation[0]), *columns(observation, env.feedback)[1:]))
    assert ends == [(False, False), (False, False), (True, False)] * 2 + [(False, False), (False, False), (True, True)]
    # At a trial's end the observation is the first one of the next trial, with the last reward as feedback.
    third = np.float32(1 / 3)
    assert seen[:4] == [(1, 10, 0, 0), (2, 20, 0, 0), (0, 30, 1, third), (1, 10, 0, third)]
    assert seen[-1] == (3, 30, 1, 1)
    assert inner.resets == [(5, {"task": "kept"})] * 3
    again = Lifetime(inner, trials=3, same_task_each_trial=False)
    again.reset(seed=6, options={"task": "kept"})
    for _ in range(9):
        again.step(1)
    assert inner.resets[3:] == [(6, {"task": "kept"}), (None, {"task": "kept"}), (None, {"task": "kept"})]


def lived(env: Any, lifetimes: int, seed: int | None, actions: int = 2) -> list[list[list[float]]]:
    """First features of each trial of some lifetimes, of which only the first is given the seed."""
    stream = np.random.default_rng(0)
    starts: list[list[list[float]]] = []
    for lifetime in range(lifetimes):
        observation, _ = env.reset(seed=seed if lifetime == 0 else None)
        starts.append([observation[: env.feedback.start].tolist()])
        terminated = False
        while not terminated:
            observation, _, terminated, _, info = env.step(stream.integers(actions))
            if info["trial_end"] and not terminated:
                starts[-1].append(observation[: env.feedback.start].tolist())
    return starts


def foreign(env_id: str) -> Any:
    return (
        gymnasium.wrappers.FlattenObservation(gymnasium.make(env_id)) if "Black" in env_id else gymnasium.make(env_id)
    )


@pytest.mark.parametrize("env_id", ["tests/Drawing-v0", "CartPole-v1", "Blackjack-v1"])
def test_every_trial_of_a_lifetime_is_the_same_task(drawing: str, env_id: str) -> None:
    before = np.random.get_state()[1].tolist()  # noqa: NPY002 - the global state is what must not be touched
    starts = lived(Lifetime(foreign(env_id), trials=3), 8, seed=4)
    assert [len(trials) for trials in starts] == [3] * 8
    for trials in starts:
        assert trials == [trials[0]] * 3
    # Lifetimes that are given no seed differ, follow from the last seed given, and without any are drawn anew.
    distinct = {str(trials[0]) for trials in starts}
    assert len(distinct) == 8 if "Black" not in env_id else len(distinct) > 3
    assert lived(Lifetime(foreign(env_id), trials=3), 8, seed=4) == starts
    assert lived(Lifetime(foreign(env_id), trials=3), 8, seed=5) != starts
    first, second = (lived(Lifetime(foreign(env_id), trials=3), 8, seed=None) for _ in range(2))
    assert first != second
    assert all(trials == [trials[0]] * 3 for trials in first)
    fresh = lived(Lifetime(foreign(env_id), trials=3, same_task_each_trial=False), 8, seed=4)
    assert all(trials != [trials[0]] * 3 for trials in fresh)
    assert fresh[0][0] == starts[0][0]
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_the_seeds_of_later_lifetimes_follow_from_no_action_and_no_draw_of_the_environment() -> None:
    resets = []
    for actions in ([0], [0, 1]):
        inner = Counter(length=len(actions))
        env = Lifetime(inner, trials=2)
        env.reset(seed=9)
        for action in actions * 2:
            inner.np_random.random()
            env.step(action)
        env.reset()
        resets.append(inner.resets)
    assert resets[0] == resets[1]
    seeds = [seed for seed, _ in resets[0]]
    assert seeds[:2] == [9, 9]
    assert 0 <= seeds[2] < 2**31
    assert seeds[2] != 9


@pytest.mark.parametrize("same", [None, True, False])
def test_one_trial_is_reset_as_it_is_told(same: bool | None) -> None:
    inner = Counter(length=1)
    env = Lifetime(inner, same_task_each_trial=same)
    for seed in (None, 3, None):
        env.reset(seed=seed)
        env.step(0)
    assert inner.resets == [(None, None), (3, None), (None, None)]


def test_noise_repeats_with_the_task() -> None:
    """On FrozenLake's slippery ice the same moves lead the same way in every trial: a lucky path can be replayed."""
    ice = generate_random_map(size=6, p=0.9, seed=3)
    ways: dict[bool, list[list[float]]] = {}
    for same in (True, False):
        env = Lifetime(gymnasium.make("FrozenLake-v1", desc=ice), trials=4, same_task_each_trial=same)
        ways[same] = []
        for seed in range(5):
            env.reset(seed=seed)
            moves, way, terminated = np.random.default_rng(1), [], False
            while not terminated:
                observation, _, terminated, _, info = env.step(moves.integers(4))
                way.append(float(observation[:36].argmax()))
                if info["trial_end"]:
                    ways[same].append(way)
                    moves, way = np.random.default_rng(1), []
    repeated, fresh = ({str(way[:-1]) for way in ways[same][:4]} for same in (True, False))
    assert (len(repeated), len(fresh)) == (1, 4)
    assert len({str(way[:-1]) for way in ways[True]}) == 5


class Places(TaskDistribution):
    family = "Drawing"

    def sample_params(self, generator: np.random.Generator, split: str) -> dict[str, Any]:
        return {"place": float(generator.random())}


def test_without_a_setting_trials_are_one_task_where_the_id_has_no_tasks_of_its_own(drawing: str) -> None:
    gymnasium.register("tests/DrawingWithTasks-v0", type(gymnasium.make(drawing).unwrapped))
    register_distribution("tests/DrawingWithTasks-v0", Places)
    for env_id, own in ((drawing, False), ("tests/DrawingWithTasks-v0", True)):
        for same in (None, True, False):
            repeats = not own if same is None else same
            # By hand, and as a row.
            env = Lifetime(gymnasium.make(env_id), 3, same)
            env.reset(seed=1)
            assert sum(env.step(0)[1] for _ in range(3)) == (2.0 if repeats else 0.0)
            rows = make_vector(env_id, 2, trials=3, same_task_each_trial=same)
            rows.reset(seed=1)
            total = np.sum([rows.step(np.zeros(2, np.int64))[1] for _ in range(6)], axis=0)
            assert total.tolist() == ([4.0, 4.0] if repeats else [0.0, 0.0])
            resets = rows.envs[0].unwrapped.resets
            tasks = [options["task"].index for _, options in resets] if own else []
            assert tasks == ([0, 0, 0, 2, 2, 2, 4] if own else [])


def test_time_is_the_share_of_the_time_limits_where_there_are_some():
    env = Lifetime(gymnasium.make("Pendulum-v1"), trials=2)
    env.reset(seed=0)
    action = np.array([0.5], dtype=np.float32)
    times, ends = [], []
    for _ in range(400):
        observation, _, terminated, truncated, info = env.step(action)
        times.append(columns(observation, env.feedback)[3])
        ends.append((info["trial_end"], terminated, truncated))
    np.testing.assert_array_equal(times, (np.arange(1, 401) / 400).astype(np.float32))
    assert [index for index, end in enumerate(ends) if end[0]] == [199, 399]
    assert [index for index, end in enumerate(ends) if end[1]] == [399]
    assert not any(end[2] for end in ends)


def test_observations_and_actions_are_flattened_and_clipped():
    env = Lifetime(Counter(spaces.MultiDiscrete([2, 3]), spaces.MultiDiscrete([3, 2], start=[1, 0])))
    assert env.observation_space.shape == (5 + 5 + 3,)
    assert env.action_space == spaces.MultiDiscrete([3, 2])
    env.reset(seed=0)
    observation = env.step(np.array([2, 1]))[0]
    assert columns(observation, env.feedback)[0] == [0, 0, 1, 0, 1]
    assert env.unwrapped.actions[0].tolist() == [3, 1]

    env = Lifetime(Counter(spaces.Discrete(4, start=-1), spaces.Discrete(3, start=5)))
    env.reset(seed=0)
    env.step(np.int64(2))
    assert env.unwrapped.actions == [7]

    env = Lifetime(Counter(action_space=spaces.Box(-2.0, 2.0, (2, 2), np.float64)))
    assert env.action_space == spaces.Box(-2.0, 2.0, (4,), np.float32)
    env.reset(seed=0)
    observation = env.step(np.array([1.0, 3.0, -9.0, 0.0], dtype=np.float32))[0]
    assert columns(observation, env.feedback)[0] == [1, 2, -2, 0]
    assert env.unwrapped.actions[0].shape == (2, 2)
    assert env.unwrapped.actions[0].dtype == np.float64

    env = Lifetime(Counter(action_space=spaces.MultiBinary([2, 2])))
    assert env.action_space == spaces.MultiBinary(4)
    env.reset(seed=0)
    observation = env.step(np.array([1, 0, 0, 1]))[0]
    assert columns(observation, env.feedback)[0] == [1, 0, 0, 1]
    assert env.unwrapped.actions[0].tolist() == [[1, 0], [0, 1]]
    assert env.unwrapped.actions[0].dtype == np.int8

    env = Lifetime(Counter(spaces.MultiBinary(6), length=300))
    env.reset(seed=0)
    for _ in range(200):
        observation, reward, *_ = env.step(0)
    assert reward == 2000.0
    assert columns(observation, env.feedback)[1] == 1000.0
    assert observation in env.observation_space


@pytest.mark.parametrize(
    ("observation_space", "action_space", "message"),
    [
        (spaces.Dict({"a": spaces.Discrete(2)}), None, "FlattenObservation"),
        (spaces.Tuple([spaces.Discrete(2)]), None, "Box, Discrete, MultiDiscrete or MultiBinary"),
        (spaces.Box(0, 255, (8, 8, 3), np.uint8), None, "image observations are not supported"),
        (spaces.Text(4), None, "Box, Discrete, MultiDiscrete or MultiBinary"),
        (None, spaces.Text(3), "action spaces must be"),
        (None, spaces.Dict({"a": spaces.Discrete(2)}), "action spaces must be"),
    ],
)
def test_other_spaces_are_refused(observation_space, action_space, message):
    with pytest.raises(SpaceError, match=message):
        Lifetime(Counter(observation_space, action_space))


def test_what_is_a_lifetime_already_is_refused():
    with pytest.raises(ConfigError, match="is a lifetime already"):
        Lifetime(gymnasium.make("plastic_rl/GridMaze-v0"), trials=2)
    with pytest.raises(ConfigError, match="is a lifetime already"):
        make_vector("plastic_rl/GridMaze-v0", 2, trials=2)
    for made in (
        lambda: make_vector("plastic_rl/GridMaze-v0", 2, same_task_each_trial=False),
        lambda: ScalarVectorEnv([OwnFeedback()], same_task_each_trial=False),
    ):
        with pytest.raises(ConfigError, match=r"`same_task_each_trial` \(got False\) are for environments whose"):
            made()
    with pytest.raises(ConfigError, match="1 or more trials"):
        Lifetime(Counter(), trials=0)


def test_the_wrapper_passes_the_checker_of_gymnasium():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # The checker asks for the bare environment; a wrapper is what is checked here.
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version.*")
        warnings.filterwarnings("ignore", message=".*Box observation space m.*imum value is.*infinity.*")
        check_env(Lifetime(gymnasium.make("CartPole-v1").unwrapped, trials=2), skip_render_check=True)


FOREIGN = ["CartPole-v1", "FrozenLake-v1", "Pendulum-v1"]


@pytest.mark.parametrize("env_id", FOREIGN)
@pytest.mark.parametrize("trials", [1, 2])
def test_rows_of_a_foreign_environment_equal_the_environment_itself(env_id, trials):
    env = make_vector(env_id, 3, trials=trials, autoreset_mode=SAME_STEP, split="test", task_start=4)
    observations, info = env.reset(seed=1)
    assert observations.dtype == np.float32
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(450)]
    steps = [env.step(action) for action in actions]
    for row in range(3):
        single = Lifetime(gymnasium.make(env_id), trials=trials)
        lifetime = 0
        assert info["task"][row].params == {"reset_seed": 3 * (4 + row) + 2}
        observation, _ = single.reset(seed=3 * (4 + row) + 2)
        np.testing.assert_array_equal(observation, observations[row])
        for action, step in zip(actions, steps, strict=True):
            observation, reward, terminated, truncated, single_info = single.step(action[row])
            assert (reward, terminated, truncated) == (step[1][row], step[2][row], step[3][row])
            assert single_info["trial_end"] == step[4]["trial_end"][row]
            if terminated or truncated:
                lifetime += 1
                np.testing.assert_array_equal(observation, step[4]["final_obs"][row])
                assert step[4]["task"][row].index == 4 + row + 3 * lifetime
                observation, _ = single.reset(seed=3 * (4 + row + 3 * lifetime) + 2)
            np.testing.assert_array_equal(observation, step[0][row])
        assert lifetime >= 1
        if trials == 2:
            assert not any(step[3].any() for step in steps)
    assert env.metadata["lifetime_steps"] is None
    assert env.metadata["steps_per_trial"] is None
    assert env.metadata["autoreset_mode"] is SAME_STEP


class OwnFeedback(Counter):
    """An environment that shows feedback itself; its actions begin at 5."""

    metadata = {"feedback": FeedbackLayout.after(1, 3).to_dict()}  # noqa: RUF012 - as Gymnasium has it

    def __init__(self):
        super().__init__(spaces.Box(-2000.0, 2000.0, (7,), np.float32), spaces.Discrete(3, start=5))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        return np.zeros(7, np.float32), {}

    def step(self, action):
        _, reward, terminated, truncated, info = super().step(action)
        return np.zeros(7, np.float32), reward, terminated, truncated, info


def test_environments_with_feedback_of_their_own_receive_their_own_actions():
    own = OwnFeedback()
    env = ScalarVectorEnv([own])
    assert env.single_action_space == spaces.Discrete(3)
    env.reset(seed=0)
    env.step(np.array([0]))
    env.step(np.array([2]))
    assert own.actions == [5, 7]
    assert all(action in own.action_space for action in own.actions)


def test_idle_rows_of_next_step_are_not_stepped():
    counters = [Counter(length=2), Counter(length=3)]
    env = ScalarVectorEnv(counters, autoreset_mode=NEXT_STEP)
    env.reset(seed=0)
    terminated = [env.step(np.array([0, 1]))[2].tolist() for _ in range(4)]
    assert terminated == [[False, False], [True, False], [False, True], [False, False]]
    assert [len(counter.actions) for counter in counters] == [3, 3]
    assert [len(counter.resets) for counter in counters] == [2, 2]


def test_without_a_known_distribution_tasks_are_seeds_and_no_split_shares_one():
    distribution = distribution_for("CartPole-v1")
    assert isinstance(distribution, SeedTasks)
    assert distribution.limit_of("test") == "none"
    seeds = {
        split: {task.params["reset_seed"] for task in distribution.tasks(split, 0, 50)} for split in distribution.splits
    }
    assert len(set.union(*seeds.values())) == 150
    agent = distribution.reference_agents("test")["random"]
    agent.begin(distribution.tasks("test", 0, 1000), seed=0)
    actions, _ = agent.predict(np.zeros((1000, 9)))
    assert actions.mean() == pytest.approx(0.5, abs=4 * 0.5 / 1000**0.5)
    agent = distribution_for("Pendulum-v1").reference_agents("test")["random"]
    actions, _ = agent.predict(np.zeros((1000, 7)))
    assert actions.shape == (1000, 1)
    assert -2.0 <= actions.min() < -1.9
    assert 1.9 < actions.max() <= 2.0
    with pytest.raises(UnknownNameError, match="split of CartPole-v1 'shift'"):
        make_vector("CartPole-v1", 2, split="shift")
    with pytest.raises(TaskError, match="0 or more"):
        distribution.task("test", -1)


def test_a_resumed_foreign_environment_restarts_its_lifetimes_and_says_so():
    env = make_vector("CartPole-v1", 2)
    env.reset(seed=3)
    for _ in range(5):
        env.step(np.array([0, 1]))
    state = json.loads(json.dumps(env.get_state(), default=lambda array: array.tolist()))
    assert state["restarts"] is True
    other = make_vector("CartPole-v1", 2)
    with pytest.warns(UserWarning, match="cannot be continued in mid-lifetime"):
        other.set_state(state)
    expected, info = env.reset()
    np.testing.assert_array_equal(other.observe(), expected)
    assert [task.index for task in other.tasks] == [task.index for task in info["task"]] == [2, 3]
    with pytest.raises(CheckpointError, match="2 rows, not 3"):
        make_vector("CartPole-v1", 3).set_state(state)


def test_instances_of_a_known_environment_get_its_tasks():
    env = ScalarVectorEnv([gymnasium.make("plastic_rl/GridMaze-v0", side=11, steps=4) for _ in range(2)], split="valid")
    _, info = env.reset(seed=3)
    assert list(info["task"]) == distribution_for("plastic_rl/GridMaze-v0", {"side": 11}).tasks("valid", 0, 2)
    native = make_vector("plastic_rl/GridMaze-v0", 2, env_kwargs={"side": 11, "steps": 4}, split="valid")
    native.reset(seed=3)
    for _ in range(4):
        one, other = (rows.step(np.array([1, 3])) for rows in (env, native))
        np.testing.assert_array_equal(one[1], other[1])
    assert env.metadata["lifetime_steps"] == 4


def test_errors_of_make_vector_name_what_is_valid():
    with pytest.raises(UnknownNameError, match="Did you mean 'CartPole-v1'"):
        make_vector("CartPol-v1", 2)
    with pytest.raises(UnknownNameError, match="Did you mean 'plastic_rl/GridMaze-v0'"):
        make_vector("plastic_rl/GridMaz-v0", 2)
    with pytest.raises(ConfigError, match=r"no keyword 'sid' \(did you mean 'side'\?\)"):
        make_vector("plastic_rl/GridMaze-v0", 2, env_kwargs={"sid": 9})
    with pytest.raises(ConfigError, match="split: give this to make_vector itself"):
        make_vector("plastic_rl/GridMaze-v0", 2, env_kwargs={"split": "test"})
    with pytest.raises(ConfigError, match=r"no render mode 'asni'\. Valid: rgb_array, ansi"):
        make_vector("plastic_rl/GridMaze-v0", 2, render_mode="asni")
    with pytest.raises(TaskError, match="must be odd and 5 or more, got 8"):
        make_vector("plastic_rl/GridMaze-v0", 2, env_kwargs={"side": 8})
    with pytest.raises(ValueError, match="num_envs must be 1 or more"):
        make_vector("plastic_rl/GridMaze-v0", 0)
    with pytest.raises(SpaceError, match="equal spaces"):
        ScalarVectorEnv([Counter(), Counter(action_space=spaces.Discrete(3))])


class NoRenderMode(gymnasium.Env[np.ndarray, int]):
    """A constructor without `render_mode`, as people write them."""

    observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self) -> None:
        pass

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> Any:
        return np.ones(1, np.float32), 1.0, True, False, {}


def test_environments_without_a_render_mode_argument_can_be_made() -> None:
    gymnasium.register("tests/NoRenderMode-v0", entry_point=NoRenderMode)
    env = make_vector("tests/NoRenderMode-v0", 2)
    env.reset(seed=0)
    assert env.step(np.zeros(2, np.int64))[1].tolist() == [1.0, 1.0]
