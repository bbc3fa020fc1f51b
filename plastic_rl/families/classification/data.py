"""Where the samples of a classification lifetime come from: what a data set is, and data that are generated afresh.

A `DataSource` turns a task into a `DataSet`; the environment streams it. Sources that draw each task's data from a
distribution are here; finite collections (digits, the user's file) are in `sources`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator
from typing_extensions import override

from plastic_rl.arrays import Array, FloatArray, IntArray, SingleArray
from plastic_rl.config import ConfigModel
from plastic_rl.envs.task import STANDARD_SPLITS, Params, Task, number_of
from plastic_rl.errors import TaskError

FEATURE_LIMIT = 5.0
"""Standardised features are cut at +-5: a pixel that is dark in nearly every image would stand at 40."""


@dataclass(frozen=True)
class DataSet:
    """The samples of one task: `N` of them, `F` features, `K` classes, `n` to stream and `h` held out.

    Attributes:
        features: Raw features `(N, F)` of any real type; may be shared between tasks, and is never changed.
        stream: Which samples a lifetime streams, `(n,)`.
        held_out: Which samples are held out, `(h,)`; none of them is in `stream`.
        stream_labels: Class of each streamed sample, `(n,)`, 0 to K - 1.
        held_out_labels: Class of each held-out sample, `(h,)`.
        mean: Of each feature over the streamed samples, `(F,)`; float64 where float32 cannot tell `features` apart.
        scale: What a feature is multiplied by after `mean` was taken off: 1 / its standard deviation over the streamed
            samples (or that of all features together); 1 where it is constant; 0 where the task hides it, `(F,)`.
        balanced: Whether each pass goes in blocks that hold every class once (few-shot lifetimes).
    """

    features: Array
    stream: IntArray
    held_out: IntArray
    stream_labels: IntArray
    held_out_labels: IntArray
    mean: Array
    scale: Array
    balanced: bool = False

    def standardised(self, samples: IntArray) -> SingleArray:
        """The features of `samples (S,)` as an agent sees them, `(S, F)`."""
        return standardise(self.features[samples], self.mean, self.scale)


def standardise(raw: Array, mean: Array, scale: Array) -> SingleArray:
    """`(raw - mean) * scale`, cut at `FEATURE_LIMIT`.

    >>> standardise(np.array([[3.0], [100.0]]), np.array([1.0]), np.array([0.5])).tolist()
    [[1.0], [5.0]]
    """
    shown = np.subtract(raw, mean)
    shown *= scale
    np.maximum(shown, -FEATURE_LIMIT, out=shown)
    np.minimum(shown, FEATURE_LIMIT, out=shown)
    return shown.astype(np.float32)


def precision(kind: np.dtype[Any]) -> np.dtype[Any]:
    """The type to reckon in with features of this type: float32 if that holds them exactly, else float64."""
    return np.result_type(kind, np.float32)


def statistics(raw: Array, *, common: bool = False) -> tuple[Array, Array]:
    """Mean and `scale` (see `DataSet`) of `raw (n, F)`, in its `precision`; with `common` one scale for all features.

    >>> mean, scale = statistics(np.array([[0.0, 7.0], [4.0, 7.0]]))
    >>> mean.tolist(), scale.tolist()
    ([2.0, 7.0], [0.5, 1.0])
    """
    mean: FloatArray = raw.mean(axis=0, dtype=np.float64)
    deviation: FloatArray = raw.std(axis=0, dtype=np.float64)
    if common:
        deviation = np.full_like(deviation, np.sqrt((deviation**2).mean()))
    # The sum of a constant column is rounded, so that its deviation is not always exactly zero.
    constant = deviation <= 1e-9 * np.maximum(np.abs(mean), 1e-300)
    kind = precision(raw.dtype)
    return mean.astype(kind), (1.0 / np.where(constant, 1.0, deviation)).astype(kind)


def generator_of(task: Task, purpose: int = 0) -> np.random.Generator:
    """The random stream that the data of a task follow from."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(task.seed, spawn_key=(purpose,))))


