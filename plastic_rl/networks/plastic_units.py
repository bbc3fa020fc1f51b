"""Layers of units of any kind, rate or spiking, joined by synapses that each have a rule of their own.

    observation -> channels -> input synapses -> hidden units <- recurrent synapses
                                                     |     <-> inhibitory units
                                       readout synapses -> populations of units, one for each action

One environment step is `substeps` steps of `step_size` ms, in which the input is held or coded as Poisson spikes and
synapses stay as they are. Within a substep: the input and the spikes of the substep before arrive, inhibitory and
hidden units step, the output of hidden units reaches the readout in the same substep, readout units step. Traces of
spikes move in every substep, the trace F of a synapse once a step: at its end, or, where the update waits for the
reward, at the start of the next one. With `substeps: 1`, tanh units and no readout this is `plastic_rnn`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from plastic_rl.errors import ConfigError
from plastic_rl.feedback import Feedback, FeedbackLayout
from plastic_rl.networks.base import Params, PlasticNetwork, State, reset_entry, scoped_entries
from plastic_rl.networks.conductance import at_substep, carried, separated, together
from plastic_rl.networks.dale import clipped, held_trace, signed_weights, unit_signs
from plastic_rl.networks.hidden_layers import HiddenLayer, hidden_layer
from plastic_rl.networks.layer_norm import check_normalised_size, layer_normalised
from plastic_rl.networks.start_weights import step_numbers
from plastic_rl.networks.structure import CLOCK, clock_entries, drawn_structure, rewired
from plastic_rl.networks.turnover import Turnover, fresh_weights, reborn, renewed, unit_axes
from plastic_rl.networks.units_config import (
    EXCITATION,
    INHIBITION,
    INPUT,
    ONTO,
    READOUT,
    RECURRENT,
    ConnectionConfig,
    InhibitoryConfig,
    PlasticUnitsConfig,
    ReadoutConfig,
)
from plastic_rl.neurons import (
    COMPETITIONS,
    DENDRITES,
    INTRINSICS,
    NEURONS,
    Competition,
    Dendrites,
    Drive,
    Intrinsic,
    Neuron,
)
from plastic_rl.plasticity import (
    KINETICS,
    SHORT_TERM,
    Parameter,
    StateEntry,
    Synapse,
    after_reward,
    make_part,
    momentary,
    starting_at,
)

ARRIVALS = {
    "inhibitory": ((EXCITATION, "hidden"),),
    "hidden": ((RECURRENT, "hidden"), (INHIBITION, "inhibitory")),
    "output": ((READOUT, "hidden"),),
}
"""Synapses onto each layer from another, and that layer."""
PRESYNAPTIC = {"short_term": SHORT_TERM, "kinetics": KINETICS}
"""What stands between a unit's output and its synapses, in this order."""


class _Layer:
    """Units of one kind, by the name that ends their parameters and state entries.

    `source` names the synapses through which what is before the layer reaches it.
    """

    def __init__(
        self,
        name: str,
        config: PlasticUnitsConfig | InhibitoryConfig | ReadoutConfig,
        source: str,
        size: int,
        step_size: float,
    ) -> None:
        self.name, self.size, self.source = name, size, source
        self.neuron: Neuron = make_part(NEURONS, config.neuron, step_size)
        self.intrinsic: Intrinsic = make_part(INTRINSICS, config.intrinsic, step_size)
        self.competition: Competition = make_part(COMPETITIONS, config.competition, step_size)
        self.competition.check_size(size)


