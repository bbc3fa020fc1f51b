"""The plastic recurrent network of Miconi et al. (2016, 2018, 2019), under any rule of the one synapse.

`y_t = tanh(U o_t + b + (W0 + alpha * F_t) y_{t-1})`. The forward pass of step t uses the trace left by step t-1.
The order within a step: lifetimes that start are reset; an update that waited for the reward is made; synapses rewire,
where a rule says so; what resets with a trial is reset; the forward pass; an update that needs no reward is made.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from plastic_rl.feedback import Feedback, FeedbackLayout
from plastic_rl.networks.base import Params, PlasticNetwork, Recording, State, scoped_entries
from plastic_rl.networks.fused.forward import Recorded, checkpoint_spacing, fused_unroll
from plastic_rl.networks.fused.rule import FusedRule
from plastic_rl.networks.fused.sequences import Resets
from plastic_rl.networks.hidden_layers import HiddenLayer, hidden_layer
from plastic_rl.networks.layer_norm import StartGain, check_normalised_size, layer_normalised
from plastic_rl.networks.phases import PhasesConfig
from plastic_rl.networks.recurrent import affine, unroll_stretches
from plastic_rl.networks.structure import clock_entries, drawn_structure, rewired
from plastic_rl.plasticity import ResetScope, RuleConfig, StateEntry, Synapse, after_reward


class PlasticRNNConfig(PhasesConfig, RuleConfig):
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
    layer_norm: StartGain = None
    unroll: Literal["fused", "reference"] = Field(
        "fused", description="fused: fast and lean in memory, where the rule allows it; reference: plain autograd."
    )


class PlasticRNN(PlasticNetwork):
    """One recurrent layer of tanh units with plastic synapses; the feedback is input like any other.

    State entries: `activity` y, the synapse's own, `presynaptic` x where the update waits for the reward, and what a
    structure needs: `connected` M, `key`, `age`.

    Raises:
        ConfigError: If a reset scope names no state entry, or leaves nothing to carry from trial to trial.
    """

    config_model = PlasticRNNConfig
    config: PlasticRNNConfig

    @override
    def build(self, feedback: FeedbackLayout, generator: torch.Generator | None, steps_per_trial: int | None) -> None:
        config = self.config
        check_normalised_size(config.layer_norm, config.hidden_size)
        self.output_size = units = config.hidden_size
        self.synapse = Synapse(config, units, units)
        self.is_plastic = not self.synapse.non_plastic
        entries = {"activity": StateEntry((units,), momentary=True)} | self.synapse.state_entries()
        if self.synapse.reward_modulated:
            entries["presynaptic"] = StateEntry((units,), momentary=True)
        self._fused = FusedRule.of(self.synapse) if config.layer_norm is None else None
        self._entries = scoped_entries(entries, config.reset, steps_per_trial)
        self._entries |= self.synapse.structure_entries() | clock_entries([self.synapse])

        # Unit variance of the drive (LeCun et al. 1998). On the reversal bandit (one seed, bias 0) bounds of .18, .9
        # and 1.8 scored 66, 72 and 72 after 350 updates: small weights start with tiny products of pre and post.
        fan_in = math.sqrt(3 / self.input_size) if config.input_bound is None else config.input_bound
        fan_recurrent = 1 / math.sqrt(units) if config.weight_bound is None else config.weight_bound
        drive = torch.empty(units, self.input_size, dtype=torch.float32).uniform_(-fan_in, fan_in, generator=generator)
        self.input_weight = nn.Parameter(drive)
        self.input_bias = nn.Parameter(torch.zeros(units, dtype=torch.float32))
        recurrent = torch.empty(units, units, dtype=torch.float32)
        self.recurrent_weight = nn.Parameter(recurrent.uniform_(-fan_recurrent, fan_recurrent, generator=generator))
        for name, parameter in self.synapse.parameters(generator).items():
            self.adopt(name, parameter)
        if config.layer_norm is not None:
            self.norm_gain = nn.Parameter(torch.full((units,), config.layer_norm, dtype=torch.float32))

    @override
    def hidden_layers(self) -> tuple[HiddenLayer, ...]:
        size = self.config.hidden_size
        parameters = dict(self.named_parameters()), dict(self.rebuilt(hidden_size=size + 1).named_parameters())
        return (hidden_layer("hidden", *parameters, size, is_features=True),)

    @override
    def newborn(self, keys: Tensor) -> State:
        return drawn_structure(self.synapse, keys, 0)

    @override
    def rewarded(self, params: Params, state: State, feedback: Feedback, happens: Tensor) -> State:
        if not self.synapse.reward_modulated:
            return state
        pre, post, openness = state["presynaptic"], state["activity"], self.openness(params, state)
        return after_reward(state, self.synapse.update(params, pre, post, state, feedback, openness), happens)

    @override
    def step(
        self, params: Params, x: Tensor, feedback: Feedback, state: State, episode_start: Tensor
    ) -> tuple[Tensor, State]:
        current = self.begun(params, state, episode_start)
        synapse = self.synapse
        if not self.plasticity_frozen:
            current = self.rewarded(params, current, feedback, feedback.valid & ~episode_start)
        weight = params["recurrent_weight"]
        if "age" in current and not self.plasticity_frozen:
            current = current | rewired(synapse, params, weight, current, current["key"], current["age"], 0)
        current = self.reset(feedback.trial_start, current, "trial", params)
        pre = current["activity"]
        total = affine(x, params["input_weight"], params["input_bias"])
        if not synapse.is_plain:
            total = total + synapse.driven(params, weight, pre, current)
        else:
            total = total + pre @ weight.mT
            if not synapse.non_plastic:
                total = total + synapse.current(params, pre, current)
        if self.config.layer_norm is not None:
            bias = params["input_bias"].unsqueeze(-2)
            total = layer_normalised(total - bias, params["norm_gain"]) + bias
        post = torch.tanh(total)
        self._show("hidden", post.unsqueeze(-2))
        pre = post if synapse.term.sees_emission else pre
        following = {**current, "activity": post}
        if "age" in current:
            following["age"] = current["age"] + 1
        if synapse.reward_modulated:
            following["presynaptic"] = pre
        elif not self.plasticity_frozen:
            openness = self.openness(params, current)
            if self._fused is None or openness is not None or torch.is_grad_enabled():
                following |= synapse.update(params, pre, post, current, None, openness)
            else:
                following |= self._fused.update(params, pre, post, current)
        return post, following

    @override
    def weights(self, params: Params, state: State) -> dict[str, Tensor]:
        return {"recurrent": self.synapse.weight(params, params["recurrent_weight"], state)}

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
        if self.synapse.non_plastic and self.synapse.is_plain and self.config.layer_norm is None:
            # A plain recurrent network.
            bias = params["input_bias"]
            weights = (params["input_weight"], params["recurrent_weight"], bias, torch.zeros_like(bias))
            starts = (self.starts("activity", feedbacks, episode_starts),)
            features, (activity,) = unroll_stretches(torch.rnn_tanh, xs, (state["activity"],), starts, weights)
            return features, {**state, "activity": activity}
        if self._fused is None or self.config.unroll == "reference" or self.plasticity_frozen:
            return self.unroll_reference(params, xs, feedbacks, state, episode_starts)
        resets = Resets(*(self.starts(name, feedbacks, episode_starts) for name in Resets._fields))
        acted = None
        if recorded is not None:
            acted = Recorded(
                recorded.activities,
                {done: (kept["trace"], kept.get("eligibility")) for done, kept in recorded.checkpoints.items()},
            )
        features, following = fused_unroll(self._fused, params, xs, state, resets, acted)
        return features, following if recorded is None else recorded.checkpoints[len(recorded)]

    @override
    def recording(self, steps: int) -> Recording | None:
        if self._fused is None or self.config.unroll == "reference":
            return None
        traced = self._fused.traced
        return Recording(steps, lambda state: checkpoint_spacing(steps, state["trace"], traced=traced), "activity")
