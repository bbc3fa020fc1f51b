"""Layers of units of any kind, rate or spiking, joined by synapses that each have a rule of their own.

    observation -> channels -> input synapses -> hidden units <- recurrent synapses
                                                     |
                                       readout synapses -> populations of units, one for each action

One environment step is `substeps` steps of `step_size` ms, in which the input is held or coded as Poisson spikes and
synapses stay as they are. Within a substep: the input and the spikes of the substep before arrive, hidden units step,
their output reaches the readout in the same substep, readout units step. Traces of spikes move in every substep, the
trace F of a synapse once a step: at its end, or, where the update waits for the reward, at the start of the next one.
With `substeps: 1`, tanh units and no readout this is `plastic_rnn`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn
from typing_extensions import override

from plastic_rl.config import ConfigModel
from plastic_rl.errors import ConfigError
from plastic_rl.feedback import Feedback, FeedbackLayout
from plastic_rl.networks.base import Params, PlasticNetwork, State, scoped_entries
from plastic_rl.networks.start_weights import step_numbers
from plastic_rl.networks.structure import clock_entries, drawn_structure, rewired
from plastic_rl.neurons import DENDRITES, INTRINSICS, NEURONS, Dendrites, Drive, Intrinsic, Neuron
from plastic_rl.plasticity import (
    KINETICS,
    MODULATORS,
    RULES,
    SHORT_TERM,
    GainConfig,
    Named,
    Parameter,
    ResetScope,
    RuleConfig,
    StateEntry,
    Synapse,
    after_reward,
    make_part,
    named_in,
    starting_at,
)

INPUT, RECURRENT, READOUT = "input", "recurrent", "readout"
PRESYNAPTIC = {"short_term": SHORT_TERM, "kinetics": KINETICS}
"""What stands between a unit's output and its synapses, in this order."""
NeuronName = Annotated[Named, named_in(NEURONS)]
IntrinsicName = Annotated[Named, named_in(INTRINSICS)]


class ConnectionConfig(RuleConfig):
    """Synapses from one layer to another: the weights that they start with, and the rule that changes them."""

    rule: str = Field("fixed", description="Name of a rule; the other keys change parts of it. fixed: weights stay.")
    short_term: Annotated[Named, named_in(SHORT_TERM)] = Field(
        "none", description="How much of a unit's output its synapses release, by its past."
    )
    kinetics: Annotated[Named, named_in(KINETICS)] = Field("none", description="Course of what a spike releases.")
    weight: GainConfig | None = Field(
        None, description="Start weights W0; null: uniform within +-sqrt(3 / presynaptic units), trained."
    )
    one_to_one: bool = Field(
        False,
        description="Whether unit o has one synapse only, from unit o of the layer before (modulo its size), that keeps "
        "its weight.",
    )

    @model_validator(mode="after")
    def _a_rule_moves_what_is_named(self) -> Self:
        if self.alpha.is_zero:
            preset = RULES[self.rule]
            idle = ("term", "modulator", "eligibility", "bound", "normalise", "metaplasticity", "consolidation")
            named = [name for name in idle if getattr(self, name) != getattr(preset, name)]
            if named:
                raise ValueError(
                    f"under the rule {self.rule!r} weights do not change, so {', '.join(named)} would do nothing; "
                    "name a rule that changes them, or give alpha"
                )
        return self

    @model_validator(mode="after")
    def _one_synapse_each_stays(self) -> Self:
        if self.one_to_one and (not self.alpha.is_zero or self.weight is None or self.weight.trainable):
            raise ValueError("one_to_one synapses stay as they are: use rule: fixed, and a weight with trainable: false")
        return self

    def start(self, post_size: int, pre_size: int, generator: torch.Generator | None) -> Parameter:
        """W0, `(O, I)`, or `(1, 1)` and `(O, 1)` where it is one number for all or for each unit."""
        bound = (3 / pre_size) ** 0.5
        weight = self.weight or GainConfig(granularity="synapse", low=-bound, high=bound)
        start = weight.draw(post_size, pre_size, generator, is_gain=False)
        if not self.one_to_one:
            return start
        own = torch.arange(post_size).unsqueeze(-1) % pre_size == torch.arange(pre_size)
        return replace(start, value=start.value * own)


