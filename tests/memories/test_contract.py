"""What every attractor memory keeps to, the moment it is registered."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from plastic_rl.errors import ConfigError, UnknownNameError
from plastic_rl.memories import MEMORIES, Memory

every_memory = pytest.mark.parametrize("name", MEMORIES)
UNITS = 1000


def filled(name: str, patterns: int = 6) -> Memory:
    empty = MEMORIES[name](UNITS)
    return empty.store(empty.random_patterns(patterns, np.random.default_rng(1)))


def test_the_registry_holds_the_models_of_this_version() -> None:
    assert list(MEMORIES) == ["hopfield", "low_activity", "modern"]
    with pytest.raises(UnknownNameError, match="Did you mean 'hopfield'"):
        MEMORIES["hopfeild"]


@every_memory
def test_storing_gives_another_memory_and_leaves_this_one_as_it_was(name: str) -> None:
    memory = filled(name)
    before, kept = memory.patterns.copy(), memory
    added = memory.random_patterns(3, np.random.default_rng(2))
    given = added.copy()
    more = memory.store(added)
    assert (more.patterns.shape, memory.patterns.shape) == ((9, UNITS), (6, UNITS))
    np.testing.assert_array_equal(added, given)
    np.testing.assert_array_equal(kept.patterns, before)
    one_by_one = memory.store(added[0]).store(added[1]).store(added[2])
    at_once = MEMORIES[name](UNITS).store(np.concatenate([before, added]))
    cue = memory.random_patterns(4, np.random.default_rng(3))
    for other in (one_by_one, at_once):
        np.testing.assert_array_equal(other.recall(cue).state, more.recall(cue).state)


@every_memory
def test_stored_patterns_are_recalled_from_four_fifths_of_their_units(name: str) -> None:
    memory = filled(name)
    known = np.arange(UNITS) % 5 > 0
    recalled = memory.recall(memory.patterns * known)
    assert recalled.settled.all()
    # With beta = 1 / sqrt(N) the other patterns keep a share of up to exp(-sqrt(N) (1 - their overlap)).
    np.testing.assert_allclose(recalled.state, memory.patterns, atol=1e-4)
    np.testing.assert_allclose(memory.overlaps(recalled.state), memory.overlaps(memory.patterns), atol=1e-4)
    # Of a sparse pattern the overlap is its number of ones, as a share of the expected one.
    np.testing.assert_allclose(np.diag(memory.overlaps(memory.patterns)), 1, atol=4 * (0.9 / (UNITS * 0.1)) ** 0.5)


@every_memory
def test_cues_side_by_side_are_cues_one_by_one(name: str) -> None:
    memory = filled(name)
    cues = memory.random_patterns(6, np.random.default_rng(4)).reshape(2, 3, UNITS)
    together = memory.recall(cues, steps=7, course=True)
    assert together.overlaps is not None
    assert together.energies is not None
    steps = len(together.energies)
    assert (together.overlaps.shape, together.energies.shape) == ((steps, 2, 3, 6), (steps, 2, 3))
    for place in np.ndindex(2, 3):
        alone = memory.recall(cues[place], steps=7, course=True)
        np.testing.assert_allclose(alone.state, together.state[place], atol=1e-12)
        assert alone.overlaps is not None
        assert alone.energies is not None
        assert len(alone.overlaps) <= steps
        np.testing.assert_allclose(alone.overlaps, together.overlaps[(slice(len(alone.overlaps)), *place)], atol=1e-12)
        np.testing.assert_allclose(alone.energies, together.energies[(slice(len(alone.energies)), *place)], atol=1e-9)
    assert memory.recall(cues[0, 0]).overlaps is None


@every_memory
def test_the_course_of_a_recall_goes_from_the_cue_to_the_state(name: str) -> None:
    memory = filled(name)
    cue = memory.random_patterns(1, np.random.default_rng(5))[0]
    given = cue.copy()
    recalled = memory.recall(cue, steps=50, course=True)
    np.testing.assert_array_equal(cue, given)
    assert recalled.overlaps is not None
    assert recalled.energies is not None
    np.testing.assert_array_equal(recalled.overlaps[0], memory.overlaps(cue))
    np.testing.assert_array_equal(recalled.overlaps[-1], memory.overlaps(recalled.state))
    np.testing.assert_array_equal(recalled.energies[-1], memory.energy(recalled.state))
    assert recalled.settled == np.allclose(memory.step(recalled.state), recalled.state, atol=1e-12)
    np.testing.assert_array_equal(memory.recall(cue, steps=0).state, cue)


@every_memory
def test_what_does_not_fit_is_refused(name: str) -> None:
    memory = filled(name)
    for call, message in (
        (lambda: MEMORIES[name](0), "1 unit or more, got size=0"),
        (lambda: memory.store(np.ones((2, UNITS + 1))), rf"shape \(P, {UNITS}\), got \(2, {UNITS + 1}\)"),
        (lambda: memory.store(np.full(UNITS, np.nan)), "every entry of a pattern"),
        (lambda: memory.recall(np.ones(UNITS - 1)), rf"shape \(.., {UNITS}\), got"),
        (lambda: memory.recall(np.full(UNITS, np.inf)), "must be finite"),
        (lambda: memory.recall(np.ones(UNITS), steps=-1), "0 steps or more, got -1"),
        (lambda: MEMORIES[name](4, beta=-1.0), r"beta: .*greater than 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            call()


@every_memory
def test_every_option_is_described(name: str) -> None:
    fields = MEMORIES[name].options_model().model_fields
    assert "beta" in fields
    assert [option for option, field in fields.items() if not field.description] == []


@every_memory
def test_nothing_is_drawn_from_the_global_stream(name: str) -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - the stream that must stay untouched
    first, second = filled(name), filled(name)
    np.testing.assert_array_equal(first.patterns, second.patterns)
    first.recall(first.patterns)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_memories_do_without_torch() -> None:
    import subprocess

    code = "import sys; from plastic_rl.memories import MEMORIES; print(len(MEMORIES), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "False"]
