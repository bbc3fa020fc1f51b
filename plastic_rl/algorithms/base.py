"""What all algorithms of plastic policies share: how they are made, act through `predict`, and save without pickle."""

from __future__ import annotations

import functools
import io
import sys
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import torch
from pydantic import ConfigDict, Field
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from plastic_rl.algorithms.kept_core import core_record, keep_core
from plastic_rl.algorithms.saved_policy import check_policy, plain, policy_document
from plastic_rl.algorithms.vec_env import EnvironmentDescription, adapt, environments_of, exempt_feedback, wrap
from plastic_rl.checkpoint import Checkpoint, count_in, read_checkpoint, set_torch_rng_state, torch_rng_state, write_zip
from plastic_rl.checkpoint.torch_state import load_parameters, space_from_document
from plastic_rl.config import ConfigModel, check, describe
from plastic_rl.config.signatures import Argument, NotStored, argument_of, arguments_of, handed_on, model_of
from plastic_rl.envs import first_task
from plastic_rl.envs.task import TASKS_PER_SEED
from plastic_rl.errors import CheckpointError, ConfigError, damage_is_refused
from plastic_rl.policies import POLICIES, PlasticPolicy
from plastic_rl.registry import Registry

MOST_ROWS = 1_000_000
"""Environments or individuals side by side; more would only be found out when memory has run out."""

Rows = Annotated[int, Field(ge=1, le=MOST_ROWS)]


class Arguments(ConfigModel):
    """Base of the models that constructors' arguments are checked by."""

    model_config = ConfigDict(arbitrary_types_allowed=True)


