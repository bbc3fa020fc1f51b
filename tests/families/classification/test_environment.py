"""Classification as a bandit: rewards and when they come, which samples are shown, and who sees labels."""

from __future__ import annotations

import time

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from plastic_rl.envs import distribution_for, make_vector
from plastic_rl.errors import ConfigError
from plastic_rl.families.classification.environment import ClassificationVectorEnv
from plastic_rl.feedback import FeedbackLayout

BANDIT = "plastic_rl/Classification-v0"
TAUGHT = "plastic_rl/SupervisedClassification-v0"


def make(env_id=BANDIT, rows=6, *, split="test", mode=AutoresetMode.SAME_STEP, **kwargs) -> ClassificationVectorEnv:
    env = make_vector(env_id, rows, env_kwargs={"steps": 40, **kwargs}, split=split, autoreset_mode=mode)
    assert isinstance(env, ClassificationVectorEnv)
    return env


def live(env, steps, seed=0):
    """Random answers: labels, actions, rewards, expected rewards and observations of each step."""
    generator = np.random.default_rng(seed)
    first, _ = env.reset(seed=seed)
    lived = {"labels": [], "actions": [], "rewards": [], "expected": [], "observations": [first]}
    for _ in range(steps):
        actions = generator.integers(0, env.single_action_space.n, env.num_envs)
        lived["labels"].append(env.privileged()["label"])
        observations, rewards, _, _, info = env.step(actions)
        lived["actions"].append(actions)
        lived["rewards"].append(rewards)
        lived["expected"].append(info["expected_reward"])
        lived["observations"].append(observations)
    return {name: np.array(values) for name, values in lived.items()}


@pytest.mark.parametrize(("reward", "wrong"), [("01", 0.0), ("pm1", -1.0)])
def test_the_right_class_pays(reward, wrong):
    lived = live(make(reward=reward), 39)
    right = lived["actions"] == lived["labels"]
    np.testing.assert_array_equal(lived["rewards"], np.where(right, 1.0, wrong))
    np.testing.assert_array_equal(lived["expected"], lived["rewards"])
    assert 0.1 < right.mean() < 0.4


@pytest.mark.parametrize("reward", ["01", "pm1"])
@pytest.mark.parametrize("delay", [1, 4])
def test_a_reward_comes_late_by_the_delay(delay, reward):
    lived = live(make(delay=delay, reward=reward), 39)
    np.testing.assert_array_equal(lived["rewards"][delay:], lived["expected"][:-delay])
    assert not lived["rewards"][:delay].any()
    right = lived["actions"] == lived["labels"]
    np.testing.assert_array_equal(lived["expected"] > 0.0, right)


def test_a_delay_longer_than_the_lifetime_pays_nothing_and_nothing_is_carried_over():
    lived = live(make(delay=30), 79)
    assert not lived["rewards"][:30].any()
    np.testing.assert_array_equal(lived["rewards"][30:40], lived["expected"][:10])
    assert not lived["rewards"][40:70].any()
    assert not live(make(delay=100), 79)["rewards"].any()


def test_rewards_that_wait_survive_a_stored_state():
    env, other = make(delay=5), make(delay=5)
    live(env, 17)
    state = env.get_state()
    other.reset(seed=9)
    other.set_state(state)
    for _ in range(30):
        actions = np.random.default_rng(0).integers(0, 4, 6)
        for one, two in zip(env.step(actions)[:4], other.step(actions)[:4], strict=True):
            np.testing.assert_array_equal(one, two)


def test_observations_are_the_samples_of_the_task():
    env = make(data="digits", mode=AutoresetMode.DISABLED)
    lived = live(env, 40)
    for row, task in enumerate(env.tasks):
        data = env.distribution.data_set(task)
        stored = {tuple(sample): label for sample, label in zip(
            data.standardised(data.stream).tolist(), data.stream_labels.tolist(), strict=True
        )}  # fmt: skip
        shown = [tuple(sample) for sample in lived["observations"][:40, row, :64].tolist()]
        assert [stored[sample] for sample in shown] == lived["labels"][:, row].tolist()
        assert len(set(shown)) == 40  # no sample twice


