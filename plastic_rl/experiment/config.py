"""What one experiment is: environment, network, algorithm, evaluation, and how it is recorded.

The text under each field is the command line's help (`plastic-rl config`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator

from plastic_rl.algorithms.arguments import MOST_ROWS
from plastic_rl.config import ConfigModel, Schedule, apply_overrides, check, describe, dump, read_mapping
from plastic_rl.errors import ConfigError, UnknownNameError
from plastic_rl.evaluation.protocol import TASKS_BY_DEFAULT


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


def _share(schedule: Schedule) -> Schedule:
    for end in (schedule.start, schedule.end):
        if not 0 <= end <= 1:
            raise ValueError(f"must be from 0 to 1, got {end:g}")
    return schedule


class GradientConfig(ConfigModel):
    """What all algorithms share that backpropagate through lifetimes."""

    total_timesteps: int = Field(ge=1)
    """Steps to train for, all environments counted; rounded up to whole rollouts."""
    n_envs: int = Field(default=32, ge=1, le=MOST_ROWS)
    """Lifetimes lived side by side (the batch)."""
    n_steps: int | None = Field(default=None, ge=1)
    """Steps of each environment between updates; null: one whole lifetime (128 where its length varies)."""
    learning_rate: Schedule = Schedule(start=1e-3, end=1e-3)
    """Step size: a number, or `{start: 5e-3, end: 0}` for a linear schedule."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """The gradient is scaled down to this norm where it is longer."""
    optimizer: Literal["adam", "rmsprop"] = "adam"
    """Optimizer of the outer loop."""
    optimizer_eps: float = Field(default=1e-5, gt=0)
    """The optimizer's epsilon."""
    plasticity_lr_scale: float = Field(default=1.0, ge=0)
    """Learning rate of the parameters of plasticity (alpha, eta, step sizes), as a multiple of `learning_rate`."""


class A2CConfig(GradientConfig):
    """Advantage actor-critic that backpropagates through lifetimes."""

    name: Literal["a2c"] = "a2c"
    """Which algorithm."""
    gamma: Annotated[Schedule, AfterValidator(_share)] = Schedule(start=0.9, end=0.9)
    """Discount of later rewards, 0 to 1: a number or a linear schedule (from near to far sight)."""
    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    """Trace decay of the generalised advantage estimate; 1: plain returns."""
    ent_coef: Schedule = Schedule(start=0.01, end=0.01)
    """Weight of the entropy bonus: a number or a linear schedule."""
    vf_coef: float = Field(default=0.5, ge=0)
    """Weight of the squared value error."""
    sum_p2_coef: Schedule = Schedule(start=0.0, end=0.0)
    """Weight of the penalty on the sum of squared action probabilities: a number or a linear schedule."""
    normalize_advantage: bool = False
    """Scale the advantages of a rollout to mean 0, deviation 1."""
    center_rewards: bool = False
    """Subtract the running mean from rewards; only where lifetimes have a fixed length."""
    expected_rewards: bool = False
    """Learn from the expected rewards of actions where the environment reports them (bandits): the same gradient on
    average, with less noise. What the agent sees stays as drawn."""
    reward_scale: float = Field(default=1.0, gt=0)
    """Learning multiplies rewards by this, so that values are of the order of 1; scores stay as they are."""


class SupervisedGradientConfig(GradientConfig):
    """Gradient descent on the error of predictions, in environments that show labels."""

    name: Literal["supervised_gradient"]
    """Which algorithm."""
    n_envs: int = Field(default=16, ge=1, le=MOST_ROWS)
    """Lifetimes lived side by side (the batch)."""
    learning_rate: Schedule = Schedule(start=0.1, end=0.1)
    """Step size: a number, or `{start: 0.1, end: 0.01}` for a linear schedule."""
    optimizer_eps: float = Field(default=1e-8, gt=0)
    """The optimizer's epsilon."""
    loss: Literal["cross_entropy", "squared_error"] = "cross_entropy"
    """cross_entropy of the action probabilities, or squared_error of the outputs, against the labels."""


