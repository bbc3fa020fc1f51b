"""A feed-forward network whose every layer is plastic, the output included (Najarro & Risi 2020).

`h_0 = o` and `h_l = tanh((W0_l + alpha_l * F_l) h_{l-1})`; the last `h` is one preference per action (where only the
preferred action counts, what its tanh is taken of). With `start:
random` there are no trained weights at all: `W0 = 0`, `alpha = 1`, and `F_0` is drawn anew in each lifetime, so that
what the outer loop finds is the rule alone. With `start: trained` `W0` is learned; with the rule `fixed` on top of that
nothing is plastic: the fixed-weight control.

The order within a step: lifetimes that start are reset and draw their start weights; an update that waited for the
reward is made; the forward pass; an update that needs no reward is made, in all layers from the same activities.
"""

from __future__ import annotations

import itertools
from typing import Literal, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from plastic_rl.errors import ConfigError, SpaceError
from plastic_rl.networks.base import Feedback, Params, PlasticNetwork, Recording, State, StateEntry
from plastic_rl.networks.resets import reset_where
from plastic_rl.networks.start_weights import draw_keys, next_keys, normal_weights
from plastic_rl.plasticity import GAINS, RULES, GainConfig, GainOverride, Synapse, SynapseConfig, SynapseOverrides

CERTAIN = 1e4
"""Difference of logits that makes an action certain in float32, and its entropy 0 instead of NaN."""

_WHOLE = GainConfig(granularity="scalar", low=1.0, high=1.0, trainable=False)


class PlasticFeedForwardConfig(SynapseOverrides):
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
            if self.alpha != GainOverride():
                raise ValueError("alpha is 1 with start: random (the trace is the weight); leave alpha out")
        return self

    @property
    def hidden_sizes(self) -> tuple[int, ...]:
        """Units of each hidden layer.

        >>> PlasticFeedForwardConfig(hidden_size=8).hidden_sizes
        (8,)
        """
        return self.hidden_size if isinstance(self.hidden_size, tuple) else (self.hidden_size,)

    def synapse(self) -> SynapseConfig:
        """The rule with its changes; alpha is 1 where start weights are random."""
        synapse = super().synapse()
        return synapse.model_copy(update={"alpha": _WHOLE}) if self.start == "random" else synapse


