"""What an evaluation found, as it stands in `evaluation.json`.

Every score here is a mean over tasks of a lifetime's total, and every pair of numbers `*_interval` its confidence
interval. Clock readings live in `seconds` alone: all else is the same each time for the same agent and seed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from plastic_rl.checkpoint import write_atomically
from plastic_rl.config import ConfigModel
from plastic_rl.errors import RunError

Pair = tuple[float, float]


class Curve(ConfigModel):
    """How the score develops along the lifetime: the adaptation curve."""

    unit: Literal["step", "trial"]
    """`step`: mean score per step, in bins of `width` steps; `trial`: return of each trial."""
    width: int = Field(ge=1)
    """Steps in a bin (1 for `trial`)."""
    position: tuple[float, ...]
    """Middle of each bin in steps, or the number of the trial; the first step or trial is 1."""
    mean: tuple[float, ...]
    """Mean over the tasks that reached it."""
    low: tuple[float, ...]
    """Low end of its interval."""
    high: tuple[float, ...]
    """High end of its interval."""
    tasks: tuple[int, ...]
    """How many tasks reached it: where lifetimes differ in length, later points are means over fewer tasks."""

    @property
    def develops(self) -> bool:
        """Whether there is more than one point."""
        return len(self.mean) > 1


class Measure(ConfigModel):
    """What an environment measures beside the reward (`metadata["measures"]`), as one agent did."""

    mean: float
    """Mean over tasks of a lifetime's mean, over those that have any."""
    interval: Pair
    """Interval of `mean`."""
    difference: float | None
    """This agent's mean minus that of the evaluated agent with sampled actions; None where that one has none."""
    difference_interval: Pair | None
    """Interval of `difference`, paired on tasks."""
    curve: Curve
    """How it develops along the lifetime; points that no task has are left out."""


class AccuracyPoint(ConfigModel):
    """How well an agent knows a data set after a number of samples."""

    samples: int = Field(ge=1)
    """Samples streamed so far."""
    accuracy: float
    """Mean over tasks of the share of held-out samples answered rightly, greedily, learning nothing from them."""
    accuracy_interval: Pair
    """Interval of `accuracy`."""
    difference: float
    """This agent's accuracy minus that of the evaluated agent, streaming with sampled actions."""
    difference_interval: Pair
    """Interval of `difference`, paired on tasks."""
    online: float
    """Mean share of the samples streamed so far that were answered rightly, as the agent acted."""
    online_interval: Pair
    """Interval of `online`."""
    commonest: float
    """Mean share of the commonest answer to held-out samples: 1 where everything is called the same."""
    by_task: tuple[float, ...] = ()
    """The accuracy on each task, in the order of the tasks: what comparisons across training runs are paired on."""


class Score(ConfigModel):
    """How well one agent did on the tasks of a split."""

    privileged: Literal["none", "task", "environment"] = "none"
    """Privileged information. `task`: an oracle, told the hidden task; `environment`: shown what no observation holds
    (its own position); `none`: no more than the agent sees."""
    raw_score: float
    """Mean over tasks of the lifetime's sum of expected reward (of reward where that is not known)."""
    raw_score_interval: Pair
    """Interval of `raw_score`."""
    normalised_score: float | None = None
    """`(raw - random) / (limit - random)`; None where the family has no limit."""
    normalised_score_interval: Pair | None = None
    """Interval of `normalised_score`, paired on tasks; None also where the limit is not clearly above random."""
    regret: float | None = None
    """`limit - raw`: what was lost against the best agent that has to find the task out."""
    regret_interval: Pair | None = None
    """Interval of `regret`, paired on tasks."""
    oracle_regret: float | None = None
    """`oracle - raw`: what was lost against an agent that is told the task."""
    oracle_regret_interval: Pair | None = None
    """Interval of `oracle_regret`, paired on tasks."""
    difference: float
    """This agent's raw score minus that of the evaluated agent with sampled actions."""
    difference_interval: Pair
    """Interval of `difference`, paired on tasks."""
    reward: float
    """Mean over tasks of the reward received, noise included."""
    steps: float
    """Mean length of a lifetime."""
    curve: Curve
    """The adaptation curve."""
    adaptation: float | None = None
    """Does it learn within its life? Mean score of the last tenth of a lifetime's trials minus that of the first; of
    its steps where the curve is one of steps or of a single trial."""
    adaptation_interval: Pair | None = None
    """Interval of `adaptation`, paired on tasks."""
    measures: dict[str, Measure] = Field(default_factory=dict)
    """What the environment measures beside the reward, by name; without those that no lifetime has."""
    accuracy_after: tuple[AccuracyPoint, ...] = ()
    """Accuracy on held-out samples, where a lifetime is a data set."""


