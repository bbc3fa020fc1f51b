"""Configuration of `plastic_units`: its layers, the synapses between them, and which choices bear each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, field_validator, model_validator

from plastic_rl.config import ConfigModel
from plastic_rl.networks.conductance import ConductanceConfig
from plastic_rl.networks.dale import Sign
from plastic_rl.networks.layer_norm import StartGain
from plastic_rl.networks.phases import PhasesConfig
from plastic_rl.networks.turnover import TurnoverConfig
from plastic_rl.neurons import COMPETITIONS, DENDRITES, INTRINSICS, NEURONS
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
    make_part,
    named_in,
)
from plastic_rl.plasticity.homeostasis import HOMEOSTASES
from plastic_rl.plasticity.parts import named_part

INPUT, RECURRENT, READOUT = "input", "recurrent", "readout"
EXCITATION, INHIBITION = "excitation", "inhibition"
ONTO = {INPUT: "hidden", RECURRENT: "hidden", INHIBITION: "hidden", EXCITATION: "inhibitory", READOUT: "output"}
"""The layers behind synapses."""
PLACES = {EXCITATION: "inhibitory.excitation", INHIBITION: "inhibitory.inhibition"}
"""Where synapses stand in the config, if not under their name."""
NeuronName = Annotated[Named, named_in(NEURONS)]
IntrinsicName = Annotated[Named, named_in(INTRINSICS)]
CompetitionName = Annotated[Named, named_in(COMPETITIONS)]


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
    trace_start: Literal["zero", "weight"] = Field(
        "zero",
        description="zero: the trace starts at 0 and adds to the start weights, W = W0 + alpha F; weight: it starts at "
        "the start weights and stands for them, W = alpha F, so that what a rule says of F holds of the whole weight.",
    )
    normalise: str = Field(
        "none",
        description="Scaling after each update; also of the start weights, where they do not change or the trace "
        "starts at them.",
    )
    sign: Sign = Field(
        "presynaptic",
        description="Sign that these synapses keep (Dale's law): their presynaptic units', where these have one "
        "(network.excitatory), or one for all; start weights of the other sign are mirrored.",
    )
    conductance: ConductanceConfig | None = Field(
        None,
        description="Reversal potentials, {excitatory: mV, inhibitory: mV}: positive weights are conductances to the "
        "one, negative ones to the other, open while a presynaptic unit is above 0; null: they bring currents.",
    )
    one_to_one: bool = Field(
        False,
        description="Whether unit o has one synapse only, from unit o (modulo their number) of the layer before, and "
        "keeps its weight.",
    )

    @model_validator(mode="after")
    def _a_rule_moves_what_is_named(self) -> Self:
        if self.alpha.is_zero:
            preset = RULES[self.rule]
            idle: tuple[str, ...] = ("term", "modulator", "eligibility", "bound", "metaplasticity", "consolidation")
            idle += () if make_part(HOMEOSTASES, self.homeostasis).scales else ("homeostasis",)
            named = [name for name in idle if getattr(self, name) != getattr(preset, name)]
            if named:
                raise ValueError(
                    f"under the rule {self.rule!r} weights do not change, so {', '.join(named)} would do nothing; "
                    "name a rule that changes them, or give alpha"
                )
            if self.trace_start == "weight":
                raise ValueError(
                    f"trace_start: under the rule {self.rule!r} there is no trace to start at the weights; name a rule "
                    "that changes them, or use trace_start: zero"
                )
        return self

    @model_validator(mode="after")
    def _one_synapse_each_stays(self) -> Self:
        if self.one_to_one and (not self.alpha.is_zero or self.weight is None or self.weight.trainable):
            raise ValueError(
                "one_to_one synapses stay as they are: use rule: fixed, and a weight with trainable: false"
            )
        if self.one_to_one and (self.structure != "none" or self.homeostasis != "none"):
            raise ValueError("one_to_one synapses stay as they are: leave structure and homeostasis out")
        return self

    @property
    def normalises_start(self) -> bool:
        """Whether start weights are normalised: where they do not change, or the trace starts at them."""
        # What a frozen rule would normalise in its trace stays out of W0.
        asked_of_fixed = self.alpha.is_zero and self.normalise != RULES[self.rule].normalise
        return self.normalise != "none" and (asked_of_fixed or self.trace_start == "weight")

    def start_weight(self, pre_size: int) -> GainConfig:
        """How start weights are drawn."""
        bound = (3 / pre_size) ** 0.5
        return self.weight or GainConfig(granularity="synapse", low=-bound, high=bound)

    def start(self, post_size: int, pre_size: int, generator: torch.Generator | None) -> Parameter:
        """W0, `(O, I)`, or `(1, 1)` and `(O, 1)` where it is one number for all or for each unit."""
        start = self.start_weight(pre_size).draw(post_size, pre_size, generator, is_gain=False)
        if not self.one_to_one:
            return start
        own = torch.arange(post_size).unsqueeze(-1) % pre_size == torch.arange(pre_size)
        return replace(start, value=start.value * own)


class ReadoutConfig(ConnectionConfig):
    """Populations of units, one for each action: their outputs are the preferences among actions."""

    neuron: NeuronName = Field("lif", description="What a readout unit does with its input.")
    intrinsic: IntrinsicName = Field("none", description="How a readout unit's excitability adapts.")
    competition: CompetitionName = Field("none", description="Which readout units put something out (of rates).")
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


class InhibitoryConfig(ConfigModel):
    """A population of inhibitory units, which hidden units reach, and which reach them, a substep later."""

    size: int = Field(ge=1, description="Number of inhibitory units.")
    neuron: NeuronName = Field("lif", description="What an inhibitory unit does with its input.")
    intrinsic: IntrinsicName = Field("none", description="How an inhibitory unit's excitability adapts.")
    competition: CompetitionName = Field("none", description="Which inhibitory units put something out (of rates).")
    excitation: ConnectionConfig = Field(ConnectionConfig(), description="Synapses from the hidden units onto them.")
    inhibition: ConnectionConfig = Field(
        ConnectionConfig(), description="Synapses from them onto the hidden units; their weights are never above 0."
    )


class PlasticUnitsConfig(PhasesConfig):
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
    competition: CompetitionName = Field("none", description="Which hidden units put something out (of rates).")
    layer_norm: StartGain = None
    bias: bool = Field(True, description="Whether each hidden unit has a bias, which the outer loop learns from 0.")
    hidden_size: int = Field(48, ge=0, description="Number of hidden units; 0: the input reaches the readout directly.")
    excitatory: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of the hidden units that are excitatory, the first ones; the others are inhibitory, and "
        "what they all send keeps their sign (Dale's law). null: synapses of both signs.",
    )
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
    inhibitory: InhibitoryConfig | None = Field(
        None, description="A population of inhibitory units beside the hidden ones; null: none."
    )
    readout: ReadoutConfig | None = Field(
        None, description="Units that choose the action; null: the action head reads the hidden units."
    )
    turnover: TurnoverConfig | None = Field(
        None, description="How hidden units that are of little use are replaced within a lifetime; null: none are."
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
        own = ("neuron", "intrinsic", "dendrites", "branches", "excitatory", "inhibitory", "competition", "bias")
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
    def _new_units_start_silent_and_are_learned(self) -> Self:
        if self.turnover is None:
            return self
        if self.hidden_size == 0:
            raise ValueError("turnover: there are no hidden units to replace; give hidden_size 1 or more")
        if self.readout is None:
            raise ValueError(
                "turnover needs a readout: the weights of the action head stay as they are within a lifetime, so that "
                "a new unit could neither start silent nor be learned; give readout, with a rule"
            )
        outgoing = {READOUT: self.readout, RECURRENT: self.recurrent}
        fixed = [name for name, rule in outgoing.items() if rule is not None and rule.alpha.is_zero]
        if fixed:
            raise ValueError(
                f"turnover needs outgoing synapses that learn, but those of {', '.join(fixed)} are fixed: a new unit "
                "would stay silent there for good; give them a rule"
            )
        others = [name for name in ("excitatory", "inhibitory") if getattr(self, name) is not None]
        for name, rule in {INPUT: self.input, **outgoing}.items():
            if rule is not None:
                others += [f"{name}.trace_start"] if rule.trace_start == "weight" else []
                others += [f"{name}.sign"] if rule.sign != "presynaptic" else []
                others += [f"{name}.one_to_one"] if rule.one_to_one else []
                others += [f"{name}.normalise"] if rule.normalises_start else []
        if others:
            raise ValueError(
                "turnover draws the start weights of new units anew, of both signs, beside a trace that starts at 0; "
                f"leave out {', '.join(others)}"
            )
        return self

    @model_validator(mode="after")
    def _branches_hold_their_own_synapses(self) -> Self:
        onto = [one for name, (one, _) in self.connections().items() if ONTO[name] == "hidden"]
        for rule in onto if self.branches > 1 else ():
            whole = [name for name in ("normalise", "structure") if getattr(rule, name) != "none"]
            whole += ["term delta"] if rule.term == "delta" else []
            if whole:
                raise ValueError(
                    f"{', '.join(whole)} would count the synapses that are on a unit's other branches; use branches: 1"
                )
        return self

    def connections(self) -> dict[str, tuple[ConnectionConfig, Named]]:
        """The synapses that there are, by name, and the neuron behind them."""
        every: dict[str, tuple[ConnectionConfig | None, Named]] = {}
        if self.hidden_size:
            every = {INPUT: (self.input, self.neuron), RECURRENT: (self.recurrent, self.neuron)}
        if self.inhibitory is not None:
            every[EXCITATION] = (self.inhibitory.excitation, self.inhibitory.neuron)
            every[INHIBITION] = (self.inhibitory.inhibition, self.neuron)
        if self.readout is not None:
            every[READOUT] = (self.readout, self.readout.neuron)
        return {name: (one, neuron) for name, (one, neuron) in every.items() if one is not None}

    def sign_of_units_before(self, name: str) -> float | None:
        """Share of excitatory ones among the units before synapses; None: they have no signs."""
        if name == INHIBITION:
            return 0.0
        return None if name == INPUT or self.hidden_size == 0 else self.excitatory

    @model_validator(mode="after")
    def _units_have_one_sign(self) -> Self:
        for name, (connection, _) in self.connections().items():
            share = self.sign_of_units_before(name)
            if share is not None and connection.sign != "presynaptic":
                whose = "they come from inhibitory units" if name == INHIBITION else f"network.excitatory is {share:g}"
                raise ValueError(
                    f"{PLACES.get(name, name)}.sign is {connection.sign}, but {whose}; leave one of them out"
                )
        return self

    @model_validator(mode="after")
    def _conductances_meet_a_voltage(self) -> Self:
        for name, (connection, neuron) in self.connections().items():
            if connection.conductance is None:
                continue
            place = PLACES.get(name, name)
            if not named_part(NEURONS, neuron).takes_conductance:
                takes = ", ".join(one for one in sorted(NEURONS) if NEURONS[one].takes_conductance)
                raise ValueError(
                    f"{place}.conductance: the neuron {neuron!r} has no voltage that a conductance could act on; use "
                    f"one of {takes}, or leave conductance out"
                )
            if ONTO[name] == "hidden" and (self.branches > 1 or self.dendrites != "linear"):
                raise ValueError(f"{place}.conductance: dendrites take currents; use branches: 1 and dendrites: linear")
        onto_hidden = [one for name, (one, _) in self.connections().items() if ONTO[name] == "hidden"]
        if self.layer_norm is not None and onto_hidden and all(one.conductance for one in onto_hidden):
            raise ValueError(
                "layer_norm scales currents, and all synapses onto the hidden units bring conductances; leave one of "
                "them out"
            )
        return self

    @model_validator(mode="after")
    def _rates_compete(self) -> Self:
        for where, layer in {"": self, "inhibitory.": self.inhibitory, "readout.": self.readout}.items():
            if layer is None or layer.competition == "none":
                continue
            if named_part(NEURONS, layer.neuron).spiking:
                rates = ", ".join(one for one in sorted(NEURONS) if not NEURONS[one].spiking)
                raise ValueError(
                    f"{where}competition ranks rates, and the spikes of {where}neuron {layer.neuron!r} are 0 or 1; use "
                    f"a neuron of rates ({rates}), or let spiking units inhibit each other"
                )
        summed = self.branches > 1 or self.dendrites != "linear"
        if summed and make_part(COMPETITIONS, self.competition).by_distance:
            raise ValueError(
                "competition.winner: distance needs units whose input is the sum of their synapses'; use branches: 1 "
                "and dendrites: linear, or winner: drive"
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