class DataSource(ABC):
    """A family of data sets with the same features and classes."""

    name: str
    """In tasks and messages."""
    features: int
    classes: int
    shared: bool = False
    """Whether `DataSet.features` is one array for all tasks."""
    precision: np.dtype[Any] = np.dtype(np.float32)
    """Type of `DataSet.mean` and `DataSet.scale`."""
    splits: tuple[str, ...] = (*STANDARD_SPLITS, "shift")

    @abstractmethod
    def sample_params(self, generator: np.random.Generator, split: str) -> Params:
        """Draw the parameters of a task of `split`."""

    @abstractmethod
    def data_set(self, task: Task) -> DataSet:
        """Make the data of `task`, always the same for the same task; `TaskError` where it is of another source."""

    def check(self, task: Task) -> None:
        """Raise `TaskError` where a task is of another source."""
        if task.params.get("data") != self.name:
            raise TaskError(
                f"this environment holds the data {self.name!r}, the task is of {task.params.get('data')!r}"
            )


class ClassificationRecipe(ConfigModel):
    """Arguments of scikit-learn's `make_classification`, and how many samples a task has."""

    features: int = Field(10, ge=1)
    informative: int = Field(10, ge=1)
    """How many features carry the class; the others are noise."""
    classes: int = Field(4, ge=2)
    clusters: int = Field(2, ge=1)
    """Gaussian clusters of each class."""
    class_sep: float = Field(10.0, gt=0)
    """Half the side of the hypercube whose corners the clusters sit on."""
    flip: float = Field(0.01, ge=0, le=1)
    """Share of labels that are drawn anew."""
    train: int = Field(4000, ge=2)
    """Samples to stream."""
    held_out: int = Field(1000, ge=1)

    @model_validator(mode="after")
    def _clusters_find_corners(self) -> Self:
        if self.informative > self.features:
            raise ValueError(f"{self.informative} informative features are more than all {self.features} features")
        if self.classes * self.clusters > 2**self.informative:
            raise ValueError(
                f"classes * clusters = {self.classes * self.clusters} must not exceed 2 ** informative = "
                f"{2**self.informative}, the corners of the hypercube"
            )
        return self


RECIPES: dict[str, ClassificationRecipe] = {
    "D": ClassificationRecipe(),
    "D1": ClassificationRecipe(class_sep=1.0),
    "D2": ClassificationRecipe(class_sep=2.0),
    "D8c": ClassificationRecipe(clusters=8, class_sep=3.0),
}
"""Joosten 2021 section 5.1 (D: hypercube of side 20), and three harder kinds with the same features and classes."""

_SHIFTED = (8, 3.0)
"""Clusters and separation of the split `shift`: those of D8c."""


