"""Temporal order: which item of a cycle follows which must be learned from the order in which they are shown."""

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
from plastic_rl.families.cue_association import MOST_BITS, SHIFT_FLIP, bits_of

ITEM, FOLLOWER, BLANK = range(3)
"""The steps of a pair; those of a question are the probe (`ITEM`), the choice (`FOLLOWER`) and a blank."""
STEPS_PER_PAIR = 3
FEWEST_ITEMS = 3
"""In a cycle of two, an item comes both before and after the other."""
PLACES = 2
"""An observation has room for two items: the first place is that of what is shown, asked about or offered for action 0,
the second that of what is offered for action 1."""


class TemporalOrderTasks(TaskDistribution):
    """Which items there are, in the order of their cycle.

    Args:
        items: Number of items in the cycle, K, 3 or more.
        trials: Trials in a lifetime: presentations of the cycle, each followed by questions.
        questions: Questions in a trial, Q.
        bits: Length of an item's code, 2 to 62.
        entropy: Root of all seeds.

    >>> task = TemporalOrderTasks(items=3, bits=4).task("test", 0)
    >>> dict(task.params)
    {'items': 3, 'flip': 0.0, 'patterns': (2, 13, 10)}
    """

    family = "TemporalOrder"
    splits = (*STANDARD_SPLITS, "shift")

    def __init__(self, items: int = 6, trials: int = 3, questions: int = 4, bits: int = 20, entropy: int = 0) -> None:
        super().__init__(entropy)
        if min(trials, questions) < 1 or not 2 <= bits <= MOST_BITS or not FEWEST_ITEMS <= items <= 2**bits:
            raise TaskError(
                f"temporal order has 1 or more trials and questions, 2 to {MOST_BITS} bits and from {FEWEST_ITEMS} to "
                f"2 ** bits items, got items={items}, trials={trials}, questions={questions}, bits={bits}"
            )
        self.items = items
        self.trials = trials
        self.questions = questions
        self.bits = bits
        self.steps = STEPS_PER_PAIR * trials * (items + questions)
        self.steps_per_trial = STEPS_PER_PAIR * (items + questions)
        numbers = (number for number in (items // 2, 2 * items) if FEWEST_ITEMS <= number <= 2**bits)
        self.shift_items = tuple(numbers) or (items,)

    def asks(self, time: IntArray) -> BoolArray:
        """Whether the step at `time (B,)` is one of a question, and not of a pair, `(B,)`."""
        return np.asarray(time % self.steps_per_trial >= STEPS_PER_PAIR * self.items)

    @override
    def sample_params(self, generator: np.random.Generator, split: str) -> Params:
        items, flip = self.items, 0.0
        if split == "shift":
            items = int(generator.choice(self.shift_items))
            flip = float(generator.choice((0.0, SHIFT_FLIP)))
        patterns = generator.choice(2**self.bits, items, replace=False)
        return {"items": items, "flip": flip, "patterns": tuple(patterns.tolist())}

    @override
    def reference_agents(self, split: str) -> dict[str, ReferenceAgent]:
        return {
            "random": RandomAgent(spaces.Discrete(2)),
            "symmetric_window": SymmetricWindowAgent(self),
            "stdp": STDPAgent(self),
            "order_memory": OrderMemoryAgent(self),
            "oracle": RightAnswerAgent(),
        }

    @override
    def limit_of(self, split: str) -> str:
        return "oracle" if split == "shift" else "order_memory"


class TemporalOrderVectorEnv(TaskVectorEnv[TemporalOrderTasks]):
    """Items follow each other in a hidden cycle: which comes after this one, and which before it?

    # Task
    Each lifetime has a cycle of K random items of its own. A trial shows the cycle once, as its K pairs of an item and
    the one that follows it, in random order, and then asks questions: after this item, which of two comes next? One is
    the item that follows it, the other the item that it follows. Both were shown beside it equally often: the one just
    after it, the other just before, so that nothing but the order in time tells them apart.

    A window of plasticity that is asymmetric in time (potentiation where the presynaptic side comes first) binds each
    item to its successor, and is recalled by the probe; one that is symmetric binds it to both neighbours alike. In
    detail: exchanging the two items of every pair turns a presentation into one of the reversed cycle, which is as
    probable and has the same questions, with the other answers right. Whoever learns the same from both is right in
    half of all questions, exactly, however fast it forgets. (This is why pairs come in random order, with a blank
    between them. In a cycle shown in one piece the successor was always seen later than the predecessor, but for the
    ends of the piece, and a trace that fades would tell them apart without any window: .667 right for K = 6.) For the
    same reason the agent never sees what an answer was worth: with the neighbours known, one reward gives the direction
    of the whole cycle away.

    A pair takes three steps: an item; the item that follows it; a blank. So does a question: the probe; the choice,
    where two items are offered; a blank. The choice comes one step after the probe, when a plastic recurrent layer
    recalls what followed it, and one of the items offered stands where items are shown, so that the recall meets it.

    # Observation
    Box, 2 bits + 7 columns: the bits, +1 or -1, of the item that is shown, asked about or offered for action 0, and of
    the item that is offered for action 1 (0 where there is none); the probe flag; the go flag; previous action one-hot
    (2); previous reward (always 0: it is paid, not shown); trial_start; t/T.

    # Actions
    Discrete 2:

    | action | with the go flag           | in the other steps |
    |--------|----------------------------|--------------------|
    | 0      | the first item comes next  | nothing            |
    | 1      | the second item comes next | nothing            |

    # Reward
    1 for the right answer, else 0; `info["expected_reward"]` is the same, since nothing about it is random.

    # End
    Terminated after `trials` trials of 3 (`items` + `questions`) steps.

    # Tasks and splits
    `patterns`, the K different items (numbers whose binary digits are the bits) in the order of the cycle. Train, valid
    and test are one distribution. On `shift` there are half or twice as many items (`items` in the task; 3 or more, and
    as far as there are so many different ones), of which a trial still shows `items` pairs: all of them twice, or one
    half; and in half of its tasks each bit is flipped with probability .1 (`flip`) whenever an item is shown.

    # Limits
    Exact: a perfect memory of the order is always right, `trials * questions`, since no question comes before the whole
    cycle was shown. With the default of 12 questions: order memory and oracle 12, random 6, a window symmetric in time
    6, one linear associator with the window of spike-timing-dependent plasticity 12.0 (11.6 on `shift`), which learns
    from pairs alone. On `shift` the limit is the oracle, an upper bound: nobody has seen all of a cycle of twice as
    many items in the first trial.

    # Source
    Of this package, for windows of plasticity. Asymmetric associations of a sequence: Sompolinsky and Kanter 1986,
    doi 10.1103/PhysRevLett.57.2861; the window: Bi and Poo 1998, doi 10.1523/JNEUROSCI.18-24-10464.1998.
    """

    tasks_class = TemporalOrderTasks
    metadata: dict[str, Any] = drawing.render_metadata(frames_per_second=2)
    state_arrays: ClassVar[tuple[str, ...]] = ("_items", "_codes", "_right", "_last")

    def __init__(self, num_envs: int = 1, **arguments: Any) -> None:
        tasks, options = self.tasks_and_options(arguments)
        super().__init__(
            num_envs,
            distribution=tasks,
            action_space=spaces.Discrete(2),
            steps=tasks.steps,
            feature_low=[-1.0] * PLACES * tasks.bits + [0.0, 0.0],
            feature_high=[1.0] * (PLACES * tasks.bits + 2),
            reward_range=(-1.0, 0.0),  # so that a reward shows as 0
            steps_per_trial=tasks.steps_per_trial,
            options=options,
        )
        self.bits = tasks.bits
        # Of each step: which items of the cycle its places hold (-1: none), their bits as a number, the right action.
        self._items: IntArray = np.full((num_envs, self.steps + 1, PLACES), -1, dtype=np.int64)
        self._codes: IntArray = np.zeros((num_envs, self.steps + 1, PLACES), dtype=np.int64)
        self._right: IntArray = np.full((num_envs, self.steps + 1), -1, dtype=np.int64)
        self._last: IntArray = np.zeros(num_envs, dtype=np.int64)

    @override
    def begin_rows(self, rows: IntArray, tasks: Sequence[Task], generators: Sequence[np.random.Generator]) -> None:
        """The noise is the order of the pairs, what is asked and on which side the answer is, and the flipped bits."""
        trials, shown, questions = self.distribution.trials, self.distribution.items, self.distribution.questions
        largest = max(shown, *self.distribution.shift_items)
        for row, task, generator in zip(rows.tolist(), tasks, generators, strict=True):
            keys = generator.random(trials * shown + largest)
            uniforms = generator.random((2, trials, questions))
            flips = generator.random((self.steps, PLACES, self.bits)) < number_of(task, "flip")
            items = int(number_of(task, "items"))
            if not FEWEST_ITEMS <= items <= largest:
                raise TaskError(
                    f"a task here has from {FEWEST_ITEMS} to {largest} items, got {items}: {dict(task.params)}"
                )
            presentations = -(-trials * shown // items)
            order = keys[: presentations * items].reshape(-1, items).argsort(axis=1).ravel()[: trials * shown]
            held = np.full((trials, shown + questions, STEPS_PER_PAIR, PLACES), -1, dtype=np.int64)
            held[:, :shown, ITEM, 0] = order.reshape(trials, shown)
            held[:, :shown, FOLLOWER, 0] = (order.reshape(trials, shown) + 1) % items
            probe = (uniforms[0] * items).astype(np.int64)
            answer = (uniforms[1] < 0.5).astype(np.int64)
            held[:, shown:, ITEM, 0] = probe
            held[:, shown:, FOLLOWER, 0] = (probe + np.where(answer == 0, 1, -1)) % items
            held[:, shown:, FOLLOWER, 1] = (probe + np.where(answer == 0, -1, 1)) % items
            right = np.full((trials, shown + questions, STEPS_PER_PAIR), -1, dtype=np.int64)
            right[:, shown:, FOLLOWER] = answer
            # The entry behind the last step, of nothing, is what is observed at the end.
            self._items[row, :-1] = held.reshape(self.steps, PLACES)
            self._right[row, :-1] = right.ravel()
            patterns = np.array(task.params["patterns"], dtype=np.int64)
            flipped = (flips << np.arange(self.bits)).sum(axis=2)
            self._codes[row, :-1] = patterns[self._items[row, :-1]] ^ flipped
        self._last[rows] = -1

    @override
    def transition(self, actions: Array) -> Outcome:
        right = self._right[self._all_rows, self.time]
        self._last[:] = actions
        reward = ((right >= 0) & (actions == right)).astype(np.float64)
        trial_end = (self.time + 1) % self.distribution.steps_per_trial == 0
        return Outcome(reward, trial_end, reward.copy())

    @override
    def write_features(self, features: SingleArray) -> None:
        there = self._items[self._all_rows, self.time] >= 0
        bits = bits_of(self._codes[self._all_rows, self.time], self.bits)
        features[:, :-2] = (bits * there[:, :, None]).reshape(self.num_envs, -1)
        features[:, -2] = there[:, 0] & ~there[:, 1] & self.distribution.asks(self.time)
        features[:, -1] = there[:, 1]

    @override
    def privileged(self) -> dict[str, Array]:
        """The right action now, 0 where nothing is asked."""
        return {"right": np.maximum(self._right[self._all_rows, self.time], 0)}

    # Pictures -------------------------------------------------------------------------------------------------------

    def _answered(self, row: int) -> bool | None:
        """Whether the last action was a right answer; None where it was none."""
        right = self._right[row, self.time[row] - 1] if self.time[row] else -1
        return None if right < 0 else bool(self._last[row] == right)

    def _probe(self, row: int) -> int:
        """The item that the present question is about."""
        time = int(self.time[row])
        return int(self._items[row, time - time % STEPS_PER_PAIR, 0])

    @override
    def text(self, row: int) -> str:
        time = int(self.time[row])
        trial = min(time // self.distribution.steps_per_trial, self.distribution.trials - 1)
        items = int(number_of(self.tasks[row], "items"))
        first, second = self._items[row, time].tolist()
        codes = [
            "".join("+" if bit > 0 else "-" for bit in bits) for bits in bits_of(self._codes[row, time], self.bits)
        ]
        lines = [self.headline(row), f"trial {trial + 1}/{self.distribution.trials}  cycle of {items}: 0 > 1 > .. > 0"]
        if second >= 0:
            for action, item in enumerate((first, second)):
                right = "  (right)" if action == self._right[row, time] else ""
                lines.append(f"{codes[action]}  action {action}: item {item} follows {self._probe(row)}{right}")
        elif first >= 0:
            asks = bool(self.distribution.asks(self.time)[row])
            lines.append(f"{codes[0]}  item {first}{': what follows it?' if asks else ''}")
        else:
            lines.append("." * self.bits)
        worth = {None: "", True: ", right", False: ", wrong"}[self._answered(row)]
        return "\n".join([*lines, f"last action {'none' if self._last[row] < 0 else self._last[row]}{worth}"])

    @override
    def frame(self, row: int) -> Image:
        """The cycle as a ring, below it the bits of what is shown (dark +1), at the right what is offered.

        The item that is shown is marked blue, one that is asked about gold. The right answer is outlined in gold; an
        answer is green where it was right, else red.
        """
        time = int(self.time[row])
        items = int(number_of(self.tasks[row], "items"))
        held = self._items[row, time].tolist()
        asks = bool(self.distribution.asks(self.time)[row])
        radius = max(48, 5 * items)
        cell = max(3, 180 // self.bits)
        top, middle = 24, 16 + radius
        below = top + 2 * radius + 36
        canvas = drawing.Canvas(
            below + PLACES * (cell + 4) + 6, max(2 * radius + 128, self.bits * cell + 16), self.head(row)
        )
        angles = 2 * np.pi * np.arange(items) / items - np.pi / 2
        across, down = middle + radius * np.cos(angles), top + 14 + radius * (1 + np.sin(angles))
        for place in range(items):
            after = (place + 1) % items
            way = np.array([across[after] - across[place], down[after] - down[place]])
            ahead = way / np.hypot(*way)
            tip = np.array([across[after], down[after]]) - 11 * ahead
            sides = [tuple(tip - 7 * ahead + side * 4 * np.array([-ahead[1], ahead[0]])) for side in (-1, 1)]
            canvas.pen.line((across[place], down[place], *tip), drawing.GREY, 2)
            canvas.pen.polygon([tuple(tip), *sides], drawing.GREY)
        marked = self._probe(row) if asks else held[0]
        for place in range(items):
            left, above = float(across[place]), float(down[place])
            edge, width = (drawing.GOLD if asks else drawing.BLUE, 4) if place == marked else (drawing.GREY, 1)
            canvas.pen.ellipse((left - 11, above - 11, left + 11, above + 11), drawing.LIGHT, edge, width)
            canvas.write(str(place), round(above) - 5, round(left) - (3 if place < 10 else 6))
        self._draw_choice(canvas, row, top + radius, 2 * radius + 46)
        for line, bits in enumerate(bits_of(self._codes[row, time], self.bits)):
            for place, bit in enumerate(bits.tolist()):
                here = held[line] >= 0
                colour = drawing.GREY if not here else drawing.INK if bit > 0 else drawing.LIGHT
                canvas.rectangle(below + line * (cell + 4), 8 + place * cell, cell, cell - 1, colour)
        return canvas.pixels()

    def _draw_choice(self, canvas: drawing.Canvas, row: int, top: int, left: int) -> None:
        """Two boxes: the items offered now, or just now where they were answered."""
        answered = self._answered(row)
        time = int(self.time[row]) - (answered is not None)
        for action in (0, 1):
            offered = self._items[row, time, 1] >= 0
            item, across = int(self._items[row, time, action]) if offered else -1, left + 40 * action
            if item >= 0 and action == self._right[row, time]:
                canvas.rectangle(top - 2, across - 2, 32, 32, drawing.GOLD)
            chosen = answered is not None and action == self._last[row]
            colour = (drawing.GREEN if answered else drawing.RED) if chosen else drawing.LIGHT
            canvas.rectangle(top, across, 28, 28, colour)
            canvas.write("" if item < 0 else str(item), top + 9, across + (11 if item < 10 else 8))
            canvas.write(f"act {action}", top + 32, across)


class TemporalOrderEnv(TaskEnv):
    """One row of `TemporalOrderVectorEnv`, which documents it."""

    metadata: dict[str, Any] = drawing.render_metadata(frames_per_second=2)
    vector_class = TemporalOrderVectorEnv


class AssociativeAgent(ReferenceAgent):
    """One linear associator that sees pairs of subsequent items, and chooses what the probe recalls more of.

    The pair of an item `x` and its follower `y` adds `y xT + backward x yT` to its weights. State: the items and
    followers of all pairs, `(B, N, bits)` each, and the last item or probe, `(B, bits)`.
    """

    backward: ClassVar[float]
    """What the window gives to synapses whose postsynaptic side came first, where it gives the others 1."""

    def __init__(self, tasks: TemporalOrderTasks) -> None:
        super().__init__()
        self.tasks = tasks

    def similarity(self, codes: Array, code: Array) -> Array:
        """How much of each of `codes (B, N, bits)` is in `code (B, bits)`: `(B, N)`."""
        return np.asarray((codes * code[:, None]).sum(axis=2))

    @override
    def choose(self, rows: Array, start: BoolArray, state: Any, deterministic: bool) -> tuple[Array, Any]:
        tasks, count = self.tasks, len(rows)
        codes = rows[:, : PLACES * tasks.bits].reshape(count, PLACES, tasks.bits).astype(np.float64)
        if state is None:
            pairs = np.zeros((count, tasks.trials * tasks.items, tasks.bits))
            state = pairs, pairs, codes[:, 0]
        items, followers = (np.where(start[:, None, None], 0.0, old) for old in state[:2])
        time = np.minimum(np.rint(rows[:, -1].astype(np.float64) * tasks.steps).astype(np.int64), tasks.steps - 1)
        asks, step = tasks.asks(time), time % STEPS_PER_PAIR
        last = np.where((step == ITEM)[:, None], codes[:, 0], state[2])
        pair = np.flatnonzero(~asks & (step == FOLLOWER))
        trial, within = np.divmod(time[pair], tasks.steps_per_trial)
        place = trial * tasks.items + within // STEPS_PER_PAIR
        items[pair, place], followers[pair, place] = last[pair], codes[pair, 0]
        after, before = self.similarity(items, last), self.backward * self.similarity(followers, last)
        recalled = [
            (self.similarity(followers, offered) * after + self.similarity(items, offered) * before).sum(axis=1)
            for offered in (codes[:, 0], codes[:, 1])
        ]
        return self.best(np.stack(recalled, axis=1), deterministic), (items, followers, last)


class SymmetricWindowAgent(AssociativeAgent):
    """The control: a window symmetric in time, which binds both neighbours alike."""

    backward = 1.0


class STDPAgent(AssociativeAgent):
    """A window antisymmetric in time: potentiation where the presynaptic side came first, else depression."""

    backward = -1.0


class OrderMemoryAgent(STDPAgent):
    """A perfect memory of the order: what other items look like does not disturb it."""

    @override
    def similarity(self, codes: Array, code: Array) -> Array:
        return np.asarray((codes == code[:, None]).all(axis=2).astype(np.float64))


class RightAnswerAgent(ReferenceAgent):
    """Oracle: its privileged information is the right answer."""

    needs_env = True

    @override
    def choose(self, rows: Array, start: BoolArray, state: Any, deterministic: bool) -> tuple[Array, Any]:
        return self.privileged("right", len(rows)), True