class ReadoutConfig(ConnectionConfig):
    """Populations of units, one for each action: their outputs are the preferences among actions."""

    neuron: NeuronName = Field("lif", description="What a readout unit does with its input.")
    intrinsic: IntrinsicName = Field("none", description="How a readout unit's excitability adapts.")
    population: int = Field(5, ge=1, description="Units for each action.")
    inhibition: GainConfig = Field(
        GainConfig(granularity="scalar", low=0.0, high=0.0, trainable=False),
        description="What a unit's output takes from the input of each unit of the other populations.",
    )
    efference_copy: bool = Field(
        False,
        description="Whether what a step brings to synapses counts as it is onto the chosen action's population, and "
        "with the opposite sign, shared among them, onto the others: it is taken in once the action is known.",
    )
    scale: GainConfig = Field(
        GainConfig(granularity="scalar", low=1.0, high=1.0, trainable=True),
        description="Factor from preferences (mean output of a population: spikes of all substeps, or the last rate) "
        "to logits.",
    )

    @field_validator("inhibition", "scale", mode="after")
    @classmethod
    def _one_number(cls, value: GainConfig) -> GainConfig:
        if value.granularity != "scalar":
            raise ValueError(f"is one number for all units: use granularity scalar, got {value.granularity}")
        return value


class PlasticUnitsConfig(ConfigModel):
    """Units of any kind in layers, with a rule for the input, the recurrent and the readout synapses each."""

    kind: Literal["plastic_units"] = Field("plastic_units", description="Kind of network.")
    neuron: NeuronName = Field("tanh", description="What a hidden unit does with its input.")
    intrinsic: IntrinsicName = Field("none", description="How a hidden unit's excitability adapts.")
    dendrites: Annotated[Named, named_in(DENDRITES)] = Field(
        "linear", description="What a branch of a hidden unit passes on to it."
    )
    branches: int = Field(
        1, ge=1, description="Branches of a hidden unit; each of its synapses is on one of them, drawn at the start."
    )
    hidden_size: int = Field(48, ge=0, description="Number of hidden units; 0: the input reaches the readout directly.")
    substeps: int = Field(1, ge=1, description="Steps of the units in one environment step.")
    step_size: float = Field(1.0, gt=0, description="Length of a substep, ms.")
    inputs: Literal["features", "all"] = Field(
        "all",
        description="features: what stands before the feedback; all: also previous action, reward, trial start, time.",
    )
    on_off: bool = Field(
        False, description="Whether each input is two channels that are never negative: max(x, 0) and max(-x, 0)."
    )
    coding: Literal["current", "poisson"] = Field(
        "current",
        description="current: channels act as they are; poisson: as random spikes, 0 or 1 in each substep, none where "
        "a channel is negative (see on_off).",
    )
    input_rate: float = Field(
        0.25, gt=0, le=1000, description="Rate of the spikes of a channel whose value is 1, per ms (poisson)."
    )
    input: ConnectionConfig = Field(ConnectionConfig(), description="Synapses from the input to the hidden units.")
    recurrent: ConnectionConfig | None = Field(
        None, description="Synapses among the hidden units, whose output arrives one substep later; null: none."
    )
    readout: ReadoutConfig | None = Field(
        None, description="Units that choose the action; null: the action head reads the hidden units."
    )
    reset: dict[str, ResetScope] = Field(
        default_factory=dict,
        description="When a state entry resets, if not with the lifetime: e.g. {eligibility.readout: trial}.",
    )

    @model_validator(mode="after")
    def _has_units(self) -> Self:
        if self.hidden_size == 0 and self.readout is None:
            raise ValueError("there are no units: give hidden_size 1 or more, or a readout")
        if self.hidden_size == 0 and self.recurrent is not None:
            raise ValueError("recurrent synapses need hidden units: give hidden_size 1 or more, or recurrent: null")
        if self.hidden_size == 0 and self.input != ConnectionConfig():
            raise ValueError("input synapses need hidden units: give hidden_size 1 or more, or leave input out")
        own = ("neuron", "intrinsic", "dendrites", "branches")
        idle = [name for name in own if getattr(self, name) != type(self).model_fields[name].default]
        if self.hidden_size == 0 and idle:
            raise ValueError(f"{', '.join(idle)}: there are no hidden units; give hidden_size 1 or more")
        return self

    @model_validator(mode="after")
    def _copies_an_action_that_is_waited_for(self) -> Self:
        readout = self.readout
        if readout is not None and readout.efference_copy:
            waits = make_part(MODULATORS, readout.modulator).reward_modulated and not readout.alpha.is_zero
            if not waits:
                raise ValueError("readout.efference_copy needs a rule that waits for the reward, such as r_stdp")
        return self

    @model_validator(mode="after")
    def _branches_hold_their_own_synapses(self) -> Self:
        for rule in (self.input, self.recurrent or self.input) if self.branches > 1 else ():
            whole = [name for name in ("normalise", "structure") if getattr(rule, name) != "none"]
            whole += ["term delta"] if rule.term == "delta" else []
            if whole:
                raise ValueError(
                    f"{', '.join(whole)} would count the synapses that are on a unit's other branches; use branches: 1"
                )
        return self

    @model_validator(mode="after")
    def _spikes_are_probable(self) -> Self:
        likely = self.input_rate * self.step_size
        if self.coding == "poisson" and likely > 1:
            raise ValueError(
                f"input_rate * step_size is the probability of a spike, at most 1, got {self.input_rate:g} a ms * "
                f"{self.step_size:g} ms = {likely:g}; make one of them smaller"
            )
        return self


