"""The contract of every network: pure functions from parameters, input and state to features and state.

Axis letters: `B` environments, `P` population, `T` time, `I` inputs, `O` features (units). With a population both the
parameters and the state lead with `P`, then `B`; without one there is no `P` axis at all. Code that indexes axes from
the end (`weight.mT`, `bias.unsqueeze(-2)`, `alpha.unsqueeze(-3)`) serves both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from plastic_rl._native import Core, chosen_core
from plastic_rl.config import ConfigModel
from plastic_rl.errors import ConfigError, unknown_name_message
from plastic_rl.feedback import Feedback, FeedbackLayout
from plastic_rl.networks.acting import ActsInPlace
from plastic_rl.networks.hidden_layers import HiddenLayer
from plastic_rl.networks.segments import Step, in_segments
from plastic_rl.networks.start_weights import draw_keys, next_keys
from plastic_rl.plasticity import Parameter, Range, ResetScope, StateEntry
from plastic_rl.plasticity.structure import HALF

State = dict[str, Tensor]
Params = Mapping[str, Tensor]


def scoped_entries(
    entries: Mapping[str, StateEntry], reset: Mapping[str, ResetScope], steps_per_trial: int | None
) -> dict[str, StateEntry]:
    """The entries, with the reset scopes that a recurrent network's config gives some of them.

    Raises:
        ConfigError: If `reset` names an unknown entry, or if something resets with trials of one step, where only
            recurrence carries anything from step to step and nothing would be left to associate.
    """
    for name, scope in reset.items():
        if name not in entries:
            raise ConfigError(unknown_name_message("state entry in reset", name, entries))
        if scope == "trial" and steps_per_trial == 1:
            raise ConfigError(
                f"reset.{name}: 'trial' is impossible here: trials have one step, and recurrent synapses then never "
                f"see two steps of one trial, so that nothing would be left to associate. Use 'lifetime'."
            )
    return {name: replace(entry, reset=reset.get(name, entry.reset)) for name, entry in entries.items()}


def reset_entry(start: Tensor, entry: Tensor, value: float | Tensor = 0.0) -> Tensor:
    """Return `entry` `(.., B, ...)`, or `value` where `start` `(.., B)`."""
    # Chosen, not multiplied: a NaN of the last lifetime must not survive.
    mask = start.reshape(start.shape + (1,) * (entry.dim() - start.dim()))
    return torch.where(mask, value, entry) if isinstance(value, Tensor) else torch.masked_fill(entry, mask, value)


@dataclass(frozen=True)
class Inside:
    """What goes on in a network in one step, to be looked at.

    Attributes:
        outputs: What units put out in each substep, `(B, S, O)`, by layer.
        weights: Weights in this step, `(B, O, I)` or `(1, O, I)`, by the name of the synapses.
    """

    outputs: dict[str, Tensor]
    weights: dict[str, Tensor]


class PlasticNetwork(nn.Module, ABC):
    """A network whose synapses may change while it acts. The module only stores and names the parameters.

    Args:
        config: An instance of `config_model`.
        input_size: `I`, the whole observation, feedback included.
        feedback: Where in the observation the feedback stands.
        generator: Draws the start weights; None: torch's global one.
        steps_per_trial: Length of a trial where it is fixed (1 for bandits), else None.

    Attributes:
        config_model: The model of its configuration: what may stand in a config's `network`.
        config: Its configuration.
        input_size: As given.
        output_size: `O`, the features that action and value heads read.
        valid_ranges: Lowest and highest value of parameters by name, where they have a range.
        plasticity_frozen: While true, nothing plastic changes (activity still does); set by `freeze_plasticity`.
        structure_held: While true, no synapses and no units come or go; set by `hold_structure`.
        is_plastic: False where there is nothing that `freeze_plasticity` could hold.
        has_readout: True where the features are the network's own preferences among actions, turned into the
            distribution's parameters by `readout`; the policy then has no action head.
        discrete_only: True where these preferences are among the actions of one `Discrete` space.
        bits_only: True where they are the logits of bits, one for each action of a `MultiBinary` space.
        core: What computes networks that the native core knows; what computes this one is `core_in_use`.
    """

    config_model: ClassVar[type[ConfigModel]]
    input_size: int
    output_size: int
    is_plastic: bool = True
    has_readout: bool = False
    discrete_only: bool = False
    bits_only: bool = False

    def __init__(
        self,
        config: Any,
        input_size: int,
        feedback: FeedbackLayout,
        generator: torch.Generator | None = None,
        steps_per_trial: int | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.input_size = input_size
        self._entries: dict[str, StateEntry] = {}
        self.plasticity_frozen = self.structure_held = False
        self.valid_ranges: dict[str, Range] = {}
        self._gains: set[str] = set()
        self._watch: Callable[[str, Tensor], None] | None = None
        self._surroundings = feedback, steps_per_trial
        self.core = chosen_core()
        self.build(feedback, generator, steps_per_trial)

    @abstractmethod
    def build(self, feedback: FeedbackLayout, generator: torch.Generator | None, steps_per_trial: int | None) -> None:
        """Make the parameters, `_entries` and `output_size`; for the arguments see the class."""

    def adopt(self, name: str, parameter: Parameter, owner: nn.ParameterDict | None = None) -> None:
        """Register a parameter of plasticity, with its range, under its dotted `name`.

        Args:
            name: Its name in `named_parameters`.
            parameter: Its start value, and what the outer loop may make of it.
            owner: The part of this network that holds it, under the last part of its name; None: the network itself.
        """
        self.valid_ranges[name] = parameter.valid
        if parameter.is_gain:
            self._gains.add(name)
        own = nn.Parameter(parameter.value, requires_grad=parameter.trainable)
        if owner is None:
            self.register_parameter(name, own)
        else:
            owner[name.rpartition(".")[2]] = own

    @property
    def core_in_use(self) -> Core:
        """What computes this network, and why."""
        reason = "this kind of network is not on the native core"
        return self.core if self.core.level is None else Core(None, reason)

    def state_entries(self) -> dict[str, StateEntry]:
        """Name, shape and reset scope of everything that changes within a lifetime.

        An entry `key` is drawn at birth, and random start weights follow from it.
        """
        return self._entries

    def readout(self, params: Params, features: Tensor) -> Tensor:
        """Turn features `(.., B, O)` into what the action distribution takes, where `has_readout`; else as they are.

        For discrete actions that is the logits: `log p` of the probabilities wanted, up to a constant.
        """
        return features

    def prepared(self, params: Params) -> Params:
        """`params`, together with what each step would compute from them alone: for many steps with the same ones.

        `step` and `readout` take either, and give the same.
        """
        return params

    def plasticity_parameters(self) -> list[str]:
        """Names of the trained parameters that say how plastic synapses are, for a learning rate of their own."""
        return [name for name, own in self.named_parameters() if name in self._gains and own.requires_grad]

    def rebuilt(self, generator: torch.Generator | None = None, **changes: Any) -> Self:
        """This network with start weights drawn anew, and with `changes` of keys of its config."""
        feedback, steps_per_trial = self._surroundings
        config = self.config.model_copy(update=changes)
        return type(self)(config, self.input_size, feedback, generator or torch.Generator(), steps_per_trial)

    def hidden_layers(self) -> tuple[HiddenLayer, ...]:
        """The layers of hidden units whose weights are parameters, for what adds and removes units. None by default."""
        return ()

    @property
    def draws_key(self) -> bool:
        """Whether lifetimes draw a key of random start weights at birth: an entry `key` of one whole number."""
        entry = self.state_entries().get("key")
        return entry is not None and (entry.shape, entry.dtype) == ((), torch.int64)

    def initial_state(self, batch: int, generator: torch.Generator | None = None) -> State:
        """State of `batch` newborn lifetimes: entries `(B, ...)`, each at its start by these parameters.

        Args:
            batch: `B`.
            generator: Draws keys of random start weights, in networks that have some.
        """
        own = next(self.parameters(), torch.zeros((), dtype=torch.float32))
        state = {
            name: torch.zeros(batch, *entry.shape, dtype=entry.dtype or own.dtype, device=own.device)
            for name, entry in self.state_entries().items()
        }
        params = {name: parameter.detach() for name, parameter in self.named_parameters()}
        every = torch.ones(batch, dtype=torch.bool, device=own.device)
        state = self.reset(every, state, params=params)
        if self.draws_key:
            state["key"] = draw_keys(batch, generator).to(own.device)
            state |= {name: drawn.to(state[name].dtype) for name, drawn in self.newborn(state["key"]).items()}
        return self.pruned(params, state, every)

    def reset(self, start: Tensor, state: State, scope: ResetScope = "lifetime", params: Params | None = None) -> State:
        """Return `state` with the entries that reset with `scope` at their start where `start (.., B)` bool.

        A trial's entries also reset with the lifetime. The very `state` where there is nothing to reset. `params` are
        needed where entries start at a parameter.
        """
        entries = self.state_entries()
        names = [name for name in state if name in entries and scope in {"lifetime", entries[name].reset}]
        if not names or not bool(start.any()):
            return state
        return {
            **state,
            **{name: reset_entry(start, state[name], self._start(entries[name], params)) for name in names},
        }

    def _start(self, entry: StateEntry, params: Params | None) -> float | Tensor:
        """Where an entry starts: a number, or a tensor that broadcasts against `(.., B, ...)`."""
        if not isinstance(entry.start, str):
            return entry.start
        assert params is not None, "an entry that starts at a parameter is reset with the parameters"
        value, own = params[entry.start], self.get_parameter(entry.start)
        population = value.shape[: value.dim() - own.dim()]
        start = value.reshape(*population, *(1,) * (1 + len(entry.shape) - own.dim()), *own.shape)
        return start > HALF if entry.dtype is torch.bool else start

    def newborn(self, keys: Tensor) -> State:
        """What lifetimes with these `keys (..)` draw as they start: entries `(.., ...)`. Nothing by default."""
        return {}

    def begun(self, params: Params, state: State, start: Tensor) -> State:
        """`state` with the lifetimes that start, where `start (.., B)` bool, born anew; never modified."""
        begun = self.reset(start, state, params=params)
        if begun is state:
            return state
        if self.draws_key:
            begun["key"] = next_keys(state["key"], start)
            for name, drawn in self.newborn(begun["key"][start]).items():
                begun[name] = begun[name].index_put((start,), drawn.to(begun[name].dtype))
        return self.pruned(params, begun, start)

    def pruned(self, params: Params, state: State, start: Tensor) -> State:
        """`state` where, in lifetimes that `start (.., B)`, traces of synapses that are not there are 0. As it is."""
        return state

    def starts(self, entry: str, feedbacks: Feedback, episode_starts: Tensor) -> Tensor:
        """Where a state entry resets in `T` steps, `(T, B)` bool."""
        entries = self.state_entries()
        by_trial = entry in entries and entries[entry].reset == "trial"
        return episode_starts | feedbacks.trial_start if by_trial else episode_starts

    def rewarded(self, params: Params, state: State, feedback: Feedback, happens: Tensor) -> State:
        """`state` after the updates that waited for the reward of the step before. As it is, where none does.

        Args:
            params: As in `step`.
            state: As the step before left it; never modified.
            feedback: What that step brought.
            happens: Where it is made, `(.., B)` bool.
        """
        return state

    def recalled(self, params: Params, state: State) -> State:
        """`state`, whose momentary entries are of an earlier step, without what was of units that are gone."""
        return state

    def openness(self, params: Params, state: State) -> Tensor | None:
        """Share of their plasticity that synapses still have at the age in `state`, `(.., B, 1, 1)`; None: all."""
        return None

    @abstractmethod
    def step(
        self, params: Params, x: Tensor, feedback: Feedback, state: State, episode_start: Tensor
    ) -> tuple[Tensor, State]:
        """One time step, for acting.

        Args:
            params: As from `dict(network.named_parameters())`, possibly with a leading `P`.
            x: Observation, `(B, I)` or `(P, B, I)`.
            feedback: The previous step's action and reward, cut from the observation.
            state: As returned by the last step; never modified.
            episode_start: `(B,)` or `(P, B)` bool; those lifetimes start anew before this step.

        Returns:
            Features `(.., B, O)` and the next state.
        """

    def inside(self, params: Params, x: Tensor, feedback: Feedback, state: State, episode_start: Tensor) -> Inside:
        """What `step` with the same arguments (no population axis) does within, and the weights after it."""
        outputs: dict[str, Tensor] = {}
        with self.watched(outputs.__setitem__):
            features, following = self.step(params, x, feedback, state, episode_start)
        return Inside(outputs or {"features": features.unsqueeze(-2)}, self.weights(params, following))

    def weights(self, params: Params, state: State) -> dict[str, Tensor]:
        """Weights `(.., B, O, I)`, or `(.., 1, O, I)` of synapses that stay; by default all matrices in the state."""
        matrices = [name for name, entry in self.state_entries().items() if len(entry.shape) == 2]
        return {name: state[name] for name in matrices if state[name].is_floating_point()}

    def step_output(self, layer: str, course: Tensor) -> Tensor:
        """A step's output `(.., B, H)` of a layer by that of its substeps `(.., B, S, H)`: of spikes the mean."""
        return course[..., -1, :]

    def acting(
        self,
        params: Params,
        state: Mapping[str, Tensor],
        shape: tuple[int, ...],
        steps: int,
        head: tuple[Tensor, Tensor] | None = None,
    ) -> ActsInPlace | None:
        """Who acts in place on the native core, where it computes this network; else None, and `step` acts.

        Args:
            params: As in `step`.
            state: Before the first step.
            shape: `(B,)` or `(P, B)`.
            steps: How many of the last steps are kept for `unroll`.
            head: Weights `(.., A, O)` and bias `(.., A)` of outputs that each step computes too.
        """
        return None

    def unroll(
        self,
        params: Params,
        xs: Tensor,
        feedbacks: Feedback,
        state: State,
        episode_starts: Tensor,
        recorded: ActsInPlace | None = None,
    ) -> tuple[Tensor, State]:
        """`T` steps at once, differentiable, for learning: equals `T` calls of `step`, in values and gradients.

        Args:
            params: As in `step` (no population axis).
            xs: Observations `(T, B, I)`.
            feedbacks: Entries `(T, B, ...)`.
            state: State before the first step; a gradient reaches it where it requires one.
            episode_starts: `(T, B)` bool.
            recorded: Who acted these same steps, from this state with these parameters (see `acting`); saves time,
                changes nothing. The final state then is the recorded one, and carries no gradient.

        Returns:
            Features `(T, B, O)` and the state after the last step.
        """
        return self.unroll_reference(self.prepared(params), xs, feedbacks, state, episode_starts)

    @property
    def tells_activity(self) -> bool:
        """Whether `unroll_with_activity` has something to tell: by default where features are the units' outputs."""
        return not self.has_readout

    def unroll_with_activity(
        self,
        params: Params,
        xs: Tensor,
        feedbacks: Feedback,
        state: State,
        episode_starts: Tensor,
        recorded: ActsInPlace | None = None,
    ) -> tuple[Tensor, Tensor, State]:
        """`unroll`, for a loss that also reads what the hidden units put out; where `tells_activity`.

        The arguments are those of `unroll`.

        Returns:
            Features `(T, B, O)`, the hidden units' outputs `(T, B, H)`, of spiking units the mean over the substeps of
            a step, and the state after the last step.
        """
        if not self.has_readout:
            features, state = self.unroll(params, xs, feedbacks, state, episode_starts, recorded=recorded)
            return features, features, state
        run = self.prepared(params), xs, feedbacks, state, episode_starts
        outputs, state = self._by_steps(*run, shown="hidden")
        return outputs["features"], outputs["activity"], state

    def unroll_reference(
        self, params: Params, xs: Tensor, feedbacks: Feedback, state: State, episode_starts: Tensor
    ) -> tuple[Tensor, State]:
        """`unroll` as a loop over `step`: what every faster version is held to."""
        outputs, state = self._by_steps(params, xs, feedbacks, state, episode_starts)
        return outputs["features"], state

    def _by_steps(
        self,
        params: Params,
        xs: Tensor,
        feedbacks: Feedback,
        state: State,
        episode_starts: Tensor,
        shown: str | None = None,
    ) -> tuple[State, State]:
        """`features` `(T, B, O)`, of the layer `shown` its `activity` `(T, B, H)`, and the state after the last step.

        The arguments are those of `unroll`.
        """
        told = {name: one for name, one in feedbacks._asdict().items() if one is not None}
        names = tuple(told)

        def step(params: Params, own: Params, state: State) -> tuple[State, State]:
            feedback, courses = Feedback(**{name: own[name] for name in names}), dict[str, Tensor]()
            with nullcontext() if shown is None else self.watched(courses.__setitem__):
                features, state = self.step(params, own["x"], feedback, state, own["episode_start"])
            activity = {} if shown is None else {"activity": self.step_output(shown, courses[shown])}
            return {"features": features, **activity}, state

        return self.looped(step, params, {"x": xs, "episode_start": episode_starts, **told}, state, xs.shape[0])

    def looped(
        self, step: Step, params: Params, inputs: Mapping[str, Tensor], state: State, steps: int
    ) -> tuple[State, State]:
        """`in_segments`, of steps of this network."""
        # Contexts around this may be left, and others entered, by when steps are computed again.
        now = {name: getattr(self, name) for name in ("plasticity_frozen", "structure_held", "_watch")}

        def same(params: Params, own: Params, state: State) -> tuple[State, State]:
            with self._with(**now):
                return step(params, own, state)

        # Who watches may keep what is shown, graph and all, and counts on seeing each step once.
        return in_segments(same, params, inputs, state, steps, length=None if self._watch is None else steps)

    @contextmanager
    def _with(self, **attributes: Any) -> Iterator[None]:
        """Within this context the network has these attributes."""
        before = {name: getattr(self, name) for name in attributes}
        try:
            for name, value in attributes.items():
                setattr(self, name, value)
            yield
        finally:
            for name, value in before.items():
                setattr(self, name, value)

    def watched(self, watch: Callable[[str, Tensor], None]) -> AbstractContextManager[None]:
        """Within this context `step` shows `watch` what each layer puts out in its substeps: name, `(.., B, S, H)`."""
        return self._with(_watch=watch)

    def _show(self, layer: str, course: Tensor) -> None:
        """Show the outputs of a layer in the substeps of a step to who watches."""
        if self._watch is not None:
            self._watch(layer, course)

    def freeze_plasticity(self) -> AbstractContextManager[None]:
        """Within this context synapses keep the state they have; activity goes on."""
        return self._with(plasticity_frozen=True)

    @property
    def restructures(self) -> bool:
        """Whether synapses and units may come and go in this step."""
        return not (self.plasticity_frozen or self.structure_held)

    def hold_structure(self) -> AbstractContextManager[None]:
        """Within this context no synapses and no units come or go, whatever the age in the state; weights change."""
        return self._with(structure_held=True)
