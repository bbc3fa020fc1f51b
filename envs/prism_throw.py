"""Worked example: a plain scalar `gymnasium.Env`, its task distribution and its reference agents, in one file.

    plastic-rl envs show examples/PrismThrow-v0 --plugin envs/prism_throw.py

Nothing in the environment is special to plastic_rl but the task that `reset` takes from `options["task"]` and the
values in `info`: the end of a trial, the expected reward, and a measure of its own that `metadata["measures"]` names.
Feedback columns, task sampling, autoreset and vectorising are added from outside (`plastic_rl.envs.Lifetime`,
`plastic_rl.envs.make_vector`).
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from typing_extensions import override

from plastic_rl.arrays import Array, BoolArray, FloatArray, SingleArray
from plastic_rl.envs import (
    STANDARD_SPLITS,
    Params,
    RandomAgent,
    ReferenceAgent,
    TaskDistribution,
    number_of,
    register_distribution,
)

ENV_ID = "examples/PrismThrow-v0"
MOTOR_NOISE = 0.1  # radians


class PrismThrow(gymnasium.Env[SingleArray, SingleArray]):
    """Throw darts at targets all around you, wearing prism glasses that turn the world by a hidden angle.

    # Task
    To see from one's own misses how far the prism turns, and to aim beside the target by that much: the angle is drawn
    anew for each lifetime.

    # Observation
    Box, 4 columns: cosine and sine of the target's direction; cosine and sine of the last miss, i.e. of the angle from
    the last target to where the dart landed (both 0 before the first throw).

    # Actions
    Box, 2 in [-1, 1]:

    | column | meaning                                                |
    |--------|--------------------------------------------------------|
    | 0, 1   | the direction of the aim, a vector of any length       |

    # Reward
    The cosine of the miss, 1 for a hit; `info["expected_reward"]` is its mean over the motor noise.

    # End
    A trial is one throw. Terminated after `throws` throws.

    # Tasks and splits
    `rotation`, uniform within +-1 radian; on the split `shift` 1 to 1.5 radians to either side.

    # Limits
    Sum over 40 throws: random 0, aiming straight at the target 33.5, averaging one's misses 39.6, oracle (the limit)
    39.8.

    # Source
    Prism adaptation, Martin et al. 1996, "Throwing while looking through prisms".

    Args:
        throws: Throws in a lifetime.
        render_mode: None or `"ansi"`.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": ["ansi"],
        "render_fps": 2,
        "steps_per_trial": 1,
        "measures": {"miss": "angle by which a dart misses its target, in degrees"},
    }

    def __init__(self, throws: int = 40, render_mode: str | None = None) -> None:
        self.throws = throws
        self.render_mode = render_mode
        self.observation_space = spaces.Box(-1.0, 1.0, (4,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.metadata = {**type(self).metadata, "lifetime_steps": throws}
        self._rotation = 0.0
        self._time = 0
        self._target = 0.0
        self._miss: float | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[SingleArray, dict[str, Any]]:
        """Put on other glasses: those of `options["task"]`, or random ones."""
        super().reset(seed=seed)
        task = (options or {}).get("task")
        self._rotation = self.np_random.uniform(-1.0, 1.0) if task is None else number_of(task, "rotation")
        self._time = 0
        self._target = self.np_random.uniform(-np.pi, np.pi)
        self._miss = None
        return self._observe(), {}

    def step(self, action: SingleArray) -> tuple[SingleArray, float, bool, bool, dict[str, Any]]:
        """Throw once."""
        mean_miss = float(np.arctan2(action[1], action[0])) + self._rotation - self._target
        self._miss = mean_miss + self.np_random.normal(0.0, MOTOR_NOISE)
        self._time += 1
        self._target = self.np_random.uniform(-np.pi, np.pi)
        info = {
            "trial_end": True,
            "expected_reward": float(np.cos(mean_miss) * np.exp(-(MOTOR_NOISE**2) / 2)),
            "miss": float(np.degrees(np.abs(np.angle(np.exp(1j * self._miss))))),
        }
        return self._observe(), float(np.cos(self._miss)), self._time >= self.throws, False, info

    def render(self) -> str | None:
        """Return a line about the present state."""
        if self.render_mode != "ansi":
            return None
        miss = "-" if self._miss is None else f"{np.degrees(np.angle(np.exp(1j * self._miss))):+.0f}"
        prism = f"{np.degrees(self._rotation):+.0f}"
        return f"throw {self._time}/{self.throws}  prism {prism} degrees  last miss {miss} degrees"

    def _observe(self) -> SingleArray:
        miss = (0.0, 0.0) if self._miss is None else (np.cos(self._miss), np.sin(self._miss))
        return np.array([np.cos(self._target), np.sin(self._target), *miss], dtype=np.float32)


class PrismTasks(TaskDistribution):
    """The hidden `rotation` in radians: within +-1, on the split `shift` 1 to 1.5 to either side.

    Args:
        throws: Throws in a lifetime (the tasks do not depend on it).
    """

    family = "PrismThrow"
    splits = (*STANDARD_SPLITS, "shift")
    limit_kind = "oracle"

    def __init__(self, throws: int = 40) -> None:
        super().__init__()
        self.throws = throws

    @override
    def sample_params(self, generator: np.random.Generator, split: str) -> Params:
        if split == "shift":
            return {"rotation": float(generator.choice((-1.0, 1.0)) * generator.uniform(1.0, 1.5))}
        return {"rotation": float(generator.uniform(-1.0, 1.0))}

    def reference_agents(self, split: str) -> dict[str, ReferenceAgent]:
        """`random`, `straight` (never adapts), `averaging` (the heuristic) and `oracle` (the limit)."""
        return {
            "random": RandomAgent(spaces.Box(-1.0, 1.0, (2,), np.float32)),
            "straight": StraightAgent(),
            "averaging": AveragingAgent(),
            "oracle": CorrectedAgent(),
        }


class AimingAgent(ReferenceAgent):
    """Base: aims at the target, turned back by an estimate of the prism's angle; state `(B, 3)`.

    The state holds the sum of the angles seen so far, their number, and the present estimate.
    """

    @override
    def choose(self, rows: Array, start: BoolArray, state: Any, deterministic: bool) -> tuple[Array, Any]:
        before = np.zeros((len(rows), 3)) if state is None else np.where(start[:, None], 0.0, state)
        # A miss is what the prism turned beyond the estimate that was in use.
        seen = np.arctan2(rows[:, 3], rows[:, 2]) + before[:, 2]
        total = before[:, 0] + np.where(start, 0.0, seen)
        count = before[:, 1] + ~start
        estimate = self.estimate(total / np.maximum(count, 1.0))
        aim = np.arctan2(rows[:, 1], rows[:, 0]) - estimate
        action = np.stack([np.cos(aim), np.sin(aim)], axis=1).astype(np.float32)
        return action, np.stack([total, count, estimate], axis=1)

    def estimate(self, mean_seen: FloatArray) -> FloatArray:
        """The angle `(B,)` to aim against, given the mean of the angles seen, `(B,)`."""
        return np.zeros_like(mean_seen)


class StraightAgent(AimingAgent):
    """Aims straight at the target, whatever it sees."""


class AveragingAgent(AimingAgent):
    """Believes in the mean of the angles seen so far."""

    @override
    def estimate(self, mean_seen: FloatArray) -> FloatArray:
        return mean_seen


class CorrectedAgent(AimingAgent):
    """Oracle: told the prism's angle."""

    needs_task = True

    @override
    def estimate(self, mean_seen: FloatArray) -> FloatArray:
        return np.array([number_of(task, "rotation") for task in self.privileged_tasks(len(mean_seen))])


gymnasium.register(ENV_ID, entry_point=PrismThrow)
register_distribution(ENV_ID, PrismTasks)
