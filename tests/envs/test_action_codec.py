"""Actions that an environment cannot take, and a first reset that fails."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from plastic_rl.envs import make_vector
from plastic_rl.envs.actions import ActionCodec
from plastic_rl.errors import SpaceError, TaskError


def test_actions_that_are_no_numbers_are_refused() -> None:
    codec = ActionCodec(spaces.Box(-1, 1, (2,)))
    assert codec.check([[np.inf, 0.5]], 1).tolist() == [[np.inf, 0.5]]  # clipped later
    with pytest.raises(SpaceError, match="must be numbers, got"):
        codec.check([[np.nan, 0.5]], 1)


def test_bits_may_be_truth_values() -> None:
    assert ActionCodec(spaces.MultiBinary(2)).check([[True, False]], 1).tolist() == [[1, 0]]
    with pytest.raises(SpaceError, match="must be integers, got bool"):
        ActionCodec(spaces.Discrete(2)).check([True], 1)


def test_a_first_reset_that_fails_starts_nothing() -> None:
    env = make_vector("plastic_rl/ReversalBandit-v0", 2)
    with pytest.raises(TaskError, match="must hold 2 tasks"):
        env.reset(options={"tasks": [None]})
    with pytest.raises(ResetNeeded):
        env.step(np.zeros(2, dtype=np.int64))
