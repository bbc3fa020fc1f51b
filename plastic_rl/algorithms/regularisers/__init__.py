"""Regularisers: what holds parameters to what earlier stages of training have taught, one file a method.

`REGULARISERS` holds them by the names that a config's `algorithm.regulariser` gives them.
"""

from __future__ import annotations

from plastic_rl.algorithms.regularisers.base import (
    REGULARISERS,
    GradientsOfSamples,
    Regulariser,
    quadratic_penalty,
    restored,
)
from plastic_rl.algorithms.regularisers.ewc import ElasticWeightConsolidation, fisher_information
from plastic_rl.algorithms.regularisers.synaptic_intelligence import SynapticIntelligence

REGULARISERS.register("none", Regulariser)
REGULARISERS.register("ewc", ElasticWeightConsolidation)
REGULARISERS.register("synaptic_intelligence", SynapticIntelligence)

__all__ = [
    "REGULARISERS",
    "ElasticWeightConsolidation",
    "GradientsOfSamples",
    "Regulariser",
    "SynapticIntelligence",
    "fisher_information",
    "quadratic_penalty",
    "restored",
]