class GeneratedData(DataSource):
    """Fresh data from scikit-learn's `make_classification`, another draw for each task.

    On the split `shift` they have D8c's clusters and separation (D8c itself: D1's).
    """

    def __init__(self, name: str, recipe: ClassificationRecipe) -> None:
        self.name = name
        self.recipe = recipe
        self.features = recipe.features
        self.classes = recipe.classes

    @override
    def sample_params(self, generator: np.random.Generator, split: str) -> Params:
        clusters, class_sep = self.recipe.clusters, self.recipe.class_sep
        if split == "shift":
            easier = RECIPES["D1"].clusters, RECIPES["D1"].class_sep
            clusters, class_sep = easier if (clusters, class_sep) == _SHIFTED else _SHIFTED
            clusters = min(clusters, 2**self.recipe.informative // self.recipe.classes)
        return {"data": self.name, "clusters": clusters, "class_sep": class_sep}

    @override
    def data_set(self, task: Task) -> DataSet:
        from sklearn.datasets import make_classification

        self.check(task)
        recipe = self.recipe
        raw, labels = make_classification(
            n_samples=recipe.train + recipe.held_out,
            n_features=recipe.features,
            n_informative=recipe.informative,
            n_redundant=0,
            n_repeated=0,
            n_classes=recipe.classes,
            n_clusters_per_class=int(number_of(task, "clusters")),
            class_sep=number_of(task, "class_sep"),
            flip_y=recipe.flip,
            random_state=int(generator_of(task).integers(2**32)),
        )
        raw = raw.astype(np.float32)
        mean, scale = statistics(raw[: recipe.train])
        return _in_order(raw, labels, recipe.train, mean, scale, balanced=False)


class GaussianMixture(ConfigModel):
    """Class means N(0, I), samples N(mean, sigma^2 I)."""

    ways: int = Field(5, ge=2)
    """Number of classes."""
    features: int = Field(16, ge=1)
    sigma: float = Field(2.0, gt=0)
    train: int = 1000
    """Samples to stream, as many as classes at the least."""
    held_out: int = Field(1000, ge=1)

    @model_validator(mode="after")
    def _every_class_comes(self) -> Self:
        if self.train < self.ways:
            raise ValueError(f"train must be at least ways, got train={self.train}, ways={self.ways}")
        return self


class GaussianMixtureData(DataSource):
    """Few-shot classification of Gaussian blobs.

    The spread of a feature is known, sqrt(1 + sigma^2), and features are divided by it. Streams go in blocks that hold
    each class once, so that after `k ways` samples every class was seen k times. On `shift` sigma is half as large
    again.
    """

    def __init__(self, name: str, mixture: GaussianMixture) -> None:
        self.name = name
        self.mixture = mixture
        self.classes = mixture.ways
        self.features = mixture.features

    @override
    def sample_params(self, generator: np.random.Generator, split: str) -> Params:
        return {"data": self.name, "sigma": self.sigma_of(split)}

    def sigma_of(self, split: str) -> float:
        """Standard deviation of the noise on `split`."""
        return self.mixture.sigma * (1.5 if split == "shift" else 1.0)

    @override
    def data_set(self, task: Task) -> DataSet:
        self.check(task)
        sigma = number_of(task, "sigma")
        generator = generator_of(task)
        train, held_out = self.mixture.train, self.mixture.held_out
        means = generator.standard_normal((self.classes, self.features))
        labels = np.arange(train + held_out) % self.classes
        labels[train:] = generator.integers(0, self.classes, held_out)
        raw = means[labels] + sigma * generator.standard_normal((len(labels), self.features))
        spread = np.full(self.features, 1.0 / np.sqrt(1.0 + sigma**2), dtype=np.float32)
        mean = np.zeros_like(spread)
        return _in_order(raw.astype(np.float32), labels, train, mean, spread, balanced=True)


def _in_order(raw: Array, labels: Array, train: int, mean: Array, scale: Array, *, balanced: bool) -> DataSet:
    """The first `train` samples are streamed, the others held out."""
    labels = labels.astype(np.int64)
    return DataSet(
        features=raw,
        stream=np.arange(train),
        held_out=np.arange(train, len(raw)),
        stream_labels=labels[:train],
        held_out_labels=labels[train:],
        mean=mean,
        scale=scale,
        balanced=balanced,
    )


def stream_order(data: DataSet, steps: int, epochs: int, generator: np.random.Generator) -> IntArray:
    """In which order a lifetime shows the samples of `data.stream`: positions in it, `(steps,)`.

    Args:
        data: What is streamed.
        steps: Length of the lifetime.
        epochs: How often each sample is shown: a pass goes through `ceil(steps / epochs)` samples (all of them, where
            there are fewer), and each pass has an order of its own.
        generator: Draws the choice of samples and the orders.
    """
    distinct = min(len(data.stream), -(-steps // epochs))
    chosen = (
        _balanced_order(data.stream_labels, generator) if data.balanced else generator.permutation(len(data.stream))
    )
    chosen = chosen[:distinct]
    passes = [chosen]
    for _ in range(-(-steps // distinct) - 1):
        if data.balanced:
            passes.append(chosen[_balanced_order(data.stream_labels[chosen], generator)])
        else:
            passes.append(generator.permutation(chosen))
    order: IntArray = np.concatenate(passes)[:steps]
    return order


def _balanced_order(labels: IntArray, generator: np.random.Generator) -> IntArray:
    """A random order in which the i-th samples of all classes come before any (i + 1)-th."""
    shuffled = generator.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    sizes = np.bincount(labels)
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    place = np.arange(len(labels)) - starts
    return by_class[np.lexsort((generator.random(len(labels)), place))]
