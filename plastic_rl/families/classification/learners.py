"""Reference learners of classification: what a textbook method reaches on the same stream of samples.

All learn online, one sample at a time. The bandits learn from rewards alone; their `labels=True` twins from the label
columns of the supervised environment.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from typing_extensions import override

from plastic_rl.arrays import Array, BoolArray, FloatArray, IntArray, SingleArray
from plastic_rl.envs.task import ReferenceAgent, Task
from plastic_rl.errors import SpaceError
from plastic_rl.families.classification.data import DataSource
from plastic_rl.feedback import FeedbackLayout

Weights = dict[str, Any]
"""What a learner knows, arrays with leading `B`."""
PATIENCE = 1000.0
"""Samples after which a bandit explores half as much."""


class OnlineLearner(ReferenceAgent):
    """Base of the learners: remembers which sample a reward or label belongs to, and explores.

    With probability `exploration / (1 + t / PATIENCE)` at its t-th sample a bandit answers at random, else it takes the
    class that scores best (ties at random). `deterministic` answers are the best class, ties to the lowest. Within
    `freeze_plasticity()` nothing is learned.

    Args:
        features: Number of features, F.
        classes: Number of classes, K.
        labels: Learn from the label of the sample before, instead of from rewards; then nothing is explored.
        delay: Steps by which rewards come late.
        pays: What a wrong and a right answer earn.
        exploration: Share of random answers at first.
    """

    def __init__(
        self,
        features: int,
        classes: int,
        *,
        labels: bool = False,
        delay: int = 0,
        pays: tuple[float, float] = (0.0, 1.0),
        exploration: float = 0.1,
    ) -> None:
        super().__init__()
        self.features = features
        self.classes = classes
        self.labels = labels
        self.delay = 0 if labels else delay
        self.pays = pays
        self.exploration = 0.0 if labels else exploration
        self.frozen = False
        self._layout = FeedbackLayout.after(features, classes, classes if labels else 0)

    @contextmanager
    def freeze_plasticity(self) -> Iterator[None]:
        """Within this context nothing is learned or remembered."""
        before, self.frozen = self.frozen, True
        try:
            yield
        finally:
            self.frozen = before

    @abstractmethod
    def fresh(self, rows: int) -> Weights:
        """What `rows` lifetimes know at their start."""

    @abstractmethod
    def scores(self, known: Weights, samples: SingleArray) -> SingleArray:
        """How much each class is wanted for `samples (B, F)`: `(B, K)`."""

    @abstractmethod
    def learn(self, known: Weights, samples: SingleArray, targets: SingleArray, asked: SingleArray) -> Weights:
        """Return what an outcome changes; `known` stays as it is.

        Args:
            known: Before.
            samples: `(B, F)`.
            targets: `(B, K)`: 1 for the right class.
            asked: `(B, K)`: 1 where `targets` is known. With labels all of it; else only the class that was answered.
                All zeros in rows with nothing to learn.
        """

    @override
    def choose(self, rows: Array, start: BoolArray, state: Any, deterministic: bool) -> tuple[Array, Any]:
        # The supervised environment has label columns more, which a bandit leaves alone.
        if rows.shape[1] not in {self._layout.stop, self._layout.stop + self.classes * (not self.labels)}:
            raise SpaceError(
                f"{type(self).__name__} learns {self.features} features and {self.classes} classes from observations "
                f"with {self._layout.stop} columns, got {rows.shape[1]}"
            )
        count = len(rows)
        known = self._resumed(state, start, count)
        samples = rows[:, : self.features].astype(np.float32)
        if not self.frozen:
            known = known | self._taken_in(known, rows)
        answers = self.best(self.scores(known, samples).astype(np.float64), deterministic)
        if self.exploration and not deterministic:
            share = self.exploration / (1.0 + known["age"] / PATIENCE)
            chance, guess = self.noise(count).draw("uniform", 2).T
            answers = np.where(chance < share, (guess * self.classes).astype(np.int64), answers)
        if not self.frozen:
            everyone, place = np.arange(count), known["age"] % (self.delay + 1)
            kept, given = known["samples"].copy(), known["answers"].copy()
            kept[everyone, place] = samples
            given[everyone, place] = answers
            known = known | {"samples": kept, "answers": given, "age": known["age"] + 1}
        return answers, known

    def _resumed(self, state: Any, start: BoolArray, count: int) -> Weights:
        """What is known and remembered, with rows that begin a lifetime at their start values."""
        if state is not None and not start.any():
            return dict(state)
        slots = self.delay + 1
        fresh = self.fresh(count) | {
            "samples": np.zeros((count, slots, self.features), dtype=np.float32),
            "answers": np.zeros((count, slots), dtype=np.int64),
            "age": np.zeros(count, dtype=np.int64),
        }
        if state is None:
            return fresh
        return {
            name: np.where(start.reshape(-1, *[1] * (each.ndim - 1)), each, state[name]) for name, each in fresh.items()
        }

    def _taken_in(self, known: Weights, rows: Array) -> Weights:
        """What is learned from the outcome that `rows` tell, of a sample answered `delay + 1` steps ago."""
        age = known["age"]
        everyone = np.arange(len(age))
        arrived = age > self.delay
        if not arrived.any():
            return {}
        place = (age - 1 - self.delay) % (self.delay + 1)
        samples = known["samples"][everyone, place]
        if self._layout.label is not None:
            targets = rows[:, slice(*self._layout.label)].astype(np.float32)
            asked = np.broadcast_to(arrived[:, None], targets.shape).astype(np.float32)
        else:
            wrong, right = self.pays
            success = (rows[:, self._layout.reward[0]] - wrong) / (right - wrong)
            asked = np.zeros((len(rows), self.classes), dtype=np.float32)
            asked[everyone, known["answers"][everyone, place]] = arrived
            targets = (asked * success[:, None]).astype(np.float32)
        return self.learn(known, samples, targets, asked)


def _gentleness(features: int) -> float:
    """Factor of the step size of weights from the features: a step moves a unit by |x|^2, that is by their number.

    Step sizes were chosen on 10 to 64 features, so that only more of them need smaller ones.
    """
    return min(1.0, 64.0 / features)


def _logistic(logits: SingleArray) -> SingleArray:
    # Beyond +-30 it is 0 or 1 in float32, and exp would overflow.
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits, -30.0, 30.0))), dtype=np.float32)


def _softmax(logits: SingleArray) -> SingleArray:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), dtype=np.float32)


class LogisticLearner(OnlineLearner):
    """Online multinomial logistic regression, by stochastic gradient ascent of the likelihood of what was observed.

    With labels that is `log p(label)`. A bandit saw that its answer a was right, `log p(a)`, or wrong,
    `log(1 - p(a))`: the gradients at the logits are `e_a - p` and `-p(a) / (1 - p(a)) (e_a - p)`.

    The step size is divided by 1 + the mean square of the sample's features, and smaller beyond 64 features.
    """

    def __init__(self, features: int, classes: int, *, rate: float = 0.2, **arguments: Any) -> None:
        super().__init__(features, classes, **arguments)
        self.rate = rate

    @override
    def fresh(self, rows: int) -> Weights:
        """Weights `(B, K, F)` and biases `(B, K)`, all 0."""
        shape = (rows, self.classes)
        return {"weights": np.zeros((*shape, self.features), np.float32), "bias": np.zeros(shape, np.float32)}

    @override
    def scores(self, known: Weights, samples: SingleArray) -> SingleArray:
        """Logits."""
        return np.asarray((known["weights"] @ samples[:, :, None])[:, :, 0] + known["bias"], dtype=np.float32)

    @override
    def learn(self, known: Weights, samples: SingleArray, targets: SingleArray, asked: SingleArray) -> Weights:
        share = _softmax(self.scores(known, samples))
        if self.labels:
            gradient = (targets - share) * asked
        else:
            answered = asked.any(axis=1, keepdims=True)
            right = (targets * asked).sum(axis=1, keepdims=True)
            chosen = (share * asked).sum(axis=1, keepdims=True)
            # A sure answer that was wrong would take an endless step.
            wrong = -np.minimum(chosen / np.maximum(1.0 - chosen, 1e-6), 1.0)
            gradient = np.where(right > 0.0, 1.0, wrong) * (asked - share * answered)
        rate = self.rate * _gentleness(self.features)
        step = (rate / (1.0 + (samples**2).mean(axis=1, keepdims=True)) * gradient).astype(np.float32)
        return {
            "weights": known["weights"] + step[:, :, None] * samples[:, None, :],
            "bias": known["bias"] + step,
        }


class MLPLearner(OnlineLearner):
    """A perceptron with one hidden layer of rectified units, by stochastic gradient descent.

    The bandit has a logistic output for each class, which says by itself whether that answer would be right, and
    trains the one that it chose; with labels the output is multinomial.

    The step size of the input weights is smaller beyond 64 features.
    """

    def __init__(self, features: int, classes: int, *, hidden: int = 100, rate: float = 0.05, **arguments: Any) -> None:
        super().__init__(features, classes, **arguments)
        self.hidden = hidden
        self.rate = rate

    @override
    def fresh(self, rows: int) -> Weights:
        """Input weights `(B, H, F)` of variance 2 / F, output weights `(B, K, H)` 0, biases 0."""
        shape = (self.hidden, self.features)
        spread = np.float32(np.sqrt(2.0 / self.features))
        drawn = [generator.standard_normal(shape, dtype=np.float32) for generator in self.noise(rows).generators]
        return {
            "input": np.stack(drawn) * spread,
            "input_bias": np.zeros((rows, self.hidden), np.float32),
            "output": np.zeros((rows, self.classes, self.hidden), np.float32),
            "output_bias": np.zeros((rows, self.classes), np.float32),
        }

    @override
    def scores(self, known: Weights, samples: SingleArray) -> SingleArray:
        """Log odds."""
        return self._forward(known, samples)[1]

    def _forward(self, known: Weights, samples: SingleArray) -> tuple[SingleArray, SingleArray]:
        drive = (known["input"] @ samples[:, :, None])[:, :, 0] + known["input_bias"]
        active = np.maximum(drive, np.float32(0.0))
        return active, (known["output"] @ active[:, :, None])[:, :, 0] + known["output_bias"]

    @override
    def learn(self, known: Weights, samples: SingleArray, targets: SingleArray, asked: SingleArray) -> Weights:
        active, logits = self._forward(known, samples)
        error = (targets - (_softmax(logits) if self.labels else _logistic(logits))) * asked
        step = np.float32(self.rate) * error
        back = (step[:, None, :] @ known["output"])[:, 0] * (active > 0.0) * np.float32(_gentleness(self.features))
        return {
            "input": known["input"] + back[:, :, None] * samples[:, None, :],
            "input_bias": known["input_bias"] + back,
            "output": known["output"] + step[:, :, None] * active[:, None, :],
            "output_bias": known["output_bias"] + step,
        }


class PrototypeLearner(OnlineLearner):
    """Nearest prototype: the class whose mean is nearest; the bandit averages the samples that it was rewarded for.

    A class that was never met has its prototype at 0, the mean of all data.
    """

    @override
    def fresh(self, rows: int) -> Weights:
        """Sums `(B, K, F)` and counts `(B, K)`."""
        shape = (rows, self.classes)
        return {"sums": np.zeros((*shape, self.features), np.float32), "counts": np.zeros(shape, np.float32)}

    @override
    def scores(self, known: Weights, samples: SingleArray) -> SingleArray:
        """Minus half the squared distance, but for what is common to all classes."""
        prototypes = known["sums"] / np.maximum(known["counts"], 1.0)[:, :, None]
        common = (prototypes @ samples[:, :, None])[:, :, 0]
        return np.asarray(common - 0.5 * (prototypes**2).sum(axis=2), dtype=np.float32)

    @override
    def learn(self, known: Weights, samples: SingleArray, targets: SingleArray, asked: SingleArray) -> Weights:
        met = targets * asked
        return {"sums": known["sums"] + met[:, :, None] * samples[:, None, :], "counts": known["counts"] + met}


class MixtureBayes(PrototypeLearner):
    """Bayes-optimal on a Gaussian mixture with labels: class means N(0, I), samples N(mean, sigma^2 I).

    After n samples of a class with the mean m its next one is N(m n / (n + sigma^2), s I) with the variance
    s = sigma^2 + sigma^2 / (n + sigma^2). The class with the largest predictive density is the answer; where classes
    come independently, as among held-out samples, no other answer is right more often. It does not use that a stream
    shows each class once in every block. `sigma` is that before features were divided by sqrt(1 + sigma^2).
    """

    def __init__(self, features: int, classes: int, *, sigma: float) -> None:
        super().__init__(features, classes, labels=True)
        self.sigma = sigma

    @override
    def scores(self, known: Weights, samples: SingleArray) -> SingleArray:
        """Log predictive density of the sample under each class."""
        noise = self.sigma**2
        posterior = noise / (known["counts"] + noise)  # variance of a class's mean
        spread = np.sqrt(1.0 + noise)
        means = known["sums"] * spread * (posterior / noise)[:, :, None]
        variance = posterior + noise
        distance = ((samples[:, None, :] * spread - means) ** 2).sum(axis=2)
        return np.asarray(-0.5 * distance / variance - 0.5 * self.features * np.log(variance), dtype=np.float32)


class LabelOracle(ReferenceAgent):
    """Oracle: told the data set, it looks the sample up in it and answers its label, drawn anew or not."""

    needs_task = True

    def __init__(self, source: DataSource) -> None:
        super().__init__()
        self._source = source
        # One number tells samples apart: their projection on a random direction.
        self._direction = np.random.default_rng(0).standard_normal(source.features)

    @override
    def begin(self, tasks: Sequence[Task], seed: int, first: int = 0) -> None:
        super().begin(tasks, seed, first)
        self._keys: list[FloatArray] = []
        self._labels: list[IntArray] = []
        for task in tasks:
            data = self._source.data_set(task)
            samples = np.concatenate([data.stream, data.held_out])
            labels = np.concatenate([data.stream_labels, data.held_out_labels])
            keys = (data.standardised(samples) * self._direction).sum(axis=1)
            order = np.argsort(keys)
            self._keys.append(keys[order])
            self._labels.append(labels[order])

    @override
    def choose(self, rows: Array, start: BoolArray, state: Any, deterministic: bool) -> tuple[Array, Any]:
        self.privileged_tasks(len(rows))
        wanted = (rows[:, : self._source.features] * self._direction).sum(axis=1)
        answers = np.zeros(len(rows), dtype=np.int64)
        for row, (key, keys, labels) in enumerate(zip(wanted.tolist(), self._keys, self._labels, strict=True)):
            # The sample nearest to its projection: that was rounded in another order.
            right = int(np.searchsorted(keys, key))
            near = [place for place in (right - 1, right) if 0 <= place < len(keys)]
            answers[row] = labels[min(near, key=lambda place: abs(keys[place] - key))]
        return answers, True