def test_epochs_show_each_sample_as_often():
    env = make(epochs=4, mode=AutoresetMode.DISABLED)
    shown = live(env, 40)["observations"][:40, :, :10]
    for row in range(6):
        passes = [{tuple(sample) for sample in shown[start : start + 10, row].tolist()} for start in range(0, 40, 10)]
        assert passes[0] == passes[1] == passes[2] == passes[3]
        assert len(passes[0]) == 10
        assert shown[:10, row].tolist() != shown[10:20, row].tolist()


def test_the_supervised_twin_shows_the_true_label_of_the_sample_before():
    taught, bandit = make(TAUGHT, delay=2), make(BANDIT, delay=2)
    ours, theirs = live(taught, 39), live(bandit, 39)
    layout = FeedbackLayout.from_dict(taught.metadata["feedback"])
    assert layout.label == (17, 21)
    assert "label" not in bandit.metadata["feedback"]
    shown = ours["observations"][:, :, slice(*layout.label)]
    assert not shown[0].any()
    np.testing.assert_array_equal(shown[1:], np.eye(4)[ours["labels"]])
    # Everything else is the same, to the bit.
    np.testing.assert_array_equal(ours["observations"][:, :, :17], theirs["observations"])
    for name in ("labels", "rewards", "expected"):
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_no_label_reaches_the_bandit():
    """Labels that are poisoned once rewards are fixed change nothing that is seen."""

    class Poisoned(ClassificationVectorEnv):
        def transition(self, actions):
            outcome = super().transition(actions)
            right = outcome.reward.copy()
            self._labels[:] = np.random.default_rng(int(self.time[0])).integers(0, 4, self._labels.shape)
            return outcome._replace(reward=right, expected_reward=right.copy())

    clean = make()
    poisoned = Poisoned(6, steps=40, split="test", autoreset_mode=AutoresetMode.SAME_STEP)
    generator = np.random.default_rng(1)
    np.testing.assert_array_equal(clean.reset(seed=3)[0], poisoned.reset(seed=3)[0])
    for step in range(39):
        true = clean.privileged()["label"]
        # The same outcomes in both: each row is answered rightly where `earn` says so.
        earn = generator.random(6) < 0.5
        actions = np.where(earn, true, (true + 1) % 4)
        poisoned._labels[:, step] = np.where(earn, actions, (actions + 1) % 4)
        ours, theirs = clean.step(actions), poisoned.step(actions)
        for one, two in zip(ours[:4], theirs[:4], strict=True):
            np.testing.assert_array_equal(one, two)
        assert set(ours[4]) == {"trial_end", "_trial_end", "expected_reward", "_expected_reward"}


def test_chance_is_one_over_the_number_of_classes():
    for data, classes in (("D", 4), ("digits", 10), ("breast_cancer", 2)):
        lived = live(make(data=data, rows=50), 39)
        assert lived["expected"].mean() == pytest.approx(1 / classes, abs=0.04)


def test_held_out_samples_teach_nothing():
    stream, held_out = make(TAUGHT, data="digits"), make(TAUGHT, data="digits", samples="held_out")
    seen, asked = live(stream, 39), live(held_out, 39)
    assert [task.seed for task in stream.tasks] == [task.seed for task in held_out.tasks]
    layout = FeedbackLayout.from_dict(held_out.metadata["feedback"])
    assert not asked["observations"][:, :, layout.start :].any()
    for row, task in enumerate(held_out.tasks):
        data = held_out.distribution.data_set(task)
        np.testing.assert_array_equal(asked["observations"][:40, row, :64], data.standardised(data.held_out[:40]))
        np.testing.assert_array_equal(asked["labels"][:, row], data.held_out_labels[:39])
        shown = {tuple(sample) for sample in seen["observations"][:, row, :64].tolist()}
        assert not shown & {tuple(sample) for sample in asked["observations"][:, row, :64].tolist()}
    right = asked["actions"] == asked["labels"]
    np.testing.assert_array_equal(asked["rewards"], right.astype(float))


