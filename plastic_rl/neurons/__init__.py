"""What a unit does with its input: one file a model, each by name in `NEURONS`.

A network gives a neuron the drive of its units, and takes back rates or spikes; a neuron knows nothing of synapses.
"""

from __future__ import annotations

from plastic_rl.neurons.base import (
    NEURONS,
    CrossingNeuron,
    Drive,
    IntegratedNeuron,
    Neuron,
    ResettingNeuron,
    SpikingNeuron,
    exact_numbers,
    exponential_midpoint,
    number,
    smooth_spike,
    surrogate_spike,
)
from plastic_rl.neurons.binary import Binary
from plastic_rl.neurons.competition import COMPETITIONS, Competition, k_cap, winners
from plastic_rl.neurons.dendrites import DENDRITES, Dendrites
from plastic_rl.neurons.exponential import Exponential
from plastic_rl.neurons.fitzhugh_nagumo import FitzHughNagumo
from plastic_rl.neurons.hodgkin_huxley import HodgkinHuxley, nernst_potential
from plastic_rl.neurons.integrate_and_fire import LIF, AdaptiveLIF
from plastic_rl.neurons.intrinsic import INTRINSICS, Intrinsic
from plastic_rl.neurons.izhikevich import Izhikevich
from plastic_rl.neurons.linear_2d import Linear2D
from plastic_rl.neurons.morris_lecar import MorrisLecar
from plastic_rl.neurons.quadratic import Quadratic
from plastic_rl.neurons.rates import Linear, ReLU, Sigmoid, Tanh

__all__ = [
    "COMPETITIONS",
    "DENDRITES",
    "INTRINSICS",
    "LIF",
    "NEURONS",
    "AdaptiveLIF",
    "Binary",
    "Competition",
    "CrossingNeuron",
    "Dendrites",
    "Drive",
    "Exponential",
    "FitzHughNagumo",
    "HodgkinHuxley",
    "IntegratedNeuron",
    "Intrinsic",
    "Izhikevich",
    "Linear",
    "Linear2D",
    "MorrisLecar",
    "Neuron",
    "Quadratic",
    "ReLU",
    "ResettingNeuron",
    "Sigmoid",
    "SpikingNeuron",
    "Tanh",
    "exact_numbers",
    "exponential_midpoint",
    "k_cap",
    "nernst_potential",
    "number",
    "smooth_spike",
    "surrogate_spike",
    "winners",
]
