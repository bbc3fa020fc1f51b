"""What every native family keeps to, the moment it is registered."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import plastic_rl  # noqa: F401 - registers the ids
from plastic_rl.checkpoint import decode, encode
from plastic_rl.envs import TaskVectorEnv, load_plugin, make_vector
from plastic_rl.errors import CheckpointError, SpaceError, TaskError, UnknownNameError
from plastic_rl.feedback import FeedbackLayout
from plastic_rl.tasks import Task, distribution_for

EXAMPLES = Path(__file__).resolve().parents[2] / "envs"
for _file in sorted(EXAMPLES.glob("*.py")):
    load_plugin(str(_file))

FAMILIES = sorted(
    env_id
    for env_id, spec in gymnasium.registry.items()
    if env_id.startswith(("plastic_rl/", "examples/")) and spec.vector_entry_point is not None
)
EVERY_ID = sorted(env_id for env_id in gymnasium.registry if env_id.startswith(("plastic_rl/", "examples/")))

STEPS = 7


def make(env_id: str, num_envs: int = 5, *, steps: int = STEPS, **arguments: Any) -> TaskVectorEnv:
    """A family with short lifetimes."""
    env = make_vector(env_id, num_envs, env_kwargs={"steps": steps}, **arguments)
    assert isinstance(env, TaskVectorEnv)
    return env


def actions_for(env: TaskVectorEnv, steps: int, seed: int = 0) -> list[npt.NDArray[Any]]:
    """Random actions for some steps of all rows."""
    env.action_space.seed(seed)
    return [env.action_space.sample() for _ in range(steps)]


def play(env: TaskVectorEnv, actions: list[npt.NDArray[Any]]) -> list[tuple[Any, ...]]:
    """Step through `actions`; return observation, reward, terminated, truncated and info of each step."""
    return [env.step(action) for action in actions]


DISABLED, NEXT_STEP, SAME_STEP = AutoresetMode.DISABLED, AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP


def assert_same_steps(first: list[tuple[Any, ...]], second: list[tuple[Any, ...]]) -> None:
    """Two plays agree in every bit of observations, rewards, ends and info."""
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        for left, right in zip(one[:4], other[:4], strict=True):
            np.testing.assert_array_equal(left, right)
        assert one[4].keys() == other[4].keys()
        for name in one[4]:
            if name == "final_obs":
                assert_same_objects(one[4][name], other[4][name])
            elif name != "final_info":
                np.testing.assert_array_equal(one[4][name], other[4][name])


def assert_same_objects(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> None:
    """Two object arrays of observations (or None) agree in every bit."""
    for one, other in zip(first, second, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_array_equal(one, other)


every_family = pytest.mark.parametrize("env_id", FAMILIES)


def test_the_registry_holds_the_families_of_this_version():
    assert set(FAMILIES) >= {
        "plastic_rl/BernoulliBandit-v0",
        "plastic_rl/Classification-v0",
        "plastic_rl/SupervisedClassification-v0",
        "plastic_rl/GridMaze-v0",
        "plastic_rl/ReversalBandit-v0",
        "plastic_rl/SwappedCartPole-v0",
        "examples/PatchLeaving-v0",
    }


@pytest.mark.parametrize("env_id", EVERY_ID)
def test_passes_the_checkers_of_gymnasium_and_stable_baselines3(env_id):
    from stable_baselines3.common.env_checker import check_env as check_env_of_sb3

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(env_id).unwrapped
        check_env(env)
        check_env_of_sb3(env, skip_render_check=False)


@every_family
def test_each_row_is_the_scalar_environment_seeded_with_s_plus_i(env_id):
    env = make(env_id, autoreset_mode=SAME_STEP, split="test")
    observations, info = env.reset(seed=100)
    steps = play(env, actions := actions_for(env, 3 * STEPS))
    for row in range(env.num_envs):
        scalar = gymnasium.make(env_id, steps=STEPS)
        observation, scalar_info = scalar.reset(seed=100 + row, options={"task": info["task"][row]})
        np.testing.assert_array_equal(observation, observations[row])
        assert scalar_info == {"task": info["task"][row]}
        for action, (next_observations, rewards, terminated, truncated, step_info) in zip(actions, steps, strict=True):
            observation, reward, ended, cut, scalar_info = scalar.step(action[row])
            assert reward == rewards[row]
            assert ended == terminated[row]
            assert cut == truncated[row] == False  # noqa: E712
            assert scalar_info["trial_end"] == step_info["trial_end"][row]
            if "expected_reward" in step_info:
                assert scalar_info["expected_reward"] == step_info["expected_reward"][row]
            if ended:
                np.testing.assert_array_equal(observation, step_info["final_obs"][row])
                observation, _ = scalar.reset(options={"task": step_info["task"][row]})
            np.testing.assert_array_equal(observation, next_observations[row])


@every_family
def test_a_seed_fixes_everything_and_another_seed_changes_only_the_noise(env_id):
    env = make(env_id, 8, steps=50)
    first = env.reset(seed=3)
    steps = play(env, actions := actions_for(env, 120))
    again = env.reset(seed=3)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1]["task"], again[1]["task"])
    assert_same_steps(steps, play(env, actions))
    other = env.reset(seed=1000)
    np.testing.assert_array_equal(first[1]["task"], other[1]["task"])
    different = [
        (one[1] != two[1]).any() or (one[0] != two[0]).any() for one, two in zip(steps, play(env, actions), strict=True)
    ]
    # A maze is random only where a teleport happens, which random walks seldom reach.
    assert any(different) or env_id == "plastic_rl/GridMaze-v0"


@every_family
def test_rows_take_their_tasks_in_turn_and_wrap_at_the_stop(env_id):
    env = make(env_id, 3, split="valid", task_start=10, task_stop=15, autoreset_mode=SAME_STEP)
    source = distribution_for(env_id, {"steps": STEPS})
    _, info = env.reset(seed=0)
    assert [task.index for task in info["task"]] == [10, 11, 12]
    for expected in ([13, 14, 10], [11, 12, 13]):
        steps = play(env, actions_for(env, STEPS))
        dealt = steps[-1][4]["task"]
        assert [task.index for task in dealt] == expected
        assert dealt[0] == source.task("valid", expected[0])
    _, info = env.reset()
    assert [task.index for task in info["task"]] == [14, 10, 11]
    _, info = env.reset(seed=5)
    assert [task.index for task in info["task"]] == [10, 11, 12]


@every_family
def test_tasks_set_by_hand_hold_for_one_lifetime(env_id):
    env = make(env_id, 3, autoreset_mode=SAME_STEP)
    wanted = distribution_for(env_id, {"steps": STEPS}).tasks("shift", 5, 8)
    _, info = env.reset(seed=0, options={"tasks": wanted})
    assert list(info["task"]) == wanted == list(env.tasks)
    last = play(env, actions_for(env, STEPS))[-1][4]
    assert list(last["final_info"]["task"]) == wanted
    assert [(task.split, task.index) for task in last["task"]] == [("train", 3), ("train", 4), ("train", 5)]
    with pytest.raises(TaskError, match="must hold 3 tasks"):
        env.reset(options={"tasks": wanted[:2]})


@every_family
def test_a_partial_reset_leaves_the_other_rows_alone(env_id):
    undisturbed, env = make(env_id, autoreset_mode=DISABLED), make(env_id, autoreset_mode=DISABLED)
    actions = actions_for(env, STEPS)
    undisturbed.reset(seed=9)
    env.reset(seed=9)
    reference = play(undisturbed, actions)
    before = play(env, actions[:3])
    mask = np.array([False, True, False, False, True])
    options = {"reset_mask": mask}
    observations, info = env.reset(options=options)
    assert options == {"reset_mask": mask}
    np.testing.assert_array_equal(observations[~mask], before[-1][0][~mask])
    np.testing.assert_array_equal(info["_task"], mask)
    assert [None if task is None else task.index for task in info["task"]] == [None, 6, None, None, 9]
    for ours, theirs in zip(play(env, actions[3:]), reference[3:], strict=True):
        np.testing.assert_array_equal(ours[0][~mask], theirs[0][~mask])
        np.testing.assert_array_equal(ours[1][~mask], theirs[1][~mask])
        np.testing.assert_array_equal(ours[2], theirs[2] & ~mask)
    with pytest.raises(ResetNeeded, match=r"rows \[0, 2, 3\] are over"):
        env.step(actions[0])
    fresh = make(env_id, autoreset_mode=DISABLED)
    with pytest.raises(ResetNeeded, match="must start all rows"):
        fresh.reset(options={"reset_mask": mask})
    for bad in (np.zeros(5, dtype=bool), np.ones(4, dtype=bool), np.ones(5)):
        with pytest.raises(ValueError, match="reset_mask"):
            env.reset(options={"reset_mask": bad})


@every_family
def test_a_partial_reset_with_a_seed_rekeys_only_those_rows(env_id):
    env = make(env_id, autoreset_mode=DISABLED)
    actions = actions_for(env, STEPS)
    env.reset(seed=20)
    reference = play(env, actions)
    env.reset(seed=77)
    mask = np.array([True, False, False, True, False])
    env.reset(seed=20, options={"reset_mask": mask})
    for ours, theirs in zip(play(env, actions), reference, strict=True):
        np.testing.assert_array_equal(ours[0][mask], theirs[0][mask])
        np.testing.assert_array_equal(ours[1][mask], theirs[1][mask])


@every_family
def test_the_three_autoreset_modes_live_the_same_lives(env_id):
    disabled, next_step, same_step = (make(env_id, autoreset_mode=mode) for mode in (DISABLED, NEXT_STEP, SAME_STEP))
    rows = disabled.num_envs
    starts = [env.reset(seed=4)[0] for env in (disabled, next_step, same_step)]
    np.testing.assert_array_equal(starts[0], starts[1])
    np.testing.assert_array_equal(starts[0], starts[2])
    for _ in range(3):
        actions = actions_for(disabled, STEPS)
        ours, theirs, others = (play(env, actions) for env in (disabled, next_step, same_step))
        for one, two, three in zip(ours[:-1], theirs[:-1], others[:-1], strict=True):
            assert_same_steps([one], [two])
            assert_same_steps([one], [three])
        last, last_next, last_same = ours[-1], theirs[-1], others[-1]
        assert_same_steps([last], [last_next])
        for left, right in zip(last[1:4], last_same[1:4], strict=True):
            np.testing.assert_array_equal(left, right)
        assert last[2].all()
        info = last_same[4]
        assert info["_final_obs"].all()
        assert info["_final_info"].all()
        np.testing.assert_array_equal(np.stack(info["final_obs"]), last[0])
        np.testing.assert_array_equal(info["final_info"]["trial_end"], last[4]["trial_end"])
        np.testing.assert_array_equal(info["trial_end"], last[4]["trial_end"])
        observations, start_info = disabled.reset()
        np.testing.assert_array_equal(last_same[0], observations)
        np.testing.assert_array_equal(info["task"], start_info["task"])
        # NEXT_STEP spends one step on the reset: its action is ignored, nothing is earned, nothing is known.
        dummy = next_step.step(actions_for(next_step, 1, seed=8)[0])
        np.testing.assert_array_equal(dummy[0], observations)
        np.testing.assert_array_equal(dummy[1], np.zeros(rows))
        assert not dummy[2].any()
        assert not dummy[3].any()
        assert not dummy[4]["_trial_end"].any()
        assert not dummy[4]["trial_end"].any()
        np.testing.assert_array_equal(dummy[4]["task"], start_info["task"])


@every_family
def test_rows_out_of_step_are_reset_by_themselves(env_id):
    env = make(env_id, 4, autoreset_mode=NEXT_STEP)
    actions = actions_for(env, 3 * STEPS)
    env.reset(seed=1)
    play(env, actions[:2])
    mask = np.array([True, True, False, False])
    env.reset(options={"reset_mask": mask})
    steps = play(env, actions[2:])
    ends = np.array([step[2] for step in steps])
    np.testing.assert_array_equal(np.flatnonzero(ends[:, 0]), [STEPS - 1, 2 * STEPS])
    np.testing.assert_array_equal(np.flatnonzero(ends[:, 3]), [STEPS - 3, 2 * STEPS - 2])
    dummy = steps[STEPS - 2][4]
    np.testing.assert_array_equal(dummy["_trial_end"], mask)
    np.testing.assert_array_equal(dummy["_task"], ~mask)
    np.testing.assert_array_equal(steps[STEPS - 2][1][~mask], [0.0, 0.0])


@every_family
@pytest.mark.parametrize("mode", [NEXT_STEP, SAME_STEP])
@pytest.mark.parametrize("through", ["json", "codec", "memory"])
def test_a_state_taken_in_mid_lifetime_continues_to_the_bit(env_id, mode, through):
    env = make(env_id, autoreset_mode=mode, split="shift")
    actions = actions_for(env, 4 * STEPS)
    env.reset(seed=2**40)
    play(env, actions[:3])
    env.reset(options={"reset_mask": np.array([True, False, True, False, False])})
    play(env, actions[3 : STEPS + 1])
    state = env.get_state()
    if through == "json":
        state = json.loads(json.dumps(state, default=lambda array: array.tolist()))
    elif through == "codec":
        state = decode(json.loads(json.dumps(encode(state))))
    seen = env.observe()
    reference = play(env, actions[STEPS + 1 :])
    other = make(env_id, autoreset_mode=mode, split="shift")
    other.reset(seed=5)
    play(other, actions[:2])
    other.set_state(state)
    np.testing.assert_array_equal(other.observe(), seen)
    assert_same_steps(play(other, actions[STEPS + 1 :]), reference)
    with pytest.raises(CheckpointError, match="5 rows, not 2"):
        make(env_id, 2).set_state(state)


@every_family
@pytest.mark.parametrize("split", ["test", "shift"])
def test_the_first_observation_is_the_same_whatever_the_task(env_id, split):
    env = make(env_id, 64, split=split)
    observations, info = env.reset(seed=0)
    # The features are a sample of the task's own data, or a start state of the row's noise (see its own tests).
    if "Classification" in env_id or "CartPole" in env_id:
        observations = observations[:, env.feedback.start :]
    assert len({str(dict(task.params)) + str(task.seed) for task in info["task"]}) == 64
    np.testing.assert_array_equal(observations, np.repeat(observations[:1], 64, axis=0))


@every_family
def test_feedback_columns_tell_the_step_before(env_id):
    env = make(env_id, autoreset_mode=DISABLED)
    layout = FeedbackLayout.from_dict(env.metadata["feedback"])
    space = env.single_observation_space
    assert layout.stop == space.shape[0]
    observations, _ = env.reset(seed=6)
    assert not observations[:, slice(*layout.action)].any()
    np.testing.assert_array_equal(observations[:, layout.reward[0]], np.zeros(5))
    np.testing.assert_array_equal(observations[:, layout.trial_start[0]], np.ones(5))
    np.testing.assert_array_equal(observations[:, layout.time[0]], np.zeros(5))
    column = layout.reward[0]
    for time, action in enumerate(actions_for(env, STEPS), start=1):
        observations, rewards, terminated, _, info = env.step(action)
        np.testing.assert_array_equal(observations[:, slice(*layout.action)], np.eye(env.single_action_space.n)[action])
        clipped = np.clip(rewards, space.low[column], space.high[column]).astype(np.float32)
        np.testing.assert_array_equal(observations[:, column], clipped)
        np.testing.assert_array_equal(observations[:, layout.trial_start[0]], info["trial_end"])
        np.testing.assert_array_equal(observations[:, layout.time[0]], np.full(5, np.float32(time / STEPS)))
        assert observations in env.observation_space
        assert terminated.all() == (time == STEPS)


@every_family
def test_spaces_are_finite_and_what_is_returned_is_safe_to_keep(env_id):
    env = make(env_id, autoreset_mode=SAME_STEP)
    space = env.single_observation_space
    assert space.dtype == np.float32
    assert np.isfinite(space.low).all()
    assert np.isfinite(space.high).all()
    assert env.observation_space.shape == (5, *space.shape)
    observations, info = env.reset(seed=0)
    kept = [observations]
    copies = [observations.copy()]
    actions = actions_for(env, 2 * STEPS)
    given = [action.copy() for action in actions]
    for step in play(env, actions):
        kept.extend(step[:4])
        copies.extend(values.copy() for values in step[:4])
        kept.extend(value for name, value in step[4].items() if name in {"trial_end", "expected_reward"})
        copies.extend(value.copy() for name, value in step[4].items() if name in {"trial_end", "expected_reward"})
    for one, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(one, copy)
    for action, before in zip(actions, given, strict=True):
        np.testing.assert_array_equal(action, before)
    assert isinstance(info["task"][0], Task)


@every_family
def test_info_holds_the_expected_reward_where_it_is_known(env_id):
    env = make(env_id, 400, steps=50, autoreset_mode=DISABLED)
    env.reset(seed=0)
    steps = play(env, actions_for(env, 50))
    rewards = np.array([step[1] for step in steps])
    if "expected_reward" not in steps[0][4]:
        assert env_id in {"plastic_rl/GridMaze-v0", "plastic_rl/SwappedCartPole-v0"}  # their rewards are certain
        return
    expected = np.array([step[4]["expected_reward"] for step in steps])
    assert all(step[4]["_expected_reward"].all() for step in steps)
    # Each reward is Bernoulli with that mean: the sum of 20,000 differences lies within four standard deviations.
    assert abs((rewards - expected).sum()) <= 4 * np.sqrt((expected * (1 - expected)).sum())


@every_family
def test_misuse_is_told_clearly(env_id):
    env = make(env_id, 3)
    with pytest.raises(ResetNeeded, match="reset"):
        env.step(np.zeros(3, dtype=np.int64))
    env.reset(seed=0)
    for bad, message in (
        (np.array([0, 99, 0]), "must lie in Discrete"),
        (np.array([0, -1, 0]), "must lie in Discrete"),
        (np.zeros(2, dtype=np.int64), "shape"),
        (np.zeros(3), "integers"),
    ):
        with pytest.raises(SpaceError, match=message):
            env.step(bad)
    with pytest.raises(UnknownNameError, match="Did you mean 'shift'"):
        make(env_id, split="shfit")
    with pytest.raises(TaskError, match="no range"):
        make(env_id, task_start=5, task_stop=5)


@every_family
def test_pictures(env_id):
    for mode, kind in (("ansi", str), ("rgb_array", np.ndarray)):
        env = make(env_id, 3, render_mode=mode)
        env.reset(seed=0)
        for action in actions_for(env, STEPS + 3):
            pictures = env.render()
            assert len(pictures) == 3
            assert all(isinstance(picture, kind) for picture in pictures)
            env.step(action)
        if mode == "ansi":
            assert "step 3/7" in env.render()[0]
        else:
            assert pictures[0].dtype == np.uint8
            assert pictures[0].ndim == 3
            assert pictures[0].shape[2] == 3
            assert len(np.unique(pictures[0].reshape(-1, 3), axis=0)) >= 2
    assert make(env_id).render() is None


@every_family
def test_gymnasium_makes_the_vector_environment_too(env_id):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make_vec(env_id, num_envs=3, steps=STEPS, split="test")
    assert env.metadata["autoreset_mode"] is NEXT_STEP
    ours = make(env_id, 3, split="test", autoreset_mode=NEXT_STEP)
    actions = actions_for(ours, 2 * STEPS)
    env.reset(seed=0)
    ours.reset(seed=0)
    assert_same_steps(play(env, actions), play(ours, actions))
    assert ours.spec is not None
    assert ours.spec.id == env_id
