"""The distribution of genes: it finds optima, restarts, and goes on from stored arrays to the same bits."""

from __future__ import annotations

import json

import numpy as np
import pytest

import plastic_rl.algorithms.evolution.search as search_module
from plastic_rl.algorithms.evolution.genome import FloatArray, Genome
from plastic_rl.algorithms.evolution.search import FULL_UP_TO, Restarts, Search, into_bounds
from plastic_rl.checkpoint import decode, encode
from plastic_rl.errors import NonFiniteError


def genome(size: int, *, low: float = -np.inf, high: float = np.inf, scales: bool = False) -> Genome:
    ones = np.ones(size)
    scale = np.linspace(0.5, 2.0, size) if scales else ones
    return Genome(("x",), ((size,),), 0.3 * ones, scale, low * ones, high * ones)


def ellipsoid(genes: FloatArray) -> FloatArray:
    """An axis-parallel one with axes of ratio 30."""
    return np.asarray(-(np.logspace(0, 3, genes.shape[1]) * genes**2).sum(1))


@pytest.mark.parametrize(("size", "separable"), [(5, False), (40, False), (40, True), (300, False)])
@pytest.mark.parametrize("bounded", [False, True])
def test_restored_from_arrays_it_goes_on_to_the_same_bits(size: int, separable: bool, bounded: bool) -> None:
    genes = genome(size, low=-1.0 if bounded else -np.inf, scales=bounded)
    covariance = "separable" if separable else "full"

    def fresh() -> Search:
        return Search(genes, sigma=0.5, population_size=12, covariance=covariance, seed=3)

    whole, pieces = fresh(), fresh()
    noise = np.random.default_rng(0)
    for generation in range(60 if size == 300 else 150):
        one, two = whole.ask(), pieces.ask()
        assert np.array_equal(one, two), generation
        fitness = ellipsoid(one) + 0.01 * noise.normal(size=12)
        whole.tell(fitness)
        pieces.tell(fitness)
        if generation % 7 == 3:
            tensors, document = pieces.tensors(), decode(json.loads(json.dumps(encode(pieces.document()))))
            pieces = fresh()
            pieces.restore(tensors, document)
    assert whole.statistics() == pieces.statistics()


@pytest.mark.parametrize("restarts", ["ipop", "bipop"])
def test_restarts_and_their_state(restarts: Restarts) -> None:
    def fresh() -> Search:
        return Search(genome(4), sigma=0.5, population_size=8, restarts=restarts, seed=2)

    whole, pieces = fresh(), fresh()
    sizes: list[int] = []
    for generation in range(400):
        if max(sizes, default=0) == 64:
            break
        one, two = whole.ask(), pieces.ask()
        assert np.array_equal(one, two), generation
        # Coarse: it goes flat near the optimum, and the run ends.
        fitness = np.round(ellipsoid(one), 2)
        whole.tell(fitness)
        pieces.tell(fitness)
        sizes.append(len(one))
        if generation % 11 == 5:
            tensors, document = pieces.tensors(), pieces.document()
            pieces = fresh()
            pieces.restore(tensors, document)
    assert whole.run >= 3
    if restarts == "ipop":
        assert set(sizes) >= {8, 16, 32, 64}
        assert sizes == sorted(sizes)
    else:
        # Small runs in between.
        assert sizes != sorted(sizes)


def test_without_restarts_it_goes_on_for_ever() -> None:
    search = Search(genome(3), sigma=0.5, population_size=8, seed=2)
    for _ in range(300):
        search.tell(np.zeros(len(search.ask())))
    assert (search.run, search.generation) == (0, 300)
    assert np.isfinite(search.mean).all()


def test_a_search_without_end_is_stopped_with_advice() -> None:
    search = Search(genome(2), sigma=0.5, population_size=8, seed=0)

    def drift() -> None:
        for _ in range(2000):
            search.tell(search.ask()[:, 0])

    with pytest.raises(NonFiniteError, match=r"has diverged: .* in generation \d+ of run 0, .* give it bounds"):
        drift()
    assert search.generation > 100


def test_a_converged_search_goes_on_without_shrinking_to_nothing() -> None:
    for covariance in ("full", "separable"):
        search = Search(genome(4), sigma=0.5, population_size=8, covariance=covariance, seed=0)
        for _ in range(1500):
            search.tell(-np.square(search.ask()).sum(1))
        assert abs(search.mean).max() < 1e-9
        assert search.statistics()["sigma"] >= 1e-13


