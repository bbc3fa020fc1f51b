"""The kernels without Python: within their arrays, without undefined behaviour, and close to the float64 reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.native import record, sanitize

COMPILER = sanitize.compiler()


def test_the_baseline_stays_within_its_arrays_and_close_to_the_reference(tmp_path: Path) -> None:
    """`make sanitize` has every level and every check."""
    if COMPILER is None:
        pytest.skip("needs a C++ compiler with sanitizers")
    code, said = sanitize.run(sanitize.build(COMPILER, tmp_path, quick=True))
    assert code == 0, said
    assert said.startswith("84 cases on baseline: largest error of values ")


def test_the_recorded_cases_are_what_the_reference_gives() -> None:
    stored, place = record.FILE.read_bytes(), len(record.MAGIC) + 4
    assert len(stored) < 300_000
    cases = record.make_cases()
    assert len(cases) == 84
    for case in cases:
        own = case.packed()
        at = len(own) - 4 * sum(one.size for one in case.expected)
        assert stored[place : place + at] == own[:at], case.name
        numbers = [np.frombuffer(one, dtype="<f4") for one in (own[at:], stored[place + at : place + len(own)])]
        # The last bit of a rounded sum may be another on another machine.
        np.testing.assert_allclose(*numbers, rtol=1e-5, atol=1e-7, err_msg=case.name)
        place += len(own)
    assert place == len(stored)
