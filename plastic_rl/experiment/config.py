"""What one experiment is: environment, network, algorithm, evaluation, and how it is recorded.

The text under each field is the command line's help (`plastic-rl config`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from plastic_rl.algorithms import ALGORITHMS, PlasticAlgorithm
from plastic_rl.algorithms.base import AlgorithmConfig, algorithm_model
from plastic_rl.checkpoint import count_in
from plastic_rl.config import ConfigModel, apply_overrides, check, describe, dump, read_mapping
from plastic_rl.envs import TaskDistribution, distribution_for
from plastic_rl.envs.wrappers import checked_wrappers
from plastic_rl.errors import ConfigError, UnknownNameError
from plastic_rl.evaluation.protocol import TASKS_BY_DEFAULT
from plastic_rl.networks import NETWORKS
from plastic_rl.policies import POLICIES


def _distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"each seed may stand once, got {', '.join(map(str, seeds))}")
    return seeds


Seeds = Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], Field(min_length=1), AfterValidator(_distinct)]
"""Training seeds: each trains a run of its own."""


class EnvironmentConfig(ConfigModel):
    """Which environment, with which arguments."""

    id: str
    """Registered Gymnasium id, e.g. `plastic_rl/ReversalBandit-v0` (see `plastic-rl envs list`)."""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the environment, e.g. `{arms: 5, steps: 100}`."""
    trials: int = Field(default=1, ge=1)
    """Inner episodes in one lifetime, for environments that are not made of lifetimes themselves."""
    same_task_each_trial: bool | None = None
    """Whether each of these is reset with the lifetime's seed: the same task, and the same starts and noise too, so
    that an agent may replay a lucky path. null: true where tasks are reset seeds, false where the id has its own."""
    wrappers: tuple[dict[str, Any], ...] = ()
    """Changes of the task between environment and agent, the one next to the environment first, e.g.
    `[{name: lesion, share: 0.25, from_trial: 10}]`."""

    @field_validator("wrappers", mode="before")
    @classmethod
    def _known_wrappers(cls, stated: Any) -> tuple[dict[str, Any], ...]:
        return tuple(checked_wrappers(stated))

    @property
    def options(self) -> dict[str, Any]:
        """What makes it takes these, beside the id: `env_kwargs`, `trials`, `same_task_each_trial` and `wrappers`."""
        return {
            "env_kwargs": self.kwargs,
            "trials": self.trials,
            "same_task_each_trial": self.same_task_each_trial,
            "wrappers": self.wrappers,
        }

    def distribution(self) -> TaskDistribution:
        """Return its distribution of tasks."""
        return distribution_for(self.id, self.kwargs)


class EnvironmentChanges(ConfigModel):
    """In what an environment differs from another one; null: in nothing."""

    id: str | None = None
    """Another environment, with its own defaults."""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the environment in place of those of the same names."""
    trials: int | None = Field(default=None, ge=1)
    """Inner episodes in one lifetime."""
    same_task_each_trial: bool | None = None
    """Whether each of these is reset with the lifetime's seed."""
    wrappers: tuple[dict[str, Any], ...] | None = None
    """Changes of the task, in place of all others."""

    @field_validator("wrappers", mode="before")
    @classmethod
    def _known_wrappers(cls, stated: Any) -> tuple[dict[str, Any], ...] | None:
        return None if stated is None else tuple(checked_wrappers(stated))

    def of(self, environment: EnvironmentConfig) -> EnvironmentConfig:
        """Return the environment that differs so; nothing of `environment` holds where the id is another."""
        same = self.id in {None, environment.id}
        base = environment if same else EnvironmentConfig(id=str(self.id))
        own = self.same_task_each_trial
        return EnvironmentConfig(
            id=base.id,
            kwargs={**base.kwargs, **self.kwargs},
            trials=self.trials or base.trials,
            same_task_each_trial=base.same_task_each_trial if own is None else own,
            wrappers=base.wrappers if self.wrappers is None else self.wrappers,
        )


