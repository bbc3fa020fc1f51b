"""Wrappers: what every one in the registry keeps to around native and foreign environments, and what ours do."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from typing_extensions import override

from plastic_rl.checkpoint import decode, encode
from plastic_rl.envs import RowEnv, RowVectorEnv, Task, distribution_for, make_vector
from plastic_rl.envs.wrappers import WRAPPERS, RowWrapper, checked_wrappers
from plastic_rl.errors import CheckpointError, ConfigError
from plastic_rl.evaluation import evaluate
from plastic_rl.feedback import FeedbackLayout

DISABLED, NEXT_STEP, SAME_STEP = AutoresetMode.DISABLED, AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP
CUES, MAZE, POLE, PENDULUM = "plastic_rl/CueAssociation-v0", "plastic_rl/GridMaze-v0", "CartPole-v1", "Pendulum-v1"
GAIN: dict[str, Any] = {"name": "observation_gain", "factor": 8, "from_step": 4}
SENSORS: dict[str, Any] = {"name": "lesion", "share": 0.3, "from_step": 4}
ACTUATORS: dict[str, Any] = {**SENSORS, "of": "actuators"}
STACKS: dict[str, list[dict[str, Any]]] = {
    "gain": [GAIN],
    "sensors": [SENSORS],
    "actuators": [ACTUATORS],
    "both": [SENSORS, {**GAIN, "factor": 0.1, "from_step": 0}, {**ACTUATORS, "from_step": 2}],
}
KWARGS: dict[str, dict[str, Any]] = {CUES: {"trials": 5}, MAZE: {"steps": 20}}


class Levers(gymnasium.Env[Any, Any]):
    """Two levers of three places each; the observation tells where they were put."""

    observation_space = spaces.Box(0.5, 2.5, (2,), np.float32)
    action_space = spaces.MultiDiscrete([3, 3])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return np.full(2, 0.5, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        return action.astype(np.float32) + 0.5, float(action.sum()), self.time == 20, False, {}


@pytest.fixture(scope="module", autouse=True)
def levers() -> str:
    if "tests/Levers-v0" not in gymnasium.registry:
        gymnasium.register("tests/Levers-v0", Levers)
    return "tests/Levers-v0"


every_environment = pytest.mark.parametrize("env_id", [CUES, MAZE, POLE, PENDULUM, "tests/Levers-v0"])
every_stack = pytest.mark.parametrize("stack", STACKS)


def make(env_id: str, rows: int, wrappers: list[dict[str, Any]], **options: Any) -> RowVectorEnv:
    return make_vector(env_id, rows, env_kwargs=KWARGS.get(env_id), wrappers=wrappers, **options)


def actions_of(env: RowVectorEnv, steps: int) -> list[npt.NDArray[Any]]:
    env.action_space.seed(1)
    return [env.action_space.sample() for _ in range(steps)]


def play(env: RowVectorEnv, actions: list[npt.NDArray[Any]]) -> list[tuple[Any, ...]]:
    return [env.step(action)[:4] for action in actions]


def assert_same(first: list[tuple[Any, ...]], second: list[tuple[Any, ...]]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        for left, right in zip(one, other, strict=True):
            np.testing.assert_array_equal(left, right)


# --- the contract ----------------------------------------------------------------------------------------------------


def test_the_contract_tries_every_wrapper() -> None:
    assert {one["name"] for stack in STACKS.values() for one in stack} == set(WRAPPERS)
    for name, wrapper in WRAPPERS.items():
        assert issubclass(wrapper, RowWrapper), name
        assert wrapper.__doc__


@every_environment
@every_stack
def test_each_row_is_the_scalar_environment(env_id: str, stack: str) -> None:
    env = make(env_id, 3, STACKS[stack], autoreset_mode=SAME_STEP, split="test")
    observations, info = env.reset(seed=100)
    actions = actions_of(env, 30)
    tasks = [list(info["task"])]
    steps = []
    for action in actions:
        steps.append(env.step(action))
        tasks.append(list(env.tasks))
    for row in range(3):
        scalar = RowEnv(make(env_id, 1, STACKS[stack], autoreset_mode=DISABLED, split="test"))
        assert scalar.observation_space == env.single_observation_space
        observation, _ = scalar.reset(seed=100 + row, options={"task": tasks[0][row]})
        np.testing.assert_array_equal(observation, observations[row])
        for time, (action, step) in enumerate(zip(actions, steps, strict=True)):
            observation, reward, terminated, truncated, _ = scalar.step(action[row])
            assert (reward, terminated, truncated) == (step[1][row], step[2][row], step[3][row])
            if terminated or truncated:
                np.testing.assert_array_equal(observation, step[4]["final_obs"][row])
                observation, _ = scalar.reset(options={"task": tasks[time + 1][row]})
            np.testing.assert_array_equal(observation, step[0][row])


@every_environment
@every_stack
def test_a_seed_fixes_everything_whatever_the_autoreset_mode(env_id: str, stack: str) -> None:
    envs = [make(env_id, 3, STACKS[stack], autoreset_mode=mode) for mode in (SAME_STEP, SAME_STEP, DISABLED)]
    actions = actions_of(envs[0], 6)
    first, again, disabled = ([(env.reset(seed=3)[0],), *play(env, actions)] for env in envs)
    assert_same(first, again)
    assert_same(first, disabled)
    mask = np.array([True, False, True])
    envs[0].reset(seed=3, options={"reset_mask": mask})
    assert_same([(step[0][mask],) for step in first[1:]], [(step[0][mask],) for step in play(envs[0], actions)])


@every_environment
@every_stack
def test_a_state_goes_on_to_the_bit(env_id: str, stack: str) -> None:
    env = make(env_id, 3, STACKS[stack], autoreset_mode=SAME_STEP, split="shift" if env_id == CUES else "train")
    actions = actions_of(env, 40)
    env.reset(seed=2)
    play(env, actions[:7])
    state = decode(json.loads(json.dumps(encode(env.get_state()))))
    other = make(env_id, 3, STACKS[stack], autoreset_mode=SAME_STEP, split="shift" if env_id == CUES else "train")
    other.reset(seed=8)
    play(other, actions[:3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a foreign environment starts its next lifetimes
        other.set_state(state)
        if state.get("restarts"):
            env.set_state(state)
        for wrong in ([], [{**GAIN, "factor": 3}]):
            with pytest.raises(CheckpointError, match="wrappers"):
                make(env_id, 3, wrong).set_state(state)
        with pytest.raises(CheckpointError, match="without wrappers"):
            make(env_id, 3, STACKS[stack]).set_state({name: state[name] for name in state if name != "wrappers"})
    np.testing.assert_array_equal(other.observe(), env.observe())
    assert_same(play(other, actions[7:]), play(env, actions[7:]))
    assert encode(other.get_state()) == encode(env.get_state())


@every_environment
@every_stack
def test_observations_lie_in_their_space_and_feedback_stays_as_it_is(env_id: str, stack: str) -> None:
    env, plain = make(env_id, 4, STACKS[stack], autoreset_mode=NEXT_STEP), make(env_id, 4, [])
    layout = FeedbackLayout.from_dict(env.metadata["feedback"])
    assert env.metadata["feedback"] == plain.metadata["feedback"]
    space, own = env.single_observation_space, plain.single_observation_space
    for bound, before in ((space.low, own.low), (space.high, own.high)):
        np.testing.assert_array_equal(bound[layout.start :], before[layout.start :])
    seen = env.reset(seed=0)[0]
    for action in [None, *actions_of(env, 30)]:
        if action is not None:
            seen, reward, _, _, info = env.step(action)
            live = info["_trial_end"]
            column = np.clip(reward, own.low[layout.reward[0]], own.high[layout.reward[0]]).astype(np.float32)
            np.testing.assert_array_equal(seen[live, layout.reward[0]], column[live])
            chosen = seen[live, slice(*layout.action)]
            if isinstance(env.single_action_space, spaces.Discrete):
                np.testing.assert_array_equal(chosen, np.eye(env.single_action_space.n)[action][live])
            elif isinstance(env.single_action_space, spaces.Box):
                np.testing.assert_array_equal(chosen, action[live])
            else:
                np.testing.assert_array_equal(chosen, np.concatenate(np.eye(3)[action.T], axis=1)[live])
        assert seen in env.observation_space


@every_stack
def test_rows_of_which_some_rest_and_tasks_set_by_hand(stack: str) -> None:
    tasks = distribution_for(CUES, KWARGS[CUES]).tasks("test", 7, 10)
    env, alone = make(CUES, 3, STACKS[stack]), make(CUES, 1, STACKS[stack])
    options = {"tasks": tasks, "row_seeds": [5, 6, 7], "rest": True}
    first = env.reset(options=options)[0]
    assert options["tasks"] == tasks
    actions = actions_of(env, 15)
    steps = [(first,), *play(env, actions[:6])]
    env.rest(np.array([True, False, False]))
    steps += play(env, actions[6:])
    single = [(alone.reset(options={"tasks": tasks[1:2], "row_seeds": [6], "rest": True})[0],)]
    single += play(alone, [action[1:2] for action in actions])
    assert_same([tuple(values[1:2] for values in step) for step in steps], single)
    assert not any(step[1][0] for step in steps[7:])


@pytest.mark.parametrize("env_id", [CUES, POLE])
@every_stack
def test_the_scalar_form_passes_gymnasiums_checker(env_id: str, stack: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings(
            "ignore", message=".*Box observation space (maximum|minimum) value is"
        )  # CartPole's own
        check_env(RowEnv(make(env_id, 1, STACKS[stack], autoreset_mode=DISABLED)), skip_render_check=True)


def test_gymnasium_makes_a_wrapped_family_from_its_id() -> None:
    scalar = gymnasium.make(CUES, trials=5, wrappers=[GAIN]).unwrapped
    assert isinstance(scalar, RowEnv)
    ours = RowEnv(make(CUES, 1, [GAIN], autoreset_mode=DISABLED))
    np.testing.assert_array_equal(scalar.reset(seed=4)[0], ours.reset(seed=4)[0])
    for _ in range(15):
        np.testing.assert_array_equal(scalar.step(1)[0], ours.step(1)[0])
    with pytest.raises(ValueError, match="1 row without autoreset, got 2"):
        RowEnv(make(CUES, 2, [], autoreset_mode=DISABLED))


# --- when a wrapper begins -------------------------------------------------------------------------------------------


def features(env: RowVectorEnv, seed: int, steps: int) -> npt.NDArray[np.float32]:
    """Features of a lifetime of all rows, `(T + 1, B, F)`; action 0 in every step."""
    seen = [env.reset(seed=seed)[0]]
    action = np.zeros((env.num_envs, *(env.single_action_space.shape or ())), env.single_action_space.dtype)
    seen += [env.step(action)[0] for _ in range(steps)]
    return np.stack(seen)[:, :, : env.feedback.start]


@pytest.mark.parametrize(
    ("begin", "first"), [({}, 0), ({"from_step": 4}, 4), ({"from_trial": 2}, 6), ({"from_trial": 2, "from_step": 8}, 8)]
)
def test_it_begins_after_so_many_trials_and_steps(begin: dict[str, int], first: int) -> None:
    """Trials of cue association have three steps: the observation that starts trial 2 is the one after step 6."""
    wrapped = features(
        make(CUES, 4, [{"name": "observation_gain", "factor": 8, **begin}], autoreset_mode=DISABLED), 0, 15
    )
    plain = features(make(CUES, 4, [], autoreset_mode=DISABLED), 0, 15)
    np.testing.assert_array_equal(wrapped[:first], plain[:first])
    np.testing.assert_array_equal(wrapped[first:], 8 * plain[first:])


def test_it_begins_anew_in_each_lifetime() -> None:
    env, plain = (make(CUES, 2, stack, autoreset_mode=SAME_STEP) for stack in ([GAIN], []))
    seen, own = features(env, 0, 30), features(plain, 0, 30)
    times = np.arange(31) % 15
    np.testing.assert_array_equal(seen, np.where(times[:, None, None] >= 4, 8 * own, own))


def test_trials_of_a_foreign_environment_count() -> None:
    env = make_vector(POLE, 2, trials=3, wrappers=[{"name": "observation_gain", "factor": 8, "from_trial": 1}])
    plain = make_vector(POLE, 2, trials=3)
    seen, own = env.reset(seed=0)[0], plain.reset(seed=0)[0]
    trials = np.zeros(2, dtype=int)
    for _ in range(25):
        np.testing.assert_array_equal(seen[:, :4], np.where(trials[:, None] >= 1, 8 * own[:, :4], own[:, :4]))
        seen, _, terminated, _, info = env.step(np.zeros(2, dtype=int))
        own = plain.step(np.zeros(2, dtype=int))[0]
        trials = np.where(terminated, 0, trials + info["trial_end"])
    assert trials.min() >= 2


# --- observation gain ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("factor", "low", "high"), [(8, 0.5, 20.0), (0.1, 0.05, 2.5)])
def test_bounds_widen_with_the_gain(factor: float, low: float, high: float) -> None:
    space = make("tests/Levers-v0", 1, [{"name": "observation_gain", "factor": factor}]).single_observation_space
    np.testing.assert_allclose(space.low[:2], low, rtol=1e-6)
    np.testing.assert_allclose(space.high[:2], high, rtol=1e-6)
    stacked = [{"name": "observation_gain", "factor": factor}] * 2
    wide = make("tests/Levers-v0", 1, stacked).single_observation_space
    np.testing.assert_allclose(wide.high[:2], 2.5 * max(factor, 1.0) ** 2, rtol=1e-6)


def test_gains_multiply() -> None:
    double = features(make(PENDULUM, 3, [{**GAIN, "factor": 2, "from_step": 0}] * 2), 0, 10)
    np.testing.assert_array_equal(double, 4 * features(make(PENDULUM, 3, []), 0, 10))


# --- lesion ----------------------------------------------------------------------------------------------------------


def test_dead_sensors_read_0_and_the_others_what_they_read() -> None:
    lesion = {"name": "lesion", "share": 0.25, "from_trial": 2}
    tasks = distribution_for(CUES, KWARGS[CUES]).tasks("test", 0, 2000)
    env, plain = (make(CUES, 2000, stack, autoreset_mode=DISABLED) for stack in ([lesion], []))
    seen, own = (each.reset(seed=0, options={"tasks": tasks})[0][:, :21] for each in (env, plain))
    for time in range(7):
        np.testing.assert_array_equal(seen == 0.0, (own == 0.0) if time < 6 else (own == 0.0) | dead_of(env))
        np.testing.assert_array_equal(seen[seen != 0.0], own[seen != 0.0])
        seen, own = (each.step(np.zeros(2000, dtype=int))[0][:, :21] for each in (env, plain))
    dead = dead_of(env)
    np.testing.assert_array_equal(dead.sum(axis=1), np.full(2000, 5))  # a quarter of 21, rounded
    counts = dead.sum(axis=0)
    expected = 2000 * 5 / 21
    # Each sensor equally often: the counts have the variance of draws without replacement.
    assert ((counts - expected) ** 2 / (expected * (1 - 5 / 21))).sum() < 56  # chi-squared, 20 degrees: beyond .9999
    assert len({tuple(row) for row in dead.tolist()}) > 1800


def dead_of(env: RowVectorEnv) -> npt.NDArray[np.bool_]:
    """Which sensors are dead in each row, `(B, F)`, whether the lesion has begun or not."""
    assert env._wrappers is not None
    return np.asarray(env._wrappers.wrappers[0]._dead)  # type: ignore[attr-defined]


def test_what_is_dead_follows_from_the_task_alone_and_differs_between_splits() -> None:
    lesion = [{"name": "lesion", "share": 0.3}]
    tasks = distribution_for(CUES, KWARGS[CUES]).tasks("test", 0, 6)
    one, other = make(CUES, 6, lesion), make(CUES, 6, lesion)
    one.reset(seed=0, options={"tasks": tasks})
    other.reset(seed=77, options={"tasks": tasks[::-1]})
    np.testing.assert_array_equal(dead_of(one), dead_of(other)[::-1])
    for env_id in (CUES, POLE):
        drawn = []
        for split in ("train", "valid", "test"):
            env = make(env_id, 40, [{"name": "lesion", "share": 0.5}], split=split)
            env.reset(seed=0)
            drawn.append(dead_of(env))
        assert all((drawn[0] != later).any(axis=1).mean() > 0.5 for later in drawn[1:])


@pytest.mark.parametrize(("share", "sensors", "number"), [(0.01, 4, 1), (0.5, 4, 2), (1.0, 4, 4)])
def test_the_share_is_rounded_to_whole_sensors_at_least_one(share: float, sensors: int, number: int) -> None:
    env = make(POLE, 3, [{"name": "lesion", "share": share}])
    seen = env.reset(seed=0)[0]
    assert (seen[:, :sensors] == 0.0).sum(axis=1).tolist() == [number] * 3


def test_a_dead_action_does_what_a_living_one_does() -> None:
    """The correct action of one cue is 1: where 1 is dead nothing is ever earned, where 0 is dead everything is."""
    params = {"cues": 1, "flip": 0.0, "patterns": (5,), "correct": (1,)}
    tasks = [Task("CueAssociation", "test", index, index, params) for index in range(400)]
    lesion = [{"name": "lesion", "share": 0.5, "of": "actuators", "from_trial": 2}]
    earned = {}
    for action in (0, 1):
        env = make_vector(CUES, 400, env_kwargs={"cues": 1, "trials": 5, "bits": 4}, wrappers=lesion)
        env.reset(seed=0, options={"tasks": tasks})
        earned[action] = np.stack([env.step(np.full(400, action))[1] for _ in range(15)])[1::3]
    np.testing.assert_array_equal(earned[0][:2], np.zeros((2, 400)))
    np.testing.assert_array_equal(earned[1][:2], np.ones((2, 400)))
    np.testing.assert_array_equal(earned[0][2:], earned[1][2:])
    alive = earned[0][2]
    np.testing.assert_array_equal(earned[0][2:], np.tile(alive, (3, 1)))
    assert alive.mean() == pytest.approx(0.5, abs=4 * 0.5 / 400**0.5)


def test_stand_ins_of_dead_actions_are_alive_and_drawn_evenly() -> None:
    env = make_vector(MAZE, 3000, wrappers=[{"name": "lesion", "share": 0.5, "of": "actuators"}])
    env.reset(seed=0)
    stack = env._wrappers
    assert stack is not None
    done = np.stack([env.as_done(np.full(3000, action)) for action in range(4)], axis=1)
    dead = dead_of(env)
    np.testing.assert_array_equal(dead.sum(axis=1), np.full(3000, 2))
    np.testing.assert_array_equal(done == np.arange(4), ~dead)
    assert not np.take_along_axis(dead, done, axis=1).any()
    counts = np.bincount(done[dead], minlength=4)
    assert ((counts - 1500) ** 2 / 1500).sum() < 40


def test_a_dead_component_stays_at_rest() -> None:
    everything = [{"name": "lesion", "share": 1.0, "of": "actuators"}]
    pendulum, plain = make(PENDULUM, 2, everything), make(PENDULUM, 2, [])
    pendulum.reset(seed=0)
    plain.reset(seed=0)
    for _ in range(10):
        seen = pendulum.step(np.full((2, 1), 1.5, np.float32))
        own = plain.step(np.zeros((2, 1), np.float32))
        np.testing.assert_array_equal(seen[0][:, :3], own[0][:, :3])
        np.testing.assert_array_equal(seen[1], own[1])
        np.testing.assert_array_equal(seen[0][:, 3], [1.5, 1.5])
    env = make("tests/Levers-v0", 50, [{"name": "lesion", "share": 0.5, "of": "actuators"}])
    env.reset(seed=0)
    seen, reward, *_ = env.step(np.full((50, 2), 2))
    np.testing.assert_array_equal(np.sort(seen[:, :2], axis=1), np.tile([0.5, 2.5], (50, 1)))
    np.testing.assert_array_equal(reward, np.full(50, 2.0))
    assert 10 < (seen[:, 0] == 0.5).sum() < 40


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrappers", "message"),
    [
        ([{"name": "observation_gian", "factor": 8}], "Did you mean 'observation_gain'"),
        ([{"name": "observation_gain"}], "observation_gain.factor: missing"),
        ([{"name": "observation_gain", "factor": 0}], "observation_gain.factor: must be greater than 0, got 0"),
        ([{"name": "observation_gain", "factor": 1e4}], "less than or equal to 1000"),
        ([{"name": "lesion", "shar": 0.5}], r"lesion.shar: unknown key. Did you mean 'share'\?"),
        ([{"name": "lesion", "share": 1.5}], "less than or equal to 1"),
        ([{"name": "lesion", "share": 0.5, "of": "motors"}], "must be 'sensors' or 'actuators', got 'motors'"),
        ([{"name": "lesion", "share": 0.5, "from_trial": -1}], "lesion.from_trial: must be greater than or equal to 0"),
        ([{"name": "lesion", "share": 0.5, "from_trial": 5}], "would never begin: a lifetime here has 5 trials, got 5"),
        ([{"name": "lesion", "share": 0.5, "from_step": 15}], "has 15 steps, got 15. Valid: 0 to 14"),
        (["lesion"], "a name and its arguments"),
        ({"name": "lesion"}, "wrappers are a list"),
    ],
)
def test_what_is_no_wrapper_is_refused(wrappers: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(CUES, 2, wrappers)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"gain.factor: .*lesion.share: .*unknown wrapper 'x'"):
        checked_wrappers([{"name": "observation_gain", "factor": -1}, {"name": "lesion"}, {"name": "x"}])


def test_where_there_is_nothing_to_change_a_wrapper_is_refused() -> None:
    with pytest.raises(ConfigError, match="a lesion of sensors needs some, and this environment has no features"):
        make_vector("plastic_rl/BernoulliBandit-v0", 2, wrappers=[SENSORS])
    make_vector("plastic_rl/BernoulliBandit-v0", 2, wrappers=[ACTUATORS])


def test_a_trial_that_never_comes_is_told() -> None:
    with pytest.raises(ConfigError, match="a lifetime here has 3 trials, got 3"):
        make_vector(POLE, 1, trials=3, wrappers=[{**GAIN, "from_trial": 3}])
    with pytest.warns(UserWarning, match="observation_gain begins after 3 trials .* give `trials`, or from_step"):
        make_vector(POLE, 1, wrappers=[{**GAIN, "from_trial": 3}])


# --- wrappers of others ----------------------------------------------------------------------------------------------


class Mirrored(RowWrapper):
    """All that the agent sees has its sign changed."""

    @override
    def bounds(self, low: npt.NDArray[np.float32], high: npt.NDArray[np.float32]) -> Any:
        return np.minimum(low, -high), np.maximum(high, -low)

    @override
    def see(self, features: npt.NDArray[np.float32], begun: npt.NDArray[np.bool_]) -> None:
        np.negative(features, out=features, where=begun[:, None])


@pytest.fixture
def mirrored() -> Iterator[str]:
    WRAPPERS.register("tests_mirrored", Mirrored)
    yield "tests_mirrored"
    del WRAPPERS._entries["tests_mirrored"]


def test_a_plug_in_adds_its_own(mirrored: str) -> None:
    assert checked_wrappers([{"name": mirrored}]) == [{"name": mirrored, "from_trial": 0, "from_step": 0}]
    seen = features(make("tests/Levers-v0", 2, [{"name": mirrored}]), 0, 5)
    np.testing.assert_array_equal(seen, -features(make("tests/Levers-v0", 2, []), 0, 5))


def test_a_wrapper_that_would_never_begin_is_refused_by_the_steps_of_a_lifetime() -> None:
    """Also where trials have no fixed length: each takes a step."""
    for key in ("from_step", "from_trial"):
        with pytest.raises(ConfigError, match=f"observation_gain.{key}: it would never begin"):
            make_vector("plastic_rl/GridMaze-v0", 1, wrappers=[{"name": "observation_gain", "factor": 2, key: 200}])


def test_an_agent_that_is_scored_meets_the_wrappers_whatever_it_is() -> None:
    """Only the family's own agents beside it live without: their numbers are known for the family as it is."""
    env_id, lesion = "plastic_rl/BernoulliBandit-v0", [{"name": "lesion", "share": 0.9, "of": "actuators"}]
    oracle = distribution_for(env_id).reference_agents("test")["oracle"]
    scores = [
        evaluate(oracle, env_id, tasks=40, wrappers=wrappers, resamples=2).splits["test"] for wrappers in ([], lesion)
    ]
    assert scores[1].raw_score < 0.8 * scores[0].raw_score
    assert scores[1].reference_agents["oracle"].raw_score == scores[0].reference_agents["oracle"].raw_score
