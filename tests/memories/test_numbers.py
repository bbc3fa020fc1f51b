"""Attractor memories against closed forms, theory and steps by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from plastic_rl.errors import ConfigError
from plastic_rl.memories import Hopfield, LowActivityHopfield, ModernHopfield, theory, writing


def full_of(memory: Hopfield | LowActivityHopfield, patterns: int, seed: int = 0) -> Hopfield | LowActivityHopfield:
    return memory.store(memory.random_patterns(patterns, np.random.default_rng(seed)))


def test_a_recall_by_hand() -> None:
    """Two patterns of four units. W = (1/4) (p pT + q qT) without its diagonal, for p = + + + +, q = + + - -:

    0  2  0  0
    2  0  0  0   / 4
    0  0  0  2
    0  0  2  0
    """
    memory = Hopfield(4).store([[1, 1, 1, 1], [1, 1, -1, -1]])
    np.testing.assert_array_equal(memory.weights() * 4, [[0, 2, 0, 0], [2, 0, 0, 0], [0, 0, 0, 2], [0, 0, 2, 0]])
    cue = np.array([1.0, 0.0, 0.0, -1.0])
    # The field is (0, .5, -.5, 0): the unknown units follow their partners, the others stay.
    np.testing.assert_array_equal(memory.field(cue), [0.0, 0.5, -0.5, 0.0])
    np.testing.assert_array_equal(memory.step(cue), [1, 1, -1, -1])
    recalled = memory.recall(cue, course=True)
    np.testing.assert_array_equal(recalled.overlaps, [[0, 0.5], [0, 1], [0, 1]])
    np.testing.assert_array_equal(recalled.energies, [0, -1, -1])  # -1/2 (4 units in fields of .5)


@pytest.mark.parametrize(
    ("patterns", "networks", "error"), [(105, 60, 0.00096), (138, 20, 0.0034), (185, 8, 0.0099), (370, 4, 0.0499)]
)
def test_the_error_of_the_first_step(patterns: int, networks: int, error: float) -> None:
    wrong = []
    for seed in range(networks):
        memory = full_of(Hopfield(1000), patterns, seed)
        wrong.append((memory.recall(memory.patterns, steps=1).state != memory.patterns).mean())
    assert theory.one_step_error(1000, patterns) == pytest.approx(error, rel=0.02)
    assert np.mean(wrong) == pytest.approx(theory.one_step_error(1000, patterns), rel=0.1)


@pytest.mark.parametrize("update", ["synchronous", "asynchronous"])
def test_what_is_left_of_patterns_below_and_above_capacity(update: str) -> None:
    for load, low, high in ((0.12, 0.95, 1.0), (0.18, 0.0, 0.6)):
        memory = full_of(Hopfield(2000, update=update), round(load * 2000))
        recalled = memory.recall(memory.patterns[:10], generator=np.random.default_rng(1))
        left = np.diag(memory.overlaps(recalled.state)).mean()
        assert low <= left < high
    assert theory.retained_overlap(0.12) == pytest.approx(0.9932, abs=1e-4)
    assert theory.retained_overlap(0.1375) > 0.95
    assert theory.retained_overlap(0.139) == 0.0


@pytest.mark.parametrize("storage", ["hebb", "pseudo_inverse"])
@pytest.mark.parametrize("seed", range(3))
def test_no_update_of_a_single_unit_raises_the_energy(storage: str, seed: int) -> None:
    generator = np.random.default_rng(seed)
    memory = full_of(Hopfield(120, storage=storage, update="asynchronous"), 30, seed)
    state = memory.random_patterns(4, generator) * (generator.random(120) < 0.9)
    swept = memory.step(state)
    energy = memory.energy(state)
    for unit in range(120):
        state[:, unit] = memory.updated(state[:, unit], memory.field(state)[:, unit], None)
        following = memory.energy(state)
        assert (following <= energy + 1e-9).all()
        energy = following
    # A sweep without a generator is these very updates, from the first unit to the last.
    np.testing.assert_array_equal(state, swept)
    recalled = memory.recall(state, generator=generator, course=True)
    assert recalled.settled.all()
    assert recalled.energies is not None
    assert (np.diff(recalled.energies, axis=0) <= 1e-9).all()


def test_no_update_of_a_low_activity_unit_raises_the_energy() -> None:
    memory = full_of(LowActivityHopfield(150, update="asynchronous"), 30)
    cue = np.random.default_rng(1).integers(0, 2, (5, 150))
    recalled = memory.recall(cue, generator=np.random.default_rng(2), course=True)
    assert recalled.energies is not None
    assert recalled.energies[0].mean() > recalled.energies[-1].mean() + 1
    assert (np.diff(recalled.energies, axis=0) <= 1e-9).all()


def test_the_overlap_form_is_the_weight_form() -> None:
    """With the diagonal kept: `h = (1/N) sum_mu p_mu (p_mu . S)` against weights written pattern by pattern."""
    generator = np.random.default_rng(0)
    for storage, write in (("hebb", writing.hebb), ("delta", writing.delta)):
        memory = full_of(Hopfield(80, storage=storage, self_coupling=True), 20)
        weights = np.zeros((80, 80))
        for pattern in memory.patterns:
            weights = write(weights, pattern, 1 / 80)
        state = memory.random_patterns(7, generator)
        np.testing.assert_allclose(memory.weights(), weights, atol=1e-12)
        np.testing.assert_allclose(memory.field(state), writing.through(weights, state), atol=1e-12)
        # The same operators on torch tensors.
        tensor = torch.zeros(80, 80, dtype=torch.float64)
        for pattern in torch.from_numpy(memory.patterns):
            tensor = write(tensor, pattern, 1 / 80)
        np.testing.assert_allclose(writing.through(tensor, torch.from_numpy(state)).numpy(), memory.field(state))
    without = full_of(Hopfield(80), 20)
    np.testing.assert_allclose(without.field(state), state @ without.weights().T, atol=1e-12)
    assert not np.diag(without.weights()).any()


@pytest.mark.parametrize(("beta", "overlap"), [(1.5, 0.859), (2.0, 0.9575)])
def test_the_mean_overlap_of_stochastic_units(beta: float, overlap: float) -> None:
    memory = full_of(Hopfield(2000, beta=beta), 5)
    recalled = memory.recall(memory.patterns, steps=200, generator=np.random.default_rng(1), course=True)
    assert recalled.overlaps is not None
    measured = recalled.overlaps[20:, np.arange(5), np.arange(5)].mean()
    assert theory.mean_overlap(beta) == pytest.approx(overlap, abs=5e-4)
    assert theory.mean_overlap(beta) == pytest.approx(math.tanh(beta * theory.mean_overlap(beta)), abs=1e-12)
    # Five patterns disturb each other a little: (P - 1) / N is not 0.
    assert measured == pytest.approx(overlap, abs=0.01)
    assert not recalled.settled.any()


@pytest.mark.parametrize("update", ["synchronous", "asynchronous"])
def test_stochastic_units_are_up_with_the_stated_probability(update: str) -> None:
    memory = Hopfield(4, beta=0.7, update=update).store([1, 1, 1, 1])
    states = memory.recall(np.ones((20000, 4)), steps=1, generator=np.random.default_rng(0)).state
    # The first unit of a sweep may be any; at once, all four are in a field of 3/4.
    if update == "synchronous":
        up = (1 + math.tanh(0.7 * 0.75)) / 2
        assert (states > 0).mean() == pytest.approx(up, abs=4 * math.sqrt(up * (1 - up) / 80000))
    else:
        first = memory._sweep(np.ones((20000, 4)), np.random.default_rng(0))
        np.testing.assert_array_equal(first, states)
        assert set(np.unique(states)) == {-1.0, 1.0}
        order = np.random.default_rng(0).permutation(4)
        up = (1 + math.tanh(0.7 * 0.75)) / 2
        assert (states[:, order[0]] > 0).mean() == pytest.approx(up, abs=4 * math.sqrt(up * (1 - up) / 20000))
    with pytest.raises(ConfigError, match="give recall a generator"):
        memory.recall(np.ones(4))


@pytest.mark.parametrize(("activity", "load"), [(0.1, 0.4), (0.2, 0.2), (0.5, 0.2)])
def test_the_error_of_the_first_step_at_low_activity(activity: float, load: float) -> None:
    memory = full_of(LowActivityHopfield(2000, activity=activity), round(load * 2000))
    wrong = (memory.recall(memory.patterns, steps=1).state != memory.patterns).mean()
    exact = 0.5 * math.erfc(1 / (2 * math.sqrt(load * activity)) / math.sqrt(2))
    assert theory.low_activity_error(load, activity) == pytest.approx(exact, rel=1e-12)
    assert wrong == pytest.approx(exact, rel=0.3)


def test_offsets_of_low_activity_weights() -> None:
    """`c (p - b)(p - a)^T` by hand: N = 2, a = .5, b = 0, p = (1, 0), so that c = 1 / (2 / 4) = 2."""
    memory = LowActivityHopfield(2, activity=0.5, post_offset=0.0).store([1, 0])
    # p - b = (1, 0), p - a = (.5, -.5): W = 2 ((.5, -.5), (0, 0)), without its diagonal.
    np.testing.assert_array_equal(memory.weights(), [[0, -1], [0, 0]])
    assert memory.threshold == 0.0
    assert LowActivityHopfield(2, activity=0.1).threshold == pytest.approx(0.4)


def test_the_pseudo_inverse_keeps_patterns_that_hebbs_rule_loses() -> None:
    kept = full_of(Hopfield(200, storage="pseudo_inverse"), 100)
    np.testing.assert_array_equal(kept.step(kept.patterns), kept.patterns)
    whole = full_of(Hopfield(200, storage="pseudo_inverse", self_coupling=True), 100)
    np.testing.assert_allclose(whole.field(whole.patterns), whole.patterns, atol=1e-12)
    np.testing.assert_allclose(whole.weights() @ whole.weights(), whole.weights(), atol=1e-12)  # a projection
    lost = full_of(Hopfield(200), 100)
    assert (lost.step(lost.patterns) != lost.patterns).mean() > 0.05


def test_the_delta_rule_writes_the_last_pattern_exactly_and_comes_to_the_pseudo_inverse() -> None:
    once = full_of(Hopfield(100, storage="delta", self_coupling=True), 20)
    np.testing.assert_allclose(once.field(once.patterns[-1]), once.patterns[-1], atol=1e-12)
    assert np.abs(once.field(once.patterns[0]) - once.patterns[0]).max() > 0.05
    often = full_of(Hopfield(100, storage="delta", epochs=200, self_coupling=True), 20)
    projection = full_of(Hopfield(100, storage="pseudo_inverse", self_coupling=True), 20)
    np.testing.assert_allclose(often.weights(), projection.weights(), atol=1e-9)
    half = Hopfield(100, storage="delta", rate=0.5, self_coupling=True).store(once.patterns[0])
    np.testing.assert_allclose(half.field(half.patterns[0]), 0.5 * half.patterns[0], atol=1e-12)


def test_attention_between_two_orthogonal_patterns() -> None:
    """From p, `softmax(beta (N, 0))` leaves a share `1 / (1 + exp(-beta N))` of it; the other pattern has the rest."""
    first, second = np.array([1.0, 1, 1, 1]), np.array([1.0, -1, 1, -1])
    memory = ModernHopfield(4, beta=0.3).store([first, second])
    share = 1 / (1 + math.exp(-0.3 * 4))
    np.testing.assert_allclose(memory.step(first), share * first + (1 - share) * second, atol=1e-12)
    # -log(exp(4 beta) + 1) / beta + 4 / 2 + log(2) / beta + 4 / 2
    energy = (-math.log(math.exp(1.2) + 1) + math.log(2)) / 0.3 + 4
    assert memory.energy(first) == pytest.approx(energy, abs=1e-12)
    assert ModernHopfield(16).beta == 0.25
    with pytest.raises(ConfigError, match="store some first"):
        ModernHopfield(4).recall(first)


@pytest.mark.parametrize("seed", range(5))
def test_the_energy_of_a_modern_network_falls_within_its_bounds(seed: int) -> None:
    generator = np.random.default_rng(seed)
    memory = ModernHopfield(10, beta=0.5).store(generator.standard_normal((30, 10)))
    largest = np.linalg.norm(memory.patterns, axis=1).max()
    cue = generator.dirichlet(np.ones(30), 8) @ memory.patterns
    recalled = memory.recall(cue, course=True)
    assert recalled.energies is not None
    assert (np.diff(recalled.energies, axis=0) <= 1e-9).all()
    assert recalled.energies.min() >= 0
    assert recalled.energies.max() <= 2 * largest**2


def test_the_error_of_a_modern_recall_falls_with_the_separation_of_its_pattern() -> None:
    """`|new - p| <= 2 M (P - 1) exp(-beta (p.p - max q.p))`: what the other patterns weigh, times how far they are."""
    memory = ModernHopfield(30, beta=0.5)
    memory = memory.store(memory.random_patterns(500, np.random.default_rng(0)))
    products = memory.patterns @ memory.patterns.T
    nearest = (products - 1000 * np.eye(500)).max(axis=1)
    bound = 2 * math.sqrt(30) * 499 * np.exp(-0.5 * (30 - nearest))
    error = np.linalg.norm(memory.step(memory.patterns) - memory.patterns, axis=1)
    assert (error <= bound).all()
    # 500 patterns in 30 units, 16.7 N, are told apart by their signs.
    assert (np.sign(memory.step(memory.patterns)) == memory.patterns).mean() > 0.999


def test_a_sweep_of_units_one_by_one_is_laid_beside_no_theory_of_a_step_of_all() -> None:
    for kind in (Hopfield, LowActivityHopfield):
        assert kind(100).expected_error(0.1) is not None
        assert kind(100, update="asynchronous").expected_error(0.1) is None