class StageConfig(ConfigModel):
    """A stage of training: an environment, and for how long."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._+-]*$", max_length=40)
    """What metrics and tables call it."""
    budget: int = Field(ge=1)
    """How long it takes, in what the algorithm counts: steps or generations."""
    environment: EnvironmentChanges = EnvironmentChanges()
    """In what its environment differs from the experiment's own."""
    reset_optimizer: bool = False
    """Whether the optimizer's moments, or the search of evolution, begin anew with it; the network never does."""


class CandidatesConfig(ConfigModel):
    """Settings of the network, tried one after the other and not trained: the best on `valid` is kept."""

    grid: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(min_length=1)
    """Values to try by dotted name of a setting of the network, e.g. `{step.output: [0.01, 0.1]}`: all combinations,
    the last setting changing first."""


class EvaluationConfig(ConfigModel):
    """How the trained agent is scored, and which checkpoint is chosen."""

    splits: tuple[str, ...] = ("test",)
    """Splits that the final evaluation opens."""
    tasks: int | None = Field(default=None, ge=1, description=f"Tasks of each split; null: {TASKS_BY_DEFAULT}.")
    seed: int = Field(default=0, ge=0)
    """Seed of the environments and of the agent's sampling in evaluations."""
    batch_size: int = Field(default=1000, ge=1)
    """Lifetimes evaluated side by side."""
    valid_tasks: int = Field(default=200, ge=0)
    """Tasks of the split `valid` on which each checkpoint is scored; the best one is evaluated and exported. 0: the
    last checkpoint is."""
    final: bool = True
    """Evaluate at the end of training."""
    baselines: tuple[str, ...] = ()
    """Trained agents to lay beside this one on the same tasks: agent or run folders, e.g. `[agents/hand_written_d]`."""


class CheckpointConfig(ConfigModel):
    """When checkpoints are written and how many are kept."""

    interval: int = Field(default=100, ge=1)
    """Updates between checkpoints."""
    keep: int = Field(default=2, ge=2)
    """Newest checkpoints to keep; the one that is best on `valid` is always kept."""


class LoggingConfig(ConfigModel):
    """What is recorded while training."""

    interval: int = Field(default=1, ge=1)
    """Updates between rows of metrics.csv."""
    tensorboard: bool = True
    """Also write TensorBoard files to `tb/`."""


