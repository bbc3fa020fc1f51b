"""Classification as a bandit, and its supervised twin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from typing_extensions import override

from plastic_rl.arrays import Array, FloatArray, IntArray, SingleArray
from plastic_rl.envs.task import Params, RandomAgent, ReferenceAgent, Task, TaskDistribution
from plastic_rl.envs.task_vector_env import ChoiceVectorEnv, Outcome, TaskEnv
from plastic_rl.errors import TaskError
from plastic_rl.families.classification.data import (
    FEATURE_LIMIT,
    DataSet,
    GaussianMixtureData,
    standardise,
    stream_order,
)
from plastic_rl.families.classification.learners import (
    LabelOracle,
    LogisticLearner,
    MixtureBayes,
    MLPLearner,
    PrototypeLearner,
)
from plastic_rl.families.classification.sources import data_source

REWARDS: dict[str, tuple[float, float]] = {"01": (0.0, 1.0), "pm1": (-1.0, 1.0)}
"""What a wrong and a right class pay, by name."""
SAMPLES: tuple[str, ...] = ("stream", "held_out")


class ClassificationTasks(TaskDistribution):
    """Each task is a data set to learn from scratch.

    Args:
        data: What to classify: `"D"`, `"D1"`, `"D2"`, `"D8c"`, `"digits"`, `"iris"`, `"wine"`, `"breast_cancer"`,
            `"gaussian_mixture"`, `"digits_few_shot"`, `"mnist_5000"` (with the extra `mnist`), or a mapping with a
            name and what departs from its defaults, or with a file of your own: see `data_source`.
        steps: Samples in a lifetime, n. Data with fewer samples are gone through again, in another order.
        epochs: How often a lifetime shows each sample, at most `steps`.
        reward: What a wrong and a right class pay: `"01"`, or `"pm1"` for -1 and 1.
        delay: Steps by which rewards come late, d.
        samples: `"stream"`; or `"held_out"`: the same tasks show samples that their streams do not hold, always in one
            order, and the feedback columns stay 0, so that there is nothing to learn from.
        entropy: Root of all seeds.

    >>> tasks = ClassificationTasks("D1")
    >>> dict(tasks.task("test", 0).params)
    {'data': 'D1', 'clusters': 2, 'class_sep': 1.0}
    >>> tasks.data_set(tasks.task("test", 0)).features.shape
    (5000, 10)
    """

    family = "Classification"
    # Not `bayes` on mixtures: it takes samples for independent, and streams show each class once in a block.
    limit_kind = "oracle"
    supervised: ClassVar[bool] = False
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

    @override
    def sample_params(self, generator: np.random.Generator, split: str) -> Params:
        return self.source.sample_params(generator, split)

    def data_set(self, task: Task) -> DataSet:
        """The data of a task, the same at every call; `TaskError` where it is of another source of data."""
        return self.source.data_set(task)

    def reference_agents(self, split: str) -> dict[str, ReferenceAgent]:
        """Textbook methods, and `oracle`, which is told the labels; with labels on a Gaussian mixture also `bayes`.

        Step sizes and exploration were chosen on `valid` of D1, D8c and digits together, for the accuracy after 1,000
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
        if self.supervised:
            agents["nearest_prototype_labels"] = PrototypeLearner(*size, labels=True)
            agents["logistic_labels"] = LogisticLearner(*size, labels=True, rate=0.05)
            agents["mlp_labels"] = MLPLearner(*size, labels=True, rate=0.03)
            if isinstance(self.source, GaussianMixtureData):
                agents["bayes"] = MixtureBayes(*size, sigma=self.source.sigma_of(split))
        return agents | {"oracle": LabelOracle(self.source)}


class SupervisedClassificationTasks(ClassificationTasks):
    """The same tasks, in the environment that shows the label of the sample before."""

    supervised = True