class PlasticFeedForward(PlasticNetwork):
    """Layers of tanh units, all of whose synapses are plastic; the features are one preference per action.

    State entries end in the layer's number: `trace.0` F `(B, O, I)`, and what else the rule carries. With random start
    weights there is `key (B,)`, from which they follow. Where the update waits for the reward, `activity.l` is what
    layer l was given, and the last one the network's output.

    Args:
        config: The rule, the sizes, the start and the readout.
        input_size: `I`, the whole observation.
        action_size: Number of outputs.
        generator: Draws the trained start weights.
        steps_per_trial: Not used: nothing here resets with a trial.

    Raises:
        ConfigError: If the observation is too short to hold the feedback, or there is nothing to see.
    """

    has_readout = True

    def __init__(
        self,
        config: PlasticFeedForwardConfig,
        input_size: int,
        action_size: int,
        generator: torch.Generator | None = None,
        steps_per_trial: int | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.input_size = input_size
        self.output_size = action_size
        self.seen = input_size if config.inputs == "all" else _feature_size(input_size, action_size)
        sizes = (self.seen, *config.hidden_sizes, action_size)
        if sizes[0] + config.bias < 1:
            raise ConfigError(
                "this environment has no features, and network.bias is false: the network would see nothing. "
                "Use network.inputs=all or network.bias=true"
            )
        self.random_start = config.start == "random"
        rule = config.synapse()
        self.synapses = [Synapse(rule, post, pre + config.bias) for pre, post in itertools.pairwise(sizes)]
        self.external = self.synapses[0].external
        self.inert = self.synapses[0].inert
        self.is_plastic = not self.inert
        self.layers = nn.ModuleList()
        self._names: list[dict[str, str]] = []
        for layer, synapse in enumerate(self.synapses):
            parameters = nn.ParameterDict()
            if not self.random_start:
                weight = torch.empty(synapse.post_size, synapse.pre_size, dtype=torch.float32)
                weight.normal_(0.0, self.start_scale(layer), generator=generator)
                parameters["weight"] = nn.Parameter(weight)
            for name, parameter in synapse.parameters(generator).items():
                parameters[name] = nn.Parameter(parameter.value, requires_grad=parameter.trainable)
            self.layers.append(parameters)
            self._names.append({name: f"layers.{layer}.{name}" for name in parameters})
        if config.readout == "softmax":
            self.readout_scale = nn.Parameter(torch.full((1,), config.readout_scale, dtype=torch.float32))
        self._state_names = [{name: f"{name}.{layer}" for name in own.state_entries()} for layer, own in self._layers()]
        self._entries = self._make_entries()

    def _layers(self) -> list[tuple[int, Synapse]]:
        return list(enumerate(self.synapses))

    def _make_entries(self) -> dict[str, StateEntry]:
        entries = {
            f"{name}.{layer}": StateEntry(shape)
            for layer, synapse in self._layers()
            for name, shape in synapse.state_entries().items()
        }
        if self.random_start:
            entries["key"] = StateEntry((), dtype=torch.int64)
        if self.external:
            entries |= {f"activity.{layer}": StateEntry((synapse.pre_size,)) for layer, synapse in self._layers()}
            entries[f"activity.{len(self.synapses)}"] = StateEntry((self.output_size,))
        return entries

    def start_scale(self, layer: int) -> float:
        """Standard deviation of the start weights of `layer`."""
        scale = self.config.start_scale
        return self.synapses[layer].pre_size ** -0.5 if scale is None else scale

    def plasticity_parameters(self) -> list[str]:
        """Names of those of alpha and the etas that are trained."""
        return [
            name
            for name, parameter in self.named_parameters()
            if name.rpartition(".")[2] in GAINS and parameter.requires_grad
        ]

    def state_entries(self) -> dict[str, StateEntry]:
        """See the class."""
        return self._entries

    def initial_state(self, batch: int, generator: torch.Generator | None = None) -> State:
        """Newborn lifetimes; those with random start weights have drawn a key, and the weights that follow from it."""
        state = super().initial_state(batch, generator)
        if not self.random_start:
            return state
        state["key"] = draw_keys(batch, generator).to(state["key"].device)
        return state | {
            name: weights.to(state[name].dtype) for name, weights in self._start_weights(state["key"]).items()
        }

    def _start_weights(self, keys: Tensor) -> State:
        """Traces of newborn lifetimes, `(.., O, I)` each, a function of `keys (..)`."""
        return {
            f"trace.{layer}": normal_weights(keys, layer, (synapse.post_size, synapse.pre_size)).mul_(
                self.start_scale(layer)
            )
            for layer, synapse in self._layers()
        }

    def _begun(self, state: State, start: Tensor) -> State:
        """State with the lifetimes that start, where `start (.., B)`, reset and given new start weights."""
        if not bool(start.any()):
            return state
        if not self.random_start:
            return reset_where(start, state, self._entries, "lifetime")
        keys = next_keys(state["key"], start)
        zeroed = {name: entry for name, entry in self._entries.items() if name != "key"}
        begun = reset_where(start, state, zeroed, "lifetime") | {"key": keys}
        for name, weights in self._start_weights(keys[start]).items():
            # `reset_where` made these entries new, so that writing into them changes nothing of the caller's.
            begun[name] = begun[name].index_put((start,), weights.to(begun[name].dtype))
        return begun

    def _of_layer(self, layer: int, params: Params) -> dict[str, Tensor]:
        return {name: params[whole] for name, whole in self._names[layer].items()}

    def _state_of_layer(self, layer: int, state: State) -> State:
        return {name: state[whole] for name, whole in self._state_names[layer].items()}

    def step(
        self, params: Params, x: Tensor, feedback: Feedback, state: State, episode_start: Tensor
    ) -> tuple[Tensor, State]:
        """One time step; see `PlasticNetwork.step`.

        Raises:
            SpaceError: With `inputs: features`, in an environment that shows labels.
        """
        if feedback.label is not None and self.config.inputs == "features":
            raise SpaceError(
                "with inputs: features this network counts on feedback without labels, but this environment teaches; "
                "use network.inputs=all or the environment's twin that rewards"
            )
        current = self._begun(state, episode_start)
        if self.external and not self.plasticity_frozen:
            current = self._delayed_update(params, feedback, current, episode_start)
        own_params = [self._of_layer(layer, params) for layer, _ in self._layers()]
        own_state = [self._state_of_layer(layer, current) for layer, _ in self._layers()]
        post = x[..., : self.seen]
        activities = []
        for layer, synapse in self._layers():
            pre = nn.functional.pad(post, (0, 1), value=1.0) if self.config.bias else post
            activities.append(pre)
            total = self._total(synapse, own_params[layer], pre, own_state[layer])
            post = torch.tanh(total)
        activities.append(post)
        following = dict(current)
        if self.external:
            following |= {f"activity.{layer}": activity for layer, activity in enumerate(activities)}
        elif not self.inert and not self.plasticity_frozen:
            following |= self._updated(own_params, own_state, activities, None)
        # The preferred action is the same by either, but saturated outputs would tie where their inputs do not.
        return total if self.config.readout == "greedy" else post, following

    @staticmethod
    def _total(synapse: Synapse, params: Params, pre: Tensor, state: State) -> Tensor:
        """Input to the post neurons of one layer, `(.., B, O)`."""
        if "weight" not in params:
            return synapse.current(params, pre, state)
        weighted = pre @ params["weight"].mT
        return weighted if synapse.inert else weighted + synapse.current(params, pre, state)

    def _updated(
        self, params: list[dict[str, Tensor]], state: list[State], activities: list[Tensor], reward: Tensor | None
    ) -> State:
        """The synapses' state after the step in which layer l was given `activities[l]`."""
        updated: State = {}
        for layer, synapse in self._layers():
            post = activities[layer + 1][..., : synapse.post_size]
            changed = synapse.update(params[layer], activities[layer], post, state[layer], reward)
            updated |= {f"{name}.{layer}": entry for name, entry in changed.items()}
        return updated

    def _delayed_update(self, params: Params, feedback: Feedback, state: State, episode_start: Tensor) -> State:
        """The update of the step before, now that its reward is known; a lifetime that starts has none."""
        layers = range(len(self.synapses))
        updated = self._updated(
            [self._of_layer(layer, params) for layer in layers],
            [self._state_of_layer(layer, state) for layer in layers],
            [state[f"activity.{layer}"] for layer in range(len(self.synapses) + 1)],
            feedback.reward,
        )
        happens = feedback.valid & ~episode_start
        if bool(happens.all()):
            return {**state, **updated}
        chosen = {
            name: torch.where(happens.reshape(happens.shape + (1,) * (entry.dim() - happens.dim())), entry, state[name])
            for name, entry in updated.items()
        }
        return {**state, **chosen}

    def unroll(
        self,
        params: Params,
        xs: Tensor,
        feedbacks: Feedback,
        state: State,
        episode_starts: Tensor,
        recorded: Recording | None = None,
    ) -> tuple[Tensor, State]:
        """`T` steps one after the other; see `PlasticNetwork.unroll`."""
        return self.unroll_reference(params, xs, feedbacks, state, episode_starts)

    def readout(self, params: Params, features: Tensor) -> Tensor:
        """Preferences `(.., B, O)` as what the action distribution takes, by `config.readout`."""
        if self.config.readout == "softmax":
            return features * params["readout_scale"].unsqueeze(-2)
        if self.config.readout == "greedy":
            return torch.where(features == features.amax(-1, keepdim=True), 0.0, -CERTAIN)
        return features

    def extra_repr(self) -> str:
        """The rule and the sizes."""
        sizes = [self.seen, *(synapse.post_size for synapse in self.synapses)]
        return f"rule={self.config.rule}, start={self.config.start}, sizes={sizes}"


def _feature_size(input_size: int, action_size: int) -> int:
    """Columns before the feedback `[action, reward, trial_start, t/T]`.

    Raises:
        ConfigError: If there is no room for the feedback.
    """
    features = input_size - action_size - 3
    if features < 0:
        raise ConfigError(
            f"observations of {input_size} columns cannot hold the feedback of {action_size} action columns and 3 "
            "more, so that there are no features in front of it; use network.inputs=all"
        )
    return features
