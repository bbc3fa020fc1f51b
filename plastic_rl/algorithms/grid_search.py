"""`GridSearch`: try settings of the network one after the other, and leave the choice to whoever scores them.

It is the outer loop of hand-written rules, which have nothing to train but a few numbers: each candidate is a network
as it is made from its config, and the run keeps the one that scores best on `valid`. What evolved or trained rules
must beat is then the best of a grid, chosen as their own checkpoints are.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self, Unpack

from stable_baselines3.common.type_aliases import MaybeCallback

from plastic_rl.algorithms.base import WITHOUT_GRADIENT, CommonArguments, PlasticAlgorithm
from plastic_rl.algorithms.persistence import load_parameters
from plastic_rl.algorithms.saving import count_in, describe, parameters_of
from plastic_rl.checkpoint import Checkpoint, set_torch_rng_state, torch_rng_state
from plastic_rl.errors import CheckpointError, ConfigError, UnknownNameError, damage_is_refused
from plastic_rl.policies import PlasticPolicy


class GridSearch(PlasticAlgorithm):
    """Every combination of some settings of the network, each as it is made, none trained.

    The policy is the candidate in hand; a callback that scores it when an iteration begins or training ends (as
    experiments do) decides which one is kept. `num_timesteps` counts candidates.

    Args:
        policy: Name in `plastic_rl.policies.POLICIES`, or a subclass of `PlasticPolicy`.
        env: Environment id; None for an agent that only predicts.
        grid: Values to try by dotted name of a setting of the network, e.g. `{"step.output": [0.01, 0.1]}`; the last
            setting changes first.
        env_kwargs: Arguments of the environment.
        trials: Inner episodes of a lifetime where `env` is the id of a foreign environment.
        same_task_each_trial: Whether these share the lifetime's seed; None: where tasks are reset seeds (`Lifetime`).
        policy_kwargs: Arguments of the policy, e.g. `{"network": {"kind": "rule_table", "tables": "hebb"}}`.
        stats_window_size: As in stable-baselines3.
        tensorboard_log: Folder for TensorBoard, or None.
        verbose: 0 silent, 1 a table per logging interval.
        seed: Of the parameters that a network draws and of action sampling. None: from the operating system.
        device: `"auto"`, `"cpu"`, `"cuda"`, ...

    Raises:
        ConfigError: If the grid is empty, or a candidate is no network.
        SpaceError: If the environment's spaces are not supported.

    >>> network = {"kind": "rule_table", "tables": "label_free_hebb", "inputs": "all"}
    >>> grid = {"table_values.chosen_unrewarded": [-1.0, -2.0], "step.output": [0.01, 0.1, 1.0]}
    >>> settings = {"network": network}
    >>> search = GridSearch("PlasticPolicy", "plastic_rl/ReversalBandit-v0", grid=grid, policy_kwargs=settings)
    >>> len(search), search.candidate(3)
    (6, {'table_values.chosen_unrewarded': -2.0, 'step.output': 0.01})
    """

    stored_arguments: ClassVar[tuple[str, ...]] = ("grid",)

    def __init__(
        self,
        policy: str | type[PlasticPolicy],
        env: str | None,
        *,
        grid: Mapping[str, Sequence[Any]],
        **common: Unpack[CommonArguments],
    ) -> None:
        self.grid = {name: list(values) for name, values in grid.items()}
        empty = [name for name, values in self.grid.items() if not values]
        if empty or not self.grid:
            raise ConfigError(
                "algorithm.grid needs at least one setting of the network, and at least one value of each, got none "
                f"for {', '.join(empty) or 'any'}"
            )
        self.base_network = copy.deepcopy(dict((common.get("policy_kwargs") or {}).get("network", {})))
        super().__init__(policy, env, n_envs=1, inherited=WITHOUT_GRADIENT, **common)

    def __len__(self) -> int:
        return math.prod(len(values) for values in self.grid.values())

    def candidate(self, number: int) -> dict[str, Any]:
        """The settings of candidate `number`, from 0, by dotted name."""
        combination = next(itertools.islice(itertools.product(*self.grid.values()), number, None))
        return dict(zip(self.grid, combination, strict=True))

    def _setup_model(self) -> None:
        self.iterations = 0
        self.score_buffer = deque(maxlen=1)
        # Each of them now, so that a value that makes no network does not end the search in its middle.
        if self.env is not None:
            for number in (*range(len(self)), 0):
                self._take_up(number)

    def _kwargs_of(self, number: int) -> dict[str, Any]:
        """Arguments of the policy that candidate `number` is."""
        network = copy.deepcopy(self.base_network)
        for name, value in self.candidate(number).items():
            *path, last = name.split(".")
            place = network
            for key in path:
                place = place.setdefault(key, {})
                if not isinstance(place, dict):
                    raise ConfigError(f"algorithm.grid.{name}: {key} is {place!r} and has no settings of its own.")
            place[last] = value
        return {**self.policy_kwargs, "network": network}

    def _take_up(self, number: int) -> None:
        """Make the policy that candidate `number` is."""
        self.set_random_seed(self.seed)
        self.policy_kwargs = self._kwargs_of(number)
        try:
            self._make_policy()
        except (ConfigError, UnknownNameError) as error:
            settings = ", ".join(f"algorithm.grid.{name}: {value!r}" for name, value in self.candidate(number).items())
            raise ConfigError(
                f"candidate {number + 1} of {len(self)} ({settings}) makes no network: {error}"
            ) from error

    def learn(
        self,
        total_timesteps: int | None = None,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "GridSearch",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Take up the next `total_timesteps` candidates (None: all that are left), one after the other."""
        first = 0 if reset_num_timesteps else self.iterations
        last = len(self) if total_timesteps is None else min(len(self), first + total_timesteps)
        _, hooks = self._setup_learn(last - first, callback, reset_num_timesteps, tb_log_name, progress_bar)
        hooks.on_training_start(locals(), globals())
        for number in range(first, last):
            # Who scores the candidate before does it here.
            hooks.on_rollout_start()
            self._take_up(number)
            self.iterations = self.num_timesteps = number + 1
            for name, value in self.candidate(number).items():
                if isinstance(value, int | float):
                    self.logger.record(f"grid/{name}", float(value))
            if log_interval and self.iterations % log_interval == 0:
                self.logger.dump(step=self.num_timesteps)
            hooks.update_locals(locals())
            if not hooks.on_step():
                break
            hooks.on_rollout_end()
        hooks.on_training_end()
        return self

    # --- saving ----------------------------------------------------------------------------------------------------

    def get_checkpoint(self) -> Checkpoint:
        """Return the candidate in hand, and how far the search is."""
        return Checkpoint(
            tensors={
                "params": parameters_of(self),
                "optimizer": {},
                "state": {},
            },
            documents={
                "rng": {"predict": torch_rng_state(self.policy.sampling)},
                "env": None,
                "algorithm": {"num_timesteps": self.num_timesteps, "iterations": self.iterations},
            },
            config=describe(self),
        )

    def arguments(self) -> dict[str, Any]:
        """See `PlasticAlgorithm.arguments`; the network is the one that candidates are changes of."""
        return {**super().arguments(), "policy_kwargs": {**self.policy_kwargs, "network": self.base_network}}

    def _reached(self, checkpoint: Checkpoint) -> int:
        """How many candidates had been taken up at `checkpoint`."""
        reached = count_in(checkpoint.documents["algorithm"], "iterations")
        if reached > len(self):
            raise CheckpointError(f"{checkpoint.source} is of candidate {reached}, and this grid has {len(self)}")
        return reached

    def stored_policy_kwargs(self, checkpoint: Checkpoint) -> Mapping[str, Any]:
        """See `PlasticAlgorithm.stored_policy_kwargs`."""
        return self._kwargs_of(max(self._reached(checkpoint) - 1, 0))

    def set_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Take up the candidate of `checkpoint` again.

        Raises:
            CheckpointError: If the checkpoint belongs to another grid or network.
        """
        with damage_is_refused(f"{checkpoint.source} does not fit this {type(self).__name__}"):
            reached = self._reached(checkpoint)
            self._take_up(max(reached - 1, 0))
            self.iterations = self.num_timesteps = reached
            load_parameters(self.policy, checkpoint)
            set_torch_rng_state(self.policy.sampling, checkpoint.documents["rng"]["predict"])
