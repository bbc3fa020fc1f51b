"""A rule-table agent where it acts: it learns a data set from reward alone, and fits any discrete environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from gymnasium import spaces
from sklearn.datasets import make_classification

from plastic_rl.envs import distribution_for, make_vector
from plastic_rl.envs.task_vector_env import Outcome
from plastic_rl.errors import SpaceError
from plastic_rl.evaluation.lifetimes import run_lifetimes
from plastic_rl.families.classification.environment import ClassificationVectorEnv
from plastic_rl.feedback import FeedbackLayout
from plastic_rl.policies import PlasticPolicy

CLASSES, FEATURES, DATA_SETS, SAMPLES = 4, 10, 6, 400
Answer = Callable[[int, npt.NDArray[Any]], npt.NDArray[Any]]
"""Step and actions `(B,)` to rewards `(B,)`."""


def data() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Easy generated data sets: features `(B, T, F)`, standardised, and labels `(B, T)`."""
    drawn = [
        make_classification(
            SAMPLES, FEATURES, n_informative=10, n_redundant=0, n_classes=4, class_sep=10, random_state=s
        )
        for s in range(DATA_SETS)
    ]
    features = np.stack([(x - x.mean(0)) / x.std(0) for x, _ in drawn])
    return features, np.stack([y for _, y in drawn])


def hebb() -> PlasticPolicy:
    low = np.full(FEATURES + CLASSES + 3, -100, dtype=np.float32)
    return PlasticPolicy(
        spaces.Box(low, -low),
        spaces.Discrete(CLASSES),
        feedback=FeedbackLayout.after(FEATURES, CLASSES),
        network={"kind": "rule_table", "tables": "label_free_hebb", "selection": "argmax"},
        generator=torch.Generator().manual_seed(1),
    )


def live(policy: PlasticPolicy, features: npt.NDArray[np.float64], answer: Answer) -> npt.NDArray[np.int64]:
    """Actions `(T, B)` of one lifetime on each data set, rewarded as `answer` says."""
    policy.sampling.manual_seed(0)
    actions, state = [], None
    observation = np.zeros((len(features), FEATURES + CLASSES + 3), dtype=np.float32)
    for step in range(SAMPLES):
        observation[:, :FEATURES] = features[:, step]
        start = np.full(len(features), step == 0)
        action, state = policy.predict(observation, state, start)
        observation[:, FEATURES : FEATURES + CLASSES] = np.eye(CLASSES)[action]
        observation[:, FEATURES + CLASSES] = answer(step, action)
        actions.append(action)
    return np.stack(actions)


def test_it_learns_a_data_set_from_reward_alone() -> None:
    features, labels = data()
    right = live(hebb(), features, lambda step, action: action == labels[:, step]) == labels.T
    assert right[:20].mean() < 0.7
    assert right[200:].mean() > 0.93


class Poisoned(ClassificationVectorEnv):
    """Pays what it is told to, whatever is answered, and holds other labels at every step."""

    paid: npt.NDArray[np.float64]

    def transition(self, actions: npt.NDArray[Any]) -> Outcome:
        self._labels[:] = np.random.default_rng(int(self.time[0])).integers(CLASSES, size=self._labels.shape)
        outcome = super().transition(actions)
        reward = self.paid[self.time[0]]
        return outcome._replace(reward=reward.copy(), expected_reward=reward.copy())


def lived_in(env: ClassificationVectorEnv, steps: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Actions and rewards `(steps, B)` of an agent that learns by hand-written label-free tables."""
    policy = PlasticPolicy(
        env.single_observation_space,
        env.single_action_space,
        feedback=FeedbackLayout.from_dict(env.metadata["feedback"]),
        network={"kind": "rule_table", "tables": "label_free_hebb", "inputs": "all"},
        generator=torch.Generator().manual_seed(1),
    )
    policy.sampling.manual_seed(0)
    observation, _ = env.reset(seed=5)
    actions, rewards, state = [], [], None
    for step in range(steps):
        action, state = policy.predict(observation, state, np.full(env.num_envs, step == 0))
        observation, reward, *_ = env.step(action)
        actions.append(action)
        rewards.append(reward)
    return np.stack(actions), np.stack(rewards)


def test_identical_rewards_give_identical_behaviour_whatever_the_labels() -> None:
    kwargs: dict[str, Any] = {"data": "D", "steps": 120, "split": "test"}
    actions, rewards = lived_in(ClassificationVectorEnv(DATA_SETS, **kwargs), 119)
    poisoned = Poisoned(DATA_SETS, **kwargs)
    poisoned.paid = rewards
    again, paid = lived_in(poisoned, 119)
    np.testing.assert_array_equal(paid, rewards)
    np.testing.assert_array_equal(again, actions)
    # It is the rewards that it acts upon.
    poisoned.paid = 1.0 - rewards
    assert (lived_in(poisoned, 119)[0] != actions).mean() > 0.1


def test_rewards_that_are_shuffled_teach_nothing() -> None:
    features, labels = data()
    rng = np.random.default_rng(0)
    # Rewards of another data set's choices, and rewards of chance.
    of_others = live(hebb(), features, lambda step, action: np.roll(action == labels[:, step], 1))
    of_chance = live(hebb(), features, lambda step, action: rng.random(DATA_SETS) < 1 / CLASSES)
    for lived in (of_others, of_chance):
        assert (lived == labels.T)[100:].mean() == pytest.approx(1 / CLASSES, abs=0.08)


@pytest.mark.parametrize(
    ("env_id", "kwargs", "network"),
    [
        ("plastic_rl/ReversalBandit-v0", {"steps": 30}, {"inputs": "all", "rounds": 1}),
        ("plastic_rl/GridMaze-v0", {"steps": 30}, {"inputs": "all", "rounds": 1, "no_outcome": "zero_reward"}),
        ("plastic_rl/GridMaze-v0", {"steps": 30}, {"rounds": 2, "recurrence": "cristian"}),
        ("plastic_rl/Classification-v0", {"steps": 30}, {}),
        ("plastic_rl/SupervisedClassification-v0", {"steps": 30}, {"output_table": "supervised_chosen"}),
    ],
)
def test_it_acts_and_changes_where_actions_are_discrete(
    env_id: str, kwargs: dict[str, Any], network: dict[str, Any]
) -> None:
    env = make_vector(env_id, 1, env_kwargs=kwargs)
    policy = PlasticPolicy(
        env.single_observation_space,
        env.single_action_space,
        feedback=FeedbackLayout.from_dict(env.metadata["feedback"]),
        network={"kind": "rule_table", "hidden_size": 20, "tables": "normal", **network},
    )
    tasks = distribution_for(env_id, kwargs).tasks("valid", 0, 4)
    lived = run_lifetimes(policy, env_id, tasks, env_kwargs=kwargs)
    assert lived.lengths.tolist() == [30] * 4
    assert np.isfinite(lived.scores).all()


def test_continuous_actions_are_refused() -> None:
    with pytest.raises(SpaceError, match="one Discrete space"):
        PlasticPolicy(
            spaces.Box(-1, 1, (9,)),
            spaces.Box(-1, 1, (2,)),
            feedback=FeedbackLayout.after(4, 2),
            network={"kind": "rule_table"},
        )
