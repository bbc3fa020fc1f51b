"""What a unit does with its input: one file a model, each by name in `NEURONS`.

A network gives a neuron the drive of its units, and takes back rates or spikes; a neuron knows nothing of synapses.
"""

from __future__ import annotations

from plastic_rl.neurons.base import (
    NEURONS,
    Drive,
    IntegratedNeuron,
    Neuron,
    SpikingNeuron,
    number,
    runge_kutta_4,
    smooth_spike,
    surrogate_spike,
)
from plastic_rl.neurons.integrate_and_fire import LIF, AdaptiveLIF
from plastic_rl.neurons.intrinsic import INTRINSICS, Intrinsic
from plastic_rl.neurons.rates import Linear, ReLU, Sigmoid, Tanh

__all__ = [
    "INTRINSICS",
    "LIF",
    "NEURONS",
    "AdaptiveLIF",
    "Drive",
    "IntegratedNeuron",
    "Intrinsic",
    "Linear",
    "Neuron",
    "ReLU",
    "Sigmoid",
    "SpikingNeuron",
    "Tanh",
    "number",
    "runge_kutta_4",
    "smooth_spike",
    "surrogate_spike",
]