class PlasticAlgorithm(BaseAlgorithm):
    """A stable-baselines3 algorithm around a `PlasticPolicy`.

    A subclass declares its own arguments, and no others, as keyword-only ones of its constructor: `Annotated` says
    their range, a line of the class's docstring what they are. It hands all of them on:
    `super().__init__(policy, env, **handed_on(locals()))`. Range checks, checkpoints, the keys of a config and their
    help follow from that declaration; the checked values are `settings`.

    Args:
        policy: Name in `plastic_rl.policies.POLICIES`, or a subclass of `PlasticPolicy`.
        env: Environment in any form that `adapt` takes; None: there is nothing to set up yet.
        env_kwargs: Arguments of the environment where `env` is an id.
        trials: Inner episodes of a lifetime where `env` is the id of a foreign environment.
        same_task_each_trial: Whether these share the lifetime's seed; None: where tasks are reset seeds (`Lifetime`).
        wrappers: Changes of the task where `env` is an id, e.g. `[{"name": "observation_gain", "factor": 8}]`; see
            `plastic_rl.envs.wrappers`.
        policy_kwargs: Arguments of the policy, e.g. `{"network": {"rule": "oja", "hidden_size": 40}}`.
        stats_window_size: Lifetimes that `rollout/score` and `rollout/ep_rew_mean` average over.
        tensorboard_log: Folder for TensorBoard, or None.
        verbose: 0 silent, 1 a table per logging interval.
        seed: Of parameters, action sampling, environments and everything else random; global random state is not
            touched. None: from the operating system.
        task_offset: Tasks of `train` that the seed has, and that are left out at the start, where `env` is an id:
            stages of one run meet other tasks, and other noise.
        device: `"auto"`, `"cpu"`, `"cuda"`, ...
        **shared: The arguments of the subclass.

    Raises:
        SpaceError: If the environment's spaces are not supported.
        ConfigError: If arguments have no valid value, or contradict each other.

    Attributes:
        budget: Argument of `learn` that says for how long; a key of the config.
        unit: What that counts.
        counter: Attribute that counts it.
        settings: The constructor's arguments, checked, by attribute.
        iterations: Updates of the policy since the run began.
        score_buffer: Scores of the last lifetimes: sums of expected reward where the environment knows it, else of
            reward.
        description: What the policy knows of the environment besides its spaces.
        span: Steps between which schedules go from their start to their end; None: from 0 to where training ends.
    """

    budget: ClassVar[str] = "total_timesteps"
    unit: ClassVar[str] = "steps"
    counter: ClassVar[str] = "num_timesteps"
    settings: Any
    policy: PlasticPolicy
    policy_class: type[PlasticPolicy]
    iterations: int
    score_buffer: deque[float]
    description: EnvironmentDescription
    span: tuple[int, int] | None = None
    env_id: str | None = None
    env_kwargs: dict[str, Any]

    def __init__(
        self,
        policy: str | type[PlasticPolicy],
        env: Any,
        *,
        env_kwargs: Mapping[str, Any] | None = None,
        trials: Annotated[int, Field(ge=1)] = 1,
        same_task_each_trial: bool | None = None,
        wrappers: Sequence[Mapping[str, Any]] = (),
        policy_kwargs: Mapping[str, Any] | None = None,
        stats_window_size: Annotated[int, Field(ge=1)] = 100,
        tensorboard_log: Annotated[str | Path | None, NotStored] = None,
        verbose: Annotated[int, NotStored] = 0,
        seed: Annotated[int | None, Field(ge=0, lt=2**63)] = None,
        task_offset: Annotated[int, Field(ge=0, lt=TASKS_PER_SEED)] = 0,
        device: Annotated[torch.device | str, NotStored] = "auto",
        **shared: Any,
    ) -> None:
        self.settings = _checked(type(self), handed_on(locals()))
        self.env_kwargs = dict(env_kwargs or {})
        self.seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        super().__init__(
            POLICIES[policy] if isinstance(policy, str) else policy,
            self._adapted(env, self._rows()),
            policy_kwargs=dict(policy_kwargs or {}),
            stats_window_size=stats_window_size,
            tensorboard_log=None if tensorboard_log is None else str(tensorboard_log),
            verbose=verbose,
            seed=self.seed,
            device=device,
            **self._inherited(),
        )
        if env is not None:
            self._setup_model()

    # --- what a subclass says --------------------------------------------------------------------------------------

    def _rows(self) -> int:
        """Rows of the environment that is made of an id."""
        return 1

    def _inherited(self) -> dict[str, Any]:
        """Arguments of the stable-baselines3 class that stands above: as for one that follows no gradient."""
        return {"learning_rate": 0.0, "support_multi_env": True}

    @classmethod
    def largest_rows(cls, settings: Any) -> int:
        """Rows of the largest environment that training with the settings of a config needs."""
        return 1

    def planned(self, total: int) -> int:
        """Where training ends that is to go to `total`, in `unit`s."""
        return total

    def end_stage(self) -> None:
        """Say that training goes on in another environment (`set_env`), and is to keep what it has taught so far.

        Nothing is to be done by default; what a regulariser does may take lifetimes in the present environment.
        """

    # --- set-up ----------------------------------------------------------------------------------------------------

    def _adapted(self, env: Any, n_envs: int) -> Any:
        """Remember which environment this is, and turn it into one that stable-baselines3 takes."""
        if isinstance(env, str):
            self.env_id = env
        return adapt(
            env,
            n_envs=n_envs,
            env_kwargs=self.env_kwargs,
            trials=self.settings.trials,
            same_task_each_trial=self.settings.same_task_each_trial,
            wrappers=self.settings.wrappers,
            task_start=first_task(self.seed or 0) + self.settings.task_offset,
        )

    @staticmethod
    def _wrap_env(env: Any, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        return wrap(BaseAlgorithm._wrap_env(env, verbose, monitor_wrapper))

    def set_random_seed(self, seed: int | None = None) -> None:
        """Start this algorithm's own random streams, and the environments' seeds, from `seed`."""
        self.seed = self.seed if seed is None else seed
        initial, sampling, _ = seeds_of(self.seed or 0)
        self._initial = torch.Generator().manual_seed(initial)
        self._sampling = torch.Generator().manual_seed(sampling)
        if self.env is not None:
            self._seed_environments(self.env)

    def _seed_environments(self, env: VecEnv) -> None:
        # Row i is keyed by this plus i: runs of neighbouring seeds must not share their rows' noise. 31 bits leave
        # room for the rows below 2**32, where seeds end for some environments.
        env.seed((seeds_of(self.seed or 0)[2] >> 32) + self.settings.task_offset)

    def set_env(self, env: Any, force_reset: bool = True) -> None:
        """Act and learn in `env` from now on: in any form that the constructor takes, with as many rows as before.

        Raises:
            ValueError: If its spaces are not those of the policy.
            AssertionError: If it has another number of rows.
        """
        if env is not None and not isinstance(env, str):
            self.settings = self.settings.model_copy(update={"wrappers": ()})  # it has its own, if any
        super().set_env(self._adapted(env, self.n_envs), force_reset)
        if isinstance(env, str) and self.env is not None:
            self._seed_environments(self.env)

    def check_environment(self) -> None:
        """Refuse to learn where there is no environment.

        Raises:
            ConfigError: Saying how to give one.
        """
        if self.env is None:
            raise ConfigError(
                f"this {type(self).__name__} was made or loaded without an environment, so it can only predict. To "
                "learn, set an environment with set_env(ENV), or give it to load: load(PATH, env=ENV)"
            )

    def _make_policy(self) -> None:
        """Describe the environment, and draw the policy that acts in it."""
        if self.env is not None:
            self.description = EnvironmentDescription.of(self.env)
        self.policy = self.policy_class(
            self.observation_space,
            self.action_space,
            feedback=self.description.feedback,
            steps_per_trial=self.description.steps_per_trial,
            generator=self._initial,
            **self.policy_kwargs,
        ).to(self.device)

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        hooks = super()._init_callback(callback, progress_bar)
        for env in environments_of(hooks):
            exempt_feedback(env)
        return hooks

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        first, last = self.span or (0, total_timesteps)
        super()._update_current_progress_remaining(num_timesteps - first, last - first)

    def dump_logs(self, iteration: int = 0) -> None:
        """Write the log; scores of lifetimes under `rollout/score`, clock readings only under `time/`."""
        if self.score_buffer:
            self.logger.record("rollout/score", float(np.mean(self.score_buffer)))
        OnPolicyAlgorithm.dump_logs(self, iteration)  # type: ignore[arg-type]  # it asks no more than a BaseAlgorithm

    def close(self) -> None:
        """Close the environments and free what else was made for training."""
        if self.env is not None:
            self.env.close()

    # --- saving ----------------------------------------------------------------------------------------------------

    def get_checkpoint(self) -> Checkpoint:
        """Return everything needed to go on from here, as copies; see `set_checkpoint`."""
        stored = [one.name for one in arguments_of(type(self), PlasticAlgorithm).values() if one.is_stored]
        given = {name: getattr(self.settings, name) for name in stored}
        # The policy's stand with the policy.
        given |= {"env_kwargs": self.env_kwargs, "seed": self.seed, "policy_kwargs": None}
        return Checkpoint(
            tensors={
                "params": {name: own.detach().clone() for name, own in self.policy.named_parameters()},
                **self.training_tensors(),
            },
            documents={
                "rng": {
                    "sampling": torch_rng_state(self._sampling),
                    "predict": torch_rng_state(self.policy.sampling),
                    "initial": torch_rng_state(self._initial),
                },
                "env": self.environment_state(),
                "algorithm": self.counters(),
            },
            config={
                "algorithm": type(self).__name__,
                "policy": policy_document(self.policy, self.policy_kwargs, self.description),
                "environment_id": self.env_id,
                "arguments": {name: plain(value, name) for name, value in given.items()},
                "n_envs": self.n_envs,
            },
            core=core_record(self.policy),
        )

    def training_tensors(self) -> dict[str, dict[str, Tensor]]:
        """The parts `optimizer` and `state` of a checkpoint: what training goes on from, beside the parameters."""
        return {"optimizer": {}, "state": {}}

    def environment_state(self) -> Any:
        """The document `env` of a checkpoint: where lifetimes under way stand, as plain data; None: nowhere."""
        return None

    def counters(self) -> dict[str, Any]:
        """The document `algorithm` of a checkpoint: how far training is, as plain data."""
        return {
            "num_timesteps": self.num_timesteps,
            "total_timesteps": self._total_timesteps,
            "progress_remaining": self._current_progress_remaining,
            "iterations": self.iterations,
            "score_buffer": list(self.score_buffer),
        }

    def set_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Go on from `checkpoint`, in an environment by the core that computed it.

        Where that core is not here, or `PLASTIC_RL_CORE` asks for the other, there is a warning that bits may differ.
        A subclass puts back what it stored beside, within `damage_is_refused`.

        Raises:
            CheckpointError: If the checkpoint belongs to another network, or lacks a part, or a part does not fit.
        """
        with damage_is_refused(f"{checkpoint.source} does not fit this {type(self).__name__}"):
            counters, streams = checkpoint.documents["algorithm"], checkpoint.documents["rng"]
            load_parameters(self.policy, checkpoint)
            set_torch_rng_state(self._sampling, streams["sampling"])
            set_torch_rng_state(self.policy.sampling, streams["predict"])
            set_torch_rng_state(self._initial, streams["initial"])
            self.num_timesteps = count_in(counters, "num_timesteps")
            self._total_timesteps = count_in(counters, "total_timesteps")
            self._current_progress_remaining = float(counters["progress_remaining"])
            self.iterations = count_in(counters, "iterations")
            self.score_buffer.clear()
            self.score_buffer.extend(map(float, counters["score_buffer"]))
        if self.env is not None:
            keep_core(self.policy, checkpoint)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, env: Any, device: torch.device | str, **kwargs: Any) -> Self:
        """Make the algorithm that `checkpoint` describes, and go on from it; see `load`.

        Raises:
            CheckpointError: If it is a checkpoint of another algorithm, or what it describes cannot be made.
            ConfigError: If there is no such constructor argument.
        """
        config = checkpoint.config
        named = config.get("algorithm")
        if not isinstance(named, str) or named != cls.__name__:
            raise CheckpointError(f"this is a checkpoint of {named!r}, not of {cls.__name__}")
        with damage_is_refused(f"the {cls.__name__} that {checkpoint.source} describes cannot be made"):
            rows = count_in(config, "n_envs")
            starts = checkpoint.documents["algorithm"].get("last_episode_starts")
            if starts is not None and len(starts) != rows:
                raise CheckpointError(
                    f"{checkpoint.source} states {rows:,} environments, and holds {len(starts):,} of them"
                )
            check_policy(checkpoint)
            stated = config["policy"]
            stored = {**config["arguments"], "policy_kwargs": stated["arguments"], "device": device}
            if "n_envs" in arguments_of(cls, PlasticAlgorithm):
                stored["n_envs"] = rows
            if env is not None and not isinstance(env, str):
                stored["wrappers"] = ()  # it has its own, if any
            algorithm = cls(POLICIES[stated["class"]], env, **{**stored, **kwargs})
            algorithm.env_id = algorithm.env_id or config["environment_id"]
            if env is None:
                algorithm.observation_space = space_from_document(stated["observation_space"])
                algorithm.action_space = space_from_document(stated["action_space"])
                algorithm.n_envs = rows
                algorithm.description = EnvironmentDescription.from_document(stated["environment"])
                algorithm._setup_model()
        algorithm.set_checkpoint(checkpoint)
        return algorithm

    def save(
        self,
        path: str | Path | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Write one zip of a checkpoint folder (`.zip` is appended where the name has no suffix).

        `exclude` and `include` are here for stable-baselines3's sake and must be empty: what a checkpoint holds is
        fixed, so that it can be verified.
        """
        if exclude or include:
            raise CheckpointError("save takes no exclude or include: what a checkpoint holds is fixed")
        write_zip(_with_suffix(_path(path)), self.get_checkpoint())

    @classmethod
    def load(
        cls,
        path: str | Path | io.BufferedIOBase,
        env: Any = None,
        device: torch.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> Self:
        """Load a zip or a checkpoint folder; no code in it is ever run.

        Args:
            path: File of `save`, or a folder `checkpoints/STEP` of a run.
            env: Environment to go on in, as in the constructor; None gives an agent that only predicts.
            device: Where to put the agent.
            custom_objects: For stable-baselines3's sake; nothing in a checkpoint is pickled, so it must be empty.
            print_system_info: Print the library versions that wrote the file.
            force_reset: Start new lifetimes in `env`; false goes on in the middle of the stored ones.
            **kwargs: Constructor arguments that replace the stored ones.

        Raises:
            CheckpointError: If the file is missing, damaged, of another format or algorithm.
        """
        if custom_objects:
            raise CheckpointError("load takes no custom_objects: nothing in a checkpoint is pickled")
        own = _path(path)
        checkpoint = read_checkpoint(own if own.exists() else _with_suffix(own))
        if print_system_info:
            sys.stdout.write("".join(f"{name} {version}\n" for name, version in checkpoint.libraries.items()))
        algorithm = cls.from_checkpoint(checkpoint, env, device, **kwargs)
        if force_reset:
            algorithm._last_obs = None
        return algorithm

    # --- acting ----------------------------------------------------------------------------------------------------

    @property
    def is_plastic(self) -> bool:
        """False where there is nothing that `freeze_plasticity` could hold (an LSTM, alpha = 0)."""
        return self.policy.is_plastic

    def freeze_plasticity(self) -> AbstractContextManager[None]:
        """Within this context the agent's synapses keep the state they have."""
        return self.policy.freeze_plasticity()


ALGORITHMS: Registry[type[PlasticAlgorithm]] = Registry("algorithm")
"""Algorithms by the name that a config gives them."""


class AlgorithmConfig(ConfigModel):
    """The part of a config that says how the policy is trained."""

    name: str = "a2c"
    """Which algorithm."""


def algorithm_model(name: str) -> type[AlgorithmConfig]:
    """Return the config model of an algorithm: its own arguments, and for how long it learns.

    Raises:
        UnknownNameError: If there is no such algorithm.
    """
    return _config_model(ALGORITHMS[name])


@functools.cache
def _config_model(cls: type[PlasticAlgorithm]) -> type[AlgorithmConfig]:
    learning = argument_of(cls.learn, cls.budget, cls)
    budget = Argument(cls.budget, Annotated[int, Field(ge=1)], ..., learning.help, cls)
    own = [one for one in arguments_of(cls, PlasticAlgorithm).values() if one.owner is not PlasticAlgorithm]
    return model_of(f"{cls.__name__}Config", AlgorithmConfig, [budget, *own], doc=cls.__doc__)


@functools.cache
def _arguments_model(cls: type[PlasticAlgorithm]) -> type[Arguments]:
    """What the arguments of a constructor must be; to make it takes longer than all the rest of a construction."""
    return model_of(f"{cls.__name__}Arguments", Arguments, arguments_of(cls, PlasticAlgorithm).values())


def _checked(cls: type[PlasticAlgorithm], given: Mapping[str, Any]) -> Any:
    """The arguments of a constructor, checked.

    Raises:
        ConfigError: With every problem at once.
    """
    plain_numbers = {name: value.item() if isinstance(value, np.generic) else value for name, value in given.items()}
    arguments, problems = check(_arguments_model(cls), plain_numbers)
    if arguments is None:
        raise ConfigError(describe(problems, f"the arguments of {cls.__name__}"))
    return arguments


def seeds_of(seed: int) -> tuple[int, int, int]:
    """Seeds of the initial draws, of sampling, and of the environments."""
    words = np.random.SeedSequence(seed).generate_state(3, np.uint64) >> np.uint64(1)
    initial, sampling, environments = (int(word) for word in words)
    return initial, sampling, environments


def _path(path: str | Path | io.BufferedIOBase) -> Path:
    if isinstance(path, io.BufferedIOBase):
        raise CheckpointError("checkpoints need a path, not an open file: they are verified, and replaced by renaming")
    return Path(path)


def _with_suffix(path: Path) -> Path:
    return path if path.suffix else path.with_suffix(".zip")
