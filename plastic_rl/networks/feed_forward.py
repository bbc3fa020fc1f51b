"""A feed-forward network whose every layer is plastic, the output included (Najarro & Risi 2020).

`h_0 = o` and `h_l = tanh((W0_l + alpha_l * F_l) h_{l-1})`; the last `h` is one preference per action (where only the
preferred action counts, what its tanh is taken of). With `start:
random` there are no trained weights at all: `W0 = 0`, `alpha = 1`, and `F_0` is drawn anew in each lifetime, so that
what the outer loop finds is the rule alone. With `start: trained` `W0` is learned; with the rule `fixed` on top of that
nothing is plastic: the fixed-weight control.

The order within a step: lifetimes that start are reset and draw their start weights; an update that waited for the
reward is made; synapses rewire, where a rule says so; the forward pass; an update that needs no reward is made, in all
layers from the same activities.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn
from typing_extensions import override

from plastic_rl.errors import ConfigError
from plastic_rl.feedback import Feedback, FeedbackLayout
from plastic_rl.networks.base import Params, PlasticNetwork, State, reset_entry
from plastic_rl.networks.hidden_layers import HiddenLayer, hidden_layer
from plastic_rl.networks.phases import PhasesConfig
from plastic_rl.networks.start_weights import normal_weights
from plastic_rl.networks.structure import CLOCK, clock_entries, drawn_structure, rewired
from plastic_rl.plasticity import (
    RULES,
    GainConfig,
    Parameter,
    RuleConfig,
    StateEntry,
    Synapse,
    SynapseConfig,
    after_reward,
    starting_at,
)

CERTAIN = 1e4
"""Difference of logits that makes an action certain in float32, and its entropy 0 instead of NaN."""

_WHOLE = GainConfig(granularity="scalar", low=1.0, high=1.0, trainable=False)


class PlasticFeedForwardConfig(PhasesConfig, RuleConfig):
    """A feed-forward network whose layers are all plastic under one rule: a rule by name, and changes to it."""

    kind: Literal["plastic_feed_forward"] = Field("plastic_feed_forward", description="Kind of network.")
    rule: str = Field("abcd", description="Name of a rule; the other keys change parts of it. fixed: nothing learns.")
    hidden_size: int | tuple[int, ...] = Field(
        (16, 16), description="Units of each hidden layer: a list, or one number for one layer; [] for none."
    )
    inputs: Literal["features", "all"] = Field(
        "features",
        description="features: what stands before the feedback; all: also previous action, reward, trial start, time.",
    )
    bias: bool = Field(
        True, description="Whether a unit that is always 1 joins each layer's inputs; its synapses are like the others."
    )
    start: Literal["random", "trained"] = Field(
        "random",
        description="random: weights are drawn anew in each lifetime and only the rule is learned (alpha is 1); "
        "trained: start weights are learned.",
    )
    start_scale: float | None = Field(
        None, ge=0, description="Standard deviation of start weights; default 1/sqrt(number of the layer's inputs)."
    )
    readout: Literal["softmax", "greedy", "mean"] = Field(
        "softmax",
        description="softmax: actions with probabilities by preference (Discrete); greedy: the preferred action "
        "(Discrete); mean: preferences, within +-1, are the means of continuous actions (Box).",
    )
    readout_scale: float = Field(
        5.0, gt=0, description="Start of the learned factor from preferences, within +-1, to logits (softmax)."
    )

    @field_validator("hidden_size", mode="after")
    @classmethod
    def _positive(cls, value: int | tuple[int, ...]) -> int | tuple[int, ...]:
        sizes = value if isinstance(value, tuple) else (value,)
        if any(size < 1 for size in sizes):
            raise ValueError(f"every hidden layer needs 1 unit or more, got {value}; use [] for no hidden layer")
        return value

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if self.start == "random":
            if RULES[self.rule].alpha.is_zero:
                raise ValueError(
                    f"the rule {self.rule!r} changes nothing, so with start: random there is nothing to learn; "
                    "use start: trained"
                )
            if self.alpha != _WHOLE:
                raise ValueError("alpha is 1 with start: random (the trace is the weight); leave alpha out")
        return self

    @override
    @classmethod
    def preset(cls, rule: str, changes: Mapping[str, Any]) -> SynapseConfig:
        random_start = changes.get("start", cls.model_fields["start"].default) == "random"
        return RULES[rule].model_copy(update={"alpha": _WHOLE}) if random_start else RULES[rule]


class PlasticFeedForward(PlasticNetwork):
    """Layers of tanh units, all of whose synapses are plastic; the features are one preference per action.

    State entries end in the layer's number: `trace.0` F `(B, O, I)`, and what else the rule carries. With random start
    weights there is `key (B,)`, from which they follow. Where the update waits for the reward, `activity.l` is what
    layer l was given, and the last one the network's output.

    Raises:
        ConfigError: If there is nothing to see.
    """

    config_model = PlasticFeedForwardConfig
    config: PlasticFeedForwardConfig
    has_readout = True

    @override
    def build(self, feedback: FeedbackLayout, generator: torch.Generator | None, steps_per_trial: int | None) -> None:
        config = self.config
        self.output_size = feedback.action_size
        self.seen = self.input_size if config.inputs == "all" else feedback.start
        hidden = config.hidden_size if isinstance(config.hidden_size, tuple) else (config.hidden_size,)
        sizes = (self.seen, *hidden, self.output_size)
        if sizes[0] + config.bias < 1:
            raise ConfigError(
                "this environment has no features, and network.bias is false: the network would see nothing. "
                "Use network.inputs=all or network.bias=true"
            )
        self.random_start = config.start == "random"
        self.synapses = [Synapse(config, post, pre + config.bias) for pre, post in itertools.pairwise(sizes)]
        self.reward_modulated = self.synapses[0].reward_modulated
        self.non_plastic = self.synapses[0].non_plastic
        self.is_plastic = not self.non_plastic
        self.layers = nn.ModuleList()
        self._names: list[dict[str, str]] = []
        for layer, synapse in enumerate(self.synapses):
            parameters: dict[str, Parameter] = {}
            if not self.random_start:
                weight = torch.empty(synapse.post_size, synapse.pre_size, dtype=torch.float32)
                weight.normal_(0.0, self.start_scale(layer), generator=generator)
                parameters["weight"] = Parameter(weight, is_gain=False)
            parameters |= synapse.parameters(generator)
            self._names.append({name: f"layers.{layer}.{name}" for name in parameters})
            self.layers.append(own := nn.ParameterDict())
            for name, parameter in parameters.items():
                self.adopt(self._names[layer][name], parameter, own)
        if config.readout == "softmax":
            self.readout_scale = nn.Parameter(torch.full((1,), config.readout_scale, dtype=torch.float32))
        self._state_names: list[dict[str, str]] = []
        for layer, synapse in enumerate(self.synapses):
            entries = synapse.state_entries() | synapse.structure_entries()
            self._state_names.append({name: f"{name}.{layer}" for name in entries})
            self._entries |= {
                f"{name}.{layer}": starting_at(entry, self._names[layer]) for name, entry in entries.items()
            }
        self._entries |= clock_entries(self.synapses)
        if self.random_start:
            self._entries["key"] = CLOCK["key"]
        if self.reward_modulated:
            self._entries |= {
                f"activity.{layer}": StateEntry((own.pre_size,), momentary=True)
                for layer, own in enumerate(self.synapses)
            }
            self._entries[f"activity.{len(self.synapses)}"] = StateEntry((self.output_size,), momentary=True)

    def start_scale(self, layer: int) -> float:
        """Standard deviation of the start weights of `layer`."""
        scale = self.config.start_scale
        return self.synapses[layer].pre_size ** -0.5 if scale is None else scale

    @override
    def pruned(self, params: Params, state: State, start: Tensor) -> State:
        if not (self.random_start and self.synapses[0].structure.is_sparse):
            return state
        pruned: State = {}
        for layer, synapse in enumerate(self.synapses):
            own = synapse.pruned(*self._of_layer(layer, params, state))
            pruned |= {f"{name}.{layer}": entry for name, entry in own.items()}
        return state | {name: reset_entry(start, state[name], entry) for name, entry in pruned.items()}

    @override
    def hidden_layers(self) -> tuple[HiddenLayer, ...]:
        if self.random_start:
            return ()  # weights are no parameters then
        own, sizes = dict(self.named_parameters()), [synapse.post_size for synapse in self.synapses[:-1]]
        layers = []
        for layer, size in enumerate(sizes):
            larger = self.rebuilt(hidden_size=tuple(other + (place == layer) for place, other in enumerate(sizes)))
            layers.append(hidden_layer(str(layer), own, dict(larger.named_parameters()), size, is_features=False))
        return tuple(layers)

    @override
    def weights(self, params: Params, state: State) -> dict[str, Tensor]:
        own = (self._of_layer(layer, params, state) for layer in range(len(self.synapses)))
        return {
            str(layer): synapse.weight(numbers, numbers.get("weight"), entries)
            for layer, (synapse, (numbers, entries)) in enumerate(zip(self.synapses, own, strict=True))
        }

    @override
    def newborn(self, keys: Tensor) -> State:
        """Structures and, with random start weights, traces `(.., O, I)`, with the slow variables behind them."""
        drawn: State = {}
        for layer, synapse in enumerate(self.synapses):
            own = drawn_structure(synapse, keys, layer)
            if self.random_start:
                weights = normal_weights(keys, layer, (synapse.post_size, synapse.pre_size))
                own["trace"] = weights.mul_(self.start_scale(layer))
                for name in synapse.consolidation.slow_entries:
                    shape = self._entries[f"{name}.{layer}"].shape
                    own[name] = (
                        own["trace"]
                        .reshape(*keys.shape, *(1,) * (len(shape) - 2), *shape[-2:])
                        .expand(*keys.shape, *shape)
                    )
            drawn |= {f"{name}.{layer}": entry for name, entry in own.items()}
        return drawn

    def _of_layer(self, layer: int, params: Params, state: State) -> tuple[Params, State]:
        """The layer's own parameters and state, under the names that its synapse gave them."""
        own_params = {name: params[whole] for name, whole in self._names[layer].items()}
        return own_params, {name: state[whole] for name, whole in self._state_names[layer].items()}

    @override
    def rewarded(self, params: Params, state: State, feedback: Feedback, happens: Tensor) -> State:
        if not self.reward_modulated:
            return state
        activities = [state[f"activity.{layer}"] for layer in range(len(self.synapses) + 1)]
        return after_reward(state, self._updated(params, state, activities, feedback), happens)

    @override
    def step(
        self, params: Params, x: Tensor, feedback: Feedback, state: State, episode_start: Tensor
    ) -> tuple[Tensor, State]:
        current = self.begun(params, state, episode_start)
        if not self.plasticity_frozen:
            current = self.rewarded(params, current, feedback, feedback.valid & ~episode_start)
        if "age" in current and self.restructures:
            current = self._rewired(params, current)
        post = x[..., : self.seen]
        activities = []
        for layer, synapse in enumerate(self.synapses):
            pre = nn.functional.pad(post, (0, 1), value=1.0) if self.config.bias else post
            activities.append(pre)
            own_params, own_state = self._of_layer(layer, params, current)
            total = synapse.driven(own_params, own_params.get("weight"), pre, own_state)
            post = torch.tanh(total)
            self._show(str(layer), post.unsqueeze(-2))
        activities.append(post)
        following = dict(current)
        if "age" in current:
            following["age"] = current["age"] + 1
        if self.reward_modulated:
            following |= {f"activity.{layer}": activity for layer, activity in enumerate(activities)}
        elif not self.non_plastic and not self.plasticity_frozen:
            following |= self._updated(params, current, activities, None)
        # The preferred action is the same by either, but saturated outputs would tie where their inputs do not.
        return total if self.config.readout == "greedy" else post, following

    def _updated(self, params: Params, state: State, activities: list[Tensor], feedback: Feedback | None) -> State:
        """The synapses' state after the step in which layer l was given `activities[l]`."""
        updated: State = {}
        openness = self.openness(params, state)
        for layer, synapse in enumerate(self.synapses):
            post = activities[layer + 1][..., : synapse.post_size]
            own_params, own_state = self._of_layer(layer, params, state)
            changed = synapse.update(own_params, activities[layer], post, own_state, feedback, openness)
            updated |= {f"{name}.{layer}": entry for name, entry in changed.items()}
        return updated

    def _rewired(self, params: Params, state: State) -> State:
        """The state in which synapses went and others came, where it is time."""
        changed: State = {}
        for layer, synapse in enumerate(self.synapses):
            own_params, own_state = self._of_layer(layer, params, state)
            start = own_params.get("weight")
            moved = rewired(synapse, own_params, start, own_state, state["key"], state["age"], layer)
            changed |= {f"{name}.{layer}": entry for name, entry in moved.items()}
        return state | changed

    @override
    def readout(self, params: Params, features: Tensor) -> Tensor:
        if self.config.readout == "softmax":
            return features * params["readout_scale"].unsqueeze(-2)
        if self.config.readout == "greedy":
            return torch.where(features == features.amax(-1, keepdim=True), 0.0, -CERTAIN)
        return features
