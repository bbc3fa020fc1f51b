"""Classification as a bandit: which data sets are the tasks, and the agents that a learner is laid beside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from plastic_rl.errors import TaskError
from plastic_rl.tasks.agents import RandomAgent
from plastic_rl.tasks.base import Params, ReferenceAgent, Task, TaskDistribution
from plastic_rl.tasks.classification_agents import (
    LabelOracle,
    LogisticLearner,
    MixtureBayes,
    MLPLearner,
    PrototypeLearner,
)
from plastic_rl.tasks.data import DataSet, GaussianMixtureData
from plastic_rl.tasks.data_sources import data_source

REWARDS: dict[str, tuple[float, float]] = {"01": (0.0, 1.0), "pm1": (-1.0, 1.0)}
"""What a wrong and a right class pay, by name."""
SAMPLES: tuple[str, ...] = ("stream", "held_out")


class ClassificationTasks(TaskDistribution):
    """Each task is a data set to learn from scratch.

    With generated data (D, D1, D2, D8c, gaussian_mixture) every task is a fresh draw, so that no two share anything.
    With a finite collection (digits, iris, wine, breast_cancer, a file) a task is a random part of its split's samples
    and its order; splits hold disjoint samples, or disjoint classes. See `DataSource` for the split `shift`.

    Args:
        data: See `plastic_rl.tasks.data_sources.data_source`.
        steps: Samples in a lifetime, n.
        epochs: How often a lifetime shows each sample, at most `steps`.
        reward: `"01"`, or `"pm1"` for -1 and 1.
        delay: Steps by which a reward comes late.
        samples: `"stream"`, or `"held_out"` to show the held-out samples.
        entropy: Root of all seeds.

    >>> tasks = ClassificationTasks("D1")
    >>> dict(tasks.task("test", 0).params)
    {'data': 'D1', 'clusters': 2, 'class_sep': 1.0}
    >>> tasks.data_set(tasks.task("test", 0)).features.shape
    (5000, 10)
    """

    family = "Classification"
    limit_kind = "oracle"
    teaches = False
    """Whether the environment shows labels."""

    def __init__(
        self,
        data: str | Mapping[str, Any] = "D",
        steps: int = 1000,
        epochs: int = 1,
        reward: str = "01",
        delay: int = 0,
        samples: str = "stream",
        entropy: int = 0,
    ) -> None:
        super().__init__(entropy)
        if steps < 1 or not 1 <= epochs <= steps or delay < 0:
            raise TaskError(
                "a classification lifetime has 1 or more steps, epochs from 1 to steps and a delay of 0 or more, "
                f"got steps={steps}, epochs={epochs}, delay={delay}"
            )
        if reward not in REWARDS:
            raise TaskError(f"reward must be one of {', '.join(map(repr, REWARDS))} (a text), got {reward!r}")
        if samples not in SAMPLES:
            raise TaskError(f"samples must be one of {', '.join(map(repr, SAMPLES))}, got {samples!r}")
        self.source = data_source(data)
        self.splits = self.source.splits
        self.steps = steps
        self.epochs = epochs
        self.reward = reward
        self.delay = delay
        self.samples = samples

    def sample_params(self, generator: np.random.Generator, split: str) -> Params:
        """See `TaskDistribution`: `data`, and what the source needs to know."""
        return self.source.sample_params(generator, split)

    def data_set(self, task: Task) -> DataSet:
        """The data of a task, the same at every call.

        Raises:
            TaskError: If the task is of another source of data.
        """
        return self.source.data_set(task)

    def reference_agents(self, split: str) -> dict[str, ReferenceAgent]:
        """`random`, `nearest_prototype`, `logistic_bandit`, `mlp_bandit`, and `oracle`, which is told the labels.

        Where labels are shown also their `_labels` twins, and on a Gaussian mixture `bayes`, the limit there. Step
        sizes and exploration were chosen on `valid` of D1, D8c and digits together, for the accuracy after 1,000
        samples.
        """
        size = self.source.features, self.source.classes
        bandit: dict[str, Any] = {"delay": self.delay, "pays": REWARDS[self.reward]}
        agents: dict[str, ReferenceAgent] = {
            "random": RandomAgent(spaces.Discrete(self.source.classes)),
            "nearest_prototype": PrototypeLearner(*size, **bandit),
            "logistic_bandit": LogisticLearner(*size, rate=0.2, exploration=0.02, **bandit),
            "mlp_bandit": MLPLearner(*size, rate=0.05, exploration=0.1, **bandit),
        }
        if self.teaches:
            agents["nearest_prototype_labels"] = PrototypeLearner(*size, labels=True)
            agents["logistic_labels"] = LogisticLearner(*size, labels=True, rate=0.05)
            agents["mlp_labels"] = MLPLearner(*size, labels=True, rate=0.03)
            if isinstance(self.source, GaussianMixtureData):
                agents["bayes"] = MixtureBayes(*size, sigma=self.source.sigma_of(split))
        return agents | {"oracle": LabelOracle(self.source)}

    def limit_of(self, split: str) -> str:
        """See `TaskDistribution`: `oracle`, which knows every label.

        Not `bayes` on mixtures: it takes samples for independent, and streams show each class once in a block.
        """
        return "oracle"


class SupervisedClassificationTasks(ClassificationTasks):
    """The same tasks, in the environment that shows the label of the sample before.

    Args:
        data: See `ClassificationTasks`, as all others.
        steps: See there.
        epochs: See there.
        reward: See there.
        delay: See there.
        samples: See there.
        entropy: See there.
    """

    teaches = True
