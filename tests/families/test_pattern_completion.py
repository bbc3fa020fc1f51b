"""Pattern completion: what is shown, asked for and paid when, and the closed forms of the reference agents."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from plastic_rl.envs import distribution_for, make_vector
from plastic_rl.errors import TaskError
from plastic_rl.families.pattern_completion import HopfieldAgent, PatternCompletionTasks
from plastic_rl.feedback import FeedbackLayout
from plastic_rl.memories.theory import one_step_error
from tests.families.test_published_numbers import totals

ENV_ID, TAUGHT = "plastic_rl/PatternCompletion-v0", "plastic_rl/SupervisedPatternCompletion-v0"
SMALL: dict[str, Any] = {"bits": 4, "patterns": 1, "presentations": 1}


def score(agent: Any, number: int, split: str = "test", **kwargs: Any) -> Any:
    """Share of missing bits right, in each of `number` lifetimes."""
    tasks = distribution_for(ENV_ID, kwargs).tasks(split, 0, number)
    return totals(ENV_ID, kwargs, agent, split, tasks) / kwargs.get("queries", 1)


def reference(name: str, split: str = "test", **kwargs: Any) -> Any:
    return distribution_for(ENV_ID, kwargs).reference_agents(split)[name]


def one_life(env_id: str) -> tuple[Any, list[Any]]:
    """The pattern of four bits, and what a lifetime of two trials shows, pays and ends when all bits are answered 1."""
    env = make_vector(env_id, 1, env_kwargs=SMALL, autoreset_mode=AutoresetMode.DISABLED)
    seen: list[Any] = [(env.reset(seed=0)[0][0], 0.0, False)]
    for _ in range(6):
        observation, reward, terminated, _, info = env.step(np.ones((1, 4), dtype=np.int64))
        assert info["expected_reward"][0] == reward[0]
        seen.append((observation[0], reward[0], bool(info["trial_end"][0])))
    assert terminated[0]
    return env.distribution.patterns_of(env.tasks[0])[0], seen


def test_a_lifetime_by_hand() -> None:
    pattern, seen = one_life(ENV_ID)
    rows = np.array([row for row, *_ in seen])
    assert rows.shape == (7, 12)
    np.testing.assert_array_equal(rows[:3, :4], [pattern, pattern, np.zeros(4)])
    cue = rows[3, :4]
    assert np.count_nonzero(cue) == 2
    np.testing.assert_array_equal(cue[cue != 0], pattern[cue != 0])
    np.testing.assert_array_equal(rows[3:, :4], [cue, cue, np.zeros(4), np.zeros(4)])
    np.testing.assert_array_equal(rows[:, 4], [0, 0, 0, 0, 1, 0, 0])  # go
    np.testing.assert_array_equal(rows[:, 5:9], [[0] * 4, *[[1] * 4] * 6])  # the answer before
    right = (pattern[cue == 0] == 1).mean()
    np.testing.assert_array_equal(rows[:, 9], np.float32([0, 0, 0, 0, 0, right, 0]))
    assert [reward for _, reward, _ in seen] == [0, 0, 0, 0, 0, right, 0]
    np.testing.assert_array_equal(rows[:, 10], [1, 0, 0, 1, 0, 0, 1])
    assert [end for *_, end in seen] == [False, False, False, True, False, False, True]
    np.testing.assert_allclose(rows[:, 11], np.arange(7) / 6, atol=1e-7)


def test_the_supervised_twin_tells_the_missing_bits_right_behind_the_answer() -> None:
    pattern, seen = one_life(TAUGHT)
    plain_pattern, plain = one_life(ENV_ID)
    np.testing.assert_array_equal(pattern, plain_pattern)
    rows, others = np.array([row for row, *_ in seen]), np.array([row for row, *_ in plain])
    np.testing.assert_array_equal(rows[:, :12], others)
    cue = rows[3, :4]
    expected = np.zeros((7, 4))
    expected[5] = np.where(cue == 0, pattern, 0)
    np.testing.assert_array_equal(rows[:, 12:], expected)
    env = make_vector(TAUGHT, 1, env_kwargs=SMALL)
    assert FeedbackLayout.from_dict(env.metadata["feedback"]).label == (12, 16)
    assert env.single_observation_space.low[12:].tolist() == [-1.0] * 4


def test_tasks_and_what_a_lifetime_shows() -> None:
    tasks = PatternCompletionTasks()
    assert {tuple(task.params.values()) for task in tasks.tasks("train", 0, 50)} == {(5, 0.5)}
    shift = [tuple(task.params.values()) for task in tasks.tasks("shift", 0, 2000)]
    assert {kind: round(shift.count(kind) / 2000, 1) for kind in set(shift)} == pytest.approx(
        {(2, 0.5): 0.25, (2, 0.75): 0.25, (10, 0.5): 0.25, (10, 0.75): 0.25}, abs=0.051
    )
    bits = np.array([tasks.patterns_of(task) for task in tasks.tasks("test", 0, 1000)])
    assert bits.shape == (1000, 5, 50)
    assert bits.mean() == pytest.approx(0.0, abs=4 / bits.size**0.5)
    assert not np.array_equal(bits[0], bits[1])
    # One presentation: twice as many patterns cannot all be shown, half as many can.
    assert PatternCompletionTasks(presentations=1).shift_patterns == (2,)
    assert PatternCompletionTasks(patterns=1, presentations=1).shift_patterns == ()
    assert PatternCompletionTasks(patterns=1, presentations=1).task("shift", 0).params["patterns"] == 1
    for split in ("test", "shift"):
        env = make_vector(ENV_ID, 200, env_kwargs={"queries": 3}, split=split)
        env.reset(seed=3)
        for row, task in enumerate(env.tasks):
            order, asked = env._pattern[row, :10], env._pattern[row, 10:]
            counts = np.bincount(order)
            assert set(counts.tolist()) == {10 // int(task.params["patterns"])}
            assert set(asked.tolist()) <= set(order.tolist())
            missing = (~env._known[row]).sum(axis=1)
            assert missing.tolist() == [0] * 10 + [{0.5: 25, 0.75: 38}[task.params["zeroed"]]] * 3


@pytest.mark.parametrize(
    "bad",
    [{"bits": 1}, {"bits": 10_001}, {"patterns": 0}, {"presentations": 0}, {"queries": 0}, {"zeroed": 1.0}],
)
def test_impossible_arguments_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(TaskError, match=r"2 to 10,000 bits, 1 or more patterns.*got bits="):
        make_vector(ENV_ID, 1, env_kwargs=bad)


def test_random_answers_are_half_right() -> None:
    for kwargs in ({}, {"queries": 4}, {"bits": 7, "zeroed": 0.9}):
        shares = score(reference("random", **kwargs), 1500, **kwargs)
        assert shares.mean() == pytest.approx(0.5, abs=4 * shares.std() / 1500**0.5)


def test_perfect_memory_and_oracle_complete_everything() -> None:
    for split in ("test", "shift"):
        assert score(reference("bayes", split), 200, split).min() == 1.0
        assert score(reference("oracle", split), 200, split).min() == 1.0
    assert distribution_for(ENV_ID).limit_of("shift") == "bayes"


def test_perfect_memory_where_the_known_bits_do_not_tell_which_pattern_it_is() -> None:
    """Four bits, two of them known, two patterns: the other one agrees with both in 1/4 of the cases.

    It then says otherwise about a missing bit in half of them, which is guessed: 1 - 1/4 1/2 1/2.
    """
    kwargs = {"bits": 4, "patterns": 2, "presentations": 3}
    shares = score(reference("bayes", **kwargs), 6000, **kwargs)
    assert shares.mean() == pytest.approx(15 / 16, abs=4 * shares.std() / 6000**0.5)


def exact_first_step(known: int, patterns: int) -> float:
    """Probability that a missing bit is right after one step: K signs agree, (P - 1) K more are fair coins."""
    coins = (patterns - 1) * known
    # The field's sign is that of known + sum of coins; the sum is 2 heads - coins. A tie leaves the bit unknown: wrong
    # where the pattern has a 1, right where it has a 0, since the answer is "above 0".
    right = 0.0
    for heads in range(coins + 1):
        field = known + 2 * heads - coins
        right += math.comb(coins, heads) / 2**coins * (1.0 if field > 0 else 0.5 if field == 0 else 0.0)
    return right


@pytest.mark.parametrize(("bits", "patterns"), [(50, 5), (50, 10), (20, 4)])
def test_the_first_step_of_a_hopfield_memory(bits: int, patterns: int) -> None:
    kwargs = {"bits": bits, "patterns": patterns, "queries": 2}
    shares = score(HopfieldAgent(bits, steps=1), 200, **kwargs)
    exact = exact_first_step(bits // 2, patterns)
    assert shares.mean() == pytest.approx(exact, abs=4 * shares.std() / 200**0.5)
    if (bits, patterns) == (50, 5):
        assert 1 - exact == pytest.approx(one_step_error(25, 5), rel=0.1)
        assert one_step_error(25, 5) == pytest.approx(0.0062, abs=5e-5)


def test_the_hopfield_memory_is_near_the_limit_and_falls_with_load() -> None:
    scores = [score(reference("hopfield"), 100).mean()]
    scores += [score(reference("hopfield", patterns=count), 100, patterns=count).mean() for count in (10, 20)]
    assert scores[0] > 0.985
    assert 0.5 < scores[2] < scores[1] < scores[0]


def test_a_thousand_bits() -> None:
    """Miconi's size: a Hopfield memory makes no error at all, one_step_error(500, 5) is below 1e-28."""
    kwargs = {"bits": 1000}
    assert score(reference("hopfield", **kwargs), 20, **kwargs).min() == 1.0
    env = make_vector(ENV_ID, 2, env_kwargs=kwargs)
    assert env.single_observation_space.shape == (2004,)
    assert env.metadata["lifetime_steps"] == 33


