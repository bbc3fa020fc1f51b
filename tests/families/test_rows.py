"""The rows of every native family: their tasks and seeds, partial resets, autoreset, and going on from a state."""

from __future__ import annotations

import json

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded

from plastic_rl.checkpoint import decode, encode
from plastic_rl.envs import distribution_for
from plastic_rl.errors import CheckpointError, TaskError
from tests.families.cases import (
    DISABLED,
    NEXT_STEP,
    SAME_STEP,
    STEPS,
    actions_for,
    assert_same_steps,
    every_family,
    make,
    play,
)


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