class ExperimentConfig(ConfigModel):
    """One experiment, all of it: with the same config and seed a run gives the same bytes."""

    description: str = ""
    """What the experiment is for, in a sentence."""
    environment: EnvironmentConfig
    """What the agent is for: what it lives in, is chosen on and evaluated in."""
    network: dict[str, Any]
    """The agent's network: `kind`, and the fields of that kind (see `plastic-rl config network`)."""
    policy: str = "PlasticPolicy"
    """Policy class around the network."""
    algorithm: Any = None
    """The outer loop: its `name`, and its arguments."""
    candidates: CandidatesConfig | None = None
    """In place of an algorithm: networks that are tried and not trained, such as hand-written rules."""
    stages: tuple[StageConfig, ...] = ()
    """Environments that training goes through, one after the other, with the same network and optimizer; none: that of
    the experiment. Schedules run from start to end in each stage, whose lifetimes are all new. The budgets together are
    the algorithm's, which need not be stated. All checkpoints are scored on `valid` of the experiment's own
    environment, and those of the last stage compete."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Root of every random stream of the run."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "cpu"
    """Where the network runs: cpu, cuda, cuda:1, mps or auto. Small networks are fastest on the CPU."""
    torch_threads: int = Field(default=1, ge=1)
    """Threads of torch in this process; results may differ in the last bits between numbers of threads."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Scores on held-out tasks."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """What can be resumed from."""
    logging: LoggingConfig = LoggingConfig()
    """Metrics."""
    plugins: tuple[str, ...] = ()
    """Plugins that the experiment needs. They are recorded here, and imported only when given with `--plugin`."""

    @model_validator(mode="after")
    def _one_outer_loop(self) -> Self:
        if (self.algorithm is None) == (self.candidates is None):
            raise ValueError("needs either `algorithm` or `candidates`")
        if self.candidates and (self.checkpoint.interval != 1 or self.evaluation.valid_tasks < 1):
            raise ValueError(
                "candidates are each scored on valid: set checkpoint.interval to 1 and evaluation.valid_tasks to 1 or "
                f"more, got {self.checkpoint.interval} and {self.evaluation.valid_tasks}"
            )
        return self

    @model_validator(mode="after")
    def _stages_fill_the_budget(self) -> Self:
        if not self.stages:
            return self
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stages: each needs a name of its own, got {', '.join(names)}")
        if self.candidates:
            raise ValueError("candidates are not trained, so they have no stages; leave `stages` out")
        if isinstance(self.algorithm, AlgorithmConfig) and self.total != self.ends[-1]:
            raise ValueError(
                f"algorithm.{self.algorithm_class.budget} is {self.total:,}, and the budgets of the stages are "
                f"{self.ends[-1]:,} together; leave it out, or change the budgets"
            )
        return self

    @model_validator(mode="after")
    def _regulariser_has_stages(self) -> Self:
        stated = getattr(self.algorithm, "regulariser", "none")
        name = stated if isinstance(stated, str) else stated["name"]
        if name != "none" and len(self.stages) < 2:
            raise ValueError(
                f"algorithm.regulariser: {name} holds what earlier stages have taught, and does nothing without two "
                f"or more; got {len(self.stages)}. Give the experiment `stages`, or leave it out"
            )
        return self

    @property
    def algorithm_class(self) -> type[PlasticAlgorithm]:
        """The class of its algorithm, where there are no candidates."""
        return ALGORITHMS[self.algorithm.name]

    @property
    def unit(self) -> str:
        """What training is counted in."""
        return "candidates" if self.candidates else self.algorithm_class.unit

    @property
    def total(self) -> int:
        """Where training ends, in `unit`s."""
        if self.candidates:
            return math.prod(len(values) for values in self.candidates.grid.values())
        return int(getattr(self.algorithm, self.algorithm_class.budget))

    @property
    def ends(self) -> tuple[int, ...]:
        """Where each stage ends, in `unit`s; without stages, where training does."""
        return tuple(itertools.accumulate(stage.budget for stage in self.stages)) or (self.total,)

    def stage_at(self, done: int) -> int:
        """Return the number of the stage, from 0, that training is in after `done` `unit`s; at its end, of the last."""
        return min(sum(end <= done for end in self.ends), len(self.ends) - 1)

    def in_stage(self, number: int) -> ExperimentConfig:
        """Return the experiment in the environment of a stage; without stages, as it is."""
        if not self.stages:
            return self
        return self.model_copy(update={"environment": self.stages[number].environment.of(self.environment)})

    @property
    def environments(self) -> tuple[EnvironmentConfig, ...]:
        """That of each stage; without stages, the experiment's own."""
        return tuple(self.in_stage(number).environment for number in range(len(self.ends)))

    def done(self, counters: Mapping[str, Any]) -> int:
        """Return the `unit`s done at a checkpoint, from its document `algorithm`."""
        return count_in(counters, "candidates" if self.candidates else self.algorithm_class.counter)

    def to_mapping(self) -> dict[str, Any]:
        """Return the config as plain data, every default written out."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """Return the config as YAML, every default written out."""
        return dump(self.to_mapping())


def load_experiment(path: str | Path, overrides: Sequence[str] = (), **changes: Any) -> ExperimentConfig:
    """Read an experiment from a YAML file.

    Args:
        path: The file.
        overrides: `key.path=value` each, merged before validation.
        **changes: Top-level values that replace those of the file (`seed`, `plugins`).

    Raises:
        ConfigError: With every problem at once, its dotted path and the nearest valid name.
    """
    mapping = apply_overrides(read_mapping(path), overrides) | changes
    if is_comparison(mapping):
        raise ConfigError(f"{path} compares several experiments; run it with: plastic-rl compare {path}")
    if "questions" in mapping:
        raise ConfigError(f"{path} is a study; run it with: plastic-rl study {path}")
    return parse_experiment(mapping, str(path))


def is_comparison(mapping: Mapping[str, Any]) -> bool:
    """Tell the file of a comparison (see `plastic_rl.experiment.comparing`) from that of an experiment."""
    return "variants" in mapping and "algorithm" not in mapping


def parse_experiment(mapping: Mapping[str, Any], source: str = "config") -> ExperimentConfig:
    """Validate plain data as an experiment, its network and names included.

    Raises:
        ConfigError: With every problem at once; `source` says where the data came from.
    """
    network, network_problems = _check_network(mapping.get("network"))
    algorithm, algorithm_problems = _check_algorithm(_with_budget(mapping.get("algorithm"), mapping.get("stages")))
    experiment, problems = check(ExperimentConfig, {**mapping, "algorithm": algorithm})
    problems = [*problems, *algorithm_problems, *network_problems]
    policy = mapping.get("policy")
    if isinstance(policy, str) and policy not in POLICIES:
        problems.append(f"policy: {UnknownNameError('policy', policy, POLICIES)}")
    if experiment is None or problems:
        raise ConfigError(describe(problems, source))
    return experiment.model_copy(update={"network": network})


def _check_network(mapping: Any) -> tuple[dict[str, Any], list[str]]:
    if not isinstance(mapping, Mapping):
        return {}, []  # `check` has said so
    kind = mapping.get("kind")
    if kind is None:
        return {}, [f"network.kind: missing. Valid: {', '.join(sorted(NETWORKS))}."]
    try:
        network = NETWORKS[str(kind)]
    except UnknownNameError as error:
        return {}, [f"network.kind: {error}"]
    validated, problems = check(network.config_model, dict(mapping), prefix=["network"])
    if validated is None:
        return {}, problems
    resolved = validated.model_dump(mode="json")
    return {name: resolved[name] for name in sorted(resolved, key=lambda name: name not in {"kind", "rule"})}, problems


def _with_budget(algorithm: Any, stages: Any) -> Any:
    """What a config says of its algorithm, with the budget that its stages are together where it states none."""
    if not isinstance(algorithm, Mapping) or not isinstance(stages, list | tuple):
        return algorithm
    budgets = [stage.get("budget") if isinstance(stage, Mapping) else None for stage in stages]
    name = algorithm.get("name", AlgorithmConfig.model_fields["name"].default)
    if not budgets or not all(type(budget) is int for budget in budgets) or name not in ALGORITHMS:
        return algorithm
    return {ALGORITHMS[name].budget: sum(budgets), **algorithm}


def _check_algorithm(mapping: Any) -> tuple[Any, list[str]]:
    """The config of an algorithm, and its problems; with any, what stands in its place is not None."""
    if mapping is None:
        return None, []
    names = ", ".join(sorted(ALGORITHMS))
    if not isinstance(mapping, Mapping):
        return mapping, [f"algorithm: must be a mapping with a name, got {mapping!r:.80}. Valid names: {names}."]
    name = mapping.get("name", AlgorithmConfig.model_fields["name"].default)
    if not isinstance(name, str) or name not in ALGORITHMS:
        return mapping, [f"algorithm.name: {UnknownNameError('name', str(name), ALGORITHMS)}"]
    validated, problems = check(algorithm_model(name), mapping, prefix=["algorithm"])
    return validated or mapping, problems
