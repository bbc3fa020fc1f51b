"""What all algorithms of plastic policies share: how they are made, act through `predict`, and save without pickle."""

from __future__ import annotations

import io
import sys
from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self, TypedDict

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecEnv

from plastic_rl.algorithms.arguments import check_ranges
from plastic_rl.algorithms.saving import rebuild
from plastic_rl.algorithms.vec_env import EnvironmentDescription, adapt, environments_of, exempt_feedback, wrap
from plastic_rl.checkpoint import Checkpoint, read_checkpoint, write_zip
from plastic_rl.envs import first_task
from plastic_rl.errors import CheckpointError, ConfigError
from plastic_rl.policies import POLICIES, PlasticPolicy


class CommonArguments(TypedDict, total=False):
    """The arguments that every algorithm takes alike, and hands on to `PlasticAlgorithm`."""

    env_kwargs: Mapping[str, Any] | None
    trials: int
    same_task_each_trial: bool | None
    policy_kwargs: Mapping[str, Any] | None
    stats_window_size: int
    tensorboard_log: str | None
    verbose: int
    seed: int | None
    device: torch.device | str


WITHOUT_GRADIENT = {"learning_rate": 0.0, "support_multi_env": True}
"""What stable-baselines3's base class is told by an algorithm that follows no gradient."""


