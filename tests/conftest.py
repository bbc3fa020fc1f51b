"""Settings of the whole test suite."""

from __future__ import annotations

import os
import signal
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import settings

from plastic_rl import _native

# Machines differ in speed, so no example has a deadline; on CI the same examples are tried each time.
settings.register_profile("everywhere", deadline=None)
settings.register_profile("ci", parent=settings.get_profile("everywhere"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "everywhere")

# A shell starts what is put in the background with Ctrl-C ignored, and programs that tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=["torch", "native"])
def each_core(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let a test be made on both cores, where there are two."""
    if request.param == "native" and not _native.levels():
        pytest.skip("the package is installed without its compiled core")
    monkeypatch.setenv(_native.VARIABLE, request.param)
    return str(request.param)


class Drawing(gymnasium.Env[Any, Any]):
    """Draws a number in `reset` and shows it; its one step pays 1 where the reset before drew the same number.

    Whether the trials of a lifetime were one task is then its score: trials - 1, or 0.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - as Gymnasium has it
    observation_space = spaces.Box(0.0, 1.0, (1,), np.float64)
    action_space = spaces.Discrete(2)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.number = -1.0
        self.resets: list[tuple[int | None, Any]] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.resets.append((seed, options))
        before, self.number = self.number, self.np_random.random()
        self.same = self.number == before
        return np.array([self.number]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.array([self.number]), float(self.same), True, False, {}

    def render(self) -> Any:
        return np.full((40, 40, 3), 255 if self.same else 0, np.uint8)


@pytest.fixture(scope="session")
def drawing() -> str:
    """The id of `Drawing`, which has no task distribution."""
    for env_id in ("tests/Drawing-v0", "tests/DrawingAgain-v0"):
        gymnasium.register(env_id, Drawing)
    return "tests/Drawing-v0"
