"""The plastic recurrent network of Miconi et al. (2016, 2018, 2019), under any rule of the one synapse.

`y_t = tanh(U o_t + b + (W0 + alpha * F_t) y_{t-1})`. The forward pass of step t uses the trace left by step t-1. In
pattern completion (arXiv 1804.02464, section 4.1) U has nothing to learn: unit i sees element i of the pattern alone,
is clamped by it, or free where it is 0, and the units themselves are the answer.
The order within a step: lifetimes that start are reset; an update that waited for the reward is made; synapses rewire,
where a rule says so; what resets with a trial is reset; the forward pass; an update that needs no reward is made.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Literal, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import override

from plastic_rl._native import LEVELS, Core
from plastic_rl.errors import ConfigError
from plastic_rl.feedback import Feedback, FeedbackLayout
from plastic_rl.networks.acting import ActsInPlace
from plastic_rl.networks.base import Params, PlasticNetwork, State, scoped_entries
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
    given_signals,
    native_unroll,
)
from plastic_rl.networks.phases import PhasesConfig
from plastic_rl.networks.recurrent import affine, unroll_stretches
from plastic_rl.networks.structure import clock_entries, drawn_structure, rewired
from plastic_rl.plasticity import GainConfig, ResetScope, RuleConfig, StateEntry, Synapse, after_reward
from plastic_rl.plasticity.structure import HALF

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
        "fused",
        description="fused: as one function, on the native core where it knows the rule; reference: plain autograd.",
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
            following |= synapse.update(params, pre, post, current, None, openness)
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
        recorded: ActsInPlace | None = None,
    ) -> tuple[Tensor, State]:
        """`T` steps at once; see `PlasticNetwork.unroll`.

        Raises:
            ValueError: If `recorded` is of another number of steps.
        """
        if recorded is not None and recorded.steps_done != xs.shape[0]:
            raise ValueError(f"what acted {recorded.steps_done} steps cannot stand for the {xs.shape[0]} steps of xs.")
        plain = self.synapse.non_plastic and self.synapse.is_plain
        if plain and self.config.layer_norm is None and self.config.input_gain is None:
            # A plain recurrent network.
            bias = params["input_bias"]
            weights = (params["input_weight"], params["recurrent_weight"], bias, torch.zeros_like(bias))
            starts = (self.starts("activity", feedbacks, episode_starts),)
            features, (activity,) = unroll_stretches(torch.rnn_tanh, xs, (state["activity"],), starts, weights)
            return self._read(features), {**state, "activity": activity}
        if recorded is None and not self._runs_natively(params):
            return self.unroll_reference(params, xs, feedbacks, state, episode_starts)
        assert self._native is not None, "a rule that the native core knows"
        driven = self.config.input_gain is not None
        happens = self._updates(feedbacks, episode_starts)
        signals, others = None, dict[str, Tensor]()
        if self._native.channels and (recorded is None or self._signals_are_learned(params)):
            signals, others = self._signals(params, feedbacks, state, episode_starts, happens)
        features, following = native_unroll(
            self.core.level or LEVELS[0],
            self._native,
            params,
            self._drive(params, xs) if driven else xs,
            state,
            Resets(*(self.starts(name, feedbacks, episode_starts) for name in Resets._fields)),
            happens,
            signals=signals,
            driven=driven,
            recorded=recorded if isinstance(recorded, Acting) else None,
        )
        if recorded is not None:
            return self._read(features), cast("State", following)
        after = {**state, **others, **following}
        after["trace"] = self.synapse.present(params, after["trace"], after)
        return self._read(features), after

    def _updates(self, feedbacks: Feedback, episode_starts: Tensor) -> Tensor:
        """Where synapses change with what was before each of `T` steps, and after the last one, `(T + 1, B)` bool."""
        happens = torch.zeros(len(episode_starts) + 1, *episode_starts.shape[1:], dtype=torch.bool)
        if self.plasticity_frozen:
            return happens
        if self.synapse.reward_modulated:
            happens[:-1] = feedbacks.valid & ~episode_starts
        else:
            happens[1:] = True
        return happens

    def _signals_are_learned(self, params: Params) -> bool:
        """Whether a gradient by the modulator's own numbers is asked for."""
        return any(params[name].requires_grad for name in self.synapse.modulator.numbers())

    def _signals(
        self, params: Params, feedbacks: Feedback, state: State, episode_starts: Tensor, happens: Tensor
    ) -> tuple[Tensor, State]:
        """The signals that come with the observations of `T` steps, `(T, B, K)`, and the modulator's entries then."""
        own = {name: state[name] for name in self.synapse.modulator.state_entries(self.synapse.post_size)}
        found = []
        for step in range(len(episode_starts)):
            signals, own = self._follow(params, feedbacks.at(step), episode_starts[step], happens[step], own)
            found.append(signals)
        return torch.stack(found), own

    def _follow(
        self, params: Params, feedback: Feedback, start: Tensor, happens: Tensor, own: State
    ) -> tuple[Tensor, State]:
        """The signals that come with an observation, `(.., B, K)`, and the modulator's entries with them taken in."""
        assert self._native is not None, "a rule that the native core knows"
        own = self.reset(start, own, params=params)
        signals, following = given_signals(self._native, self.synapse.modulator, params, feedback, own)
        return signals, self.reset(feedback.trial_start, after_reward(own, following, happens), "trial", params)

    @property
    @override
    def core_in_use(self) -> Core:
        if self.core.level is None or self._runs_natively(dict(self.named_parameters())):
            return self.core
        if self.config.unroll == "reference":
            reason = "network.unroll: reference"
        elif self.config.layer_norm is not None:
            reason = "layer_norm is not on the native core"
        elif self._native is None or "age" in self._entries:
            reason = "this rule is not on the native core"
        else:
            reason = "the native core computes in float32 on the CPU alone"
        return Core(None, reason)

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
        if not self._runs_natively(params) or self.config.input_gain is not None or self.has_readout:
            return None
        assert self._native is not None, "a rule that the native core knows"
        assert self.core.level is not None, "the native core has a level"
        scopes = {"activity": RESETS_ACTIVITY, "trace": RESETS_TRACE, "eligibility": RESETS_ELIGIBILITY}
        by_trial = sum(
            flag for name, flag in scopes.items() if name in self._entries and self._entries[name].reset == "trial"
        )
        run = Run(self.core.level, self._native, self._native.numbers(params), shape, steps, head=head)
        follow = functools.partial(self._follow, params) if self._native.channels else None
        layout, _ = self._surroundings
        connected = params["connected"].unsqueeze(-3) > HALF if "connected" in params else None
        return Acting(run, state, by_trial, layout, follow, connected, self._watch, frozen=self.plasticity_frozen)
