"""Temporal order: what is shown and asked when, that order decides it, and that nothing symmetric in time does."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from gymnasium.vector import AutoresetMode

from plastic_rl.envs import ReferenceAgent, Task, distribution_for, make_vector
from plastic_rl.errors import ConfigError, TaskError
from plastic_rl.families.temporal_order import TemporalOrderTasks, TemporalOrderVectorEnv
from tests.families.test_published_numbers import totals

ENV_ID = "plastic_rl/TemporalOrder-v0"
SHORT = {"items": 3, "trials": 1, "questions": 2, "bits": 4}


def lived(tasks: list[Task], seed: int = 0, **kwargs: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """All observations of lifetimes on `tasks`, `(T + 1, B, I)`, and the right actions, `(T + 1, B)`; action 0 only."""
    env = make_vector(ENV_ID, len(tasks), env_kwargs=kwargs, autoreset_mode=AutoresetMode.DISABLED)
    assert isinstance(env, TemporalOrderVectorEnv)
    seen, right = [env.reset(seed=seed, options={"tasks": tasks})[0]], [env.privileged()["right"]]
    for _ in range(env.steps):
        seen.append(env.step(np.zeros(len(tasks), dtype=np.int64))[0])
        right.append(env.privileged()["right"])
    return np.stack(seen), np.stack(right)


def answers(agent: ReferenceAgent, seen: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """What an agent does, observation by observation, `(T + 1, B)`."""
    agent.begin((), seed=3)
    state, actions = None, []
    for observation in seen:
        action, state = agent.predict(observation, state, np.full(seen.shape[1], state is None), deterministic=True)
        actions.append(action)
    return np.stack(actions)


def test_a_lifetime_by_hand() -> None:
    """Three items of four bits, 1 = 0001, 2 = 0010 and 4 = 0100 in binary: 1 is followed by 2, 2 by 4, 4 by 1."""
    task = Task("TemporalOrder", "test", 0, 0, {"items": 3, "flip": 0.0, "patterns": (1, 2, 4)})
    code = {1: [1, -1, -1, -1], 2: [-1, 1, -1, -1], 4: [-1, -1, 1, -1], None: [0, 0, 0, 0]}
    env = make_vector(ENV_ID, 1, env_kwargs=SHORT, autoreset_mode=AutoresetMode.DISABLED)
    observation = env.reset(seed=5, options={"tasks": [task]})[0]
    rows, paid, ends = [observation[0].tolist()], [], []
    for action in [0] * 9 + [0, 0, 0] + [1, 1, 1]:
        observation, reward, terminated, _, info = env.step(np.array([action]))
        rows.append(observation[0].tolist())
        paid.append(reward[0])
        ends.append(info["trial_end"][0])
        assert info["expected_reward"][0] == reward[0]
    pairs, nothing = {1: 2, 2: 4, 4: 1}, code[None]
    number = {tuple(bits): item for item, bits in code.items()}
    shown = [number[tuple(map(int, row[:4]))] for row in rows]
    # Every pair once, an item and what follows it, and a blank behind each.
    assert sorted(shown[0:9:3]) == [1, 2, 4]
    assert [pairs[item] for item in shown[0:9:3]] == shown[1:9:3]
    assert shown[2:9:3] == [None] * 3
    assert all(row[4:10] == [*nothing, 0, 0] for row in rows[:9])
    earned = []
    for step, answer in ((9, 0), (12, 1)):
        probe, choice, blank = rows[step : step + 3]
        after, before = pairs[shown[step]], pairs[pairs[shown[step]]]
        assert probe[4:10] == [*nothing, 1, 0]
        assert blank[:10] == [*nothing, *nothing, 0, 0]
        offered = [number[tuple(map(int, choice[start : start + 4]))] for start in (0, 4)]
        assert sorted(offered) == sorted([after, before])
        assert choice[8:10] == [0, 1]
        earned.append(float(offered[answer] == after))
    assert paid == [0.0] * 10 + [earned[0], 0.0, 0.0, earned[1], 0.0]
    assert ends == [False] * 14 + [True]
    assert terminated[0]
    # previous action one-hot, previous reward (never shown), trial_start, t/T
    assert [row[10:14] for row in (rows[0], rows[10], rows[11], rows[14], rows[15])] == [
        [0, 0, 0, 1],
        [1, 0, 0, 0],
        [1, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 1, 0, 1],
    ]
    assert [row[14] for row in rows] == pytest.approx([step / 15 for step in range(16)])


def test_tasks() -> None:
    distribution = TemporalOrderTasks()
    assert (distribution.steps_per_trial, distribution.steps, distribution.shift_items) == (30, 90, (3, 12))
    for split in ("train", "valid", "test"):
        tasks = distribution.tasks(split, 0, 1000)
        assert {(task.params["items"], task.params["flip"]) for task in tasks} == {(6, 0.0)}
        patterns = np.array([task.params["patterns"] for task in tasks], dtype=np.int64)
        assert all(len(set(row)) == 6 for row in patterns.tolist())
        assert (patterns[:, :, None] >> np.arange(20) & 1).mean(axis=(0, 1)) == pytest.approx(
            np.full(20, 0.5), abs=0.026
        )
    shift = [(task.params["items"], task.params["flip"]) for task in distribution.tasks("shift", 0, 2000)]
    assert {kind: round(shift.count(kind) / 2000, 1) for kind in set(shift)} == pytest.approx(
        {(3, 0.0): 0.25, (3, 0.1): 0.25, (12, 0.0): 0.25, (12, 0.1): 0.25}, abs=0.051
    )
    assert TemporalOrderTasks(items=4, bits=2).shift_items == (4,)
    assert set(TemporalOrderTasks(items=4, bits=2).task("test", 0).params["patterns"]) == {0, 1, 2, 3}


@pytest.mark.parametrize("bad", [{"items": 2}, {"items": 5, "bits": 2}, {"trials": 0}, {"questions": 0}, {"bits": 63}])
def test_impossible_arguments_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(TaskError, match=r"from 3 to 2 \*\* bits items, got items="):
        make_vector(ENV_ID, 1, env_kwargs=bad)


def test_a_task_of_another_size_than_the_environment_has_room_for_is_refused() -> None:
    tasks = TemporalOrderTasks(items=13).tasks("test", 0, 1)
    with pytest.raises(TaskError, match="from 3 to 12 items, got 13"):
        make_vector(ENV_ID, 1).reset(seed=0, options={"tasks": tasks})


def test_unknown_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"no keyword 'item' \(did you mean 'items'\?\)"):
        make_vector(ENV_ID, 1, env_kwargs={"item": 3})


def test_each_trial_shows_every_pair_once_and_probes_and_sides_are_fair() -> None:
    kwargs = {"items": 5, "trials": 2, "questions": 6, "bits": 8}
    tasks = distribution_for(ENV_ID, kwargs).tasks("test", 0, 1500)
    env = make_vector(ENV_ID, len(tasks), env_kwargs=kwargs)
    assert isinstance(env, TemporalOrderVectorEnv)
    env.reset(seed=0, options={"tasks": tasks})
    items = env.get_state()["family"]["_items"][:, :-1].reshape(1500, 2, 11, 3, 2)
    np.testing.assert_array_equal(np.sort(items[:, :, :5, 0, 0], axis=2), np.tile(np.arange(5), (1500, 2, 1)))
    np.testing.assert_array_equal(items[:, :, :5, 1, 0], (items[:, :, :5, 0, 0] + 1) % 5)
    first = items[:, :, 0, 0, 0].ravel()
    probe, offered = items[:, :, 5:, 0, 0].ravel(), items[:, :, 5:, 1].reshape(-1, 2)
    np.testing.assert_array_equal(np.sort((offered - probe[:, None]) % 5, axis=1), np.tile([1, 4], (18000, 1)))
    for counts in (np.bincount(first), np.bincount(probe)):
        expected = counts.sum() / 5
        assert ((counts - expected) ** 2 / expected).sum() < 23.5  # chi-squared, 4 degrees of freedom: .9999
    left = ((offered[:, 0] - probe) % 5 == 1).mean()
    assert left == pytest.approx(0.5, abs=4 * 0.5 / 18000**0.5)


def test_on_shift_twice_as_many_items_are_shown_half_a_cycle_a_trial_and_bits_are_flipped() -> None:
    tasks = [task for task in distribution_for(ENV_ID).tasks("shift", 0, 400) if task.params["items"] == 12]
    env = make_vector(ENV_ID, len(tasks))
    assert isinstance(env, TemporalOrderVectorEnv)
    env.reset(seed=0, options={"tasks": tasks})
    state = env.get_state()["family"]
    items = state["_items"][:, :-1].reshape(len(tasks), 3, 10, 3, 2)
    both = items[:, :2, :6, 0, 0].reshape(len(tasks), 12)
    np.testing.assert_array_equal(np.sort(both, axis=1), np.tile(np.arange(12), (len(tasks), 1)))
    shown = state["_items"][:, :-1] >= 0
    patterns = np.array([task.params["patterns"] for task in tasks])
    own = patterns[np.arange(len(tasks))[:, None, None], state["_items"][:, :-1]]
    wrong = (own ^ state["_codes"][:, :-1])[:, :, :, None] >> np.arange(20) & 1
    clean = np.array([task.params["flip"] == 0.0 for task in tasks])
    assert not wrong[clean][shown[clean]].any()
    flipped = wrong[~clean][shown[~clean]]
    assert flipped.mean() == pytest.approx(0.1, abs=4 * (0.09 / flipped.size) ** 0.5)


@pytest.mark.parametrize("items", [3, 6, 12])
def test_reference_agents_reach_their_closed_forms(items: int) -> None:
    kwargs = {"items": items}
    distribution = distribution_for(ENV_ID, kwargs)
    tasks = distribution.tasks("test", 0, 600)
    scores = {
        name: totals(ENV_ID, kwargs, agent, "test", tasks)
        for name, agent in distribution.reference_agents("test").items()
    }
    assert list(scores) == ["random", "symmetric_window", "stdp", "order_memory", "oracle"]
    assert distribution.limit_of("test") == "order_memory"
    np.testing.assert_array_equal(scores["order_memory"], np.full(600, 12.0))
    np.testing.assert_array_equal(scores["oracle"], np.full(600, 12.0))
    for name in ("random", "symmetric_window"):
        assert abs(scores[name].mean() - 6.0) <= 4 * scores[name].std() / 600**0.5, name
    assert scores["stdp"].mean() == pytest.approx(12.0, abs=0.02)


def exchanged(seen: npt.NDArray[np.float32], tasks: TemporalOrderTasks) -> npt.NDArray[np.float32]:
    """The same lifetimes with the two items of every pair exchanged: those of the reversed cycles."""
    mirrored = seen.copy()
    for time in range(0, tasks.steps, 3):
        if time % tasks.steps_per_trial < 3 * tasks.items:
            pair = seen[time : time + 2, :, : tasks.bits]
            mirrored[time : time + 2, :, : tasks.bits] = pair[::-1]
    return mirrored


@pytest.mark.parametrize("split", ["test", "shift"])
def test_a_window_symmetric_in_time_is_right_in_exactly_half_of_all_questions(split: str) -> None:
    """Over a lifetime and its mirror image, where the other answers are right, it answers alike; STDP does not."""
    distribution = TemporalOrderTasks()
    seen, right = lived(distribution.tasks(split, 0, 300))
    asked = seen[:, :, 2 * distribution.bits + 1] == 1.0
    assert asked.sum() == 300 * 12
    mirrored = exchanged(seen, distribution)
    agents = distribution.reference_agents(split)
    for name, share in (("symmetric_window", 0.5), ("stdp", {"test": 1.0, "shift": 0.955}[split])):
        own, other = answers(agents[name], seen)[asked], answers(agents[name], mirrored)[asked]
        correct = np.concatenate([own == right[asked], other == 1 - right[asked]])
        assert correct.mean() == pytest.approx(share, abs=0.0 if name == "symmetric_window" else 0.03)


def recalled(seen: npt.NDArray[np.float32], bits: int, *, depression: float, decay: float) -> npt.NDArray[np.int64]:
    """Answers of one lifetime by weights that a window of one step changes in every step, `(T + 1,)`.

    `W <- decay W + post_t pre_{t-1}^T + depression pre_{t-1} post_t^T`, from the item columns alone; a choice is the
    offered item of which the probe recalls more.
    """
    weights, before, chosen = np.zeros((bits, bits)), np.zeros(bits), []
    for row in seen.astype(np.float64):
        now, other = row[: 2 * bits].reshape(2, bits)
        recall = weights @ before
        chosen.append(int(other @ recall > now @ recall))
        weights = decay * weights + np.outer(now, before) + depression * np.outer(before, now)
        before = now
    return np.array(chosen)


@pytest.mark.parametrize(("depression", "share"), [(0.0, 0.945), (-1.0, 0.98), (1.0, 0.5)])
@pytest.mark.parametrize("decay", [1.0, 0.98])
def test_weights_that_change_in_every_step_answer_by_an_asymmetric_window_alone(
    depression: float, share: float, decay: float
) -> None:
    """In questions too, where the wrong item follows the probe in half of them: potentiation alone suffers a little."""
    distribution = TemporalOrderTasks()
    seen, right = lived(distribution.tasks("test", 0, 50))
    mirrored = exchanged(seen, distribution)
    correct = []
    for row in range(50):
        asked = seen[:, row, 41] == 1.0
        for life, answer in ((seen, right[asked, row]), (mirrored, 1 - right[asked, row])):
            actions = recalled(life[:, row], 20, depression=depression, decay=decay)[asked]
            correct.append((actions == answer).mean())
    # The symmetric window: exactly half, also where old pairs fade, since it changes by both orders alike.
    assert np.mean(correct) == pytest.approx(share, abs=1e-12 if depression > 0 else 0.025)


def test_in_a_cycle_shown_in_one_piece_a_fading_trace_of_items_would_tell_the_order() -> None:
    """Why pairs come in random order: there, when an item was seen last says nothing."""
    items, shown = 6, np.arange(3 * 6 + 1) % 6
    last_seen = np.array([np.flatnonzero(shown == item)[-1] for item in range(items)])
    later = last_seen[(np.arange(6) + 1) % 6] > last_seen[np.arange(6) - 1]
    assert later.mean() == pytest.approx(2 / 3)
    distribution = TemporalOrderTasks()
    env = make_vector(ENV_ID, 3000)
    assert isinstance(env, TemporalOrderVectorEnv)
    env.reset(seed=0, options={"tasks": distribution.tasks("test", 0, 3000)})
    places = env.get_state()["family"]["_items"][:, :18, 0]
    seen_at = np.stack([18 - (places == item)[:, ::-1].argmax(axis=1) for item in range(6)], axis=1)
    later = np.roll(seen_at, -1, axis=1) > np.roll(seen_at, 1, axis=1)
    assert later.mean() == pytest.approx(0.5, abs=4 * 0.5 / later.size**0.5)


def test_pictures_show_the_cycle_what_is_asked_and_what_was_answered() -> None:
    task = Task("TemporalOrder", "test", 0, 0, {"items": 3, "flip": 0.0, "patterns": (1, 2, 4)})
    texts: list[Any] = []
    frames: list[Any] = []
    right: list[int] = []
    for mode, pictures in (("ansi", texts), ("rgb_array", frames)):
        env = make_vector(ENV_ID, 1, env_kwargs=SHORT, render_mode=mode)
        assert isinstance(env, TemporalOrderVectorEnv)
        env.reset(seed=5, options={"tasks": [task]})
        for _ in range(12):
            pictures.append(env.render()[0])
            right.append(int(env.privileged()["right"][0]))
            env.step(np.array([0]))
    answer = right[10]
    assert texts[0].split("\n")[:2] == ["step 0/15  return 0", "trial 1/1  cycle of 3: 0 > 1 > .. > 0"]
    assert texts[0].split("\n")[3] == "last action none"
    assert texts[2].split("\n")[2:] == ["....", "last action 0"]
    assert texts[9].split("\n")[2].endswith(": what follows it?")
    offered = texts[10].split("\n")[2:4]
    assert [line.endswith("(right)") for line in offered] == [answer == 0, answer == 1]
    assert [line.split("  ")[1].startswith(f"action {action}: item ") for action, line in enumerate(offered)] == [
        True
    ] * 2
    assert texts[11].split("\n")[-1] == f"last action 0, {'right' if answer == 0 else 'wrong'}"
    gold, blue, green, red = (232, 176, 40), (66, 114, 196), (58, 158, 92), (204, 76, 68)
    colours = [{tuple(pixel) for pixel in frame.reshape(-1, 3).tolist()} for frame in frames]
    assert [blue in found for found in colours] == [time in {0, 1, 3, 4, 6, 7} for time in range(12)]
    assert [gold in found for found in colours] == [time >= 9 for time in range(12)]
    assert [(green in found) or (red in found) for found in colours] == [time == 11 for time in range(12)]
    assert (green in colours[11]) == (answer == 0)
