"""The plastic recurrent network of Miconi et al. (2016, 2018, 2019), under any rule of the one synapse.

`y_t = tanh(U o_t + b + (W0 + alpha * F_t) y_{t-1})`. The forward pass of step t uses the trace left by step t-1. In
pattern completion (arXiv 1804.02464, section 4.1) U has nothing to learn: unit i sees element i of the pattern alone,
is clamped by it, or free where it is 0, and the units themselves are the answer.
The order within a step: lifetimes that start are reset; an update that waited for the reward is made; synapses rewire,
where a rule says so; what resets with a trial is reset; the forward pass; an update that needs no reward is made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import override

from plastic_rl._native import LEVELS
from plastic_rl.errors import ConfigError
from plastic_rl.feedback import Feedback, FeedbackLayout
from plastic_rl.networks.acting import ActsInPlace
from plastic_rl.networks.base import Params, PlasticNetwork, Recording, State, scoped_entries
from plastic_rl.networks.fused.forward import Recorded, checkpoint_spacing, fused_unroll
from plastic_rl.networks.fused.rule import FusedRule
from plastic_rl.networks.fused.sequences import Resets as FusedResets
from plastic_rl.networks.hidden_layers import HiddenLayer, hidden_layer
from plastic_rl.networks.layer_norm import StartGain, check_normalised_size, layer_normalised
from plastic_rl.networks.native import (
    RESETS_ACTIVITY,
    RESETS_ELIGIBILITY,
    RESETS_TRACE,
    Acting,
    NativeRule,
    Resets,
    Run,
    native_unroll,
)
from plastic_rl.networks.phases import PhasesConfig
from plastic_rl.networks.recurrent import affine, unroll_stretches
from plastic_rl.networks.structure import clock_entries, drawn_structure, rewired
from plastic_rl.plasticity import GainConfig, ResetScope, RuleConfig, StateEntry, Synapse, after_reward

LARGEST_OUTPUT = 1 - 1e-6
"""Of a unit that is read out: the logit of a bit is at most 14.5."""


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
    input_gain: GainConfig | None = Field(
        None,
        description="Of one-to-one inputs: unit i sees column i before the feedback alone, times this; null: units see "
        "all columns, by weights.",
    )
    readout: Literal["units", "head"] = Field(
        "head",
        description="units: the first units are the actions, a bit each (MultiBinary); head: an action head reads all.",
    )
    reset: dict[str, ResetScope] = Field(
        default_factory=dict,
        description="When a state entry resets, if not with the lifetime: e.g. {activity: trial}.",
    )
    layer_norm: StartGain = None
    unroll: Literal["fused", "reference"] = Field(
        "fused", description="fused: fast and lean in memory, where the rule allows it; reference: plain autograd."
    )

    @model_validator(mode="after")
    def _inputs_have_weights_or_a_gain(self) -> Self:
        if self.input_gain is not None and self.input_bound is not None:
            raise ValueError("one-to-one inputs have no weights for input_bound; leave it or input_gain out")
        return self


class PlasticRNN(PlasticNetwork):
    """One recurrent layer of tanh units with plastic synapses; the feedback is input like any other.

    State entries: `activity` y, the synapse's own, `presynaptic` x where the update waits for the reward, and what a
    structure needs: `connected` M, `key`, `age`. With `input_gain` g, `(1, 1)` or `(O, 1)`, there are no input weights:
    unit i gets `g o_i + b_i`, and only `b_i` where the features before the feedback have no column i. With
    `readout: units` a bit is 1 with probability `(1 + y) / 2`.

    Raises:
        ConfigError: If a reset scope names no state entry, or leaves nothing to carry from trial to trial; if there are
            fewer units than actions of `readout: units`, or no features for one-to-one inputs.
    """

    config_model = PlasticRNNConfig
    config: PlasticRNNConfig

    @override
    def build(self, feedback: FeedbackLayout, generator: torch.Generator | None, steps_per_trial: int | None) -> None:
        config = self.config
        units = config.hidden_size
        check_normalised_size(config.layer_norm, units)
        self.has_readout = self.bits_only = config.readout == "units"
        self.output_size = feedback.action_size if self.has_readout else units
        if units < self.output_size:
            raise ConfigError(
                f"network.hidden_size={units} is too small for readout: units, which needs one for each of the "
                f"{self.output_size} actions"
            )
        self._seen = min(units, feedback.start)
        if config.input_gain is not None and not self._seen:
            raise ConfigError(
                "network.input_gain: this environment has no features before the feedback, so that units would see "
                "nothing one to one; leave it out"
            )
        self.synapse = Synapse(config, units, units)
        self.is_plastic = not self.synapse.non_plastic
        entries = {"activity": StateEntry((units,), momentary=True)} | self.synapse.state_entries()
        if self.synapse.reward_modulated:
            entries["presynaptic"] = StateEntry((units,), momentary=True)
        self._fused = FusedRule.of(self.synapse) if config.layer_norm is None else None
        self._native = NativeRule.of(self.synapse) if config.layer_norm is None else None
        self._entries = scoped_entries(entries, config.reset, steps_per_trial)
        self._entries |= self.synapse.structure_entries() | clock_entries([self.synapse])

        # Unit variance of the drive (LeCun et al. 1998). On the reversal bandit (one seed, bias 0) bounds of .18, .9
        # and 1.8 scored 66, 72 and 72 after 350 updates: small weights start with tiny products of pre and post.
        fan_in = math.sqrt(3 / self.input_size) if config.input_bound is None else config.input_bound
        fan_recurrent = 1 / math.sqrt(units) if config.weight_bound is None else config.weight_bound
        if config.input_gain is None:
            drive = torch.empty(units, self.input_size, dtype=torch.float32)
            self.input_weight = nn.Parameter(drive.uniform_(-fan_in, fan_in, generator=generator))
        else:
            self.adopt("input_gain", config.input_gain.draw(units, 1, generator, is_gain=False))
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
        if self.config.input_gain is not None or self.has_readout:
            return ()  # a unit is a feature or an action, and none is like another
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
        if "age" in current and self.restructures:
            current = current | rewired(synapse, params, weight, current, current["key"], current["age"], 0)
        current = self.reset(feedback.trial_start, current, "trial", params)
        pre = current["activity"]
        total = self._drive(params, x)
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
        return self._read(post), following

    def _drive(self, params: Params, x: Tensor) -> Tensor:
        """What observations `x (.., B, I)` alone contribute to the input of the units, `(.., B, O)`."""
        if self.config.input_gain is None:
            return affine(x, params["input_weight"], params["input_bias"])
        own = nn.functional.pad(x[..., : self._seen], (0, self.config.hidden_size - self._seen))
        return own * params["input_gain"].mT + params["input_bias"].unsqueeze(-2)

    def _read(self, activity: Tensor) -> Tensor:
        """The features of an activity `(.., B, O)`: those of the units that are the actions, else all."""
        return activity[..., : self.output_size] if self.has_readout else activity

    @property
    @override
    def tells_activity(self) -> bool:
        return True

    @override
    def readout(self, params: Params, features: Tensor) -> Tensor:
        """Logits of the bits: `sigmoid(2 atanh y) = (1 + y) / 2`."""
        return 2 * torch.atanh(features.clamp(-LARGEST_OUTPUT, LARGEST_OUTPUT)) if self.has_readout else features

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
        recorded: Recording | ActsInPlace | None = None,
    ) -> tuple[Tensor, State]:
        """`T` steps at once; see `PlasticNetwork.unroll`.

        Raises:
            ValueError: If `recorded` is of another number of steps.
        """
        kept = xs.shape[0] if recorded is None else recorded.steps_done
        if kept != xs.shape[0]:
            raise ValueError(f"a recording of {kept} steps cannot stand for the {xs.shape[0]} steps of xs.")
        plain = self.synapse.non_plastic and self.synapse.is_plain
        if plain and self.config.layer_norm is None and self.config.input_gain is None:
            # A plain recurrent network.
            bias = params["input_bias"]
            weights = (params["input_weight"], params["recurrent_weight"], bias, torch.zeros_like(bias))
            starts = (self.starts("activity", feedbacks, episode_starts),)
            features, (activity,) = unroll_stretches(torch.rnn_tanh, xs, (state["activity"],), starts, weights)
            return self._read(features), {**state, "activity": activity}
        resets = Resets(*(self.starts(name, feedbacks, episode_starts) for name in Resets._fields))
        if isinstance(recorded, ActsInPlace) or self._runs_natively(params):
            assert self._native is not None, "a rule that the native core knows"
            driven = self.config.input_gain is not None
            features, following = native_unroll(
                self.core.level or LEVELS[0],
                self._native,
                params,
                self._drive(params, xs) if driven else xs,
                state,
                resets,
                frozen=self.plasticity_frozen,
                driven=driven,
                recorded=recorded if isinstance(recorded, Acting) else None,
            )
            return self._read(features), cast("State", following)
        if self._fused is None or self.config.unroll == "reference" or self.plasticity_frozen:
            return self.unroll_reference(params, xs, feedbacks, state, episode_starts)
        acted = None
        if recorded is not None:
            acted = Recorded(
                recorded.activities,
                {done: (kept["trace"], kept.get("eligibility")) for done, kept in recorded.checkpoints.items()},
            )
        fused = FusedResets(*resets)
        features, following = fused_unroll(self._fused, params, self._drive(params, xs), state, fused, acted)
        return self._read(features), following if recorded is None else recorded.checkpoints[recorded.steps_done]

    def _runs_natively(self, params: Params) -> bool:
        """Whether the native core computes this network with these parameters."""
        weight = params["recurrent_weight"]
        here = self._native is not None and self.core.level is not None and self.config.unroll != "reference"
        return here and "age" not in self._entries and weight.dtype is torch.float32 and weight.device.type == "cpu"

    @override
    def acting(
        self,
        params: Params,
        state: Mapping[str, Tensor],
        shape: tuple[int, ...],
        steps: int,
        head: tuple[Tensor, Tensor] | None = None,
    ) -> Acting | None:
        if not self._runs_natively(params) or self.config.input_gain is not None:
            return None
        assert self._native is not None, "a rule that the native core knows"
        assert self.core.level is not None, "the native core has a level"
        scopes = {"activity": RESETS_ACTIVITY, "trace": RESETS_TRACE, "eligibility": RESETS_ELIGIBILITY}
        by_trial = sum(
            flag for name, flag in scopes.items() if name in self._entries and self._entries[name].reset == "trial"
        )
        run = Run(self.core.level, self._native, self._native.numbers(params), shape, steps, head=head)
        feedback, _ = self._surroundings
        return Acting(run, state, by_trial, feedback.trial_start[0], self._watch, frozen=self.plasticity_frozen)

    @override
    def recording(self, steps: int) -> Recording | None:
        if (
            self._fused is None
            or self.config.unroll == "reference"
            or self._runs_natively(dict(self.named_parameters()))
        ):
            return None
        traced = self._fused.traced
        return Recording(steps, lambda state: checkpoint_spacing(steps, state["trace"], traced=traced), "activity")
