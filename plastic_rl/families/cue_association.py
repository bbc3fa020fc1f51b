"""Cue association: which action belongs to which cue must be bound within a lifetime, for many cues at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from typing_extensions import override

from plastic_rl.arrays import Array, BoolArray, Image, IntArray, SingleArray
from plastic_rl.envs import drawing
from plastic_rl.envs.task import STANDARD_SPLITS, Params, RandomAgent, ReferenceAgent, Task, TaskDistribution, number_of
from plastic_rl.envs.task_vector_env import Outcome, TaskEnv, TaskVectorEnv
from plastic_rl.errors import TaskError

CUE, GO, BLANK = range(3)
"""The steps of a trial."""
STEPS_PER_TRIAL = 3
SHIFT_FLIP = 0.1
"""Probability that a bit of a cue is flipped, in half of the tasks of `shift`."""
MOST_BITS = 62


class CueAssociationTasks(TaskDistribution):
    """Which cues there are, and which action is the correct one for each.

    Args:
        cues: Number of cues in a lifetime, K.
        trials: Trials in a lifetime, T.
        bits: Length of a cue, 1 to 62.
        entropy: Root of all seeds.

    >>> task = CueAssociationTasks(cues=2, bits=4).task("test", 0)
    >>> dict(task.params)
    {'cues': 2, 'flip': 0.0, 'patterns': (14, 11), 'correct': (0, 1)}
    """

    family = "CueAssociation"
    splits = (*STANDARD_SPLITS, "shift")

    def __init__(self, cues: int = 5, trials: int = 20, bits: int = 20, entropy: int = 0) -> None:
        super().__init__(entropy)
        if trials < 1 or not 1 <= bits <= MOST_BITS or not 1 <= cues <= 2**bits:
            raise TaskError(
                f"cue association has 1 or more trials, 1 to {MOST_BITS} bits and from 1 to 2 ** bits cues, "
                f"got cues={cues}, trials={trials}, bits={bits}"
            )
        self.cues = cues
        self.trials = trials
        self.bits = bits
        self.shift_cues = tuple(number for number in (cues // 2, 2 * cues) if 1 <= number <= 2**bits)

    @override
    def sample_params(self, generator: np.random.Generator, split: str) -> Params:
        cues, flip = self.cues, 0.0
        if split == "shift":
            cues = int(generator.choice(self.shift_cues))
            flip = float(generator.choice((0.0, SHIFT_FLIP)))
        patterns = generator.choice(2**self.bits, cues, replace=False)
        correct = generator.integers(0, 2, cues)
        return {"cues": cues, "flip": flip, "patterns": tuple(patterns.tolist()), "correct": tuple(correct.tolist())}

    @override
    def reference_agents(self, split: str) -> dict[str, ReferenceAgent]:
        return {
            "random": RandomAgent(spaces.Discrete(2)),
            "hebbian": HebbianAgent(self.trials, self.bits),
            self.limit_of(split): (ToldCueAgent if split == "shift" else MemoryAgent)(self.trials, self.bits),
            "oracle": CorrectActionAgent(),
        }

    @override
    def limit_of(self, split: str) -> str:
        return "told_cue" if split == "shift" else "bayes"


def bits_of(patterns: IntArray, bits: int) -> IntArray:
    """The numbers `patterns (..)` as +1 and -1, lowest bit first: `(.., bits)`.

    >>> bits_of(np.array([5]), 4).tolist()
    [[1, -1, 1, -1]]
    """
    return 2 * (patterns[..., None] >> np.arange(bits) & 1) - 1


def trial_and_step(time: IntArray, trials: int) -> tuple[IntArray, IntArray]:
    """The trial at `time (B,)`, and the step in it (`CUE`, `GO`, `BLANK`), which stays `BLANK` after the last trial.

    >>> [values.tolist() for values in trial_and_step(np.arange(7), 2)]
    [[0, 0, 0, 1, 1, 1, 1], [0, 1, 2, 0, 1, 2, 2]]
    """
    trial = np.minimum(time // STEPS_PER_TRIAL, trials - 1)
    return trial, np.minimum(time - STEPS_PER_TRIAL * trial, BLANK)


class CueAssociationVectorEnv(TaskVectorEnv[CueAssociationTasks]):
    """Which of two actions belongs to each of several cues? All of them must be kept in mind at once.

    # Task
    Each lifetime has K random cues of its own, each with a correct action, 0 or 1, drawn by a fair coin. Cues come in
    random order, with replacement; nothing but the rewards tells which action is correct. What must be learned is to
    bind an action to a cue when it is first met, and to keep that apart from the other cues. A network whose synapses
    stay as they are has to hold all of it in its activity.

    A trial takes three steps: the cue; the same cue with the go flag; a blank, where the feedback shows what the answer
    was worth. The cue comes twice since a plastic recurrent layer sees it one step too late to recall it at once.

    # Observation
    Box, bits + 6 columns: the bits of the cue, +1 or -1 (0 in the blank); the go flag; previous action one-hot (2);
    previous reward; trial_start; t/T.

    # Actions
    Discrete 2:

    | action | with the go flag | in the other two steps |
    |--------|------------------|------------------------|
    | 0      | answer 0         | nothing                |
    | 1      | answer 1         | nothing                |

    # Reward
    1 for the correct answer, else 0; `info["expected_reward"]` is the same, since nothing about it is random.

    # End
    Terminated after `trials` trials, 3 `trials` steps.

    # Tasks and splits
    `patterns`, the K different cues (numbers whose binary digits are the bits), and `correct`, an action for each.
    Train, valid and test are one distribution. On `shift` there are half or twice as many cues (`cues` in the task;
    where there are so many different ones), and in half of its tasks each bit is flipped with probability .1 (`flip`),
    in every trial anew.

    # Limits
    Bayes, exact: a perfect memory errs in half of the trials that show a cue for the first time, which leaves
    `T - (K / 2) (1 - (1 - 1 / K) ** T)`. With K = 5 and T = 20: 17.53; random 10, one linear Hebbian unit 16.7, oracle
    20. On `shift` the limit is a perfect memory that is told which cue it sees: exact where no bit is flipped, else an
    upper bound.

    # Source
    Of this package: the positive control, where memory must be bound fast and many at once.
    """

    tasks_class = CueAssociationTasks
    metadata: dict[str, Any] = drawing.render_metadata(frames_per_second=2)
    state_arrays: ClassVar[tuple[str, ...]] = ("_cue", "_correct", "_shown", "_last")

    def __init__(self, num_envs: int = 1, **arguments: Any) -> None:
        tasks, options = self.tasks_and_options(arguments)
        super().__init__(
            num_envs,
            distribution=tasks,
            action_space=spaces.Discrete(2),
            steps=STEPS_PER_TRIAL * tasks.trials,
            feature_low=[-1.0] * tasks.bits + [0.0],
            feature_high=[1.0] * (tasks.bits + 1),
            steps_per_trial=STEPS_PER_TRIAL,
            options=options,
        )
        self.trials = tasks.trials
        self.bits = tasks.bits
        self._cue: IntArray = np.zeros((num_envs, self.trials), dtype=np.int64)
        self._correct: IntArray = np.zeros((num_envs, self.trials), dtype=np.int64)
        self._shown: Array = np.zeros((num_envs, self.trials, self.bits), dtype=np.int8)
        self._last: IntArray = np.zeros(num_envs, dtype=np.int64)

    @override
    def begin_rows(self, rows: IntArray, tasks: Sequence[Task], generators: Sequence[np.random.Generator]) -> None:
        """The noise is which cue each trial shows, and which of its bits are flipped."""
        for row, task, generator in zip(rows.tolist(), tasks, generators, strict=True):
            uniforms = generator.random((self.trials, 1 + self.bits))
            cue = (uniforms[:, 0] * number_of(task, "cues")).astype(np.int64)
            flipped = uniforms[:, 1:] < number_of(task, "flip")
            self._cue[row] = cue
            self._correct[row] = np.array(task.params["correct"])[cue]
            patterns = np.array(task.params["patterns"], dtype=np.int64)
            self._shown[row] = np.where(flipped, -1, 1) * bits_of(patterns[cue], self.bits)
        self._last[rows] = -1

    @override
    def transition(self, actions: Array) -> Outcome:
        trial, step = trial_and_step(self.time, self.trials)
        correct = (step == GO) & (actions == self._correct[self._all_rows, trial])
        self._last[:] = actions
        reward = correct.astype(np.float64)
        return Outcome(reward, step == BLANK, reward.copy())

    @override
    def write_features(self, features: SingleArray) -> None:
        trial, step = trial_and_step(self.time, self.trials)
        np.multiply(self._shown[self._all_rows, trial], (step != BLANK)[:, None], out=features[:, :-1])
        features[:, -1] = step == GO

    @override
    def privileged(self) -> dict[str, Array]:
        """Number of the present trial's cue, before any bit was flipped."""
        return {"cue": self._cue[self._all_rows, trial_and_step(self.time, self.trials)[0]]}

    # Pictures -------------------------------------------------------------------------------------------------------

    @override
    def text(self, row: int) -> str:
        trial, step = (int(values[row]) for values in trial_and_step(self.time, self.trials))
        shown = "".join("+" if bit > 0 else "-" for bit in self._shown[row, trial])
        last = "none" if self._last[row] < 0 else f"{self._last[row]}, paid {self._reward_column[row]:g}"
        return (
            f"{self.headline(row)}\n"
            f"trial {trial + 1}/{self.trials}  cue {self._cue[row, trial]}  correct {self._correct[row, trial]}\n"
            f"{'.' * self.bits if step == BLANK else shown}{' GO' if step == GO else ''}\n"
            f"last action {last}"
        )

    @override
    def frame(self, row: int) -> Image:
        """Bits dark (+1) or light; the go flag gold; both actions, the correct one outlined.

        The last action is blue where it did not count, green where it was paid, else red.
        """
        trial, step = (int(values[row]) for values in trial_and_step(self.time, self.trials))
        across, cell, top = 10, 14, 24
        lines = -(-self.bits // across)
        canvas = drawing.Canvas(top + lines * cell + 40, across * cell + 60, self.head(row))
        for place, bit in enumerate(self._shown[row, trial].tolist()):
            colour = drawing.GREY if step == BLANK else drawing.INK if bit > 0 else drawing.LIGHT
            left = 8 + place % across * cell
            canvas.rectangle(top + place // across * cell, left, cell - 2, cell - 2, colour)
        canvas.rectangle(top, across * cell + 22, 24, 24, drawing.GOLD if step == GO else drawing.LIGHT)
        counted = self.time[row] > 0 and step == BLANK
        for action in (0, 1):
            left, line = 8 + 36 * action, top + lines * cell + 8
            if action == self._correct[row, trial]:
                canvas.rectangle(line - 2, left - 2, 28, 28, drawing.GOLD)
            paid = drawing.GREEN if self._reward_column[row] > 0 else drawing.RED
            colour = (paid if counted else drawing.BLUE) if action == self._last[row] else drawing.LIGHT
            canvas.rectangle(line, left, 24, 24, colour)
            canvas.write(str(action), line + 7, left + 9)
        return canvas.pixels()


class CueAssociationEnv(TaskEnv):
    """One row of `CueAssociationVectorEnv`, which documents it."""

    metadata: dict[str, Any] = drawing.render_metadata(frames_per_second=2)
    vector_class = CueAssociationVectorEnv


class MemoryAgent(ReferenceAgent):
    """A perfect memory: takes the action that was correct for this cue, a random one where the cue is new.

    State: the cue of each trial `(B, T, C)` and its correct action `(B, T)`: 1, -1 for action 0, 0 while unknown.
    """

    def __init__(self, trials: int, bits: int) -> None:
        super().__init__()
        self.trials = trials
        self.bits = bits

    def cue(self, rows: Array) -> Array:
        """What the agent has for the cue in observations `rows (B, I)`: `(B, C)`."""
        return rows[:, : self.bits]

    def similarity(self, cues: Array, cue: Array) -> Array:
        """How much each of `cues (B, T, C)` says about `cue (B, C)`: `(B, T)`."""
        return np.asarray((cues == cue[:, None]).all(axis=2))

    @override
    def choose(self, rows: Array, start: BoolArray, state: Any, deterministic: bool) -> tuple[Array, Any]:
        cue = self.cue(rows)
        if state is None:
            state = np.zeros((len(rows), self.trials, cue.shape[1])), np.zeros((len(rows), self.trials))
        cues, correct = (np.where(start.reshape(-1, *[1] * (old.ndim - 1)), 0.0, old) for old in state)
        trial, step = trial_and_step(
            np.rint(rows[:, -1].astype(np.float64) * self.trials * 3).astype(np.int64), self.trials
        )
        go, blank = np.flatnonzero(step == GO), np.flatnonzero(step == BLANK)
        cues[go, trial[go]] = cue[go]
        # Behind the features: the action one-hot (2), the reward, trial_start, t/T.
        chosen, paid = rows[blank, -4] > 0.5, rows[blank, -3] > 0.5
        correct[blank, trial[blank]] = np.where(chosen == paid, 1.0, -1.0)
        votes = (self.similarity(cues, cue) * correct).sum(axis=1)
        guess = np.zeros(len(rows), dtype=np.bool_) if deterministic else self.coin(len(rows))
        return np.where(votes == 0.0, guess, votes > 0.0).astype(np.int64), (cues, correct)


class HebbianAgent(MemoryAgent):
    """One linear unit, to whose weights each cue is added, or subtracted where its correct action was 0."""

    @override
    def similarity(self, cues: Array, cue: Array) -> Array:
        return np.asarray((cues * cue[:, None]).sum(axis=2))


class ToldCueAgent(MemoryAgent):
    """A perfect memory whose privileged information is the number of the cue: flipped bits do not matter to it."""

    needs_env = True

    @override
    def cue(self, rows: Array) -> Array:
        return self.privileged("cue", len(rows))[:, None]


class CorrectActionAgent(ReferenceAgent):
    """Oracle: its privileged information is which cue it sees, and the correct action of each."""

    needs_task = True
    needs_env = True

    @override
    def choose(self, rows: Array, start: BoolArray, state: Any, deterministic: bool) -> tuple[Array, Any]:
        cue = self.privileged("cue", len(rows)).tolist()
        correct = [np.array(task.params["correct"]) for task in self.privileged_tasks(len(rows))]
        return np.array([actions[number] for number, actions in zip(cue, correct, strict=True)], dtype=np.int64), True
