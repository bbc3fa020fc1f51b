"""Cue association: what is shown and paid when, and that the reference agents reach their closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from plastic_rl.envs import Task, distribution_for, make_vector
from plastic_rl.errors import ConfigError, TaskError
from plastic_rl.families.cue_association import CueAssociationTasks
from tests.families.test_published_numbers import totals

ENV_ID = "plastic_rl/CueAssociation-v0"
CUES = (2, 5, 10, 20, 40)


def perfect_memory(cues: int, trials: int) -> float:
    """Expected score of an agent that errs in half of the trials that show a cue for the first time."""
    return trials - cues / 2 * (1 - (1 - 1 / cues) ** trials)


def one_life(task: Task, actions: list[int], **kwargs: int) -> list[tuple[Any, ...]]:
    """Observation, and from the second on reward and expected reward, of a lifetime on `task`."""
    env = make_vector(ENV_ID, 1, env_kwargs=kwargs, autoreset_mode=AutoresetMode.DISABLED)
    seen: list[tuple[Any, ...]] = [(env.reset(seed=0, options={"tasks": [task]})[0][0].tolist(), 0.0, 0.0)]
    for action in actions:
        observation, reward, terminated, _, info = env.step(np.array([action]))
        seen.append((observation[0].tolist(), reward[0], info["expected_reward"][0]))
        assert info["trial_end"][0] == (len(seen) % 3 == 1)
    assert terminated[0]
    return seen


def test_a_trial_by_hand() -> None:
    """One cue of four bits, 5 = 0101 in binary, whose correct action is 1: once answered rightly, once wrongly."""
    task = Task("CueAssociation", "test", 0, 0, {"cues": 1, "flip": 0.0, "patterns": (5,), "correct": (1,)})
    seen = one_life(task, [1, 1, 0, 1, 0, 1], cues=1, trials=2, bits=4)
    cue, blank = [1, -1, 1, -1], [0, 0, 0, 0]
    # bits, go flag; previous action, previous reward, trial_start, t/T; what the step before paid
    assert [(row[:5], row[5:9], paid) for row, paid, _ in seen] == [
        ([*cue, 0], [0, 0, 0, 1], 0.0),
        ([*cue, 1], [0, 1, 0, 0], 0.0),
        ([*blank, 0], [0, 1, 1, 0], 1.0),
        ([*cue, 0], [1, 0, 0, 1], 0.0),
        ([*cue, 1], [0, 1, 0, 0], 0.0),
        ([*blank, 0], [1, 0, 0, 0], 0.0),
        ([*blank, 0], [0, 1, 0, 1], 0.0),
    ]
    assert all(paid == expected for _, paid, expected in seen)
    assert [row[9] for row, *_ in seen] == pytest.approx([step / 6 for step in range(7)])


def test_tasks() -> None:
    distribution = CueAssociationTasks()
    for split in ("train", "valid", "test"):
        tasks = distribution.tasks(split, 0, 2000)
        assert {(task.params["cues"], task.params["flip"]) for task in tasks} == {(5, 0.0)}
        patterns = np.array([task.params["patterns"] for task in tasks], dtype=np.int64)
        correct = np.array([task.params["correct"] for task in tasks])
        assert patterns.shape == correct.shape == (2000, 5)
        assert all(len(set(row)) == 5 for row in patterns.tolist())
        # Each of the 20 bits, and each correct action, is a fair coin: 10,000 tosses.
        assert (patterns[:, :, None] >> np.arange(20) & 1).mean(axis=(0, 1)) == pytest.approx(
            np.full(20, 0.5), abs=0.02
        )
        assert correct.mean() == pytest.approx(0.5, abs=0.02)
    shift = [(task.params["cues"], task.params["flip"]) for task in distribution.tasks("shift", 0, 2000)]
    assert {kind: round(shift.count(kind) / 2000, 1) for kind in set(shift)} == pytest.approx(
        {(2, 0.0): 0.25, (2, 0.1): 0.25, (10, 0.0): 0.25, (10, 0.1): 0.25}, abs=0.051
    )
    assert CueAssociationTasks(cues=1).shift_cues == (2,)
    assert CueAssociationTasks(cues=4, bits=2).shift_cues == (2,)
    assert set(CueAssociationTasks(cues=4, bits=2).task("test", 0).params["patterns"]) == {0, 1, 2, 3}


@pytest.mark.parametrize("bad", [{"cues": 0}, {"cues": 5, "bits": 2}, {"trials": 0}, {"bits": 0}, {"bits": 63}])
def test_impossible_arguments_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(TaskError, match=r"from 1 to 2 \*\* bits cues, got cues="):
        make_vector(ENV_ID, 1, env_kwargs=bad)


def test_unknown_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"no keyword 'cue' \(did you mean 'cues'\?\)"):
        make_vector(ENV_ID, 1, env_kwargs={"cue": 3})


def test_flipped_bits() -> None:
    """On `shift` a tenth of the bits is flipped in each trial anew, the same ones in both steps that show the cue."""
    tasks = [task for task in distribution_for(ENV_ID).tasks("shift", 0, 800) if task.params["flip"]]
    env = make_vector(ENV_ID, len(tasks), split="shift")
    first, _ = env.reset(seed=0, options={"tasks": tasks})
    patterns = np.array(
        [task.params["patterns"][cue] for task, cue in zip(tasks, env.privileged()["cue"], strict=True)]
    )
    bits = 2 * (patterns[:, None] >> np.arange(20) & 1) - 1
    flipped = first[:, :20] != bits
    assert flipped.mean() == pytest.approx(0.1, abs=4 * (0.09 / flipped.size) ** 0.5)
    second = env.step(np.zeros(len(tasks), dtype=np.int64))[0]
    np.testing.assert_array_equal(second[:, :20], first[:, :20])


@pytest.mark.parametrize("cues", CUES)
def test_reference_agents_reach_their_closed_forms(cues: int) -> None:
    kwargs = {"cues": cues}
    distribution = distribution_for(ENV_ID, kwargs)
    tasks = distribution.tasks("test", 0, 4000)
    scores = {
        name: totals(ENV_ID, kwargs, agent, "test", tasks)
        for name, agent in distribution.reference_agents("test").items()
    }
    assert distribution.limit_of("test") == "bayes"
    exact = {"random": 10.0, "bayes": perfect_memory(cues, 20), "oracle": 20.0}
    for name, number in exact.items():
        assert abs(scores[name].mean() - number) <= 4 * scores[name].std() / 4000**0.5, name
    # Other cues disturb a linear unit: with two they seldom do, with many it is far from a perfect memory.
    assert 10.2 < scores["hebbian"].mean() <= scores["bayes"].mean() + 0.05
    if cues == 5:
        assert perfect_memory(cues, 20) == pytest.approx(17.53, abs=0.005)
        assert scores["hebbian"].mean() == pytest.approx(16.72, abs=0.12)


def test_the_limit_of_shift_is_a_perfect_memory_that_flipped_bits_do_not_reach() -> None:
    distribution = distribution_for(ENV_ID)
    assert distribution.limit_of("shift") == "told_cue"
    tasks = distribution.tasks("shift", 0, 4000)
    agents = distribution.reference_agents("shift")
    assert list(agents) == ["random", "hebbian", "told_cue", "oracle"]
    told, hebbian = (totals(ENV_ID, {}, agents[name], "shift", tasks) for name in ("told_cue", "hebbian"))
    exact = np.array([perfect_memory(int(task.params["cues"]), 20) for task in tasks])
    difference = told - exact
    assert abs(difference.mean()) <= 4 * difference.std() / 4000**0.5
    clean = np.array([task.params["flip"] == 0.0 for task in tasks])
    memory = totals(ENV_ID, {}, distribution.reference_agents("test")["bayes"], "shift", tasks)
    # Told the cue or not is the same to a perfect memory where no bit is flipped (but for its guesses).
    same = (memory - told)[clean]
    assert abs(same.mean()) <= 4 * same.std() / clean.sum() ** 0.5
    assert memory[~clean].mean() < hebbian[~clean].mean() < told[~clean].mean()


def test_pictures_show_cue_flag_action_and_reward() -> None:
    task = Task("CueAssociation", "test", 0, 0, {"cues": 1, "flip": 0.0, "patterns": (5,), "correct": (1,)})
    texts, frames = [], []
    for mode, pictures in (("ansi", texts), ("rgb_array", frames)):
        env = make_vector(ENV_ID, 1, env_kwargs={"cues": 1, "trials": 2, "bits": 4}, render_mode=mode)
        env.reset(seed=0, options={"tasks": [task]})
        for action in (0, 1, 0):
            pictures.append(env.render()[0])
            env.step(np.array([action]))
    assert texts == [
        "step 0/6  return 0\ntrial 1/2  cue 0  correct 1\n+-+-\nlast action none",
        "step 1/6  return 0\ntrial 1/2  cue 0  correct 1\n+-+- GO\nlast action 0, paid 0",
        "step 2/6  return 1\ntrial 1/2  cue 0  correct 1\n....\nlast action 1, paid 1",
    ]
    bits = [[tuple(frame[30, 8 + 14 * place].tolist()) for place in range(4)] for frame in frames]
    dark, light, grey = (40, 44, 52), (228, 231, 235), (190, 195, 202)
    assert bits == [[dark, light, dark, light], [dark, light, dark, light], [grey] * 4]
    gold, blue, green = (232, 176, 40), (66, 114, 196), (58, 158, 92)
    assert [tuple(frame[30, 170].tolist()) == gold for frame in frames] == [False, True, False]
    answers = [[tuple(frame[48, left].tolist()) for left in (10, 46)] for frame in frames]
    assert answers == [[light, light], [blue, light], [light, green]]
