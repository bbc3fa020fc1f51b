"""A rule is a choice of parts; the papers' rules are presets with names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from plastic_rl.config import ConfigModel, merge
from plastic_rl.errors import unknown_name_message
from plastic_rl.plasticity.bounds import BOUNDS, NORMALISATIONS
from plastic_rl.plasticity.calcium import Calcium
from plastic_rl.plasticity.consolidation import CONSOLIDATIONS
from plastic_rl.plasticity.eligibility import ELIGIBILITIES
from plastic_rl.plasticity.gains import RATE, GainConfig, Range
from plastic_rl.plasticity.homeostasis import HOMEOSTASES
from plastic_rl.plasticity.metaplasticity import METAPLASTICITIES
from plastic_rl.plasticity.modulators import MODULATORS
from plastic_rl.plasticity.parts import Named, check_named, named_part
from plastic_rl.plasticity.presynaptic import KINETICS, SHORT_TERM
from plastic_rl.plasticity.stdp import InhibitorySTDP, OneStepSTDP, PairSTDP, TripletSTDP
from plastic_rl.plasticity.structure import STRUCTURES
from plastic_rl.plasticity.terms import TERMS
from plastic_rl.registry import Registry

TERMS.register("stdp_pair", PairSTDP)
TERMS.register("stdp_one_step", OneStepSTDP)
TERMS.register("stdp_triplet", TripletSTDP)
TERMS.register("stdp_inhibitory", InhibitorySTDP)
TERMS.register("calcium", Calcium)

PARTS: dict[str, Registry[Any]] = {
    "term": TERMS,
    "modulator": MODULATORS,
    "eligibility": ELIGIBILITIES,
    "bound": BOUNDS,
    "normalise": NORMALISATIONS,
    "metaplasticity": METAPLASTICITIES,
    "homeostasis": HOMEOSTASES,
    "consolidation": CONSOLIDATIONS,
    "structure": STRUCTURES,
    "short_term": SHORT_TERM,
    "kinetics": KINETICS,
}
"""What the keys of a rule may name, and those of the units before its synapses."""


class SynapseConfig(ConfigModel):
    """One synapse, complete: `F <- consolidate(homeostasis(normalise(bound(rho F, G S))))`, `W = M (W0 + alpha F)`."""

    term: Named = Field("hebb", description="What pre- and postsynaptic activity do to a synapse.")
    modulator: Named = Field("constant", description="What gates the change; constant: eta alone.")
    eligibility: Named = Field("none", description="What the modulator gates: this step's change (none), or a trace.")
    bound: str = Field("none", description="What bounds the trace.")
    clip: float = Field(1.0, gt=0, description="The bound c of hard_clip, non_negative and soft_non_negative.")
    normalise: str = Field("none", description="Scaling after each update.")
    metaplasticity: Named = Field("none", description="How plastic a synapse still is after what it has been through.")
    homeostasis: Named = Field(
        "none", description="What holds the activity of units, or the strength of their synapses."
    )
    consolidation: Named = Field(
        "none", description="Slow variables that remember what the trace was, and pull it back."
    )
    structure: Named = Field("none", description="Which synapses there are: all (none), a share, or a changing share.")
    decay: bool = Field(False, description="Whether the trace decays by the factor 1 - eta in each step.")
    alpha: GainConfig = Field(
        GainConfig(granularity="synapse", low=-0.01, high=0.01, trainable=True),
        description="Plasticity gain: how much of the trace a synapse uses.",
    )
    eta: GainConfig = Field(
        GainConfig(granularity="scalar", low=0.1, high=0.1, trainable=True),
        description="Plasticity rate, where the modulator or the decay uses one.",
    )
    eta_eligibility: GainConfig = Field(
        GainConfig(granularity="scalar", low=0.1, high=0.1, trainable=True),
        description="Rate of the eligibility trace, where there is one.",
    )
    coefficients: GainConfig = Field(
        GainConfig(granularity="scalar", low=0.0, high=0.0, trainable=True),
        description="Granularity and start values of the term's own coefficients, where it has some (abcd, general).",
    )
    anti_hebbian: bool = Field(False, description="Whether eta may be negative: what fires together then disconnects.")

    @field_validator(
        *("term", "modulator", "eligibility", "metaplasticity", "homeostasis", "consolidation", "structure"),
        mode="after",
    )
    @classmethod
    def _known_part(cls, value: Named, info: Any) -> Named:
        return check_named(PARTS[str(info.field_name)], value)

    @field_validator("bound", "normalise", mode="after")
    @classmethod
    def _known_function(cls, value: str, info: Any) -> str:
        registry = PARTS[str(info.field_name)]
        if value not in registry:
            raise ValueError(unknown_name_message(registry.kind, value, registry))
        return value

    @model_validator(mode="after")
    def _rates_start_in_range(self) -> Self:
        if self.decay and self.anti_hebbian:
            raise ValueError("a trace that decays by 1 - eta needs an eta of 0 or more; set anti_hebbian to false")
        rates = {"eta": self.uses_eta, "eta_eligibility": named_part(ELIGIBILITIES, self.eligibility).uses_eta}
        for name in (name for name, used in rates.items() if used):
            gain, (low, high) = getattr(self, name), self.eta_range if name == "eta" else RATE
            if not low <= gain.low <= gain.high <= high:
                hint = " (below 0: set anti_hebbian to true)" if name == "eta" and gain.low < 0 <= low else ""
                raise ValueError(f"{name} must start from {low:g} to {high:g}, got {gain.low:g} to {gain.high:g}{hint}")
        return self

    @model_validator(mode="after")
    def _grows_by_what_there_is(self) -> Self:
        by_eligibility = isinstance(self.structure, dict) and self.structure.get("grow") == "eligibility"
        if by_eligibility and not named_part(ELIGIBILITIES, self.eligibility).has_trace:
            raise ValueError(
                f"structure.grow: synapses grow by their eligibility, but eligibility is {self.eligibility!r}; use one "
                "with a trace (trace, spike_trace), or grow: random"
            )
        return self

    @property
    def uses_eta(self) -> bool:
        """Whether the rule reads eta at all."""
        return named_part(MODULATORS, self.modulator).uses_eta or self.decay

    @property
    def eta_range(self) -> Range:
        """Valid range of eta."""
        if self.decay:
            return RATE
        limit = named_part(MODULATORS, self.modulator).eta_limit
        return (-limit if self.anti_hebbian else 0.0, limit)


class RuleConfig(SynapseConfig):
    """A rule by name, and changes to its parts; what is left out is as the rule has it."""

    rule: str = Field("backpropamine_simple", description="Name of a rule; the other keys change parts of it.")

    @model_validator(mode="before")
    @classmethod
    def _from_rule(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        name = value.get("rule", cls.model_fields["rule"].default)
        known = name if isinstance(name, str) and name in RULES else cls.model_fields["rule"].default
        return merge(cls.preset(known, value).model_dump(), value)

    @model_serializer(mode="wrap")
    def _rule_and_changes(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Written out whole, parts would hide what another name of a rule would change.
        written: dict[str, Any] = handler(self)
        rule = self.preset(self.rule, written)
        same = {name for name in SynapseConfig.model_fields if getattr(self, name) == getattr(rule, name)}
        return {name: value for name, value in written.items() if name not in same}

    @classmethod
    def preset(cls, rule: str, changes: Mapping[str, Any]) -> SynapseConfig:
        """The synapse that `changes` are changes of."""
        return RULES[rule]

    @field_validator("rule", mode="after")
    @classmethod
    def _known_rule(cls, value: str) -> str:
        if value not in RULES:
            raise ValueError(unknown_name_message(RULES.kind, value, RULES))
        return value


RULES: Registry[SynapseConfig] = Registry("rule")
"""Papers' rules by name; each row of the docs' table of plastic recurrent rules is one."""

_ONE = GainConfig(granularity="scalar", low=1.0, high=1.0, trainable=True)
_WHOLE = GainConfig(granularity="scalar", low=1.0, high=1.0, trainable=False)
_INHIBITORY = GainConfig(granularity="scalar", low=-1.0, high=-1.0, trainable=False)
_SLOW = GainConfig(granularity="scalar", low=0.01, high=0.01, trainable=True)
_ZERO = GainConfig(granularity="scalar", low=0.0, high=0.0, trainable=False)

RULES.register("differentiable_plasticity", SynapseConfig(decay=True))
RULES.register("oja", SynapseConfig(term="oja"))
RULES.register("hard_clip", SynapseConfig(bound="hard_clip"))
RULES.register("soft_clip", SynapseConfig(bound="soft_clip"))
RULES.register("backpropamine_simple", SynapseConfig(modulator="simple", bound="hard_clip"))
RULES.register("backpropamine_fan_out", SynapseConfig(modulator="fan_out", bound="hard_clip"))
RULES.register("backpropamine_retroactive", SynapseConfig(modulator="simple", eligibility="trace", bound="hard_clip"))
RULES.register("reward_gated", SynapseConfig(modulator="reward", bound="hard_clip", eta=_ONE))
RULES.register(
    "reward_gated_retroactive", SynapseConfig(modulator="reward", eligibility="trace", bound="hard_clip", eta=_ONE)
)
RULES.register(
    "abcd",
    SynapseConfig(
        term="abcd",
        normalise="layer_maximum",
        alpha=_WHOLE,
        eta=GainConfig(granularity="synapse", low=0.1, high=0.1, trainable=True),
        coefficients=GainConfig(granularity="synapse", low=-0.1, high=0.1, trainable=True),
    ),
)
# The next three would grow without bound where pre, post and weight feed each other; BCM's threshold sees to itself.
RULES.register("general", SynapseConfig(term="general", bound="hard_clip"))
RULES.register("presynaptically_gated", SynapseConfig(term="presynaptically_gated", bound="hard_clip"))
RULES.register("delta", SynapseConfig(term="delta", bound="hard_clip"))
RULES.register("bcm", SynapseConfig(term="bcm"))
RULES.register("instar", SynapseConfig(term="instar", alpha=_WHOLE, eta=_SLOW))
RULES.register("covariance", SynapseConfig(term="covariance", bound="hard_clip"))
RULES.register("stdp", SynapseConfig(term="stdp_pair", bound="hard_clip", alpha=_WHOLE, eta=_SLOW))
RULES.register(
    "r_stdp",
    SynapseConfig(
        term="stdp_pair", eligibility="spike_trace", modulator="reward", bound="hard_clip", alpha=_WHOLE, eta=_SLOW
    ),
)
RULES.register("triplet", SynapseConfig(term="stdp_triplet", bound="hard_clip", alpha=_WHOLE, eta=_ONE))
RULES.register(
    "inhibitory_stdp", SynapseConfig(term="stdp_inhibitory", bound="non_negative", alpha=_INHIBITORY, eta=_SLOW)
)
RULES.register(
    "sorn",
    SynapseConfig(
        term="stdp_one_step",
        bound="non_negative",
        normalise="incoming_l1",
        alpha=_WHOLE,
        eta=GainConfig(granularity="scalar", low=0.001, high=0.001, trainable=True),
    ),
)
RULES.register("calcium", SynapseConfig(term="calcium", bound="non_negative", alpha=_WHOLE, eta=_ONE))
RULES.register("fixed", SynapseConfig(alpha=_ZERO, eta=_ZERO))