def test_pictures_show_pattern_gap_and_answer() -> None:
    texts, frames = [], []
    for mode, pictures in (("ansi", texts), ("rgb_array", frames)):
        env = make_vector(ENV_ID, 1, env_kwargs=SMALL, render_mode=mode, autoreset_mode=AutoresetMode.DISABLED)
        env.reset(seed=0)
        for _ in range(6):
            pictures.append(env.render()[0])
            env.step(np.ones((1, 4), dtype=np.int64))
    signs = "".join("+" if bit > 0 else "-" for bit in env._bits[0, 0])
    cue = "".join(sign if known else "." for sign, known in zip(signs, env._known[0, 1], strict=True))
    right = sum(sign == "+" for sign, gap in zip(signs, cue, strict=True) if gap == ".") / 2
    assert texts == [
        f"step 0/6  return 0\ntrial 1/2  shows pattern 0\n{signs}",
        f"step 1/6  return 0\ntrial 1/2  shows pattern 0\n{signs}",
        "step 2/6  return 0\ntrial 1/2  shows pattern 0\n....",
        f"step 3/6  return 0\ntrial 2/2  asks for pattern 0\n{cue}",
        f"step 4/6  return 0\ntrial 2/2  asks for pattern 0\n{cue} GO",
        f"step 5/6  return {right:g}\ntrial 2/2  asks for pattern 0\n....\nanswer {right:.2f} right\n++++",
    ]
    ink, light, grey, blue = (40, 44, 52), (228, 231, 235), (190, 195, 202), (66, 114, 196)
    cell = 14
    for frame, shown in zip(frames, (signs, signs, "....", cue, cue, "...."), strict=True):
        colour = {"+": ink, "-": light, ".": grey if shown == "...." else blue}
        assert [tuple(frame[26, 10 + cell * place].tolist()) for place in range(4)] == [colour[one] for one in shown]
    green, red = (58, 158, 92), (204, 76, 68)
    second = 16 + 10 * cell + 14
    judged = [green if sign == "+" else red for sign in signs]
    expected = [ink if known else told for known, told in zip(env._known[0, 1], judged, strict=True)]
    assert [tuple(frames[-1][26, second + 2 + cell * place].tolist()) for place in range(4)] == expected
    gold = (232, 176, 40)
    assert [tuple(frame[24 + cell + 12, 12].tolist()) == gold for frame in frames] == [False] * 4 + [True, False]


@pytest.mark.parametrize("patterns", [0, 40])
def test_tasks_by_hand_that_there_is_no_room_for_are_refused(patterns: int) -> None:
    env = make_vector("plastic_rl/PatternCompletion-v0", 1, env_kwargs={"bits": 8})
    task = distribution_for("plastic_rl/PatternCompletion-v0", {"bits": 8}).task("test", 0)
    other = replace(task, params={**task.params, "patterns": patterns})
    with pytest.raises(TaskError, match=rf"shows 1 to \d+ patterns, got a task with {patterns}"):
        env.reset(options={"tasks": [other]})