class _Release:
    """What synapses see of the units before them: short-term plasticity, then kinetics."""

    def __init__(self, config: ConnectionConfig, size: int, step_size: float) -> None:
        named = {name: getattr(config, name) for name in PRESYNAPTIC if getattr(config, name) != "none"}
        self.parts = {name: make_part(PRESYNAPTIC[name], one, step_size) for name, one in named.items()}
        entries = {entry: one for part in self.parts.values() for entry, one in part.state_entries(size).items()}
        self.entries = momentary(entries)
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
    With Poisson inputs there are `key` and `age`, from which their noise follows. Where hidden units are replaced there
    are `utility.hidden`, `born.hidden` and the `fresh` start weights of synapses (`plastic_rl.networks.turnover`).

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
        check_normalised_size(config.layer_norm, config.hidden_size)
        channels = self.seen * (1 + config.on_off)
        readout = config.readout
        self.actions = feedback.action_size
        self._layers: list[_Layer] = []
        self._synapses: dict[str, Synapse] = {}
        configs: dict[str, tuple[ConnectionConfig, int, int]] = {}
        inhibitory = config.inhibitory
        if inhibitory is not None:
            self._layers.append(_Layer("inhibitory", inhibitory, EXCITATION, inhibitory.size, config.step_size))
        if config.hidden_size:
            self._layers.append(_Layer("hidden", config, INPUT, config.hidden_size, config.step_size))
            branches = config.hidden_size * config.branches
            configs[INPUT] = (config.input, branches, channels)
            if config.recurrent is not None:
                configs[RECURRENT] = (config.recurrent, branches, config.hidden_size)
            if inhibitory is not None:
                configs[EXCITATION] = (inhibitory.excitation, inhibitory.size, config.hidden_size)
                configs[INHIBITION] = (inhibitory.inhibition, branches, inhibitory.size)
        if readout is not None:
            units = self.actions * readout.population
            self._layers.append(_Layer("output", readout, READOUT, units, config.step_size))
            configs[READOUT] = (readout, units, config.hidden_size or channels)
        self._by_name = {layer.name: layer for layer in self._layers}
        self.has_readout = self.discrete_only = readout is not None
        self.output_size = config.hidden_size if readout is None else self.actions

        entries: dict[str, StateEntry] = {}
        self._names: dict[str, dict[str, str]] = {}
        self.units, self.synapses = nn.ModuleDict(), nn.ModuleDict()
        self._releases: dict[str, _Release] = {}
        self._configs: dict[str, ConnectionConfig] = {}
        self._dendrites: Dendrites = make_part(DENDRITES, config.dendrites, config.step_size)
        self._names["dendrites"] = self._adopt_all("units", "dendrites", self._dendrites.numbers())
        for layer in self._layers:
            entries |= self._adopt_layer(layer, generator)
        for name, (rule, post_size, pre_size) in configs.items():
            entries |= self._join(name, rule, post_size, pre_size, generator)
        self.is_plastic = any(not synapse.non_plastic for synapse in self._synapses.values()) or any(
            layer.intrinsic.state_entries(layer.size) or layer.competition.state_entries() for layer in self._layers
        )
        plastic = {name for name, synapse in self._synapses.items() if not synapse.non_plastic}
        if self.is_plastic and not plastic and config.development and config.development.critical_period:
            raise ConfigError(
                "network.development.critical_period: no synapses of this network change, and what else adapts does so "
                "at any age; leave it out, or name a rule that changes synapses"
            )
        # With plasticity in loops of synapses alone, trials of one step would leave nothing to associate.
        in_loops = bool(plastic) and plastic <= {RECURRENT, EXCITATION, INHIBITION}
        trial = steps_per_trial if in_loops and config.substeps == 1 else None
        self._entries = scoped_entries(entries, config.reset, trial) | clock_entries(self._synapses.values())
        for name, synapse in self._synapses.items():
            own_entries = synapse.structure_entries()
            self._entries |= {
                f"{entry}.{name}": starting_at(one, self._names[name]) for entry, one in own_entries.items()
            }
        self._turnover = self._make_turnover()
        if config.coding == "poisson" or self._turnover is not None:
            self._entries |= CLOCK

    def _adopt_layer(self, layer: _Layer, generator: torch.Generator | None) -> dict[str, StateEntry]:
        """Register a layer's parameters; return its state entries."""
        numbers = layer.neuron.parameters(layer.size, generator)
        if layer.name == "hidden":
            if self.config.bias:
                numbers["bias"] = Parameter(torch.zeros(layer.size, dtype=torch.float32), is_gain=False)
            if self.config.layer_norm is not None:
                gain = torch.full((layer.size,), self.config.layer_norm, dtype=torch.float32)
                numbers["norm_gain"] = Parameter(gain, is_gain=False)
        self._names[layer.name] = names = self._adopt_all("units", layer.name, numbers)
        entries = {"activity": StateEntry((layer.size,), momentary=True)}
        own = momentary(layer.neuron.state_entries(layer.size)) | layer.intrinsic.state_entries(layer.size)
        entries |= {name: starting_at(one, names) for name, one in own.items()}
        # Apart from the neuron's: parts may have numbers of the same name.
        for kind, part in (("intrinsic", layer.intrinsic), ("competition", layer.competition)):
            owner = f"{layer.name}_{kind}"
            self._names[owner] = self._adopt_all("units", owner, part.numbers())
        names = self._names[f"{layer.name}_competition"]
        entries |= {name: starting_at(one, names) for name, one in layer.competition.state_entries().items()}
        return {f"{name}.{layer.name}": one for name, one in entries.items()}

    def _make_turnover(self) -> Turnover | None:
        """Find what belongs to hidden units, where they are replaced, and add the state entries that this needs."""
        config = self.config
        if config.turnover is None:
            return None
        axes = unit_axes(self._entries, self._one_unit_more().state_entries(), config.hidden_size)
        # Which synapses there are stays.
        structures = {f"{entry}.{name}" for name, one in self._synapses.items() for entry in one.structure_entries()}
        self._unit_axes = {name: own for name, own in axes.items() if name not in structures}
        turnover = Turnover(config.turnover, config.hidden_size)
        self._entries |= {f"{name}.hidden": entry for name, entry in turnover.state_entries().items()}
        for name in (name for name in self._synapses if name != READOUT):
            self._entries[f"fresh.{name}"] = StateEntry((self._synapses[name].post_size, self._synapses[name].pre_size))
        return turnover

    def _one_unit_more(self) -> Self:
        """This network with one hidden unit more, whose shapes tell what belongs to a unit."""
        competition = self.config.competition
        if isinstance(competition, dict):  # of a grid: so many units need not make up its rows
            competition = {name: one for name, one in competition.items() if name != "columns"}
        return self.rebuilt(hidden_size=self.config.hidden_size + 1, turnover=None, competition=competition)

    def _join(
        self, name: str, rule: ConnectionConfig, post_size: int, pre_size: int, generator: torch.Generator | None
    ) -> dict[str, StateEntry]:
        """Make synapses and their parameters; return their state entries."""
        synapse = Synapse(rule, post_size, pre_size, self.config.step_size)
        self._releases[name] = release = _Release(rule, pre_size, self.config.step_size)
        parameters = {"weight": rule.start(post_size, pre_size, generator)} | synapse.parameters(generator)
        parameters |= release.numbers
        signs = self._signs(name, rule, pre_size)
        if signs is not None:
            parameters["sign"], weight = signs, parameters["weight"]
            own, whole = signs.value, rule.trace_start == "weight"
            if whole:  # W = alpha F, and F starts at what is drawn here
                own = own * torch.where(parameters["alpha"].value < 0, -1.0, 1.0)
            if whole or weight.value.shape[-1] == pre_size:  # else one number for synapses of both signs
                parameters["weight"] = replace(weight, value=signed_weights(own, weight.value))
        if ONTO[name] == "hidden" and self.config.branches > 1:
            parameters["branch"] = _one_branch_each(self.config.hidden_size, self.config.branches, pre_size, generator)
        if isinstance(rule, ReadoutConfig):
            parameters["inhibition"] = rule.inhibition.draw(1, 1, generator, is_gain=False)
            parameters["scale"] = rule.scale.draw(1, 1, generator, is_gain=False)
        if rule.normalises_start:
            weight = parameters["weight"]
            value = weight.value.expand(post_size, pre_size)
            if "connected" in parameters:
                value = value * parameters["connected"].value
            parameters["weight"] = replace(weight, value=synapse.normalise(value))
        self._synapses[name] = synapse
        self._configs[name] = rule
        self._names[name] = self._adopt_all("synapses", name, parameters)
        own_entries = synapse.state_entries() | release.entries
        if rule.trace_start == "weight":
            for entry in ("trace", *synapse.consolidation.slow_entries):
                own_entries[entry] = replace(own_entries[entry], start="weight")
        if self._keeps_change(name):
            own_entries["change"] = StateEntry((post_size, pre_size), momentary=True)
        if self._keeps_output(name):
            own_entries["output"] = StateEntry((post_size,), momentary=True)
        return {f"{entry}.{name}": starting_at(one, self._names[name]) for entry, one in own_entries.items()}

    def _signs(self, name: str, rule: ConnectionConfig, pre_size: int) -> Parameter | None:
        """Signs of the units before synapses, `(1, I)`; None where they have none."""
        share = self.config.sign_of_units_before(name)
        if rule.sign != "presynaptic":
            share = float(rule.sign == "excitatory")
        return None if share is None else unit_signs(share, pre_size)

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
            current = self.rewarded(params, current, feedback, feedback.valid & ~episode_start)
        if self.restructures:
            current = self._rewired(params, current)
            current = self._turned_over(params, current)
        current = self.reset(feedback.trial_start, current, "trial", params)
        inputs = self._channels(x, current)
        outputs, following = self._lived(params, inputs, current)
        for name, course in outputs.items():
            self._show(name, course)
        if self.plasticity_frozen:
            following |= self._unchanged(inputs, outputs, current)
        else:
            following |= self._updated(params, inputs, outputs, current) | self._used(params, outputs, current)
        if "age" in following:
            following["age"] = following["age"] + 1
        last = self._layers[-1]
        course = outputs[last.name]
        if self.config.readout is None:
            return self.step_output(last.name, course), following
        of_actions = course.sum(-2) if last.neuron.spiking else course[..., -1, :]
        return self._by_action(of_actions).mean(-1), following

    @property
    @override
    def tells_activity(self) -> bool:
        return self.config.hidden_size > 0

    @override
    def weights(self, params: Params, state: State) -> dict[str, Tensor]:
        return {name: self._weights(name, params, state) for name in self._synapses}

    @override
    def step_output(self, layer: str, course: Tensor) -> Tensor:
        return course.mean(-2) if self._by_name[layer].neuron.spiking else course[..., -1, :]

    @override
    def readout(self, params: Params, features: Tensor) -> Tensor:
        if self.config.readout is None:
            return features
        return features * params[self._names[READOUT]["scale"]]

    @override
    def hidden_layers(self) -> tuple[HiddenLayer, ...]:
        config = self.config
        excitation = None if config.inhibitory is None else config.inhibitory.excitation
        outgoing = [rule for rule in (config.recurrent, config.readout, excitation) if rule is not None]
        starts = [(rule.weight, rule) for rule in outgoing if rule.weight is not None]
        shared = any(weight.granularity != "synapse" for weight, _ in starts)
        still = any(not weight.trainable and rule.alpha.is_zero for weight, rule in starts)
        if config.hidden_size == 0 or shared or still:
            return ()  # a new unit could not be cut off, or would be so for good
        parameters = dict(self.named_parameters()), dict(self._one_unit_more().named_parameters())
        return (hidden_layer("hidden", *parameters, config.hidden_size, is_features=config.readout is None),)

    @override
    def newborn(self, keys: Tensor) -> State:
        drawn = {
            name: drawn_structure(synapse, keys, number)
            for number, (name, synapse) in enumerate(self._synapses.items())
        }
        return {f"{entry}.{name}": one for name, entries in drawn.items() for entry, one in entries.items()}

    @override
    def pruned(self, params: Params, state: State, start: Tensor) -> State:
        pruned: State = {}
        for name, synapse in self._synapses.items():
            if not synapse.structure.is_sparse or self._configs[name].trace_start != "weight":
                continue
            own = synapse.pruned(self._of(name, params), self._own(name, state))
            pruned |= {f"{entry}.{name}": value for entry, value in own.items()}
        return state | {name: reset_entry(start, state[name], value) for name, value in pruned.items()}

    def _rewired(self, params: Params, state: State) -> State:
        """The state in which synapses went and others came, where it is time."""
        changed: State = {}
        for number, (name, synapse) in enumerate(self._synapses.items()):
            if synapse.structure.rewires:
                numbers, own = self._of(name, params), self._with_start(name, params, state)
                moved = rewired(synapse, numbers, self._beneath(name, numbers), own, state["key"], state["age"], number)
                changed |= {f"{entry}.{name}": value for entry, value in moved.items()}
        return state | changed if changed else state

    def _turned_over(self, params: Params, state: State) -> State:
        """The state in which hidden units went and others came, where it is time."""
        turnover = self._turnover
        if turnover is None or not bool(turnover.due(state["age"]).any()):
            return state
        keys, ages = state["key"], state["age"]
        replaced = turnover.replaced(state["utility.hidden"], state["born.hidden"], keys, ages)
        changed = {
            name: reborn(state[name], replaced, axes, self._start(self._entries[name], params))
            for name, axes in self._unit_axes.items()
        }
        changed["utility.hidden"] = state["utility.hidden"].masked_fill(replaced, 0.0)
        changed["born.hidden"] = torch.where(replaced, ages.unsqueeze(-1), state["born.hidden"])
        for number, (name, rule) in enumerate({INPUT: self.config.input, RECURRENT: self.config.recurrent}.items()):
            if rule is not None:
                fresh = state[f"fresh.{name}"]
                weight = rule.start_weight(fresh.shape[-1])
                fresh = fresh_weights(fresh, self._branched(replaced), weight, keys, ages, number)
                # Among new units none hears another yet.
                changed[f"fresh.{name}"] = reborn(fresh, replaced, (-1,), 0.0) if name == RECURRENT else fresh
        return state | changed

    @override
    def recalled(self, params: Params, state: State) -> State:
        if self._turnover is None:
            return state
        born = state["born.hidden"]
        since = (born > 0) & (born >= state["age"].unsqueeze(-1))
        own = {name: axes for name, axes in self._unit_axes.items() if self._entries[name].momentary}
        return state | {
            name: reborn(state[name], since, axes, self._start(self._entries[name], params))
            for name, axes in own.items()
        }

    def _used(self, params: Params, outputs: dict[str, Tensor], state: State) -> State:
        """The hidden units' utility after the substeps from `state`, where units are replaced by it."""
        if self._turnover is None:
            return {}
        with torch.no_grad():
            leaving = [name for name in (RECURRENT, READOUT) if name in self._synapses]
            outgoing = sum(self._weights(name, params, state).abs().sum(-2) for name in leaving)
            output = self.step_output("hidden", outputs["hidden"])
            return {"utility.hidden": self._turnover.used(state["utility.hidden"], output, torch.as_tensor(outgoing))}

    def _with_start(self, name: str, params: Params, state: State) -> State:
        """The state of synapses, under their own names, with W0 of each lifetime where units are replaced in it."""
        own = self._own(name, state)
        if self._turnover is None:
            return own
        born = state["born.hidden"] > 0
        post = None if name == READOUT else self._branched(born)
        pre = None if name == INPUT else born
        return own | {"start": renewed(own, post=post, pre=pre, weight=self._of(name, params)["weight"])}

    @override
    def rewarded(self, params: Params, state: State, feedback: Feedback, happens: Tensor) -> State:
        """The state after the updates that waited for the reward."""
        rewarded: State = {}
        openness = self.openness(params, state)
        for name, synapse in self._synapses.items():
            if synapse.reward_modulated:
                own = self._own(name, state)
                post = self._onto(name, {layer: state[f"activity.{layer}"] for layer in self._by_name})
                post = own.get("output", post)
                numbers = self._of(name, params)
                if "change" in own:
                    source, moved = synapse.taken_in(numbers, own["change"] * self._copy(name, feedback.action), own)
                else:
                    source, moved = own["eligibility"], {}
                gated = synapse.gated(numbers, post, source, own, feedback, openness)
                moved |= self._kept_to_sign(name, numbers, gated)
                rewarded |= {f"{entry}.{name}": value for entry, value in moved.items()}
        if not rewarded:
            return state
        return after_reward(state, rewarded, happens)

    def _spikes(self, name: str) -> bool:
        """Whether the units behind synapses spike."""
        return self._by_name[ONTO[name]].neuron.spiking

    def _onto(self, name: str, outputs: Mapping[str, Tensor]) -> Tensor:
        """The output of the units behind synapses, `(.., O)`, of those of all layers by name."""
        output = outputs[ONTO[name]]
        return self._branched(output) if ONTO[name] == "hidden" else output

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
        carries = {name: carried(weight, self._configs[name].conductance) for name, weight in weights.items()}
        first = INPUT if INPUT in carries else READOUT
        released, moved = self._releases[first].course(self._of(first, params), inputs, self._own(first, state))
        following |= {f"{name}.{first}": entry for name, entry in moved.items()}
        driven = carries[first](released)
        courses: dict[str, list[Tensor]] = {layer.name: [] for layer in self._layers}
        numbers = {name: self._of(name, params) for name in self._names}
        units = {layer.name: self._own(layer.name, state) for layer in self._layers}
        between = {name: self._own(name, state) for name in self.synapses if name != first}
        lengths = {
            layer.name: weights[layer.source].square().sum(-1)
            for layer in self._layers
            if layer.competition.by_distance
        }

        def arriving(name: str, activity: Tensor) -> Drive:
            seen, moved = self._releases[name].step(numbers[name], activity, between[name])
            between[name] |= moved
            return at_substep(carries[name](seen.unsqueeze(-2)), 0)

        for substep in range(self.config.substeps):
            before = dict(units)
            for layer in self._layers:
                own = units[layer.name]
                arrived = [at_substep(driven, substep)] if layer.source == first else []
                for name, source in ARRIVALS[layer.name]:
                    if name in between:
                        arrived.append(arriving(name, (units if name == READOUT else before)[source]["activity"]))
                reached, conducted = separated(arrived)
                if layer.name in lengths:
                    reached = reached - lengths[layer.name] / 2
                reached = self._driving(params, numbers, layer.name, reached, own["activity"])
                adapting = numbers[f"{layer.name}_intrinsic"]
                drive = together(layer.intrinsic.excited(adapting, reached, own), conducted)
                output, moved = layer.neuron.step(numbers[layer.name], drive, own)
                competing = numbers[f"{layer.name}_competition"]
                output = layer.competition.outputs(competing, output, own)
                if not self.plasticity_frozen:
                    moved |= layer.intrinsic.next_state(adapting, reached, output, own)
                    moved |= layer.competition.next_state(competing, own)
                units[layer.name] = own | moved | {"activity": output}
                courses[layer.name].append(output)
        for layer in self._layers:
            following |= {f"{name}.{layer.name}": entry for name, entry in units[layer.name].items()}
        for name, entries in between.items():
            following |= {f"{entry}.{name}": entries[entry] for entry in self._releases[name].entries}
        return {name: torch.stack(course, -2) for name, course in courses.items()}, following

    def _driving(
        self, params: Params, numbers: Mapping[str, Params], layer: str, reached: Tensor, output: Tensor
    ) -> Tensor:
        """What drives the units of a layer, `(.., B, O)`, by what reaches them and their last output.

        `numbers`: the parameters of each layer and of the dendrites, under their own names.
        """
        if layer == "output":
            return reached - self._inhibition(params, output)
        if layer == "hidden":
            own = numbers["hidden"]
            reached = self._summed(numbers["dendrites"], reached)
            if self.config.layer_norm is not None:
                reached = layer_normalised(reached, own["norm_gain"])
            if self.config.bias:
                reached = reached + own["bias"].unsqueeze(-2)
        return reached

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
        own, synapse = self._of(name, params), self._synapses[name]
        weight = synapse.weight(own, self._beneath(name, own), self._with_start(name, params, state))
        if "sign" in own and not synapse.non_plastic:
            weight = clipped(own["sign"], weight)
        return weight * own["branch"].unsqueeze(-3) if "branch" in own else weight

    def _beneath(self, name: str, params: Params) -> Tensor | None:
        """W0, to which the trace adds; None where the trace starts at it."""
        if self._configs[name].trace_start == "weight":
            return None
        return signed_weights(params["sign"], params["weight"]) if "sign" in params else params["weight"]

    def _kept_to_sign(self, name: str, numbers: Params, moved: State) -> State:
        """The entries of synapses after an update, with what Dale's law leaves of the trace."""
        if "sign" not in numbers:
            return moved
        start = self._beneath(name, numbers)
        return moved | {"trace": held_trace(numbers["sign"], start, numbers["alpha"], moved["trace"])}

    def _updated(self, params: Params, inputs: Tensor, outputs: dict[str, Tensor], state: State) -> State:
        """The synapses' state after the substeps from `state`, with the updates that do not wait for a reward."""
        updated: State = {}
        openness = self.openness(params, state)
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
                    gated = synapse.gated(numbers, self.step_output(ONTO[name], post), source, own, None, openness)
                    moved |= self._kept_to_sign(name, numbers, gated)
            if self._keeps_output(name):
                moved["output"] = self.step_output(ONTO[name], post)
            updated |= {f"{entry}.{name}": value for entry, value in moved.items()}
        return updated

    def _unchanged(self, inputs: Tensor, outputs: dict[str, Tensor], state: State) -> State:
        """What waits for the reward of a step without plasticity: its outputs, and no change."""
        waiting: State = {}
        for name in self._synapses:
            if self._keeps_change(name):
                waiting[f"change.{name}"] = torch.zeros_like(state[f"change.{name}"])
            if self._keeps_output(name):
                waiting[f"output.{name}"] = self.step_output(ONTO[name], self._sides(name, inputs, outputs, state)[1])
        return waiting

    def _sides(self, name: str, inputs: Tensor, outputs: dict[str, Tensor], state: State) -> tuple[Tensor, Tensor]:
        """What reached the synapses and what their units put out, in each substep."""
        post = self._onto(name, outputs)
        if name == INPUT:
            return inputs, post
        if name == READOUT:
            return outputs.get("hidden", inputs), post
        source = "inhibitory" if name == INHIBITION else "hidden"
        course = outputs[source]
        if self._synapses[name].term.sees_emission:
            return course, post
        return torch.cat([state[f"activity.{source}"].unsqueeze(-2), course[..., :-1, :]], -2), post


def _one_branch_each(units: int, branches: int, pre_size: int, generator: torch.Generator | None) -> Parameter:
    """1 where a branch of a unit holds the synapse from a presynaptic unit, else 0, `(O J, I)`: one branch for each."""
    which = torch.randint(branches, (units, 1, pre_size), generator=generator, device="cpu")
    held = which == torch.arange(branches).reshape(1, branches, 1)
    return Parameter(held.reshape(units * branches, pre_size).to(torch.float32), trainable=False, is_gain=False)
