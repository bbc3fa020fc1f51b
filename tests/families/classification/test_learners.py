"""Reference learners of classification: hand-computed steps, and the accuracies that online learning is known for."""

from __future__ import annotations

import numpy as np
import pytest

from plastic_rl.envs import distribution_for, make_vector
from plastic_rl.errors import SpaceError
from plastic_rl.evaluation import accuracy_after
from plastic_rl.families.classification.learners import LogisticLearner, MixtureBayes, MLPLearner, PrototypeLearner

BANDIT = "plastic_rl/Classification-v0"
TAUGHT = "plastic_rl/SupervisedClassification-v0"


def accuracy(name, data, samples=(1000,), *, tasks=12, env_id=TAUGHT, **arguments):
    distribution = distribution_for(env_id, {"data": data, **arguments})
    agent = distribution.reference_agents("test")[name]
    result = accuracy_after(
        agent, env_id, distribution.tasks("test", 0, tasks), samples=samples, env_kwargs={"data": data, **arguments}
    )
    return result.accuracy.mean(axis=0)


@pytest.mark.parametrize(
    ("name", "data", "known", "within"),
    [
        ("random", "D", 0.25, 0.01),
        ("logistic_labels", "D", 0.993, 0.004),  # near-linearly separable: the ceiling is .9925
        ("mlp_bandit", "D", 0.992, 0.006),
        ("logistic_labels", "D1", 0.60, 0.03),
        ("logistic_labels", "digits", 0.94, 0.015),
        ("nearest_prototype_labels", "digits", 0.885, 0.02),
        ("oracle", "D8c", 1.0, 0.0),
        ("oracle", "digits", 1.0, 0.0),
    ],
)
def test_accuracy_after_a_thousand_samples(name, data, known, within):
    assert accuracy(name, data)[0] == pytest.approx(known, abs=within)


def test_only_what_bends_solves_d8c():
    straight, bent = accuracy("logistic_labels", "D8c")[0], accuracy("mlp_labels", "D8c")[0]
    assert straight < 0.60
    assert bent > 0.77


def test_bayes_on_the_mixture_through_the_environment():
    one, five = accuracy("bayes", "gaussian_mixture", (5, 25), tasks=150, steps=100)
    assert one == pytest.approx(0.43, abs=0.02)
    assert five == pytest.approx(0.61, abs=0.02)


@pytest.mark.parametrize("name", ["logistic_bandit", "mlp_bandit", "nearest_prototype"])
@pytest.mark.parametrize("arguments", [{"delay": 3}, {"reward": "pm1"}, {"delay": 2, "reward": "pm1"}])
def test_late_rewards_and_other_scales_are_understood(name, arguments):
    """Rewards that come late teach the same, unless they are laid to the wrong sample: that stays near chance."""
    straight = accuracy(name, "D", tasks=6, env_id=BANDIT)[0]
    assert accuracy(name, "D", tasks=6, env_id=BANDIT, **arguments)[0] == pytest.approx(straight, abs=0.1)
    assert straight > 0.6


def observe(features, action=None, reward=0.0, label=None, classes=3):
    row = np.zeros((1, len(features) + classes + 3 + (classes if label is not None else 0)), dtype=np.float32)
    row[0, : len(features)] = features
    if action is not None:
        row[0, len(features) + action] = 1.0
    row[0, len(features) + classes] = reward
    if label is not None and label >= 0:
        row[0, len(features) + classes + 3 + label] = 1.0
    return row


NO_START = np.zeros(1, dtype=bool)


def test_a_logistic_step_by_hand():
    agent = LogisticLearner(2, 3, labels=True, rate=1.0)
    _, state = agent.predict(observe([2.0, 0.0], label=-1), deterministic=True)
    _, after = agent.predict(observe([0.0, 0.0], 0, 0.0, 1), state, NO_START, deterministic=True)
    # rate / (1 + mean square 2) * (target - 1/3) * x
    np.testing.assert_allclose(after["weights"][0], [[-2 / 9, 0], [4 / 9, 0], [-2 / 9, 0]], rtol=1e-6)
    np.testing.assert_allclose(after["bias"][0], [-1 / 9, 2 / 9, -1 / 9], rtol=1e-6)
    assert not state["weights"].any()  # what was passed in stays as it was


def test_a_bandits_logistic_step_by_hand():
    agent = LogisticLearner(2, 3, rate=1.0)
    answer, state = agent.predict(observe([2.0, 0.0]), deterministic=True)
    assert answer.tolist() == [0]
    right = agent.predict(observe([0.0, 0.0], 0, 1.0), state, NO_START, deterministic=True)[1]
    wrong = agent.predict(observe([0.0, 0.0], 0, 0.0), state, NO_START, deterministic=True)[1]
    np.testing.assert_allclose(right["bias"][0], np.array([2, -1, -1]) / 9, rtol=1e-6)
    # p / (1 - p) = 1 / 2 of it, the other way.
    np.testing.assert_allclose(wrong["bias"][0], -np.array([2, -1, -1]) / 18, rtol=1e-6)