def test_rows_on_one_task_share_its_data_whatever_their_order():
    env = make(rows=160)
    tasks = env.distribution.tasks("test", 0, 8)
    env.reset(seed=0, options={"tasks": tasks * 20})
    assert env._pool.shape == (8 * 5000, 10)
    labels = np.concatenate([env.distribution.data_set(task).stream_labels for task in tasks])
    assert len(labels) == 8 * 4000
    env.reset(seed=1, options={"tasks": env.distribution.tasks("test", 8, 16) * 20})
    assert env._pool.shape == (8 * 5000, 10)  # places of tasks that nobody lives any more are used again
    # Rows that begin anew by and by never lose the data of the others.
    env = make(rows=3, mode=AutoresetMode.NEXT_STEP)
    env.reset(seed=0)
    for step in range(100):
        if step % 7 == 0:
            env.reset(options={"reset_mask": np.arange(3) == step // 7 % 3})
        env.step(np.zeros(3, np.int64))
        for row, task in enumerate(env.tasks):
            data = env.distribution.data_set(task)
            shown = env.observe()[row, :10]
            assert (data.standardised(data.stream) == shown).all(axis=1).any()
    assert env._pool.shape[0] <= 3 * 5000


def test_equal_noise_means_equal_order():
    env = make(rows=4)
    task = env.distribution.task("test", 0)
    env.reset(seed=0, options={"tasks": [task] * 4})
    assert len({tuple(labels) for labels in env._labels.tolist()}) == 4
    generators = [np.random.default_rng(5) for _ in range(4)]
    env.begin_rows(np.arange(4), [task] * 4, generators)
    assert len({tuple(labels) for labels in env._labels.tolist()}) == 1


def test_a_step_costs_little():
    """200 rows of 8 tasks: about 35 us when nothing else runs."""
    env = make(rows=200, steps=400)
    env.reset(seed=0, options={"tasks": env.distribution.tasks("train", 0, 8) * 25})
    actions = np.zeros(200, np.int64)
    seconds = []
    for _ in range(300):
        before = time.perf_counter()
        env.step(actions)
        seconds.append(time.perf_counter() - before)
    assert min(seconds) < 100e-6


def test_metadata_and_misuse():
    env = make(data="digits", steps=1500, reward="pm1")
    assert env.metadata["accuracy_after"] == (500, 1000, 1500)
    assert env.metadata["pays"] == (-1.0, 1.0)
    assert (env.metadata["steps_per_trial"], env.metadata["lifetime_steps"]) == (1, 1500)
    bandit = distribution_for("plastic_rl/BernoulliBandit-v0")
    with pytest.raises(ConfigError, match="needs ClassificationTasks, got BernoulliBanditTasks"):
        ClassificationVectorEnv(2, distribution=bandit)
    for bad in ({"delay": -1}, {"epochs": 0}, {"epochs": 41}, {"samples": "test"}, {"reward": "1"}, {"data": "mnist"}):
        with pytest.raises((ValueError, LookupError)):
            make(**bad)


def test_pictures_say_how_each_class_went():
    env = make_vector(BANDIT, 2, env_kwargs={"steps": 5, "data": "iris"}, render_mode="ansi")
    env.reset(seed=0)
    for _ in range(4):
        env.step(env.privileged()["label"])
    lines = env.render()[0].splitlines()
    assert lines[0] == "step 4/5  return 4"
    seen = [int(line.split()[-2]) for line in lines[1:]]
    assert sum(seen) == 4
    assert all("right 1.00" in line for line, count in zip(lines[1:], seen, strict=True) if count)