PROBES: tuple[int, ...] = (500, 1000, 4000)
"""After how many samples "accuracy after n" is taken, as far as a lifetime has them."""


class ClassificationVectorEnv(ChoiceVectorEnv[ClassificationTasks]):
    """Samples of an unknown data set one by one: choose a class, and learn only whether it was the right one.

    # Task
    To find out within the lifetime what every data set calls its classes and where they lie: a task is a data set that
    the agent has never met. No label is ever shown, a wrong answer does not say what would have been right.

    # Observation
    Box, F + K + 3 columns: the F features of the present sample, standardised by the mean and deviation of the samples
    that this lifetime may stream and cut at +-5; previous class chosen, one-hot (K); previous reward; trial_start
    (always 1); t/T.

    # Actions
    Discrete K:

    | action     | meaning    |
    |------------|------------|
    | 0 to K - 1 | this class |

    # Reward
    1 if it is the sample's, else 0 (`reward="pm1"`: else -1). With `delay=d` a reward comes d steps late (nothing at
    the first d steps; the last d never come). `info["expected_reward"]` is what this action earns, whenever it comes.

    # End
    A trial is one sample. Terminated after `steps` samples.

    # Tasks and splits
    With generated data (D, D1, D2, D8c, gaussian_mixture) every task is a fresh draw, so that no two share anything;
    the split `shift` draws from another distribution. With a finite collection (digits, iris, wine, breast_cancer, a
    file) a task is a random part of its split's samples; splits hold disjoint samples, or disjoint classes. The data
    follow from the task, the order of the samples from the row's noise. Rows that live the same task share its data.

    # Limits
    Random 1/K; the limit that scores are normalised by is the oracle, which is told every label: always 1. Nobody can
    learn that much where labels are noisy: on D, D1, D2 and D8c 1% of them are drawn anew, so that .9925 is the most
    that can be expected, and close classes (D1, D8c) or few samples leave less.

    # Source
    Data D of Joosten 2021, section 5.1.

    # Your own data
    One line of a config, or of the command line:

        environment: {id: plastic_rl/Classification-v0, kwargs: {data: {file: my.csv, label: species}, steps: 500}}
        plastic-rl train FILE.yaml 'environment.kwargs.data={file: my.csv, label: species}' 'evaluation.baselines=[]'

    The ending tells the format, unless `format: csv`, `npz` or `idx` does.

    - CSV: a sample a row, numbers everywhere but in the label. `label`: name of its column (then the first row must be
      a header) or number from 0, by default the last. Labels may be texts; if all are numbers, 1 and 1.0 are one class.
      A first row without any numbers among the features is taken for a header. `delimiter: ";"` if not commas.
    - NPZ: the arrays `x` (a row, or an image, for each sample) and `y`; or data/target, features/labels, images/labels,
      x_train/y_train with x_test/y_test. No pickled objects.
    - IDX: MNIST as downloaded, gzipped or not:
      `{file: train-images-idx3-ubyte.gz, labels: train-labels-idx1-ubyte.gz}`.

    No gaps, NaN or infinities; at least 2 classes, with 15 samples each (3 in each split). The file is held in memory,
    8 bytes a number from CSV, else as stored. Train, valid and test get 40, 20 and 40% of it (`shares`); a task streams
    at most 4,000 of its split (`train`) and holds out 30%, at most 1,000 (`held_out_share`, `held_out`). Each task
    standardises every feature by the mean and deviation of what it streams (`scale: common`: one deviation for all).
    """

    tasks_class = ClassificationTasks
    bar_text = "class {action:<3d} right {share:.2f} {bar} {label} seen"
    state_arrays: ClassVar[tuple[str, ...]] = ("_order_keys", "_due", "_right", "_last")

    def __init__(self, num_envs: int = 1, **arguments: Any) -> None:
        tasks, options = self.tasks_and_options(arguments)
        source, rows, steps = tasks.source, num_envs, tasks.steps
        limits = np.full(source.features, FEATURE_LIMIT)
        pays = REWARDS[tasks.reward]
        super().__init__(
            num_envs,
            distribution=tasks,
            action_space=spaces.Discrete(source.classes),
            steps=steps,
            feature_low=-limits,
            feature_high=limits,
            reward_range=pays,
            steps_per_trial=1,
            label_size=source.classes if tasks.supervised else 0,
            options=options,
        )
        self.metadata["accuracy_after"] = tuple(sorted({*(n for n in PROBES if n < steps), steps}))
        self.metadata["pays"] = pays
        self.source = source
        self.streams = tasks.samples == "stream"
        self._pays: FloatArray = np.array(pays)
        self._one_hot = np.eye(source.classes, dtype=np.float32)
        self._pool: Array = np.zeros((0, source.features), dtype=np.float32)
        self._slots: dict[tuple[Any, ...], int] = {}
        self._slot_of_row: IntArray = np.full(rows, -1, dtype=np.int64)
        self._places: IntArray = np.zeros((rows, steps + 1), dtype=np.int64)
        self._labels: IntArray = np.zeros((rows, steps + 1), dtype=np.int64)
        self._mean: Array = np.zeros((rows, source.features), dtype=source.precision)
        self._scale: Array = np.ones((rows, source.features), dtype=source.precision)
        self._order_keys: IntArray = np.zeros(rows, dtype=np.int64)
        self._due: FloatArray = np.zeros((rows, tasks.delay))
        # Where each row begins in `_places`, laid out flat: `take` is faster than two indices.
        self._first: IntArray = self._all_rows * (steps + 1)
        self._right: IntArray = np.zeros((rows, source.classes), dtype=np.int64)
        self._last: IntArray = np.full(rows, -1, dtype=np.int64)

    @override
    def begin_rows(self, rows: IntArray, tasks: Sequence[Task], generators: Sequence[np.random.Generator]) -> None:
        """One number of the noise is the key of the order of the samples."""
        self._order_keys[rows] = [int(generator.integers(2**62)) for generator in generators]
        self._due[rows] = 0.0
        self._right[rows] = 0
        self._last[rows] = -1
        self._lay_out(rows, tasks)

    def _lay_out(self, rows: IntArray, tasks: Sequence[Task]) -> None:
        """Fetch the data of `tasks` (each task once) and lay the samples of each lifetime out in its order."""
        orders: dict[tuple[Any, ...], tuple[IntArray, IntArray]] = {}
        named = [(task.family, task.split, task.index, task.seed, tuple(task.params.items())) for task in tasks]
        known = {name: self.distribution.data_set(task) for name, task in dict(zip(named, tasks, strict=True)).items()}
        offsets = self._stored(rows, known)
        for row, name in zip(rows.tolist(), named, strict=True):
            data, key = known[name], int(self._order_keys[row])
            if (name, key) not in orders:
                orders[name, key] = self._sequence(data, key)
            places, labels = orders[name, key]
            np.add(places, offsets[name], out=self._places[row])
            self._labels[row] = labels
            self._mean[row] = data.mean
            self._scale[row] = data.scale
            self._slot_of_row[row] = self._slots.get(name, -1)

    def _stored(self, rows: IntArray, known: Mapping[tuple[Any, ...], DataSet]) -> dict[tuple[Any, ...], int]:
        """Put the features of data sets into the pool; return where each begins."""
        if self.source.shared:
            self._pool = next(iter(known.values())).features
            return dict.fromkeys(known, 0)
        others = np.ones(self.num_envs, dtype=np.bool_)
        others[rows] = False
        in_use = set(self._slot_of_row[others].tolist())
        self._slots = {name: slot for name, slot in self._slots.items() if slot in in_use or name in known}
        fresh = [name for name in known if name not in self._slots]
        size = len(next(iter(known.values())).features)
        taken = set(self._slots.values())
        free = [slot for slot in range(len(taken) + len(fresh)) if slot not in taken][: len(fresh)]
        missing = (max(free, default=-1) + 1) * size - len(self._pool)
        if missing > 0:
            self._pool = np.concatenate([self._pool, np.zeros((missing, self.source.features), dtype=np.float32)])
        for name, slot in zip(fresh, free, strict=True):
            self._slots[name] = slot
            data = known[name]
            self._pool[slot * size : (slot + 1) * size] = standardise(data.features, data.mean, data.scale)
        return {name: self._slots[name] * size for name in known}

    def _sequence(self, data: DataSet, key: int) -> tuple[IntArray, IntArray]:
        """Samples that a lifetime shows, by their place in `data.features`, and their labels, `(steps + 1,)` each."""
        if self.streams:
            generator = np.random.Generator(np.random.PCG64(key))
            order = stream_order(data, self.steps, self.distribution.epochs, generator)
            members, labels = data.stream, data.stream_labels
        else:
            order = np.arange(self.steps) % len(data.held_out)
            members, labels = data.held_out, data.held_out_labels
        # The observation after the last step shows a sample too, which nobody answers.
        order = np.append(order, order[0])
        return members[order], labels[order]

    @override
    def write_features(self, features: SingleArray) -> None:
        shown = self._pool.take(self._places.take(self._first + self.time), axis=0)
        if not self.source.shared:
            features[:] = shown  # standardised when it was stored
        else:
            features[:] = standardise(shown, self._mean, self._scale)

    @override
    def transition(self, actions: Array) -> Outcome:
        label = self._labels.take(self._first + self.time)
        right = actions == label
        earned = self._pays.take(right)
        self._right[self._all_rows, label] += right
        self._last[:] = actions
        reward = earned.copy()
        if self.distribution.delay:
            place = self.time % self.distribution.delay
            reward = self._due[self._all_rows, place]
            self._due[self._all_rows, place] = earned
        if self._label_columns is not None:
            self._label_columns[:] = self._one_hot.take(label, axis=0)
        return Outcome(reward, np.ones(self.num_envs, dtype=np.bool_), earned)

    def _observe(self) -> SingleArray:
        observations = super()._observe()
        if not self.streams:
            observations[:, self.feedback.start :] = 0.0
        return observations

    def privileged(self) -> dict[str, Array]:
        """The label of the present sample, `(B,)`."""
        return {"label": self._labels.take(self._first + self.time)}

    @override
    def set_family_state(self, state: Mapping[str, Any]) -> None:
        """The order of the samples follows from its key."""
        super().set_family_state(state)
        if self._tasks:
            self._lay_out(self._all_rows, self._tasks)

    @override
    def bars(self, row: int) -> tuple[FloatArray, Sequence[int]]:
        """Share of each class's samples that were answered rightly, and how many there were."""
        seen = np.bincount(self._labels[row, : self.time[row]], minlength=self.source.classes)
        return self._right[row] / np.maximum(seen, 1), seen.tolist()


class SupervisedClassificationVectorEnv(ClassificationVectorEnv):
    """`ClassificationVectorEnv`, supervised: K more columns hold the label of the previous sample, one-hot.

    Only agents that are meant to learn from labels belong here. Everything else is that environment's: the tasks, the
    order of the samples, the rewards (which may be late; labels never are), the arguments.

    # Observation
    Box, F + 2 K + 3 columns: as there, then the label of the previous sample, one-hot (K); at the first step zeros.
    `metadata["feedback"]["label"]` says where.
    """

    tasks_class = SupervisedClassificationTasks


class ClassificationEnv(TaskEnv):
    """One row of `ClassificationVectorEnv`, which documents it."""

    vector_class = ClassificationVectorEnv


class SupervisedClassificationEnv(TaskEnv):
    """One row of `SupervisedClassificationVectorEnv`, which documents it."""

    vector_class = SupervisedClassificationVectorEnv