def test_the_gradient_of_the_perceptron_is_that_of_its_likelihood():
    agent = MLPLearner(3, 2, hidden=4, rate=1e-3, labels=True)
    agent.begin([], seed=3)
    known = {name: values.astype(np.float64) for name, values in agent.fresh(1).items()}
    known["output"] += np.random.default_rng(0).standard_normal(known["output"].shape)
    sample, target = np.array([[0.3, -1.0, 0.7]]), np.array([[0.0, 1.0]])

    def likelihood(values):
        logits = agent._forward(values, sample)[1]
        return float((logits - np.log(np.exp(logits).sum()))[0, 1])

    moved = agent.learn(known, sample, target, np.ones((1, 2)))
    for name, values in known.items():
        slope = (moved[name] - values) / agent.rate
        for place in np.ndindex(values.shape):
            nudged = {key: each.copy() for key, each in known.items()}
            nudged[name][place] += 1e-5
            assert slope[place] == pytest.approx((likelihood(nudged) - likelihood(known)) / 1e-5, abs=1e-3)


def test_prototypes_by_hand():
    agent = PrototypeLearner(1, 3)
    _, state = agent.predict(observe([2.0]), deterministic=True)
    _, state = agent.predict(observe([4.0], 0, 1.0), state, NO_START, deterministic=True)
    assert state["sums"][0, :, 0].tolist() == [2.0, 0.0, 0.0]
    assert state["counts"][0].tolist() == [1.0, 0.0, 0.0]
    _, state = agent.predict(observe([0.1], 0, 0.0), state, NO_START, deterministic=True)
    assert state["counts"][0].tolist() == [1.0, 0.0, 0.0]  # a wrong answer teaches no prototype


def test_frozen_learners_neither_learn_nor_remember():
    agent = MixtureBayes(2, 3, sigma=2.0)
    _, state = agent.predict(observe([2.0, 0.0], label=-1), deterministic=True)
    with agent.freeze_plasticity():
        with agent.freeze_plasticity():
            pass
        _, same = agent.predict(observe([1.0, 0.0], 0, 0.0, 1), state, NO_START, deterministic=True)
    for name, values in state.items():
        np.testing.assert_array_equal(values, same[name])
    _, learned = agent.predict(observe([1.0, 0.0], 0, 0.0, 1), state, NO_START, deterministic=True)
    assert learned["counts"][0].tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("name", ["logistic_bandit", "mlp_bandit", "nearest_prototype"])
def test_rows_that_begin_a_lifetime_forget_and_the_others_do_not(name):
    agent = distribution_for(BANDIT).reference_agents("test")[name]
    env = make_vector(BANDIT, 4, env_kwargs={"steps": 50})
    observation, _ = env.reset(seed=0)
    agent.begin(env.tasks, seed=0)
    state = None
    for _ in range(20):
        action, state = agent.predict(observation, state, np.zeros(4, bool))
        observation, *_ = env.step(action)
    fresh = agent.fresh(4)
    with agent.freeze_plasticity():
        _, after = agent.predict(observation, state, np.array([True, False, False, True]))
    for learned in set(fresh) - {"input", "input_bias"}:
        assert not after[learned][[0, 3]].any()
        np.testing.assert_array_equal(after[learned][[1, 2]], state[learned][[1, 2]])
    assert after["age"].tolist() == [0, 20, 20, 0]


def test_a_bandit_ignores_the_label_columns_of_the_other_environment():
    kwargs = {"data": "D", "steps": 60}
    totals = {}
    for env_id in (BANDIT, TAUGHT):
        agent = distribution_for(TAUGHT, kwargs).reference_agents("test")["logistic_bandit"]
        env = make_vector(env_id, 3, env_kwargs=kwargs)
        observation, _ = env.reset(seed=0)
        agent.begin(env.tasks, seed=0)
        state, actions = None, []
        for _ in range(60):
            action, state = agent.predict(observation, state, np.zeros(3, bool))
            observation, *_ = env.step(action)
            actions.append(action.tolist())
        totals[env_id] = actions
    assert totals[BANDIT] == totals[TAUGHT]
    taught = distribution_for(TAUGHT, kwargs).reference_agents("test")["logistic_labels"]
    with pytest.raises(SpaceError, match="from observations with 21 columns, got 17"):
        taught.predict(np.zeros((2, 17), np.float32))
