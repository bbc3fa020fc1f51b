"""Cart-pole in which left and right may be swapped, with several trials in a lifetime."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from gymnasium import spaces
from typing_extensions import override

from plastic_rl.arrays import Array, BoolArray, FloatArray, Image, IntArray, SingleArray
from plastic_rl.envs import drawing
from plastic_rl.envs.task import STANDARD_SPLITS, Params, RandomAgent, ReferenceAgent, Task, TaskDistribution, number_of
from plastic_rl.envs.task_vector_env import Outcome, TaskEnv, TaskVectorEnv
from plastic_rl.errors import TaskError

Sees = Literal["pole", "all"]
Swap = Literal["both", "never", "always"]

HALF_LENGTH = 0.5
"""Half the length of the pole, in metres."""
SHIFT_HALF_LENGTHS = (0.25, 1.0)
X_LIMIT = 2.4
"""Metres from the middle of the track at which a trial is lost."""
ANGLE_LIMIT = 12 * 2 * np.pi / 360
"""Radians from upright at which a trial is lost."""
SCALES: dict[Sees, tuple[float, ...]] = {
    "pole": (ANGLE_LIMIT, 2.0),
    "all": (X_LIMIT, 2.0, ANGLE_LIMIT, 2.0),
}
"""What features are divided by: the limits, and 2 m/s and 2 rad/s."""
GAINS = (1.0, 0.25)
"""Push to the side of `angle + 0.25 s * angular velocity`: balances for 500 steps from every start, at all lengths."""


class SwappedCartPoleTasks(TaskDistribution):
    """Are left and right swapped? In each pair of consecutive tasks one is, in random order.

    Args:
        trials: Trials in a lifetime.
        trial_steps: Most steps of a trial (500 in CartPole-v1).
        sees: `"pole"` or `"all"`: which features the agent sees.
        swap: `"both"`; or `"never"` or `"always"`, to look at one half of the tasks by itself.
        steps: Most steps of a lifetime; None: `trials * trial_steps`.
        entropy: Root of all seeds.

    >>> [task.params["swapped"] for task in SwappedCartPoleTasks().tasks("train", 0, 6)]
    [False, True, False, True, False, True]
    """

    family = "SwappedCartPole"
    splits = (*STANDARD_SPLITS, "shift")
    limit_kind = "oracle"

    def __init__(
        self,
        trials: int = 5,
        trial_steps: int = 200,
        sees: Sees = "pole",
        swap: Swap = "both",
        steps: int | None = None,
        entropy: int = 0,
    ) -> None:
        super().__init__(entropy)
        if trials < 1 or trial_steps < 1 or (steps is not None and steps < 1):
            raise TaskError(
                "trials, trial_steps and steps must be 1 or more, "
                f"got trials={trials}, trial_steps={trial_steps}, steps={steps}"
            )
        for name, value, valid in (("sees", sees, Sees), ("swap", swap, Swap)):
            if value not in get_args(valid):
                raise TaskError(f"{name} must be one of {', '.join(get_args(valid))}, got {value!r}")
        self.trials = trials
        self.trial_steps = trial_steps
        self.sees: Sees = sees
        self.swap: Swap = swap
        self.steps = trials * trial_steps if steps is None else steps

    @override
    def task(self, split: str, index: int) -> Task:
        """The order within each pair of tasks is random."""
        task = super().task(split, index)
        spawn_key = (zlib.crc32(split.encode()), index // 2, 1)
        order = int(np.random.SeedSequence(self.entropy, spawn_key=spawn_key).generate_state(1)[0] % 2)
        swapped = bool((index + order) % 2) if self.swap == "both" else self.swap == "always"
        return Task(task.family, task.split, task.index, task.seed, {**task.params, "swapped": swapped})

    @override
    def sample_params(self, generator: np.random.Generator, split: str) -> Params:
        return {"half_length": float(generator.uniform(*SHIFT_HALF_LENGTHS)) if split == "shift" else HALF_LENGTH}

    @override
    def reference_agents(self, split: str) -> dict[str, ReferenceAgent]:
        return {
            "random": RandomAgent(spaces.Discrete(2)),
            "infer_swap": InferSwapAgent(self.sees),
            "oracle": BalancingAgent(self.sees),
        }


GRAVITY = 9.8
CART_MASS = 1.0
POLE_MASS = 0.1
TOTAL_MASS = CART_MASS + POLE_MASS
FORCE = 10.0
SECONDS = 0.02
START = 0.05
"""Start states are uniform within +-this, in all four coordinates."""
CLIP = 3.0
"""Features are clipped to +-this many of their scales."""


def cart_pole_step(state: FloatArray, force: FloatArray, half_length: FloatArray) -> FloatArray:
    """The next state, by one Euler step of .02 s (Barto, Sutton & Anderson 1983, without friction).

    Args:
        state: Position (m), velocity (m/s), angle (rad), angular velocity (rad/s): `(B, 4)`.
        force: On the cart, to the right, in newtons: `(B,)`.
        half_length: Of the pole, in metres: `(B,)`.
    """
    _, velocity, angle, angular_velocity = state.T
    cosine, sine = np.cos(angle), np.sin(angle)
    pole = POLE_MASS * half_length
    push = (force + pole * angular_velocity**2 * sine) / TOTAL_MASS
    angular_acceleration = (GRAVITY * sine - cosine * push) / (
        half_length * (4.0 / 3.0 - POLE_MASS * cosine**2 / TOTAL_MASS)
    )
    acceleration = push - pole * angular_acceleration * cosine / TOTAL_MASS
    change = np.stack([velocity, acceleration, angular_velocity, angular_acceleration], axis=1)
    return state + SECONDS * change


class SwappedCartPoleVectorEnv(TaskVectorEnv[SwappedCartPoleTasks]):
    """Balance a pole on a cart without being told which action pushes which way.

    # Task
    Within a lifetime: to find out whether left and right are swapped, from what one's own pushes do, and to keep that
    from trial to trial. Between lifetimes: how to balance.

    One observation of the pole tells nothing of the swap, so that a policy that is a fixed function of the features
    balances in one half and falls after 8 steps in the other; at best it leans to a side that it chooses by its first
    push and drives off the track: the best that a direct search over products of two linear functions of the features
    found was 135 of 200 steps, or 155 of 500, on average over both halves. Two things would make that comparison
    unfair, and are therefore options. With `sees="all"` the cart's own position serves as memory (stay left of the
    middle if not swapped, right if swapped): the same search reaches 290 of 500 steps. And the feedback columns show
    the previous action beside the velocity that it caused: networks that are to be compared should read the features
    only (`network.inputs=features`).

    # Observation
    Box: features, each divided by its scale and clipped to +-3: with `sees="pole"` (2) the angle (12 degrees) and the
    angular velocity (2 rad/s); with `sees="all"` (4) before these the position (2.4 m) and the velocity (2 m/s) of the
    cart. Then previous action one-hot (2); previous reward; trial_start; t/T.

    # Actions
    Discrete 2:

    | action | push of 10 N | where the task is swapped |
    |--------|--------------|---------------------------|
    | 0      | to the left  | to the right              |
    | 1      | to the right | to the left               |

    # Reward
    1 for each step after which the pole still stands (within 12 degrees, the cart within 2.4 m), else 0.

    # End
    A trial lasts until the pole falls or `trial_steps` steps are done; the next one starts at once, from a new random
    start (each coordinate uniform within +-.05). Terminated after `trials` trials, so that lifetimes vary in length;
    t/T counts to the longest, `steps`.

    # Tasks and splits
    Swapped or not, one of each in every pair of consecutive tasks. The splits train, valid and test hold the same two
    tasks and differ only in order and start states; on `shift` the pole's half length is uniform from .25 to 1 m
    instead of .5 m.

    # Limits
    With `sees="pole"` and 5 trials of 200 steps: random about 106, infer_swap 1000, oracle (linear controller; the
    limit) 1000.

    # Source
    Barto, Sutton & Anderson 1983; constants, limits and Euler step are those of Gymnasium's CartPole-v1, whose
    transitions these are.
    """

    tasks_class = SwappedCartPoleTasks
    metadata: dict[str, Any] = drawing.render_metadata(frames_per_second=50)
    state_arrays: ClassVar[tuple[str, ...]] = (
        "_state",
        "_starts",
        "_trial",
        "_clock",
        "_swapped",
        "_half_length",
        "_last",
    )

    def __init__(self, num_envs: int = 1, **arguments: Any) -> None:
        tasks, options = self.tasks_and_options(arguments)
        self._scale = np.array(SCALES[tasks.sees])
        super().__init__(
            num_envs,
            distribution=tasks,
            action_space=spaces.Discrete(2),
            steps=tasks.steps,
            feature_low=np.full(self._scale.size, -CLIP),
            feature_high=np.full(self._scale.size, CLIP),
            options=options,
        )
        self.metadata["lifetime_steps"] = None
        self.trials = tasks.trials
        self._state: FloatArray = np.zeros((num_envs, 4))
        self._starts: FloatArray = np.zeros((num_envs, tasks.trials, 4))
        self._trial: IntArray = np.zeros(num_envs, dtype=np.int64)
        self._clock: IntArray = np.zeros(num_envs, dtype=np.int64)
        self._swapped: BoolArray = np.zeros(num_envs, dtype=np.bool_)
        self._half_length: FloatArray = np.full(num_envs, HALF_LENGTH)
        self._last: IntArray = np.zeros(num_envs, dtype=np.int64)

    @override
    def begin_rows(self, rows: IntArray, tasks: Sequence[Task], generators: Sequence[np.random.Generator]) -> None:
        """The noise is the start state of each trial."""
        for row, task, generator in zip(rows.tolist(), tasks, generators, strict=True):
            self._starts[row] = generator.uniform(-START, START, (self.trials, 4))
            self._swapped[row] = bool(number_of(task, "swapped"))
            self._half_length[row] = number_of(task, "half_length")
        self._state[rows] = self._starts[rows, 0]
        self._trial[rows] = 0
        self._clock[rows] = 0
        self._last[rows] = -1

    @override
    def transition(self, actions: Array) -> Outcome:
        self._last[:] = actions
        force = np.where((actions == 1) != self._swapped, FORCE, -FORCE)
        following = cart_pole_step(self._state, force, self._half_length)
        over = self._trial >= self.trials
        # A lifetime that is over waits for its reset where it ended: a pole that falls on and on would overflow.
        self._state = np.where(over[:, None], self._state, following) if over.any() else following
        self._clock += 1
        stands = (np.abs(self._state[:, 0]) <= X_LIMIT) & (np.abs(self._state[:, 2]) <= ANGLE_LIMIT)
        trial_end = ~stands | (self._clock >= self.distribution.trial_steps)
        ended = np.zeros(self.num_envs, dtype=np.bool_)
        if trial_end.any():
            self._trial[trial_end] += 1
            ended = self._trial >= self.trials
            # The last state of a lifetime stays to be seen; all other trials are followed by the next start.
            rows = np.flatnonzero(trial_end & ~ended)
            self._clock[rows] = 0
            self._state[rows] = self._starts[rows, self._trial[rows]]
        return Outcome(stands.astype(np.float64), trial_end, ended=ended)

    @override
    def write_features(self, features: SingleArray) -> None:
        np.clip(self._state[:, -self._scale.size :] / self._scale, -CLIP, CLIP, out=features, casting="same_kind")

    def _trial_number(self, row: int) -> int:
        """The present trial of `row`, from 1."""
        return min(int(self._trial[row]) + 1, self.trials)

    @override
    def text(self, row: int) -> str:
        width = 41
        place = round((np.clip(self._state[row, 0] / X_LIMIT, -1, 1) + 1) / 2 * (width - 1))
        track = "".join("U" if column == place else "-" for column in range(width))
        degrees = np.degrees(self._state[row, 2])
        lean = "|" if abs(degrees) < 1 else "/" if degrees > 0 else "\\"
        swapped = "swapped" if self._swapped[row] else "not swapped"
        return (
            f"{self.headline(row)}\n"
            f"trial {self._trial_number(row)}/{self.trials}  {swapped}  angle {degrees:+.1f}\n"
            f"{' ' * place}{lean}\n{track}"
        )

    @override
    def frame(self, row: int) -> Image:
        """Cart (gold where swapped, else blue) and pole; a mark where the last push came from."""
        height, width, base = 150, 300, 120
        canvas = drawing.Canvas(height, width, f"{self.head(row)} t {self._trial_number(row)}/{self.trials}")
        metre = width / (2 * X_LIMIT + 0.8)
        position, _, angle, _ = self._state[row].tolist()
        centre = round(width / 2 + position * metre)
        canvas.rectangle(base, 0, 2, width, drawing.GREY)
        colour = drawing.GOLD if self._swapped[row] else drawing.BLUE
        canvas.rectangle(base - 14, centre - 16, 14, 32, colour)
        if self._last[row] >= 0:
            right = bool((self._last[row] == 1) != self._swapped[row])
            canvas.rectangle(base - 10, centre - 24 if right else centre + 18, 6, 6, drawing.RED)
        reach, foot = 140 * float(self._half_length[row]), base - 14
        canvas.pen.line((centre, foot, centre + reach * np.sin(angle), foot - reach * np.cos(angle)), drawing.INK, 3)
        return canvas.pixels()


class SwappedCartPoleEnv(TaskEnv):
    """One row of `SwappedCartPoleVectorEnv`, which documents it."""

    metadata: dict[str, Any] = drawing.render_metadata(frames_per_second=50)
    vector_class = SwappedCartPoleVectorEnv


class BalancingAgent(ReferenceAgent):
    """Oracle: a linear controller of the pole, told whether left and right are swapped."""

    needs_task = True

    def __init__(self, sees: Sees = "pole") -> None:
        super().__init__()
        self._scale = np.array(SCALES[sees])

    def _pole(self, rows: Array) -> FloatArray:
        """Angle and angular velocity (rad, rad/s) in observations, `(B, 2)`."""
        pole: FloatArray = (rows[:, : self._scale.size] * self._scale)[:, -2:]
        return pole

    def _push(self, rows: Array) -> IntArray:
        """Side `(B,)` to push to, 0 left and 1 right."""
        lean: FloatArray = self._pole(rows) @ np.array(GAINS)
        return (lean > 0).astype(np.int64)

    @override
    def choose(self, rows: Array, start: BoolArray, state: Any, deterministic: bool) -> tuple[Array, Any]:
        swapped = np.array([bool(task.params["swapped"]) for task in self.privileged_tasks(len(rows))])
        return self._push(rows) ^ swapped, True


class InferSwapAgent(BalancingAgent):
    """Pushes, watches which way the pole is thrown, and balances it with what it has found out.

    State: what is known `(B,)` (0 nothing, 1 not swapped, -1 swapped), and the angular velocity before the push `(B,)`.
    """

    needs_task = False

    @override
    def choose(self, rows: Array, start: BoolArray, state: Any, deterministic: bool) -> tuple[Array, Any]:
        velocity = self._pole(rows)[:, 1]
        if state is None:
            state = {"known": np.zeros(len(rows)), "velocity": velocity}
        first = self._scale.size
        pushed = np.where(start | (rows[:, -2] > 0), 0.0, rows[:, first + 1] - rows[:, first])
        # A push to the right throws the pole to the left; in one step gravity does far less than a push.
        seen = np.sign(-pushed * (velocity - state["velocity"]))
        known = np.where(start, 0.0, np.where(state["known"] == 0, seen, state["known"]))
        return self._push(rows) ^ (known < 0), {"known": known, "velocity": velocity}