class GeneGroupConfig(ConfigModel):
    """How parameters whose names match a pattern are searched."""

    scale: float = Field(default=1.0, gt=0)
    """Their initial standard deviation, as a multiple of `sigma`."""
    low: float | None = None
    """Lower bound of their values; null: none."""
    high: float | None = None
    """Upper bound of their values; null: none."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low must be below high, got low {self.low:g} and high {self.high:g}")
        return self


class EngineConfig(ConfigModel):
    """Where individuals are evaluated; results do not depend on it."""

    name: str = "serial"
    """serial (in this process), process (a pool of processes) or ray (a cluster; needs the extra `ray`)."""
    workers: int | None = Field(default=None, ge=1)
    """Processes of the pool; null: one for each processor. ray: chunks under way at a time."""
    address: str | None = None
    """ray: address of the cluster; null: Ray on this machine."""


class CMAESConfig(ConfigModel):
    """CMA-ES over whole lifetimes, without gradients."""

    name: Literal["cma_es"]
    """Which algorithm."""
    generations: int = Field(ge=1)
    """Generations to evolve for."""
    population_size: int = Field(default=20, ge=4, le=MOST_ROWS)
    """Individuals of a generation."""
    lifetimes: int = Field(default=4, ge=1, le=MOST_ROWS)
    """Lifetimes of each individual in a generation, on fresh tasks that the whole population shares."""
    sigma: float = Field(default=0.5, gt=0)
    """Initial step size, in units of the scales of `groups`."""
    statistic: Literal["mean", "late_half", "worst_quartile"] = "mean"
    """Fitness: the reward of a lifetime, that of its second half (late_half), or that of the worst quarter of them."""
    evolve: tuple[str, ...] | None = None
    """Patterns of the names of the parameters that evolve, e.g. `["network.*"]`; null: all that actions depend on."""
    groups: dict[str, GeneGroupConfig] = Field(default_factory=dict)
    """Scale and bounds of parameters by pattern of their names, e.g. `{network.eta: {scale: 0.1, low: 0, high: 1}}`."""
    covariance: Literal["auto", "full", "separable"] = "auto"
    """Correlations between genes; auto: full up to 800 genes, separable (none) beyond."""
    restarts: Literal["none", "ipop", "bipop"] = "none"
    """What follows when the search has converged or stagnates: ipop doubles the population, bipop alternates."""
    deterministic: bool = False
    """Individuals take their most probable actions instead of sampling."""
    individuals_per_chunk: int = Field(default=64, ge=1)
    """Individuals that live side by side. A pool shares out chunks: let there be as many of them as workers, or more.
    The last bits of results depend on it."""
    engine: EngineConfig = EngineConfig()
    """Where individuals are evaluated."""


class GridSearchConfig(ConfigModel):
    """Hand-written rules: settings of the network tried one after the other, the best on `valid` kept."""

    name: Literal["grid_search"]
    """Which algorithm."""
    grid: dict[str, tuple[Any, ...]]
    """Values to try by dotted name of a setting of the network, e.g. `{step.output: [0.01, 0.1]}`: all combinations."""


def _named(mapping: Any) -> Any:
    # Configs of the time when there was one algorithm may leave its name out.
    return {"name": "a2c", **mapping} if isinstance(mapping, Mapping) else mapping


AlgorithmConfig = Annotated[
    A2CConfig | CMAESConfig | GridSearchConfig | SupervisedGradientConfig,
    Field(discriminator="name"),
    BeforeValidator(_named),
]
"""The algorithms by their `name`."""


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
    beside: tuple[str, ...] = ()
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
    """What the agent lives in."""
    network: dict[str, Any]
    """The agent's network: `kind`, and the fields of that kind (see `plastic-rl config network`)."""
    policy: str = "PlasticPolicy"
    """Policy class around the network."""
    algorithm: AlgorithmConfig
    """The outer loop."""
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
    return parse_experiment(mapping, str(path))


def is_comparison(mapping: Mapping[str, Any]) -> bool:
    """Tell the file of a comparison (see `plastic_rl.experiment.comparing`) from that of an experiment."""
    return "ways" in mapping and "algorithm" not in mapping


def parse_experiment(mapping: Mapping[str, Any], source: str = "config") -> ExperimentConfig:
    """Validate plain data as an experiment, its network and names included.

    Raises:
        ConfigError: With every problem at once; `source` says where the data came from.
    """
    experiment, problems = check(ExperimentConfig, mapping)
    network, network_problems = _check_network(mapping.get("network"))
    problems = [*problems, *network_problems, *_check_names(mapping)]
    if experiment is None or problems:
        raise ConfigError(describe(problems, source))
    return experiment.model_copy(update={"network": network})


def network_model(kind: str) -> type[BaseModel]:
    """Return the config model of a kind of network.

    Raises:
        UnknownNameError: If there is no such kind.
    """
    from plastic_rl.networks import NETWORKS

    return NETWORKS[kind].config_model


def _check_network(mapping: Any) -> tuple[dict[str, Any], list[str]]:
    from plastic_rl.networks import NETWORKS

    if not isinstance(mapping, Mapping):
        return {}, []  # `check` has said so
    kind = mapping.get("kind")
    if kind is None:
        return {}, [f"network.kind: missing. Valid: {', '.join(sorted(NETWORKS))}."]
    try:
        model = network_model(str(kind))
    except UnknownNameError as error:
        return {}, [f"network.kind: {error}"]
    validated, problems = check(model, dict(mapping), prefix=["network"])
    if validated is None:
        return {}, problems
    resolved = validated.model_dump(mode="json")
    return {name: resolved[name] for name in sorted(resolved, key=lambda name: name not in {"kind", "rule"})}, problems


def _check_names(mapping: Mapping[str, Any]) -> list[str]:
    from plastic_rl.policies import POLICIES

    policy = mapping.get("policy")
    if isinstance(policy, str) and policy not in POLICIES:
        return [f"policy: {UnknownNameError('policy', policy, POLICIES)}"]
    return []