class _Layer:
    """Units of one kind, by the name that ends their parameters and state entries."""

    def __init__(self, name: str, neuron: Named, intrinsic: Named, size: int, step_size: float) -> None:
        self.name, self.size = name, size
        self.neuron: Neuron = make_part(NEURONS, neuron, step_size)
        self.intrinsic: Intrinsic = make_part(INTRINSICS, intrinsic, step_size)


class _Release:
    """What synapses see of the units before them: short-term plasticity, then kinetics."""

    def __init__(self, config: ConnectionConfig, size: int, step_size: float) -> None:
        named = {name: getattr(config, name) for name in PRESYNAPTIC if getattr(config, name) != "none"}
        self.parts = {name: make_part(PRESYNAPTIC[name], one, step_size) for name, one in named.items()}
        self.entries = {entry: one for part in self.parts.values() for entry, one in part.state_entries(size).items()}
        self.numbers = {name: one for part in self.parts.values() for name, one in part.numbers().items()}

    def step(self, params: Params, activity: Tensor, state: State) -> tuple[Tensor, State]:
        """What the synapses see in a substep of `activity (.., B, I)`, and the entries after it."""
        following: State = {}
        for part in self.parts.values():
            activity, moved = part.step(params, activity, state)
            following |= moved
        return activity, following

    def course(self, params: Params, activity: Tensor, state: State) -> tuple[Tensor, State]:
        """The same for all substeps, `(.., B, S, I)`."""
        if not self.parts:
            return activity, {}
        seen, current = [], dict(state)
        for one in activity.unbind(-2):
            released, moved = self.step(params, one, current)
            seen.append(released)
            current |= moved
        return torch.stack(seen, -2), {name: current[name] for name in self.entries}


