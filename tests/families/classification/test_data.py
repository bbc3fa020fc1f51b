"""Data sets of classification tasks: drawn as published, standardised by what is streamed, disjoint between splits."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plastic_rl.envs import distribution_for
from plastic_rl.errors import ConfigError, TaskError, UnknownNameError
from plastic_rl.families.classification.data import DataSet, standardise, statistics, stream_order
from plastic_rl.families.classification.environment import ClassificationTasks
from plastic_rl.families.classification.sources import DATA_NAMES, OPTIONAL, PooledData, bundled, data_source

CLASSIFICATION = "plastic_rl/Classification-v0"
INSTALLED = [name for name in DATA_NAMES if name not in OPTIONAL]
EACH_SPLIT = ("train", "valid", "test")


def data_of(data, split="test", index=0):
    tasks = ClassificationTasks(data)
    return tasks.data_set(tasks.task(split, index))


@pytest.mark.parametrize(
    ("name", "clusters", "side"), [("D", 2, 20.0), ("D1", 2, 2.0), ("D2", 2, 4.0), ("D8c", 8, 6.0)]
)
def test_generated_data_are_those_of_the_recipe(name, clusters, side):
    data = data_of(name)
    assert data.features.shape == (5000, 10)
    assert (len(data.stream), len(data.held_out)) == (4000, 1000)
    labels = np.concatenate([data.stream_labels, data.held_out_labels])
    assert set(labels.tolist()) == {0, 1, 2, 3}
    assert np.abs(np.bincount(labels) / 5000 - 0.25).max() < 0.01
    # The clusters' centres are corners of a hypercube: each feature's mean over a cluster is +- half the side.
    from sklearn.mixture import GaussianMixture

    if name == "D":
        fitted = GaussianMixture(4 * clusters, n_init=3, random_state=0).fit(data.features)
        size = np.sort(np.abs(fitted.means_).ravel())
        assert np.median(size) == pytest.approx(side / 2, abs=0.3)


def test_one_percent_of_labels_is_drawn_anew():
    """Whatever the separation, a label is right with .9925: the share that 15 neighbours in D agree with."""
    from sklearn.neighbors import KNeighborsClassifier

    found = []
    for index in range(6):
        data = data_of("D", index=index)
        fitted = KNeighborsClassifier(15).fit(data.features[data.stream], data.stream_labels)
        found.append(fitted.score(data.features[data.held_out], data.held_out_labels))
    assert np.mean(found) == pytest.approx(0.9925, abs=0.002)


@pytest.mark.parametrize("name", INSTALLED)
def test_streamed_and_held_out_samples_are_disjoint_and_hold_every_class(name):
    for split in (*EACH_SPLIT, "shift"):
        data = data_of(name, split)
        classes = set(data.stream_labels.tolist())
        assert not set(data.stream.tolist()) & set(data.held_out.tolist())
        assert len(set(data.stream.tolist())) == len(data.stream)
        assert classes == set(range(ClassificationTasks(name).source.classes))
        assert set(data.held_out_labels.tolist()) <= classes


@pytest.mark.parametrize("name", INSTALLED)
def test_the_same_task_is_the_same_data_and_another_is_other(name):
    first, again, other = data_of(name), data_of(name), data_of(name, index=1)
    np.testing.assert_array_equal(first.standardised(first.stream), again.standardised(again.stream))
    np.testing.assert_array_equal(first.stream_labels, again.stream_labels)
    assert first.stream_labels.tolist() != other.stream_labels.tolist() or (
        first.features[first.stream].tolist() != other.features[other.stream].tolist()
    )


@pytest.mark.parametrize("name", ["D", "D1", "digits", "wine", "breast_cancer"])
def test_features_are_standardised_by_the_streamed_samples_alone(name):
    data = data_of(name)
    raw = data.features[data.stream].astype(np.float64)
    deviation = raw.std(axis=0)
    varied = deviation > 1e-12
    np.testing.assert_allclose(data.mean, raw.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(data.scale[varied], 1.0 / deviation[varied], rtol=1e-5)
    assert (data.scale[~varied] == 1.0).all()
    assert varied.all() == (name != "digits")  # some pixels are dark in every image
    # Held-out samples are shifted by the same numbers, so that their own mean is not zero.
    shown = data.standardised(data.held_out)
    assert np.abs(shown.mean(axis=0)).max() > 0.02
    changed = data.features.copy()
    changed[data.held_out] += 1000.0
    mean, scale = statistics(changed[data.stream])
    np.testing.assert_array_equal(mean, data.mean)
    np.testing.assert_array_equal(scale, data.scale)


def test_a_common_scale_keeps_distances():
    raw = np.array([[0.0, 0.0], [4.0, 1.0], [0.0, 2.0], [4.0, 1.0]])
    mean, scale = statistics(raw, common=True)
    assert mean.tolist() == [2.0, 1.0]
    np.testing.assert_allclose(scale, 1.0 / np.sqrt((4.0 + 0.5) / 2.0))
    assert standardise(raw, mean, scale).shape == (4, 2)


def test_the_splits_of_a_collection_share_no_sample():
    for name in ("digits", "iris", "wine", "breast_cancer"):
        source = ClassificationTasks(name).source
        assert isinstance(source, PooledData)
        total = len(bundled(name).labels)
        used = {split: set() for split in EACH_SPLIT}
        for split in EACH_SPLIT:
            for index in range(12):
                data = data_of(name, split, index)
                used[split] |= {*data.stream.tolist(), *data.held_out.tolist()}
        for one, other in combinations(EACH_SPLIT, 2):
            assert not used[one] & used[other]
        assert sum(map(len, used.values())) == total
        assert [round(len(used[split]) / total, 1) for split in EACH_SPLIT] == [0.4, 0.2, 0.4]


@pytest.mark.parametrize(("ways", "valid_has_its_own"), [(2, True), (3, True), (4, False), (5, False)])
def test_splits_by_class_share_no_class(ways, valid_has_its_own):
    tasks = ClassificationTasks({"name": "digits", "split_by": "classes", "ways": ways})
    assert tasks.source.classes == ways
    classes = {
        split: {label for task in tasks.tasks(split, 0, 200) for label in task.params["classes"]}
        for split in EACH_SPLIT
    }
    assert not classes["test"] & (classes["train"] | classes["valid"])
    assert (not classes["train"] & classes["valid"]) == valid_has_its_own
    if valid_has_its_own:
        assert sum(map(len, classes.values())) == 10
    labels = bundled("digits").labels
    samples = {split: set() for split in EACH_SPLIT}
    for split in EACH_SPLIT:
        for task in tasks.tasks(split, 0, 10):
            data = tasks.data_set(task)
            samples[split] |= {*data.stream.tolist(), *data.held_out.tolist()}
            # Action a means the task's a-th class.
            meant = np.asarray(task.params["classes"])[data.stream_labels]
            np.testing.assert_array_equal(meant, labels[data.stream])
    for one, other in combinations(EACH_SPLIT, 2):
        assert not samples[one] & samples[other]


def test_too_few_classes_for_splits_by_class_is_said():
    with pytest.raises(ConfigError, match=r"iris.* has 3 classes"):
        ClassificationTasks({"name": "iris", "split_by": "classes", "ways": 2})
    with pytest.raises(ConfigError, match="fewer than ways=11"):
        ClassificationTasks({"name": "digits", "ways": 11})


def test_the_shifted_split_of_a_collection_hides_half_of_the_features():
    tasks = ClassificationTasks("digits")
    data = tasks.data_set(tasks.task("shift", 0))
    shown = data.standardised(data.stream)
    assert (data.scale == 0.0).sum() == 32
    assert not shown[:, data.scale == 0.0].any()
    used = {*data.stream.tolist()}
    assert used <= {
        sample for index in range(12) for part in ("stream", "held_out")
        for sample in getattr(data_of("digits", "test", index), part).tolist()
    }  # fmt: skip


def test_the_shifted_split_of_generated_data_is_another_kind():
    params = {name: dict(ClassificationTasks(name).task("shift", 0).params) for name in ("D", "D8c")}
    assert params["D"] == {"data": "D", "clusters": 8, "class_sep": 3.0}
    assert params["D8c"] == {"data": "D8c", "clusters": 2, "class_sep": 1.0}


def shots(data: DataSet, count: int, generator: np.random.Generator):
    """The first `count` samples of each class of a balanced stream."""
    classes = int(data.stream_labels.max()) + 1
    order = stream_order(data, count * classes, 1, generator)
    assert (np.bincount(data.stream_labels[order]) == count).all()
    return data.standardised(data.stream[order]), data.stream_labels[order]


@pytest.mark.parametrize(("count", "published"), [(1, 0.43), (5, 0.61)])
def test_bayes_on_the_gaussian_mixture_reaches_its_known_accuracy(count, published):
    """Exact posterior of the class means (prior N(0, I), noise sigma = 2), written out here by hand."""
    tasks = ClassificationTasks("gaussian_mixture")
    generator = np.random.default_rng(0)
    found = []
    for task in tasks.tasks("test", 0, 300):
        data = tasks.data_set(task)
        spread = np.sqrt(5.0)
        x, y = shots(data, count, generator)
        means = np.stack([spread * x[y == label].sum(axis=0) for label in range(5)]) / (count + 4.0)
        questions = spread * data.standardised(data.held_out)
        # All classes have been met equally often: the nearest posterior mean is the most probable.
        answers = ((questions[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
        found.append((answers == data.held_out_labels).mean())
    assert np.mean(found) == pytest.approx(published, abs=0.01)


@pytest.mark.parametrize(("count", "published"), [(1, 0.739), (5, 0.898)])
def test_nearest_prototype_on_five_of_ten_digits_reaches_its_known_accuracy(count, published):
    tasks = ClassificationTasks({"name": "digits", "ways": 5, "balanced": True, "scale": "common"})
    generator = np.random.default_rng(0)
    found = []
    for task in tasks.tasks("test", 0, 300):
        data = tasks.data_set(task)
        x, y = shots(data, count, generator)
        prototypes = np.stack([x[y == label].mean(axis=0) for label in range(5)])
        questions = data.standardised(data.held_out)
        answers = ((questions[:, None] - prototypes) ** 2).sum(axis=2).argmin(axis=1)
        found.append((answers == data.held_out_labels).mean())
    assert np.mean(found) == pytest.approx(published, abs=0.015)


def toy(samples: int, classes: int, balanced: bool) -> DataSet:
    labels = np.arange(samples) % classes
    return DataSet(
        features=np.zeros((samples, 1), np.float32),
        stream=np.arange(samples),
        held_out=np.zeros(0, np.int64),
        stream_labels=labels,
        held_out_labels=np.zeros(0, np.int64),
        mean=np.zeros(1),
        scale=np.ones(1),
        balanced=balanced,
    )


@settings(max_examples=60, deadline=None)
@given(
    samples=st.integers(3, 40), steps=st.integers(1, 100), epochs=st.integers(1, 5), balanced=st.booleans(),
    seed=st.integers(0, 100),
)  # fmt: skip
def test_every_pass_shows_the_same_samples_once(samples, steps, epochs, balanced, seed):
    epochs = min(epochs, steps)
    order = stream_order(toy(samples, 3, balanced), steps, epochs, np.random.default_rng(seed))
    assert order.shape == (steps,)
    distinct = min(samples, -(-steps // epochs))
    chosen = set(order[:distinct].tolist())
    assert len(chosen) == min(distinct, steps)
    for start in range(distinct, steps - distinct + 1, distinct):
        assert set(order[start : start + distinct].tolist()) == chosen
    if balanced:
        for start in range(0, min(distinct, steps, samples // 3 * 3) - 2, 3):
            assert {int(place) % 3 for place in order[start : start + 3]} == {0, 1, 2}


def test_passes_have_orders_of_their_own():
    order = stream_order(toy(50, 5, False), 100, 2, np.random.default_rng(0))
    assert order[:50].tolist() != order[50:].tolist()


def test_unknown_data_and_keys_are_named():
    with pytest.raises(UnknownNameError, match="Did you mean 'digits'"):
        distribution_for(CLASSIFICATION, {"data": "digit"})
    with pytest.raises(ConfigError, match="Did you mean 'class_sep'"):
        distribution_for(CLASSIFICATION, {"data": {"name": "D", "class_sp": 3}})
    with pytest.raises(ConfigError, match="corners of the hypercube"):
        distribution_for(CLASSIFICATION, {"data": {"name": "D", "informative": 2}})
    with pytest.raises(ConfigError, match="split_by: must be 'images' or 'classes'"):
        distribution_for(CLASSIFICATION, {"data": {"name": "digits", "split_by": "image"}})
    for bad in (3, {"class_sep": 1.0}, None):
        with pytest.raises(ConfigError, match="data must be a name"):
            distribution_for(CLASSIFICATION, {"data": bad})
    with pytest.raises(ConfigError):
        distribution_for(CLASSIFICATION, {"data": {"name": "D", "class_sep": "large"}})
    with pytest.raises(TaskError, match="reward must be one of '01', 'pm1'"):
        distribution_for(CLASSIFICATION, {"reward": 1})
    other = ClassificationTasks("D1").task("test", 0)
    with pytest.raises(TaskError, match="holds the data 'D', the task is of 'D1'"):
        ClassificationTasks("D").data_set(other)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"name": "D1", "informative": 30}, r"in the data 'D1':\n  30 informative features are more than all 10"),
        (
            {"name": "digits", "shares": [0.5, 0.25]},
            r"shares: must be three positive numbers with the sum 1, got \[0.5",
        ),
        ({"name": "digits", "shares": ["0.5", "0.25", "0.25"]}, r"shares: must be three positive numbers"),
        ({"file": "x.csv", "label": True}, r"label: must be the name or the number of a column, got True"),
    ],
)
def test_values_that_make_no_sense_are_told_in_one_line(data, message):
    with pytest.raises(ConfigError, match=message) as told:
        data_source(data)
    assert str(told.value).startswith("1 problem in ")


def test_mnist_comes_with_an_extra():
    try:
        source = ClassificationTasks("mnist_5000").source
    except ConfigError as error:
        assert "pip install 'plastic-rl[mnist]'" in str(error)
        return
    assert (source.features, source.classes) == (784, 10)
