"""A rule is a choice of parts; the papers' rules are presets with names."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from plastic_rl.config import ConfigModel
from plastic_rl.errors import unknown_name_message
from plastic_rl.plasticity.bounds import BOUNDS, NORMALISATIONS
from plastic_rl.plasticity.eligibility import ELIGIBILITIES
from plastic_rl.plasticity.gains import GainConfig, GainOverride
from plastic_rl.plasticity.modulators import MODULATORS
from plastic_rl.plasticity.terms import TERMS
from plastic_rl.registry import Registry

_PARTS: dict[str, Registry[Any]] = {
    "term": TERMS,
    "modulator": MODULATORS,
    "eligibility": ELIGIBILITIES,
    "bound": BOUNDS,
    "normalise": NORMALISATIONS,
}


def check_part(field: str | None, value: str | None) -> str | None:
    """Return `value` if it names a part of the kind `field` (or is None).

    Raises:
        ValueError: Otherwise, with the nearest name.
    """
    registry = _PARTS[str(field)]
    if value is not None and value not in registry:
        raise ValueError(unknown_name_message(registry.kind, value, registry))
    return value


class SynapseConfig(ConfigModel):
    """One synapse, complete: `F <- normalise(bound(rho F, G S))`, used as `W0 + alpha F`."""

    term: str = Field("hebb", description="What pre- and postsynaptic activity do to a synapse: hebb, oja, abcd, ...")
    modulator: str = Field("constant", description="What gates the change: constant (eta), simple, fan_out, reward.")
    eligibility: str = Field("none", description="What the modulator gates: this step's change (none), or a trace.")
    bound: str = Field("none", description="What bounds the trace: none, hard_clip, soft_clip.")
    clip: float = Field(1.0, gt=0, description="The bound c of hard_clip.")
    normalise: str = Field("none", description="Scaling after each update: none, incoming_l2, outgoing_l2, ...")
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

    @field_validator(*_PARTS, mode="after")
    @classmethod
    def _known_part(cls, value: str, info: Any) -> str | None:
        return check_part(info.field_name, value)


class SynapseOverrides(ConfigModel):
    """A rule by name, and changes to its parts; a part left out stays as the rule has it."""

    rule: str = Field("backpropamine_simple", description="Name of a rule; the other keys change parts of it.")
    term: str | None = Field(
        None, description="What pre- and postsynaptic activity do to a synapse: hebb, oja, abcd, ..."
    )
    modulator: str | None = Field(None, description="What gates the change: constant (eta), simple, fan_out, reward.")
    eligibility: str | None = Field(
        None, description="What the modulator gates: this step's change (none), or a trace."
    )
    bound: str | None = Field(None, description="What bounds the trace: none, hard_clip, soft_clip.")
    clip: float | None = Field(None, gt=0, description="The bound c of hard_clip.")
    normalise: str | None = Field(
        None, description="Scaling after each update: none, incoming_l2, outgoing_l2, layer_maximum."
    )
    decay: bool | None = Field(None, description="Whether the trace decays by the factor 1 - eta in each step.")
    alpha: GainOverride = Field(GainOverride(), description="Changes to the gain alpha: how much of the trace is used.")
    eta: GainOverride = Field(GainOverride(), description="Changes to the plasticity rate eta.")
    eta_eligibility: GainOverride = Field(GainOverride(), description="Changes to the rate of the eligibility trace.")
    coefficients: GainOverride = Field(GainOverride(), description="Changes to the term's own coefficients.")

    @field_validator("rule", mode="after")
    @classmethod
    def _known_rule(cls, value: str) -> str:
        if value not in RULES:
            raise ValueError(unknown_name_message(RULES.kind, value, RULES))
        return value

    @field_validator(*_PARTS, mode="after")
    @classmethod
    def _known_part(cls, value: str | None, info: Any) -> str | None:
        return check_part(info.field_name, value)

    @model_validator(mode="after")
    def _resolves(self) -> Self:
        self.synapse()
        return self

    def synapse(self) -> SynapseConfig:
        """The rule with these changes.

        >>> SynapseOverrides(rule="oja", bound="hard_clip").synapse().bound
        'hard_clip'
        """
        rule = RULES[self.rule]
        changes: dict[str, Any] = {
            name: value
            for name in SynapseConfig.model_fields
            if (value := getattr(self, name)) is not None and not isinstance(value, GainOverride)
        }
        gains = {name: getattr(self, name).applied_to(getattr(rule, name)) for name in _GAIN_FIELDS}
        return rule.model_copy(update=changes | gains)


GAINS = ("alpha", "eta", "eta_eligibility")
_GAIN_FIELDS = (*GAINS, "coefficients")

RULES: Registry[SynapseConfig] = Registry("rule")
"""Papers' rules by name; each row of the docs' table of plastic recurrent rules is one."""

_ONE = GainConfig(granularity="scalar", low=1.0, high=1.0, trainable=True)
_WHOLE = GainConfig(granularity="scalar", low=1.0, high=1.0, trainable=False)
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
RULES.register("fixed", SynapseConfig(alpha=_ZERO, eta=_ZERO))