class SplitEvaluation(Score):
    """One split: the agent with sampled actions, and all others on the same tasks."""

    tasks: int = Field(ge=1)
    """Number of tasks: tasks `0` to `tasks - 1` of the split."""
    limit_kind: str
    """Which reference agent is the limit, or `none`."""
    score_of: Literal["expected_reward", "reward"]
    """What the scores sum up."""
    environment_seed: int
    """The noise of task `n` was seeded with this plus `n`; the agents' own streams follow from it too."""
    environment_overrides: dict[str, Pair] = Field(default_factory=dict)
    """Environment arguments that the tasks replace by other values (a maze's side on `shift`): least and greatest."""
    greedy: Score | None = None
    """The agent with greedy actions."""
    frozen: Score | None = None
    """The agent with its synapses held at their start values, actions sampled; None where nothing can be frozen."""
    reference_agents: dict[str, Score] = Field(default_factory=dict)
    """The family's own agents."""

    def entries(self, agent: str = "agent") -> dict[str, Score]:
        """All scores of the split by the name that a reader sees, the agent's own first."""
        own: dict[str, Score] = {f"{agent}, sampled": self}
        if self.greedy is not None:
            own[f"{agent}, greedy"] = self.greedy
        if self.frozen is not None:
            own[f"{agent}, plasticity frozen"] = self.frozen
        return own | self.reference_agents


class Evaluation(ConfigModel):
    """An agent's evaluation on the splits of one environment: the contents of `evaluation.json`."""

    format: Literal[1] = 1
    """Version of this layout."""
    agent: str
    """The agent's name in tables and plots."""
    env_id: str
    """Environment."""
    env_kwargs: dict[str, Any]
    """Its arguments."""
    trials: int
    """Trials per lifetime of an environment without lifetimes of its own."""
    same_task_each_trial: bool | None = None
    """Whether these shared the lifetime's seed; None: where tasks are reset seeds."""
    family: str
    """Task distribution."""
    single_task: bool
    """True where all splits but `shift` are one and the same task: no test of generalisation."""
    seed: int
    """Seed that all others of this evaluation follow from."""
    batch_size: int
    """Lifetimes run at a time (sampled actions depend on it)."""
    confidence: float
    """Share of the intervals."""
    resamples: int
    """Bootstrap resamples."""
    lifetime_steps: int | None
    """Length of every lifetime; None where it varies."""
    steps_per_trial: int | None
    """Length of every trial; None where it varies."""
    measures: dict[str, str] = Field(default_factory=dict)
    """What each measure of the environment is."""
    splits: dict[str, SplitEvaluation]
    """Results by split."""
    seconds: dict[str, dict[str, float]]
    """Wall-clock seconds by split and agent."""
    versions: dict[str, str]
    """Versions of what the numbers were made with."""

    def to_json(self) -> str:
        """Return the contents of `evaluation.json`, indented, ending in a newline."""
        return self.model_dump_json(indent=2) + "\n"

    def save(self, path: str | Path) -> Path:
        """Write `to_json()` to `path`, whose folder must exist, replacing what is there in one move."""
        path = Path(path)
        write_atomically(path, self.to_json().encode("utf-8"))
        return path

    @classmethod
    def load(cls, path: str | Path) -> Evaluation:
        """Read what `save` wrote.

        Raises:
            RunError: If the file is missing or is no evaluation.
        """
        path = Path(path)
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise RunError(f"cannot read the evaluation {path}: {error.strerror}") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise RunError(
                f"{path} is no evaluation that plastic_rl wrote: {first['msg']}{f' (at {where})' if where else ''}. "
                "Make it anew with: plastic-rl evaluate RUN"
            ) from None

    def table(self, *, rich: bool | None = None, width: int | None = None) -> str:
        """Return a table of every split for a terminal.

        Args:
            rich: With colours and rules (True), as plain text (False), or whichever suits stdout (None).
            width: Columns that no line goes beyond; None: those of the terminal, or where stdout is none (a file, a
                pipe) and in plain text, as many as it takes.
        """
        from plastic_rl.evaluation.table import evaluation_table

        return evaluation_table(self, rich=rich, width=width)