class PlasticUnits(PlasticNetwork):
    """Layers of rate or spiking units; features are the hidden units' outputs, or one preference for each action.

    The output of a step is that of its last substep for rate units, and the mean over its substeps for spiking ones.
    State entries end in the name of what they belong to: `activity.hidden` is the last substep's output,
    `voltage.hidden` and the like are the units', `trace.recurrent` F, `eligibility.readout` E and so on the synapses'.
    With Poisson inputs there are `key` and `age`, from which their noise follows.

    Raises:
        ConfigError: If there is nothing to see, or a reset scope names no state entry.
    """

    config_model = PlasticUnitsConfig
    config: PlasticUnitsConfig

    @override
    def build(self, feedback: FeedbackLayout, generator: torch.Generator | None, steps_per_trial: int | None) -> None:
        config = self.config
        self.seen = self.input_size if config.inputs == "all" else feedback.start
        if self.seen < 1:
            raise ConfigError("this environment has no features: the network would see nothing; use network.inputs=all")
        channels = self.seen * (1 + config.on_off)
        readout = config.readout
        self.actions = feedback.action_size
        self._layers: list[_Layer] = []
        self._synapses: dict[str, Synapse] = {}
        configs: dict[str, tuple[ConnectionConfig, int, int]] = {}
        if config.hidden_size:
            self._layers.append(_Layer("hidden", config.neuron, config.intrinsic, config.hidden_size, config.step_size))
            branches = config.hidden_size * config.branches
            configs[INPUT] = (config.input, branches, channels)
            if config.recurrent is not None:
                configs[RECURRENT] = (config.recurrent, branches, config.hidden_size)
        if readout is not None:
            units = self.actions * readout.population
            self._layers.append(_Layer("output", readout.neuron, readout.intrinsic, units, config.step_size))
            configs[READOUT] = (readout, units, config.hidden_size or channels)
        self.has_readout = self.discrete_only = readout is not None
        self.output_size = config.hidden_size if readout is None else self.actions

        entries: dict[str, StateEntry] = {}
        self._names: dict[str, dict[str, str]] = {}
        self.units, self.synapses = nn.ModuleDict(), nn.ModuleDict()
        self._releases: dict[str, _Release] = {}
        self._dendrites: Dendrites = make_part(DENDRITES, config.dendrites, config.step_size)
        self._names["dendrites"] = self._adopt_all("units", "dendrites", self._dendrites.numbers())
        for layer in self._layers:
            numbers = layer.neuron.parameters(layer.size, generator)
            if layer.name == "hidden":
                numbers["bias"] = Parameter(torch.zeros(layer.size, dtype=torch.float32), is_gain=False)
            self._names[layer.name] = names = self._adopt_all("units", layer.name, numbers)
            entries[f"activity.{layer.name}"] = StateEntry((layer.size,))
            # Apart from the neuron's: both may have a number of the same name.
            adapting = f"{layer.name}_intrinsic"
            self._names[adapting] = self._adopt_all("units", adapting, layer.intrinsic.numbers())
            own = layer.neuron.state_entries(layer.size) | layer.intrinsic.state_entries(layer.size)
            entries |= {f"{name}.{layer.name}": starting_at(one, names) for name, one in own.items()}
        for name, (rule, post_size, pre_size) in configs.items():
            entries |= self._join(name, rule, post_size, pre_size, generator)
        self.is_plastic = any(not synapse.non_plastic for synapse in self._synapses.values()) or any(
            layer.intrinsic.state_entries(layer.size) for layer in self._layers
        )
        # With recurrent plasticity alone, trials of one step would leave nothing to associate.
        plastic = {name for name, synapse in self._synapses.items() if not synapse.non_plastic}
        trial = steps_per_trial if plastic == {RECURRENT} and config.substeps == 1 else None
        self._entries = scoped_entries(entries, config.reset, trial) | clock_entries(self._synapses.values())
        for name, synapse in self._synapses.items():
            own_entries = synapse.structure_entries()
            self._entries |= {
                f"{entry}.{name}": starting_at(one, self._names[name]) for entry, one in own_entries.items()
            }
        if config.coding == "poisson":
            self._entries["key"] = StateEntry((), dtype=torch.int64)
            self._entries["age"] = StateEntry((), dtype=torch.int64)

    def _join(
        self, name: str, rule: ConnectionConfig, post_size: int, pre_size: int, generator: torch.Generator | None
    ) -> dict[str, StateEntry]:
        """Make synapses and their parameters; return their state entries."""
        synapse = Synapse(rule, post_size, pre_size, self.config.step_size)
        self._releases[name] = release = _Release(rule, pre_size, self.config.step_size)
        parameters = {"weight": rule.start(post_size, pre_size, generator)} | synapse.parameters(generator)
        parameters |= release.numbers
        if name != READOUT and self.config.branches > 1:
            parameters["branch"] = _one_branch_each(self.config.hidden_size, self.config.branches, pre_size, generator)
        if isinstance(rule, ReadoutConfig):
            parameters["inhibition"] = rule.inhibition.draw(1, 1, generator, is_gain=False)
            parameters["scale"] = rule.scale.draw(1, 1, generator, is_gain=False)
        self._synapses[name] = synapse
        self._names[name] = self._adopt_all("synapses", name, parameters)
        own_entries = synapse.state_entries() | release.entries
        if self._keeps_change(name):
            own_entries["change"] = StateEntry((post_size, pre_size))
        if self._keeps_output(name):
            own_entries["output"] = StateEntry((post_size,))
        return {f"{entry}.{name}": starting_at(one, self._names[name]) for entry, one in own_entries.items()}

    def _adopt_all(self, kind: str, owner: str, parameters: Mapping[str, Parameter]) -> dict[str, str]:
        """Register parameters under `KIND.OWNER.NAME`; return these dotted names."""
        own = nn.ParameterDict()
        getattr(self, kind)[owner] = own
        names = {name: f"{kind}.{owner}.{name}" for name in parameters}
        for name, parameter in parameters.items():
            self.adopt(names[name], parameter, own)
        return names

    def _of(self, owner: str, params: Params) -> Params:
        """The parameters of a layer or of synapses, under their own names."""
        return {name: params[whole] for name, whole in self._names[owner].items()}

    @staticmethod
    def _own(owner: str, state: State) -> State:
        """The state of a layer or of synapses, under their own names."""
        end = f".{owner}"
        return {name.removesuffix(end): entry for name, entry in state.items() if name.endswith(end)}

    # --- one step --------------------------------------------------------------------------------------------------

    @override
    def step(
        self, params: Params, x: Tensor, feedback: Feedback, state: State, episode_start: Tensor
    ) -> tuple[Tensor, State]:
        current = self.begun(params, state, episode_start)
        if not self.plasticity_frozen:
            current = self._rewired(params, self._rewarded(params, current, feedback, episode_start))
        current = self.reset(feedback.trial_start, current, "trial", params)
        inputs = self._channels(x, current)
        outputs, following = self._lived(params, inputs, current)
        if not self.plasticity_frozen:
            following |= self._updated(params, inputs, outputs, current)
        if "age" in following:
            following["age"] = following["age"] + 1
        last = self._layers[-1]
        spiking, course = last.neuron.spiking, outputs[last.name]
        if self.config.readout is None:
            return course.mean(-2) if spiking else course[..., -1, :], following
        of_actions = course.sum(-2) if spiking else course[..., -1, :]
        return self._by_action(of_actions).mean(-1), following

    @override
    def readout(self, params: Params, features: Tensor) -> Tensor:
        if self.config.readout is None:
            return features
        return features * params[self._names[READOUT]["scale"]]

    @override
    def newborn(self, keys: Tensor) -> State:
        drawn = {
            name: drawn_structure(synapse, keys, number)
            for number, (name, synapse) in enumerate(self._synapses.items())
        }
        return {f"{entry}.{name}": one for name, entries in drawn.items() for entry, one in entries.items()}

    def _rewired(self, params: Params, state: State) -> State:
        """The state in which synapses went and others came, where it is time."""
        changed: State = {}
        for number, (name, synapse) in enumerate(self._synapses.items()):
            if synapse.structure.rewires:
                numbers, own = self._of(name, params), self._own(name, state)
                moved = rewired(synapse, numbers, numbers["weight"], own, state["key"], state["age"], number)
                changed |= {f"{entry}.{name}": value for entry, value in moved.items()}
        return state | changed if changed else state

    def _rewarded(self, params: Params, state: State, feedback: Feedback, episode_start: Tensor) -> State:
        """The state after the updates that waited for the reward."""
        rewarded: State = {}
        for name, synapse in self._synapses.items():
            if synapse.reward_modulated:
                own = self._own(name, state)
                post = state["activity.output"] if name == READOUT else self._branched(state["activity.hidden"])
                post = own.get("output", post)
                numbers = self._of(name, params)
                if "change" in own:
                    source, moved = synapse.taken_in(numbers, own["change"] * self._copy(name, feedback.action), own)
                else:
                    source, moved = own["eligibility"], {}
                moved |= synapse.gated(numbers, post, source, own, feedback)
                rewarded |= {f"{entry}.{name}": value for entry, value in moved.items()}
        if not rewarded:
            return state
        return after_reward(state, rewarded, feedback.valid & ~episode_start)

    def _spikes(self, name: str) -> bool:
        """Whether the units behind synapses spike."""
        return self._layers[-1 if name == READOUT else 0].neuron.spiking

    def _output(self, name: str, course: Tensor) -> Tensor:
        """A step's output of the units behind synapses, `(.., B, O)`: of spikes the mean, of rates the last."""
        return course.mean(-2) if self._spikes(name) else course[..., -1, :]

    def _keeps_output(self, name: str) -> bool:
        """Whether a step's output waits with the reward: where the modulator reads it, and one spike says little."""
        synapse = self._synapses[name]
        return synapse.reward_modulated and synapse.modulator.reads_post and self._spikes(name)

    def _keeps_change(self, name: str) -> bool:
        """Whether what a step brings to synapses waits, as state entry `change`, until action and reward are known."""
        synapse = self._synapses[name]
        copied = name == READOUT and self.config.readout is not None and self.config.readout.efference_copy
        return synapse.reward_modulated and (copied or not synapse.eligibility.by_substep)

    def _copy(self, name: str, action: Tensor) -> Tensor | float:
        """The efference copy, `(.., B, O, 1)`: 1 onto the chosen population, the opposite shared among the others."""
        readout = self.config.readout
        if name != READOUT or readout is None or not readout.efference_copy:
            return 1.0
        others = max(self.actions - 1, 1)
        return ((1 + 1 / others) * action - 1 / others).repeat_interleave(readout.population, -1).unsqueeze(-1)

    def _channels(self, x: Tensor, state: State) -> Tensor:
        """What reaches the input synapses in each substep, `(.., B, S, I)`."""
        config = self.config
        seen = x[..., : self.seen]
        if config.on_off:
            seen = torch.cat([seen.clamp_min(0), (-seen).clamp_min(0)], -1)
        held = seen.unsqueeze(-2).expand(*seen.shape[:-1], config.substeps, seen.shape[-1])
        if config.coding == "current":
            return held
        drawn = step_numbers(state["key"], state["age"], 0, held.shape[-2:])
        return (drawn < held * (config.input_rate * config.step_size)).to(x.dtype)

    def _lived(self, params: Params, inputs: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """Outputs of each layer in each substep, `(.., B, S, O)`, and the state that they leave; synapses stay."""
        following = dict(state)
        weights = {name: self._weights(name, params, state) for name in self._synapses}
        first = INPUT if INPUT in weights else READOUT
        released, moved = self._releases[first].course(self._of(first, params), inputs, self._own(first, state))
        following |= {f"{name}.{first}": entry for name, entry in moved.items()}
        driven = released @ weights[first].mT
        courses: dict[str, list[Tensor]] = {layer.name: [] for layer in self._layers}
        numbers = {name: self._of(name, params) for name in self._names}
        units = {layer.name: self._own(layer.name, state) for layer in self._layers}
        between = {name: self._own(name, state) for name in self.synapses if name != first}

        def arriving(name: str, activity: Tensor) -> Tensor:
            seen, moved = self._releases[name].step(numbers[name], activity, between[name])
            between[name] |= moved
            return _product(seen, weights[name])

        for substep in range(self.config.substeps):
            reached = driven[..., substep, :]
            for layer in self._layers:
                own = units[layer.name]
                if layer.name == "hidden":
                    if RECURRENT in weights:
                        reached = reached + arriving(RECURRENT, own["activity"])
                    reached = self._summed(numbers["dendrites"], reached) + numbers["hidden"]["bias"].unsqueeze(-2)
                else:
                    if "hidden" in units:
                        reached = arriving(READOUT, units["hidden"]["activity"])
                    reached = reached - self._inhibition(params, own["activity"])
                adapting = numbers[f"{layer.name}_intrinsic"]
                drive = Drive(layer.intrinsic.excited(adapting, reached, own))
                output, moved = layer.neuron.step(numbers[layer.name], drive, own)
                if not self.plasticity_frozen:
                    moved |= layer.intrinsic.next_state(adapting, reached, output, own)
                units[layer.name] = own | moved | {"activity": output}
                courses[layer.name].append(output)
        for layer in self._layers:
            following |= {f"{name}.{layer.name}": entry for name, entry in units[layer.name].items()}
        for name, entries in between.items():
            following |= {f"{entry}.{name}": entries[entry] for entry in self._releases[name].entries}
        return {name: torch.stack(course, -2) for name, course in courses.items()}, following

    def _summed(self, params: Params, branches: Tensor) -> Tensor:
        """The hidden units' drive, `(.., B, O)`, by what reaches their branches, `(.., B, O J)`."""
        if self.config.branches == 1 and self.config.dendrites == "linear":
            return branches
        return self._dendrites.drive(params, branches.reshape(*branches.shape[:-1], -1, self.config.branches))

    def _branched(self, output: Tensor) -> Tensor:
        """The hidden units' output `(.., O)` as each of their branches sees it, `(.., O J)`."""
        return output.repeat_interleave(self.config.branches, -1) if self.config.branches > 1 else output

    def _by_action(self, output: Tensor) -> Tensor:
        """Outputs `(.., B, O)` of the readout as `(.., B, actions, population)`."""
        return output.reshape(*output.shape[:-1], self.actions, -1)

    def _inhibition(self, params: Params, output: Tensor) -> Tensor:
        """What each readout unit loses by the outputs `(.., B, O)` of the other populations."""
        by_action = self._by_action(output)
        sums = by_action.sum(-1, keepdim=True)
        others = (sums.sum(-2, keepdim=True) - sums).expand_as(by_action).flatten(-2)
        taken: Tensor = params[self._names[READOUT]["inhibition"]] * others
        return taken

    def _weights(self, name: str, params: Params, state: State) -> Tensor:
        """W, `(.., B, O, I)`, or `(.., 1, O, I)` where the synapses are not plastic."""
        own = self._of(name, params)
        weight = self._synapses[name].weight(own, own["weight"], self._own(name, state))
        return weight * own["branch"].unsqueeze(-3) if "branch" in own else weight

    def _updated(self, params: Params, inputs: Tensor, outputs: dict[str, Tensor], state: State) -> State:
        """The synapses' state after the substeps from `state`, with the updates that do not wait for a reward."""
        updated: State = {}
        for name, synapse in self._synapses.items():
            if synapse.non_plastic:
                continue
            own, numbers = self._own(name, state), self._of(name, params)
            pre, post = self._sides(name, inputs, outputs, state)
            change, moved = synapse.lived(numbers, pre, post, own)
            own |= moved
            if self._keeps_change(name):
                moved["change"] = change
            else:
                source, taken_in = synapse.taken_in(numbers, change, own)
                moved |= taken_in
                if not synapse.reward_modulated:
                    moved |= synapse.gated(numbers, self._output(name, post), source, own)
            if self._keeps_output(name):
                moved["output"] = self._output(name, post)
            updated |= {f"{entry}.{name}": value for entry, value in moved.items()}
        return updated

    def _sides(self, name: str, inputs: Tensor, outputs: dict[str, Tensor], state: State) -> tuple[Tensor, Tensor]:
        """What reached the synapses and what their units put out, in each substep."""
        if name == INPUT:
            return inputs, self._branched(outputs["hidden"])
        if name == READOUT:
            return outputs.get("hidden", inputs), outputs["output"]
        course = outputs["hidden"]
        before = state["activity.hidden"].unsqueeze(-2)
        return torch.cat([before, course[..., :-1, :]], -2), self._branched(course)


def _one_branch_each(units: int, branches: int, pre_size: int, generator: torch.Generator | None) -> Parameter:
    """1 where a branch of a unit holds the synapse from a presynaptic unit, else 0, `(O J, I)`: one branch for each."""
    which = torch.randint(branches, (units, 1, pre_size), generator=generator, device="cpu")
    held = which == torch.arange(branches).reshape(1, branches, 1)
    return Parameter(held.reshape(units * branches, pre_size).to(torch.float32), trainable=False, is_gain=False)


def _product(activity: Tensor, weights: Tensor) -> Tensor:
    """`W x`, `(.., B, O)`, for weights `(.., B, O, I)` or `(.., 1, O, I)`."""
    return (activity.unsqueeze(-2) @ weights.mT).squeeze(-2)
