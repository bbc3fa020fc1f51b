"""The plastic recurrent network of Miconi et al. (2016, 2018, 2019), under any rule of the one synapse.

`y_t = tanh(U o_t + b + (W0 + alpha * F_t) y_{t-1})`. The forward pass of step t uses the trace left by step t-1.
The order within a step: lifetimes that start are reset; an update that waited for the reward is made; what resets with
a trial is reset; the forward pass; an update that needs no reward is made.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from plastic_rl.feedback import FeedbackLayout
from plastic_rl.networks.base import Feedback, Params, PlasticNetwork, Recording, State, StateEntry
from plastic_rl.networks.fused.forward import Recorded, checkpoint_spacing, fused_unroll
from plastic_rl.networks.fused.rule import FusedRule
from plastic_rl.networks.fused.sequences import Resets
from plastic_rl.networks.recurrent import affine, tanh_sequence
from plastic_rl.networks.resets import ResetScope, check_reset_scopes, reset_entry, reset_where, stretches
from plastic_rl.plasticity import RuleConfig, Synapse, after_reward


class PlasticRNNConfig(RuleConfig):
    """A recurrent network whose recurrent synapses are plastic: a rule by name, and changes to it."""

    kind: Literal["plastic_rnn"] = Field("plastic_rnn", description="Kind of network.")
    hidden_size: int = Field(100, ge=1, description="Number of recurrent units.")
    weight_bound: float | None = Field(
        None, ge=0, description="Recurrent start weights are uniform within +-this; default 1/sqrt(hidden_size)."
    )
    input_bound: float | None = Field(
        None, gt=0, description="Input start weights are uniform within +-this; default sqrt(3 / number of inputs)."
    )
    reset: dict[str, ResetScope] = Field(
        default_factory=dict,
        description="When a state entry resets, if not with the lifetime: e.g. {activity: trial}.",
    )
    unroll: Literal["fused", "reference"] = Field(
        "fused", description="fused: fast and lean in memory, where the rule allows it; reference: plain autograd."
    )


class PlasticRNN(PlasticNetwork):
    """One recurrent layer of tanh units with plastic synapses.

    Args:
        config: The rule and the sizes.
        input_size: `I`, the whole observation.
        feedback: Not used: the feedback is input like any other.
        generator: Draws the start weights.
        steps_per_trial: Length of a trial where it is fixed (1 for bandits), else None.

    Raises:
        ConfigError: If a reset scope names no state entry, or leaves nothing to carry from trial to trial.
    """

    config_model = PlasticRNNConfig
    config: PlasticRNNConfig

    def __init__(
        self,
        config: PlasticRNNConfig,
        input_size: int,
        feedback: FeedbackLayout,
        generator: torch.Generator | None = None,
        steps_per_trial: int | None = None,
    ) -> None:
        super().__init__(config, input_size, feedback, generator, steps_per_trial)
        self.output_size = units = config.hidden_size
        self.synapse = Synapse(config, units, units)
        self.is_plastic = not self.synapse.non_plastic
        entries = {"activity": (units,)} | self.synapse.state_entries()
        if self.synapse.reward_modulated:
            entries["presynaptic"] = (units,)
        self._fused = FusedRule.of(self.synapse)
        check_reset_scopes(config.reset, entries, steps_per_trial)
        self._entries = {name: StateEntry(shape, config.reset.get(name, "lifetime")) for name, shape in entries.items()}

        # Unit variance of the drive (LeCun et al. 1998). On the reversal bandit (one seed, bias 0) bounds of .18, .9
        # and 1.8 scored 66, 72 and 72 after 350 updates: small weights start with tiny products of pre and post.
        fan_in = math.sqrt(3 / input_size) if config.input_bound is None else config.input_bound
        fan_recurrent = 1 / math.sqrt(units) if config.weight_bound is None else config.weight_bound
        drive = torch.empty(units, input_size, dtype=torch.float32).uniform_(-fan_in, fan_in, generator=generator)
        self.input_weight = nn.Parameter(drive)
        self.input_bias = nn.Parameter(torch.zeros(units, dtype=torch.float32))
        recurrent = torch.empty(units, units, dtype=torch.float32)
        self.recurrent_weight = nn.Parameter(recurrent.uniform_(-fan_recurrent, fan_recurrent, generator=generator))
        for name, parameter in self.synapse.parameters(generator).items():
            self.adopt(name, parameter)

    def state_entries(self) -> dict[str, StateEntry]:
        """`activity` y; the synapse's own; and `presynaptic` x where the update waits for the reward."""
        return self._entries

    def step(
        self, params: Params, x: Tensor, feedback: Feedback, state: State, episode_start: Tensor
    ) -> tuple[Tensor, State]:
        """One time step; see `PlasticNetwork.step`."""
        current = reset_where(episode_start, state, self._entries, "lifetime")
        synapse = self.synapse
        if synapse.reward_modulated and not self.plasticity_frozen:
            pre, post = current["presynaptic"], current["activity"]
            rewarded = synapse.update(params, pre, post, current, feedback.reward)
            current = after_reward(current, rewarded, feedback.valid & ~episode_start)
        current = reset_where(feedback.trial_start, current, self._entries, "trial")
        pre = current["activity"]
        total = affine(x, params["input_weight"], params["input_bias"]) + pre @ params["recurrent_weight"].mT
        if not synapse.non_plastic:
            total = total + synapse.current(params, pre, current)
        post = torch.tanh(total)
        following = {**current, "activity": post}
        if synapse.reward_modulated:
            following["presynaptic"] = pre
        elif not self.plasticity_frozen:
            if self._fused is None or torch.is_grad_enabled():
                following |= synapse.update(params, pre, post, current)
            else:
                following |= self._fused.update(params, pre, post, current)
        return post, following

    def unroll(
        self,
        params: Params,
        xs: Tensor,
        feedbacks: Feedback,
        state: State,
        episode_starts: Tensor,
        recorded: Recording | None = None,
    ) -> tuple[Tensor, State]:
        """`T` steps at once; see `PlasticNetwork.unroll`.

        Raises:
            ValueError: If `recorded` is of another number of steps.
        """
        if recorded is not None and len(recorded) != xs.shape[0]:
            raise ValueError(f"a recording of {len(recorded)} steps cannot stand for the {xs.shape[0]} steps of xs.")
        if self.synapse.non_plastic:
            return self._unroll_non_plastic(params, xs, feedbacks, state, episode_starts)
        if self._fused is None or self.config.unroll == "reference" or self.plasticity_frozen:
            return self.unroll_reference(params, xs, feedbacks, state, episode_starts)
        resets = Resets(*(self._starts(name, feedbacks, episode_starts) for name in Resets._fields))
        acted = None
        if recorded is not None:
            acted = Recorded(
                recorded.activities,
                {done: (kept["trace"], kept.get("eligibility")) for done, kept in recorded.checkpoints.items()},
            )
        features, following = fused_unroll(self._fused, params, xs, state, resets, acted)
        return features, following if recorded is None else recorded.checkpoints[len(recorded)]

    def _starts(self, entry: str, feedbacks: Feedback, episode_starts: Tensor) -> Tensor:
        """Where the state entry resets, `(T, B)` bool."""
        by_trial = entry in self._entries and self._entries[entry].reset == "trial"
        return episode_starts | feedbacks.trial_start if by_trial else episode_starts

    def _unroll_non_plastic(
        self, params: Params, xs: Tensor, feedbacks: Feedback, state: State, episode_starts: Tensor
    ) -> tuple[Tensor, State]:
        """With alpha 0 for good, this is a plain recurrent network."""
        weights = (
            params["input_weight"],
            params["recurrent_weight"],
            params["input_bias"],
            torch.zeros_like(params["input_bias"]),
        )
        starts = self._starts("activity", feedbacks, episode_starts)
        activity = state["activity"]
        pieces = []
        for first, last in stretches(starts):
            activity = reset_entry(starts[first], activity)
            features, activity = tanh_sequence(xs[first:last], activity, weights)
            pieces.append(features)
        return torch.cat(pieces), {**state, "activity": activity}

    def recording(self, steps: int) -> Recording | None:
        """A recording where `unroll` is fused: its forward pass then need not be made again."""
        if self._fused is None or self.config.unroll == "reference":
            return None
        traced = self._fused.traced
        return Recording(steps, lambda state: checkpoint_spacing(steps, state["trace"], traced=traced), "activity")

    def extra_repr(self) -> str:
        """The rule and the sizes."""
        shown: dict[str, Any] = {"rule": self.config.rule, "inputs": self.input_size, "units": self.output_size}
        return ", ".join(f"{name}={value}" for name, value in shown.items())
