"""What changes a synapse: terms, modulators, eligibility, bounds, normalisations, each by name in a registry.

Beside them, what stands between a unit's output and its synapses: short-term plasticity and kinetics.

A rule (`SynapseConfig`) chooses one part of each kind; `Synapse` puts them together; the papers' rules are in `RULES`.
Everything that changes within a lifetime is state that is passed in and out; everything that the outer loop changes is
a parameter. Shapes end in `(B, O)`, `(B, I)` or `(B, O, I)`: a population axis may lead.
"""

from __future__ import annotations

from plastic_rl.plasticity.bounds import BOUNDS, NORMALISATIONS
from plastic_rl.plasticity.eligibility import ELIGIBILITIES, Eligibility
from plastic_rl.plasticity.gains import LOGARITHM, UNBOUNDED, GainConfig, Parameter, Range
from plastic_rl.plasticity.modulators import MODULATORS, Modulator
from plastic_rl.plasticity.parts import (
    Curves,
    Named,
    Part,
    ResetScope,
    Setting,
    StateEntry,
    make_part,
    momentary,
    named_in,
    starting_at,
)
from plastic_rl.plasticity.presynaptic import KINETICS, SHORT_TERM, Presynaptic
from plastic_rl.plasticity.rules import PARTS, RULES, RuleConfig, SynapseConfig
from plastic_rl.plasticity.stdp import PairSTDP
from plastic_rl.plasticity.synapse import Synapse, after_reward
from plastic_rl.plasticity.terms import TERMS, Term

__all__ = [
    "BOUNDS",
    "ELIGIBILITIES",
    "KINETICS",
    "LOGARITHM",
    "MODULATORS",
    "NORMALISATIONS",
    "PARTS",
    "RULES",
    "SHORT_TERM",
    "TERMS",
    "UNBOUNDED",
    "Curves",
    "Eligibility",
    "GainConfig",
    "Modulator",
    "Named",
    "PairSTDP",
    "Parameter",
    "Part",
    "Presynaptic",
    "Range",
    "ResetScope",
    "RuleConfig",
    "Setting",
    "StateEntry",
    "Synapse",
    "SynapseConfig",
    "Term",
    "after_reward",
    "make_part",
    "momentary",
    "named_in",
    "starting_at",
]