class PlasticAlgorithm(BaseAlgorithm):
    """A stable-baselines3 algorithm around a `PlasticPolicy`; a subclass says what its checkpoint holds.

    A subclass sets its own attributes before it calls this constructor, which ends with the set-up.

    Args:
        policy: Name in `plastic_rl.policies.POLICIES`, or a subclass of `PlasticPolicy`.
        env: Environment in any form that `adapt` takes; None: there is nothing to set up yet.
        n_envs: Number of environments where `env` is an id.
        inherited: Arguments of the stable-baselines3 class that are not among these.
        env_kwargs: Arguments of the environment where `env` is an id.
        trials: Inner episodes of a lifetime where `env` is the id of a foreign environment.
        same_task_each_trial: Whether these share the lifetime's seed; None: where tasks are reset seeds (`Lifetime`).
        policy_kwargs: Arguments of the policy.
        stats_window_size: As in stable-baselines3.
        tensorboard_log: Folder for TensorBoard, or None.
        verbose: 0 silent, 1 a table per logging interval.
        seed: Of everything random; None: from the operating system.
        device: `"auto"`, `"cpu"`, `"cuda"`, ...

    Attributes:
        stored_arguments: Constructor arguments of a subclass that are attributes of the same name.
        iterations: Updates of the policy since the run began.
        score_buffer: Scores of the last lifetimes: sums of expected reward where the environment knows it, else of
            reward.
        description: What the policy knows of the environment besides its spaces.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {name: POLICIES[name] for name in POLICIES}
    stored_arguments: ClassVar[tuple[str, ...]] = ()
    policy: PlasticPolicy
    iterations: int
    score_buffer: deque[float]
    description: EnvironmentDescription
    env_id: str | None = None
    env_kwargs: dict[str, Any]
    trials: int
    same_task_each_trial: bool | None

    def __init__(
        self,
        policy: str | type[PlasticPolicy],
        env: Any,
        *,
        n_envs: int,
        inherited: Mapping[str, Any],
        env_kwargs: Mapping[str, Any] | None = None,
        trials: int = 1,
        same_task_each_trial: bool | None = None,
        policy_kwargs: Mapping[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
    ) -> None:
        given = {"same_task_each_trial": same_task_each_trial, "seed": seed}
        given = {name: value for name, value in given.items() if value is not None}
        check_ranges({"trials": trials, "stats_window_size": stats_window_size, **given})
        self.env_kwargs, self.trials = dict(env_kwargs or {}), trials
        self.same_task_each_trial = same_task_each_trial
        self.seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        super().__init__(
            POLICIES[policy] if isinstance(policy, str) else policy,
            self._adapted(env, n_envs),
            policy_kwargs=dict(policy_kwargs or {}),
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            seed=self.seed,
            device=device,
            **inherited,
        )
        if env is not None:
            self._setup_model()

    # --- set-up ----------------------------------------------------------------------------------------------------

    def _adapted(self, env: Any, n_envs: int) -> Any:
        """Remember which environment this is, and turn it into one that stable-baselines3 takes."""
        if isinstance(env, str):
            self.env_id = env
        return adapt(
            env,
            n_envs=n_envs,
            env_kwargs=self.env_kwargs,
            trials=self.trials,
            same_task_each_trial=self.same_task_each_trial,
            task_start=first_task(self.seed or 0),
        )

    @staticmethod
    def _wrap_env(env: Any, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        if isinstance(env, gym.Env):
            env = adapt(env)
        return wrap(BaseAlgorithm._wrap_env(env, verbose, monitor_wrapper))

    def set_random_seed(self, seed: int | None = None) -> None:
        """Start this algorithm's own random streams, and the environments' seeds, from `seed`."""
        self.seed = self.seed if seed is None else seed
        initial, sampling, _ = self._seeds()
        self._initial = torch.Generator().manual_seed(initial)
        self._sampling = torch.Generator().manual_seed(sampling)
        if self.env is not None:
            self._seed_environments(self.env)

    def _seeds(self) -> tuple[int, int, int]:
        """Of the initial draws, of sampling, and of the environments."""
        words = np.random.SeedSequence(self.seed).generate_state(3, np.uint64) >> np.uint64(1)
        initial, sampling, environments = (int(word) for word in words)
        return initial, sampling, environments

    def _seed_environments(self, env: VecEnv) -> None:
        # Row i is keyed by this plus i: runs of neighbouring seeds must not share their rows' noise. 31 bits leave
        # room for the rows below 2**32, where seeds end for some environments.
        env.seed(self._seeds()[2] >> 32)

    def set_env(self, env: Any, force_reset: bool = True) -> None:
        """Act and learn in `env` from now on: in any form that the constructor takes, with as many rows as before.

        Raises:
            ValueError: If its spaces are not those of the policy.
            AssertionError: If it has another number of rows.
        """
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

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        self.check_environment()
        return super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)

    def _make_policy(self) -> None:
        """Describe the environment, and draw the policy that acts in it."""
        if self.env is not None:
            self.description = EnvironmentDescription.of(self.env)
        self.policy = self.new_policy(self.policy_kwargs, self._initial).to(self.device)

    def new_policy(self, policy_kwargs: Mapping[str, Any], generator: torch.Generator) -> PlasticPolicy:
        """Draw a policy for the environment that was described."""
        policy_class: type[PlasticPolicy] = self.policy_class  # type: ignore[assignment]
        return policy_class(
            self.observation_space,
            self.action_space,
            feedback=self.description.feedback,
            steps_per_trial=self.description.steps_per_trial,
            generator=generator,
            **policy_kwargs,
        )

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        hooks = super()._init_callback(callback, progress_bar)
        for env in environments_of(hooks):
            exempt_feedback(env)
        return hooks

    def close(self) -> None:
        """Close the environments and free what else was made for training."""
        if self.env is not None:
            self.env.close()

    # --- saving ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def get_checkpoint(self) -> Checkpoint:
        """Return everything needed to go on from here."""

    @abstractmethod
    def set_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Go on from `checkpoint`."""

    def stored_policy_kwargs(self, checkpoint: Checkpoint) -> Mapping[str, Any]:
        """Arguments of the policy whose parameters `checkpoint` holds."""
        return self.policy_kwargs

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, env: Any, device: torch.device | str, **kwargs: Any) -> Self:
        """Make the algorithm that `checkpoint` describes; see `plastic_rl.algorithms.saving.rebuild`."""
        return rebuild(cls, checkpoint, env, device, **kwargs)

    def arguments(self) -> dict[str, Any]:
        """Constructor arguments by name: those that a checkpoint holds."""
        names = (*self.stored_arguments, "env_kwargs", "trials", "same_task_each_trial", "policy_kwargs", "seed")
        return {**{name: getattr(self, name) for name in names}, "stats_window_size": self._stats_window_size}

    @classmethod
    def arguments_of(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """The constructor arguments that the config of a checkpoint holds."""
        return dict(config["arguments"])

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

    def get_parameters(self) -> dict[str, dict[str, Any]]:
        """Return parameters and optimizer state by name, as stable-baselines3 gives them."""
        return {"policy": self.policy.state_dict()}

    # --- acting ----------------------------------------------------------------------------------------------------

    def begin(self, tasks: Sequence[object], seed: int) -> None:
        """Start the sampling stream of `predict` anew from `seed` (see `plastic_rl.envs.ReferenceAgent`)."""
        self.policy.begin(tasks, seed)

    @property
    def is_plastic(self) -> bool:
        """False where there is nothing that `freeze_plasticity` could hold (an LSTM, alpha = 0)."""
        return self.policy.is_plastic

    @contextmanager
    def freeze_plasticity(self) -> Iterator[None]:
        """Within this context the agent's synapses keep the state they have."""
        with self.policy.freeze_plasticity():
            yield


def _path(path: str | Path | io.BufferedIOBase) -> Path:
    if isinstance(path, io.BufferedIOBase):
        raise CheckpointError("checkpoints need a path, not an open file: they are verified, and replaced by renaming")
    return Path(path)


def _with_suffix(path: Path) -> Path:
    return path if path.suffix else path.with_suffix(".zip")