def test_it_finds_an_optimum_at_a_bound() -> None:
    search = Search(genome(4, low=0.25, high=2.0), sigma=0.5, population_size=10, seed=0)
    for _ in range(120):
        genes = search.ask()
        assert genes.min() >= 0.25
        search.tell(ellipsoid(genes))
    assert search.mean == pytest.approx(0.25, abs=1e-3)


def test_the_covariance_follows_the_number_of_genes() -> None:
    def separable(size: int) -> bool:
        return Search(genome(size), sigma=0.5, population_size=4).separable

    assert not separable(FULL_UP_TO // 10)
    assert separable(FULL_UP_TO + 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_fitness_that_is_not_finite_is_refused(bad: float) -> None:
    search = Search(genome(3), sigma=0.5, population_size=4)
    search.ask()
    with pytest.raises(ValueError, match="fitness must be finite"):
        search.tell(np.array([0.0, bad, 0.0, 0.0]))


def test_statistics_of_a_distribution_that_has_not_moved() -> None:
    for covariance in ("full", "separable"):
        search = Search(genome(30, scales=True), sigma=0.5, population_size=4, covariance=covariance)
        statistics = search.statistics()
        assert statistics["sigma"] == 0.5
        assert statistics["gene_std"] == pytest.approx(0.5 * np.linspace(0.5, 2.0, 30).mean(), rel=1e-3)
        drawn = np.concatenate([search.ask() for _ in range(200)]) - 0.3
        assert drawn.std(0) == pytest.approx(0.5 * np.linspace(0.5, 2.0, 30), rel=0.15)


def test_mirrors_at_the_bounds() -> None:
    both = genome(1, low=-1.0, high=2.0)
    values = np.linspace(-1.0, 2.0, 7)
    assert np.array_equal(into_bounds(values[:, None], both)[:, 0], values)
    assert into_bounds(np.array([[-1.5], [2.5], [5.5], [-7.25]]), both)[:, 0].tolist() == [-0.5, 1.5, -0.5, -0.75]
    assert into_bounds(np.array([[-3.0]]), genome(1, low=-1.0))[0, 0] == 1.0
    assert into_bounds(np.array([[3.0]]), genome(1, high=-1.0))[0, 0] == -5.0


def test_small_runs_of_bipop_are_of_sizes_up_to_half_the_largest_and_begin_elsewhere() -> None:
    search = Search(genome(4), sigma=0.5, population_size=8, restarts="bipop", seed=2)
    runs: dict[int, tuple[str, int]] = {0: ("large", 8)}
    starts = [search.mean]
    while search.large_runs < 4:  # a fitness that says nothing ends run after run
        search.tell(np.zeros(len(search.ask())))
        if search.run not in runs:
            runs[search.run] = (search.regime, search.population_size)
            starts.append(search.mean)
    assert [size for regime, size in runs.values() if regime == "large"] == [8, 16, 32, 64, 128]
    largest, small = 8, []
    for regime, size in runs.values():
        if regime == "large":
            largest = size
        else:
            small.append(size)
            assert 8 <= size <= largest / 2
    assert len(set(small)) > 3
    # Within some start deviations of the genome's start, and never there itself.
    away = np.abs(np.array(starts[1:]) - starts[0]) / (0.5 * genome(4).scale)
    assert 0.5 < away.mean() < 1.2


def test_populations_do_not_double_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "MAX_DOUBLINGS", 2)
    search = Search(genome(3), sigma=0.5, population_size=4, restarts="ipop", seed=2)
    sizes = [4]
    while search.run < 5:
        search.tell(np.zeros(len(search.ask())))
        if search.run == len(sizes):
            sizes.append(search.population_size)
    assert sizes == [4, 8, 16, 16, 16, 16]


def test_covariance_is_full_up_to_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "FULL_UP_TO", 5)
    assert [Search(genome(size), sigma=0.5, population_size=4).separable for size in (5, 6)] == [False, True]


def test_the_mean_is_mirrored_as_individuals_are() -> None:
    bounded = genome(2, low=0.0, high=1.0)
    search = Search(bounded, sigma=3.0, population_size=8, seed=1)
    outside = 0
    for _ in range(30):
        search.tell(np.zeros(len(search.ask())))
        raw = np.asarray(search.strategy.mean)
        outside += bool(((raw < 0) | (raw > 1)).any())
        assert np.array_equal(search.mean, into_bounds(raw, bounded))
        assert ((search.mean >= 0) & (search.mean <= 1)).all()
    assert outside > 0
