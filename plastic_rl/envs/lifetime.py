"""Any scalar Gymnasium environment as a lifetime: feedback in the observation, trials inside.

Data flow: inner observation -> flat float32 columns -> feedback columns behind them; an inner end -> `trial_end`.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from plastic_rl.arrays import Array, SingleArray
from plastic_rl.envs.actions import ActionCodec
from plastic_rl.envs.catalog import DISTRIBUTIONS
from plastic_rl.errors import ConfigError, EnvironmentFaultError, SpaceError
from plastic_rl.feedback import FeedbackLayout

REWARD_LIMIT = 1000.0


class Lifetime(gymnasium.Wrapper[SingleArray, Any, Any, Any], gymnasium.utils.RecordConstructorArgs):
    """Turns `trials` episodes of an environment into one lifetime, and adds feedback to the observation.

    The observation becomes `[flattened inner observation, previous action, previous reward, trial_start, t/T]`.
    The reward column is clipped to +-1000; the reward itself is not. t/T is the share of the lifetime that has passed:
    of `trials * max_episode_steps` steps where the environment's spec has a time limit, else of the trials.

    **Ends.** With `trials=1` the inner `terminated` and `truncated` pass through: a time limit of the inner environment
    is a limit from outside, and is bootstrapped. With more trials every inner end, however it came about, is a boundary
    inside the lifetime: `info["trial_end"]` is true, the next trial begins within the same step (the observation is its
    first one), and the end of the last trial is the lifetime's own horizon: `terminated`, never `truncated`, even where
    the trial was cut by a time limit, since no further trial follows from which anything could be gained.

    **What repeats.** With `same_task_each_trial` every inner reset of a lifetime gets the lifetime's seed, so that an
    environment that draws its maze in `reset` shows the same maze in each trial. All else that follows from that seed
    repeats too, starts and noise: the same actions lead to the same steps, so that an agent may do well by replaying a
    path that was lucky once, as on FrozenLake's slippery ice. Without it only `options` stay the same, and each trial
    draws anew.

    `info` holds `trial_end` on every step. An environment with trials of its own says so itself, with
    `info["trial_end"]`; with `trials=1` that is passed through.

    Args:
        env: The environment; Box (no images), Discrete, MultiDiscrete or MultiBinary observations, and Discrete,
            MultiDiscrete, MultiBinary or Box actions.
        trials: Inner episodes in a lifetime, n.
        same_task_each_trial: Reset every trial of a lifetime with its seed: the one that `reset` is given, else one
            that is drawn from a generator of the wrapper's own (which follows from the last seed given). None: true
            where the environment's id has no task distribution of its own, so that its tasks are reset seeds; false
            where it has one, whose task `options` carry to every trial, or where there is one trial.

    Raises:
        SpaceError: If the observation or action space is of another kind.
        ConfigError: If `trials` is below 1, or the environment is a lifetime already.

    >>> env = Lifetime(gymnasium.make("FrozenLake-v1"), trials=2)
    >>> env.observation_space.shape  # 16 places, 4 actions, reward, trial_start, t/T
    (23,)
    """

    def __init__(self, env: gymnasium.Env[Any, Any], trials: int = 1, same_task_each_trial: bool | None = None) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(self, trials=trials, same_task_each_trial=same_task_each_trial)
        gymnasium.Wrapper.__init__(self, env)
        if trials < 1:
            raise ConfigError(f"a lifetime has 1 or more trials, got {trials}")
        if "feedback" in env.metadata:
            raise ConfigError(
                f"{env} is a lifetime already (its observation holds feedback); leave Lifetime and `trials` away"
            )
        if same_task_each_trial is None:
            same_task_each_trial = env.spec is None or env.spec.id not in DISTRIBUTIONS
        self.trials = trials
        self._repeats_seed = same_task_each_trial and trials > 1
        self._inner_space = env.observation_space
        low, high = flat_bounds(env.observation_space)
        self._codec = ActionCodec(env.action_space)
        self.feedback = FeedbackLayout.after(low.size, self._codec.size)
        space: spaces.Space[Any] = lifetime_space(low, high, self._codec)
        self.observation_space = space
        self.action_space = self._codec.space
        self.metadata = {**env.metadata, "feedback": self.feedback.to_dict()}
        limit = None if env.spec is None else env.spec.max_episode_steps
        self._horizon = None if limit is None else trials * limit
        self._time = 0
        self._trial = 0
        self._seed: int | None = None
        self._options: dict[str, Any] | None = None
        self._drawn_seeds = np.random.default_rng()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[SingleArray, dict[str, Any]]:
        """Start a lifetime; `options` reach the inner reset of every trial, and the seed may (see the class)."""
        if self._repeats_seed and seed is None:
            seed = int(self._drawn_seeds.integers(2**31))
        elif self._repeats_seed:
            self._drawn_seeds = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
        self._seed, self._options = seed if self._repeats_seed else None, options
        observation, info = self.env.reset(seed=seed, options=options)
        self._time = 0
        self._trial = 0
        check_outcome(0.0, info)
        return self._compose(observation, None, 0.0, True), info

    def step(self, action: Any) -> tuple[SingleArray, float, bool, bool, dict[str, Any]]:
        """Take one action, and begin the next trial if it ended one (see the class)."""
        checked = self._codec.check(np.asarray(action)[None], 1)
        observation, reward, terminated, truncated, info = self.env.step(self._codec.inner(checked[0]))
        self._time += 1
        check_outcome(reward, info)
        ended = bool(terminated or truncated)
        if self.trials == 1:
            trial_end = bool(info.get("trial_end", False)) or ended
        else:
            trial_end = ended
            self._trial += ended
            terminated, truncated = self._trial >= self.trials, False
            if ended and not terminated:
                observation, _ = self.env.reset(seed=self._seed, options=self._options)
        info = {**info, "trial_end": trial_end}
        composed = self._compose(observation, checked, float(reward), trial_end)
        return composed, float(reward), bool(terminated), bool(truncated), info

    def _compose(self, observation: Any, action: Array | None, reward: float, trial_start: bool) -> SingleArray:
        composed = np.zeros(self.feedback.stop, dtype=np.float32)
        check_observation(self._inner_space, observation)
        composed[: self.feedback.start] = np.asarray(spaces.flatten(self._inner_space, observation), dtype=np.float32)
        if action is not None:
            self._codec.encode(action, composed[None, slice(*self.feedback.action)])
        composed[self.feedback.reward[0]] = np.clip(reward, -REWARD_LIMIT, REWARD_LIMIT)
        composed[self.feedback.trial_start[0]] = trial_start
        share = self._trial / self.trials if self._horizon is None else self._time / self._horizon
        composed[self.feedback.time[0]] = min(share, 1.0)
        return composed


def check_outcome(reward: Any, info: Any) -> None:
    """Raise `EnvironmentFaultError` where a reward is not one number, or an info not a mapping."""
    if np.ndim(reward) or not isinstance(reward, numbers.Real | np.number | np.bool_ | np.ndarray):
        raise EnvironmentFaultError(f"the reward is {reward!r:.80}, not a number")
    if not isinstance(info, Mapping):
        raise EnvironmentFaultError(f"info is {info!r:.80}, not a mapping")


def check_observation(space: spaces.Space[Any], observation: Any) -> None:
    """Raise `EnvironmentFaultError` where an observation has not the shape of `space`; its values may lie outside."""
    got = np.shape(observation)
    if got != (space.shape or ()):
        raise EnvironmentFaultError(f"the observation has shape {got}, where its space says {space.shape}")
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary) and not space.contains(
        np.asarray(observation, dtype=space.dtype)[()]
    ):
        raise EnvironmentFaultError(f"the observation {observation!r:.80} is none of {space}")


def refuse_trials(env: str, trials: int, same_task_each_trial: bool | None) -> None:
    """Raise `ConfigError` where an environment that is a lifetime already is given one of the arguments of one."""
    if trials != 1 or same_task_each_trial is not None:
        raise ConfigError(
            f"{env} is a lifetime already, with trials of its own; `trials` (got {trials}) and `same_task_each_trial` "
            f"(got {same_task_each_trial}) are for environments whose episodes are to become trials"
        )


def lifetime_space(
    low: SingleArray,
    high: SingleArray,
    codec: ActionCodec,
    reward_range: tuple[float, float] = (-REWARD_LIMIT, REWARD_LIMIT),
    label_size: int = 0,
    label_low: float = 0.0,
) -> spaces.Box:
    """Box of features within `low` and `high` `(F,)`, with the feedback columns behind them."""
    lowest, highest = reward_range
    return spaces.Box(
        np.concatenate([low, codec.low, [lowest, 0.0, 0.0], np.full(label_size, label_low)]).astype(np.float32),
        np.concatenate([high, codec.high, [highest, 1.0, 1.0], np.ones(label_size)]).astype(np.float32),
        dtype=np.float32,
    )


def flat_bounds(space: spaces.Space[Any]) -> tuple[SingleArray, SingleArray]:
    """Bounds of the flattened observation, `(F,)` each.

    Raises:
        SpaceError: If the space is not flat (Dict, Tuple, ...) or is an image.
    """
    if isinstance(space, spaces.Box) and len(space.shape) >= 2 and space.dtype == np.uint8:
        raise SpaceError(
            f"image observations are not supported, got {space}; put a wrapper around the environment that turns "
            "pictures into a vector of features (e.g. gymnasium.wrappers.TransformObservation)"
        )
    if not isinstance(space, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
        raise SpaceError(
            f"observations must be Box, Discrete, MultiDiscrete or MultiBinary, got {space}; flatten others first "
            "(e.g. gymnasium.wrappers.FlattenObservation)"
        )
    flat = spaces.flatten_space(space)
    assert isinstance(flat, spaces.Box)
    return flat.low.astype(np.float32), flat.high.astype(np.float32)
