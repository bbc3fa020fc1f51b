"""Pattern completion (Miconi et al. 2018): patterns shown once or a few times, then a part of one to be completed."""

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
from plastic_rl.memories import Hopfield

FIRST, SECOND, BLANK = range(3)
"""The steps of a trial."""
STEPS_PER_TRIAL = 3
MOST_BITS = 10_000
LINE = 50
"""Bits on a line of a text picture."""


class PatternCompletionTasks(TaskDistribution):
    """Which patterns there are, and how much of them is missing when they are to be completed.

    Args:
        bits: Length of a pattern, n, 2 to 10,000.
        patterns: Number of patterns in a lifetime, P.
        presentations: How often each of them is shown.
        queries: How many patterns are to be completed, after all were shown.
        zeroed: Share of the bits that are missing then (at least one bit is, and one is not).
        entropy: Root of all seeds.

    >>> tasks = PatternCompletionTasks(bits=4, patterns=2)
    >>> task = tasks.task("test", 0)
    >>> dict(task.params), tasks.patterns_of(task).tolist()
    ({'patterns': 2, 'zeroed': 0.5}, [[1, 1, 1, 1], [-1, 1, 1, 1]])
    """

    family = "PatternCompletion"
    splits = (*STANDARD_SPLITS, "shift")
    limit_kind = "bayes"
    supervised: ClassVar[bool] = False
    """Whether the environment shows what the missing bits were."""

    def __init__(
        self,
        bits: int = 50,
        patterns: int = 5,
        presentations: int = 2,
        queries: int = 1,
        zeroed: float = 0.5,
        entropy: int = 0,
    ) -> None:
        super().__init__(entropy)
        if not 2 <= bits <= MOST_BITS or min(patterns, presentations, queries) < 1 or not 0 < zeroed < 1:
            raise TaskError(
                f"pattern completion has 2 to {MOST_BITS:,} bits, 1 or more patterns, presentations and queries, and a "
                f"share between 0 and 1 of zeroed bits, got bits={bits}, patterns={patterns}, "
                f"presentations={presentations}, queries={queries}, zeroed={zeroed}"
            )
        self.bits = bits
        self.patterns = patterns
        self.presentations = presentations
        self.queries = queries
        self.zeroed = zeroed
        self.shown = patterns * presentations
        """Trials that show a pattern; those of the queries follow."""
        self.trials = self.shown + queries
        self.shift_patterns = tuple(number for number in (patterns // 2, 2 * patterns) if 1 <= number <= self.shown)

    @override
    def sample_params(self, generator: np.random.Generator, split: str) -> Params:
        if split != "shift":
            return {"patterns": self.patterns, "zeroed": float(self.zeroed)}
        patterns = int(generator.choice(self.shift_patterns or (self.patterns,)))
        return {"patterns": patterns, "zeroed": float(generator.choice((self.zeroed, (1 + self.zeroed) / 2)))}

    def patterns_of(self, task: Task) -> IntArray:
        """The patterns of a task, +1 and -1, `(P, n)`: its seed draws each bit by a fair coin."""
        generator = np.random.Generator(np.random.PCG64(task.seed))
        return 2 * generator.integers(0, 2, (int(number_of(task, "patterns")), self.bits)) - 1

    @override
    def reference_agents(self, split: str) -> dict[str, ReferenceAgent]:
        return {
            "random": RandomAgent(spaces.MultiBinary(self.bits)),
            "hopfield": HopfieldAgent(self.bits),
            "bayes": PerfectMemoryAgent(self.bits, self.shown),
            "oracle": ToldPatternAgent(),
        }


class SupervisedPatternCompletionTasks(PatternCompletionTasks):
    """The same tasks, in the environment that shows what the missing bits were."""

    supervised = True


def trial_and_step(time: IntArray, trials: int) -> tuple[IntArray, IntArray]:
    """The trial at `time (B,)`, and the step in it (`FIRST`, `SECOND`, `BLANK`), which stays `BLANK` after the last.

    >>> [values.tolist() for values in trial_and_step(np.arange(7), 2)]
    [[0, 0, 0, 1, 1, 1, 1], [0, 1, 2, 0, 1, 2, 2]]
    """
    trial = np.minimum(time // STEPS_PER_TRIAL, trials - 1)
    return trial, np.minimum(time - STEPS_PER_TRIAL * trial, BLANK)


class PatternCompletionVectorEnv(TaskVectorEnv[PatternCompletionTasks]):
    """Patterns are shown, then one with half of its bits missing: which were they?

    # Task
    Each lifetime has P random patterns of n bits of its own. They are shown in random order, each as often as any
    other; then a part of one is shown, and the rest of it is asked for. Nothing but the patterns themselves says which
    bits go together: they must be stored while they are seen, in synapses or in activity. Nothing is rewarded before.

    A trial takes three steps: the pattern; the same again; a blank. In the trials that ask, it is the pattern with
    missing bits, the second time with the go flag, and in the blank the feedback shows what the answer was worth. The
    pattern comes twice since a plastic recurrent layer binds what is active in two successive steps.

    # Observation
    Box, 2 bits + 4 columns: the bits, +1 or -1 (0 where missing, and in the blank); the go flag; previous action (the
    bits that were answered, 1 or 0); previous reward; trial_start; t/T.

    # Actions
    MultiBinary n: with the go flag, the whole pattern; only its missing bits count. Else nothing.

    | bit | meaning |
    |-----|---------|
    | 1   | +1      |
    | 0   | -1      |

    # Reward
    With the go flag the share of missing bits that are right, 0 to 1, else 0. It is the plain share, as published
    errors are, not corrected for chance (.5): normalised scores are, by the random agent.
    `info["expected_reward"]` is the same, since nothing about it is random.

    # End
    Terminated after `patterns * presentations + queries` trials of 3 steps. Each query asks for a pattern drawn anew
    among those shown, with other missing bits.

    # Tasks and splits
    `patterns`, their number, and `zeroed`, the share of bits that is missing; the patterns follow from the task's seed.
    Train, valid and test are one distribution. On `shift` there are half or twice as many patterns, shown in the same
    number of trials (so twice or half as often; where that can be), and in half of its tasks half of the bits that
    would have been known is missing too (.75 instead of .5).

    # Limits
    Bayes, exact: a perfect memory answers each bit as most of the patterns do that agree with all that is known, which
    with many bits is one, so that its score is `queries`. Random half of that, oracle `queries`. A Hopfield network
    that stores what it sees (`hopfield`, `plastic_rl.memories`) errs at its first step in the share
    `erfc(sqrt(K / (2 (P - 1)))) / 2` of the bits, K the number of those known: .0062 for n = 50, P = 5, K = 25.

    # Source
    Miconi, Stanley & Clune 2018, arXiv 1804.02464, section 4.1, where a plastic network of 1,000 bits errs in less than
    1% and one that is not plastic in about half of the bits.
    """

    tasks_class = PatternCompletionTasks
    metadata: dict[str, Any] = drawing.render_metadata(frames_per_second=2)
    state_arrays: ClassVar[tuple[str, ...]] = ("_pattern", "_bits", "_known", "_last")

    def __init__(self, num_envs: int = 1, **arguments: Any) -> None:
        tasks, options = self.tasks_and_options(arguments)
        bits = tasks.bits
        super().__init__(
            num_envs,
            distribution=tasks,
            action_space=spaces.MultiBinary(bits),
            steps=STEPS_PER_TRIAL * tasks.trials,
            feature_low=[-1.0] * bits + [0.0],
            feature_high=[1.0] * (bits + 1),
            steps_per_trial=STEPS_PER_TRIAL,
            label_size=bits if tasks.supervised else 0,
            label_low=-1.0,
            options=options,
        )
        self.bits = bits
        self.trials = tasks.trials
        self._pattern: IntArray = np.zeros((num_envs, self.trials), dtype=np.int64)
        self._bits: Array = np.zeros((num_envs, self.trials, bits), dtype=np.int8)
        self._known: BoolArray = np.ones((num_envs, self.trials, bits), dtype=np.bool_)
        self._last: Array = np.zeros((num_envs, bits), dtype=np.int8)

    @override
    def begin_rows(self, rows: IntArray, tasks: Sequence[Task], generators: Sequence[np.random.Generator]) -> None:
        """The noise is the order of the patterns, which of them is asked for, and which of its bits are missing."""
        own, bits = self.distribution, self.bits
        for row, task, generator in zip(rows.tolist(), tasks, generators, strict=True):
            count = int(number_of(task, "patterns"))
            if not 1 <= count <= own.shown:
                raise TaskError(f"a lifetime here shows 1 to {own.shown} patterns, got a task with {count}")
            patterns = own.patterns_of(task)
            rounds = -(-own.shown // count)
            # As much is drawn for any number of patterns, of which there are no more than trials that show one.
            keys = generator.random(2 * own.shown)[: rounds * count].reshape(rounds, count)
            order = keys.argsort(axis=1).ravel()[: own.shown]
            asked = order[(generator.random(own.queries) * own.shown).astype(np.int64)]
            missing = min(max(round(number_of(task, "zeroed") * bits), 1), bits - 1)
            places = generator.random((own.queries, bits)).argsort(axis=1)
            self._pattern[row] = np.concatenate([order, asked])
            self._bits[row] = patterns[self._pattern[row]]
            self._known[row] = True
            np.put_along_axis(self._known[row, own.shown :], places[:, :missing], False, axis=1)
        self._last[rows] = 0

    @override
    def transition(self, actions: Array) -> Outcome:
        trial, step = trial_and_step(self.time, self.trials)
        bits, missing = self._bits[self._all_rows, trial], ~self._known[self._all_rows, trial]
        asked = (step == SECOND) & (trial >= self.distribution.shown)
        self._last[:] = 2 * actions - 1
        right = (missing & (self._last == bits)).sum(axis=1)
        reward = np.where(asked, right / np.maximum(missing.sum(axis=1), 1), 0.0)
        if self._label_columns is not None:
            np.multiply(bits, missing & asked[:, None], out=self._label_columns)
        return Outcome(reward, step == BLANK, reward.copy())

    @override
    def write_features(self, features: SingleArray) -> None:
        trial, step = trial_and_step(self.time, self.trials)
        visible = self._known[self._all_rows, trial] & (step != BLANK)[:, None]
        np.multiply(self._bits[self._all_rows, trial], visible, out=features[:, :-1])
        features[:, -1] = (step == SECOND) & (trial >= self.distribution.shown)

    @override
    def privileged(self) -> dict[str, Array]:
        """The present trial's pattern, without gaps, `(B, n)`."""
        return {"pattern": self._bits[self._all_rows, trial_and_step(self.time, self.trials)[0]]}

    # Pictures -------------------------------------------------------------------------------------------------------

    def _shown(self, row: int) -> tuple[int, int, Array]:
        """Trial and step of a row, and the bits that it sees, `(n,)`."""
        trial, step = (int(values[row]) for values in trial_and_step(self.time, self.trials))
        return trial, step, self._bits[row, trial] * (self._known[row, trial] & (step != BLANK))

    @override
    def text(self, row: int) -> str:
        trial, step, shown = self._shown(row)
        asks = trial >= self.distribution.shown
        what = f"{'asks for' if asks else 'shows'} pattern {self._pattern[row, trial]}"
        lines = [self.headline(row), f"trial {trial + 1}/{self.trials}  {what}", *_lines(shown)]
        if asks and step == SECOND:
            lines[-1] += " GO"
        if asks and step == BLANK:
            lines += [f"answer {self._reward_column[row]:.2f} right", *_lines(self._last[row])]
        return "\n".join(lines)

    @override
    def frame(self, row: int) -> Image:
        """What is seen, bits dark (+1), light (-1) or blue (missing), beside the last answer; the go flag gold.

        After a query the missing bits of the answer are green where they are right, else red.
        """
        trial, step, shown = self._shown(row)
        across = max(10, round(self.bits**0.5))
        cell, top = max(3, 140 // across), 24
        lines = -(-self.bits // across)
        second = 16 + across * cell + 14
        canvas = drawing.Canvas(top + lines * cell + 32, second + across * cell + 8, self.head(row))
        known, bits, answer = self._known[row, trial], self._bits[row, trial], self._last[row]
        judged = step == BLANK and trial >= self.distribution.shown
        for place in range(self.bits):
            line, column = top + place // across * cell, place % across * cell
            colours = {1: drawing.INK, -1: drawing.LIGHT, 0: drawing.GREY}
            gap = step != BLANK and not known[place]
            seen = drawing.BLUE if gap else colours[int(shown[place])]
            canvas.rectangle(line, 8 + column, cell - 1, cell - 1, seen)
            colour = colours[int(answer[place])]
            if judged and not known[place]:
                colour = drawing.GREEN if answer[place] == bits[place] else drawing.RED
            canvas.rectangle(line, second + column, cell - 1, cell - 1, colour)
        go = step == SECOND and trial >= self.distribution.shown
        canvas.rectangle(top + lines * cell + 8, 8, 16, 16, drawing.GOLD if go else drawing.LIGHT)
        canvas.write("answer", top + lines * cell + 10, second)
        return canvas.pixels()


def _lines(bits: Array) -> list[str]:
    """Bits `(n,)` as lines of `+`, `-` and `.` (0)."""
    signs = "".join(".+-"[int(bit)] for bit in bits)
    return [signs[start : start + LINE] for start in range(0, len(signs), LINE)]


class SupervisedPatternCompletionVectorEnv(PatternCompletionVectorEnv):
    """`PatternCompletionVectorEnv`, supervised: n more columns hold what the missing bits of the step before were.

    They are +1 or -1 for each bit that was asked for, in the step behind the answer, and 0 everywhere else. Only agents
    that are meant to learn from labels belong here. Everything else is that environment's.

    # Observation
    Box, 3 bits + 4 columns: as there, then the labels. `metadata["feedback"]["label"]` says where.
    """

    tasks_class = SupervisedPatternCompletionTasks


class PatternCompletionEnv(TaskEnv):
    """One row of `PatternCompletionVectorEnv`, which documents it."""

    metadata: dict[str, Any] = drawing.render_metadata(frames_per_second=2)
    vector_class = PatternCompletionVectorEnv


class SupervisedPatternCompletionEnv(TaskEnv):
    """One row of `SupervisedPatternCompletionVectorEnv`, which documents it."""

    metadata: dict[str, Any] = drawing.render_metadata(frames_per_second=2)
    vector_class = SupervisedPatternCompletionVectorEnv


class HopfieldAgent(ReferenceAgent):
    """Stores each pattern that it sees in a Hopfield memory, and answers what that recalls.

    State: a memory for each row.

    Args:
        bits: n.
        steps: Of a recall, at most.
    """

    def __init__(self, bits: int, steps: int = 50) -> None:
        super().__init__()
        self.bits = bits
        self.steps = steps

    @override
    def choose(self, rows: Array, start: BoolArray, state: Any, deterministic: bool) -> tuple[Array, Any]:
        answers: IntArray = np.zeros((len(rows), self.bits), dtype=np.int64)
        memories = list(state or [None] * len(rows))
        new, asked = new_pattern(rows, self.bits), rows[:, self.bits] > 0.5
        for row, seen in enumerate(rows[:, : self.bits]):
            memory: Hopfield = Hopfield(self.bits) if start[row] else memories[row]
            memories[row] = memory.store(seen) if new[row] else memory
            if asked[row]:
                answers[row] = memory.recall(seen, steps=self.steps).state > 0
        return answers, tuple(memories)


class PerfectMemoryAgent(ReferenceAgent):
    """Remembers all that it saw, and answers each bit as most of the patterns do that agree with what is known.

    State: the patterns in the order in which they were shown, `(B, S, n)`, 0 where none was yet; and how many, `(B,)`.
    """

    def __init__(self, bits: int, shown: int) -> None:
        super().__init__()
        self.bits = bits
        self.shown = shown

    @override
    def choose(self, rows: Array, start: BoolArray, state: Any, deterministic: bool) -> tuple[Array, Any]:
        count = len(rows)
        if state is None:
            state = np.zeros((count, self.shown, self.bits), dtype=np.int8), np.zeros(count, dtype=np.int64)
        memory, held = np.where(start[:, None, None], 0, state[0]), np.where(start, 0, state[1])
        seen = rows[:, : self.bits]
        new = np.flatnonzero(new_pattern(rows, self.bits) & (held < self.shown))
        memory[new, held[new]] = seen[new]
        held[new] += 1
        known = seen[:, None] != 0
        agrees = ((memory == seen[:, None]) | ~known).all(axis=2) & (np.arange(self.shown) < held[:, None])
        votes = (memory * agrees[..., None]).sum(axis=1)
        guess: Array = np.zeros((count, self.bits), dtype=np.bool_)
        if not deterministic:
            guess = self.noise(count).draw("uniform", self.bits) < 0.5
        return np.where(votes == 0, guess, votes > 0).astype(np.int64), (memory, held)


class ToldPatternAgent(ReferenceAgent):
    """Oracle: its privileged information is the pattern."""

    needs_env = True

    @override
    def choose(self, rows: Array, start: BoolArray, state: Any, deterministic: bool) -> tuple[Array, Any]:
        return (self.privileged("pattern", len(rows)) > 0).astype(np.int64), True


def new_pattern(rows: Array, bits: int) -> BoolArray:
    """Where observations `rows (B, I)` show a pattern without gaps for the first time in a trial, `(B,)`."""
    # Behind the bits: the go flag, the action, the reward, trial_start.
    starts = rows[:, 2 * bits + 2] > 0.5
    return np.asarray(starts & (rows[:, :bits] != 0).all(axis=1))
