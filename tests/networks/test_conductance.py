"""Conductance synapses: where they leave a voltage, what shunts, and a step by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from plastic_rl.algorithms import PlasticA2C
from plastic_rl.errors import ConfigError
from plastic_rl.networks import PlasticUnits
from plastic_rl.networks.conductance import ConductanceConfig, carried, separated, together
from plastic_rl.neurons import NEURONS, Drive, nernst_potential
from plastic_rl.plasticity import KINETICS
from tests.networks.test_plastic_units import NEVER, constant, quiet, units

SILENT = {"name": "lif", "rest": -70.0, "reset": -75.0, "threshold": 900.0, "tau": 10.0, "resistance": 0.5}
"""A leaky unit that never spikes: E_L -70 mV, R .5."""
REVERSAL = {"excitatory": 0.0, "inhibitory": -80.0}


def membrane(weights: list[float], substeps: int = 1, **connection: Any) -> tuple[PlasticUnits, dict[str, Tensor]]:
    """One unit with a conductance from each of some channels."""
    own = {"conductance": REVERSAL, **connection}
    config = {"neuron": SILENT, "hidden_size": 1, "inputs": "features", "substeps": substeps, "input": own}
    network = units(config, inputs=5 + len(weights))
    return network, dict(network.named_parameters()) | {
        "synapses.input.weight": torch.tensor([weights], dtype=torch.float64)
    }


def voltage_after(network: PlasticUnits, params: dict[str, Tensor], channels: list[float], steps: int = 1) -> float:
    x = torch.tensor([[*channels, 0, 0, 0, 0, 0]], dtype=torch.float64)
    state = network.initial_state(1)
    with torch.no_grad():
        for _ in range(steps):
            _, state = network.step(params, x, quiet(), state, NEVER)
    return state["voltage.hidden"].item()


@pytest.mark.parametrize("weights", [[0.4, -1.2], [3.0, 0.0], [0.0, -5.0], [200.0, -100.0]])
def test_a_held_conductance_leaves_the_voltage_between_its_reversal_potentials(weights: list[float]) -> None:
    """`(E_L + R sum g E) / (1 + R sum g)`, approached by `exp(-t (1 + R sum g) / tau)`."""
    network, params = membrane(weights, substeps=400)
    excitatory, inhibitory = weights[0], -weights[1]
    leak = 1 + 0.5 * (excitatory + inhibitory)
    steady = (-70 + 0.5 * (excitatory * 0.0 + inhibitory * -80.0)) / leak
    assert voltage_after(network, params, [1.0, 1.0]) == pytest.approx(steady, abs=1e-6)
    network, params = membrane(weights)
    for steps in (1, 2, 5):
        expected = steady + (-70 - steady) * math.exp(-steps * leak / 10)
        assert voltage_after(network, params, [1.0, 1.0], steps) == pytest.approx(expected, abs=1e-9)


def test_shunting_inhibition_divides() -> None:
    """E_inh at rest: g_i adds nothing by itself, and divides what excitation leaves by `1 + R g_i / (1 + R g_e)`."""
    at_rest = {"conductance": {"excitatory": 0.0, "inhibitory": -70.0}}
    network, params = membrane([0.4, -2.0], substeps=400, **at_rest)
    alone, both = (voltage_after(network, params, [1.0, shunt]) + 70 for shunt in (0.0, 1.0))
    assert alone == pytest.approx(70 * 0.2 / 1.2, abs=1e-9)
    assert both == pytest.approx(alone / (1 + 1.0 / 1.2), abs=1e-9)
    assert voltage_after(network, params, [0.0, 1.0]) == pytest.approx(-70, abs=1e-9)
    # A current takes away the same at any excitation; a shunt takes the same share.
    current, params = membrane([0.4, -2.0], substeps=400, conductance=None)
    assert voltage_after(current, params, [1.0, 1.0]) == pytest.approx(-70 + 0.5 * (0.4 - 2.0), abs=1e-9)


def test_a_step_by_hand() -> None:
    """Channels 2 and .5, weights .4 and -1.2: g_e .8, g_i .6; leak 1.7, u_inf (-70 + .5 * .6 * -80) / 1.7."""
    network, params = membrane([0.4, -1.2])
    steady = (-70 - 24) / 1.7
    expected = steady + (-70 - steady) * math.exp(-0.17)
    assert voltage_after(network, params, [2.0, 0.5]) == pytest.approx(expected, abs=1e-12)
    # Below 0 no conductance opens: as if the channel were 0.
    assert voltage_after(network, params, [2.0, -3.0]) == voltage_after(network, params, [2.0, 0.0])


def test_currents_and_conductances_add_up_beside_each_other() -> None:
    """The bias is a current: u_inf `(E_L + R (b + sum g E)) / (1 + R sum g)`; recurrent conductances join those of
    the input."""
    own = {"conductance": REVERSAL}
    config = {"neuron": SILENT, "hidden_size": 2, "inputs": "features", "input": own, "recurrent": {**own}}
    network = units(config, inputs=6)
    params = dict(network.named_parameters())
    params["units.hidden.bias"] = torch.tensor([4.0, 0.0], dtype=torch.float64)
    params["synapses.input.weight"] = torch.tensor([[0.4], [0.0]], dtype=torch.float64)
    params["synapses.recurrent.weight"] = torch.tensor([[0.0, -1.2], [0.0, 0.0]], dtype=torch.float64)
    x = torch.tensor([[1.0, 0, 0, 0, 0, 0]], dtype=torch.float64)
    state = network.initial_state(1)
    state["activity.hidden"] = torch.tensor([[0.0, 1.0]], dtype=torch.float64)  # the second unit has just spiked
    with torch.no_grad():
        _, state = network.step(params, x, quiet(), state, NEVER)
    leak = 1 + 0.5 * 1.6
    steady = (-70 + 0.5 * (4 + 1.2 * -80)) / leak
    expected = steady + (-70 - steady) * math.exp(-0.1 * leak)
    assert state["voltage.hidden"][0].tolist() == pytest.approx([expected, -70], abs=1e-12)


def test_a_spike_opens_a_conductance_that_follows_its_kinetics() -> None:
    kinetics = {"name": "exponential", "tau_synapse": 5.0}
    network, params = membrane([0.4], kinetics=kinetics)
    part = KINETICS["exponential"](1.0, tau_synapse=5.0)
    numbers = {"tau_synapse": torch.tensor([5.0], dtype=torch.float64)}
    neuron = NEURONS["lif"](1.0, **{name: one for name, one in SILENT.items() if name != "name"})  # type: ignore[arg-type]
    own = {name: one.value.double() for name, one in neuron.parameters(1).items()}
    released = {"conductance": torch.zeros(1, 1, dtype=torch.float64)}
    unit = {"voltage": torch.full((1, 1), -70.0).double(), "refractory_left": torch.zeros(1, 1).double()}
    state = network.initial_state(1)
    for spike in (1.0, 0.0, 0.0, 1.0):
        x = torch.tensor([[spike, 0, 0, 0, 0, 0]], dtype=torch.float64)
        with torch.no_grad():
            _, state = network.step(params, x, quiet(), state, NEVER)
        seen, released = part.step(numbers, x[:, :1], released)
        _, unit = neuron.step(own, Drive(0.4 * seen * 0.0, 0.4 * seen), unit)
        assert state["voltage.hidden"].item() == pytest.approx(unit["voltage"].item(), abs=1e-12)
    assert unit["voltage"].item() > -68


def test_potentials_of_ions_are_reversal_potentials() -> None:
    """An excitatory synapse that lets sodium alone pass, wide open: the voltage is sodium's Nernst potential."""
    sodium = nernst_potential(440, 50)
    network, params = membrane([1e6], conductance={"excitatory": sodium, "inhibitory": -80.0})
    assert voltage_after(network, params, [1.0]) == pytest.approx(sodium, abs=1e-3)


def test_the_parts_of_a_drive() -> None:
    weights = torch.tensor([[[2.0, -3.0]]])
    seen = torch.tensor([[[1.0, 0.5]], [[-1.0, 2.0]]])
    drive = carried(weights, ConductanceConfig(excitatory=10, inhibitory=-4))(seen)
    assert drive.current.flatten().tolist() == [2 * 10 - 1.5 * 4, -6 * 4]
    assert drive.conductance is not None
    assert drive.conductance.flatten().tolist() == [3.5, 6.0]
    assert carried(weights, None)(seen).current.flatten().tolist() == [0.5, -8.0]
    one, two = Drive(torch.ones(1)), Drive(torch.ones(1), 2 * torch.ones(1))
    currents, conducted = separated([one, two, one, two])
    assert (currents.item(), together(currents, conducted)) == (2.0, Drive(torch.full((1,), 4.0), torch.full((1,), 4)))
    currents, conducted = separated([two])
    assert currents.tolist() == [0.0]
    assert separated([one]) == (torch.ones(1), None)


@pytest.mark.parametrize("neuron", sorted(name for name in NEURONS if not NEURONS[name].takes_conductance))
def test_neurons_without_a_voltage_refuse_conductances(neuron: str) -> None:
    own = {"conductance": REVERSAL}
    with pytest.raises(ConfigError, match=rf"input\.conductance: the neuron '{neuron}' has no voltage .* use one of"):
        units({"neuron": neuron, "input": own})
    with pytest.raises(ConfigError, match=rf"readout\.conductance: the neuron '{neuron}' has no voltage"):
        units({"neuron": "lif", "readout": {"neuron": neuron, **own}})
    with pytest.raises(ConfigError, match=rf"inhibitory\.excitation\.conductance: the neuron '{neuron}' has no"):
        units({"neuron": "lif", "inhibitory": {"size": 2, "neuron": neuron, "excitation": own}})


@pytest.mark.parametrize("neuron", sorted(name for name in NEURONS if NEURONS[name].takes_conductance))
def test_a_wide_open_conductance_holds_every_neuron_with_a_voltage_near_its_potential(neuron: str) -> None:
    """-60 mV, below every threshold (Morris & Lecar's rest is there), whatever the model's own currents."""
    own = {"conductance": {"excitatory": -60.0, "inhibitory": -60.0}, "weight": constant(1e4)}
    network = units({"neuron": neuron, "hidden_size": 1, "inputs": "features", "input": own, "substeps": 20}, inputs=6)
    x = torch.tensor([[1.0, 0, 0, 0, 0, 0]], dtype=torch.float64)
    with torch.no_grad():
        features, state = network.step(dict(network.named_parameters()), x, quiet(), network.initial_state(1), NEVER)
    assert state["voltage.hidden"].item() == pytest.approx(-60, abs=0.1)
    assert features.item() == 0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"conductance": {"excitatory": 0}}, r"input\.conductance\.inhibitory: missing"),
        ({"conductance": {"excitatory": 0, "inhibitory": -2000}}, r"input\.conductance\.inhibitory: must be"),
        ({"conductance": REVERSAL, "branches": 2}, r"input\.conductance: dendrites take currents; use branches: 1"),
    ],
)
def test_what_cannot_be_is_refused(config: dict[str, Any], message: str) -> None:
    branches = config.pop("branches", 1)
    with pytest.raises(ConfigError, match=message):
        units({"neuron": "lif", "branches": branches, "input": config})


def test_a_network_of_conductances_acts_and_learns_in_an_environment() -> None:
    """Poisson input, four units in five excitatory: voltages stay between the potential of inhibition and threshold."""
    potentials = {"excitatory": 70.0, "inhibitory": -10.0}
    strong = {"granularity": "synapse", "low": 0.0, "high": 0.3}
    network = {
        "kind": "plastic_units",
        "neuron": "lif",
        "hidden_size": 10,
        "excitatory": 0.8,
        "substeps": 10,
        "on_off": True,
        "coding": "poisson",
        "input": {"kinetics": "exponential", "sign": "excitatory", "weight": strong, "conductance": potentials},
        "recurrent": {"rule": "stdp", "kinetics": "alpha", "conductance": potentials},
    }
    agent = PlasticA2C(
        "PlasticPolicy", "plastic_rl/ReversalBandit-v0", n_envs=3, policy_kwargs={"network": network}, seed=1
    )
    before = agent.policy.network.get_parameter("synapses.input.weight").clone()
    agent.learn(60)
    assert not torch.equal(agent.policy.network.get_parameter("synapses.input.weight"), before)
    assert agent.env is not None
    observations, state, starts = agent.env.reset(), None, np.ones(3, dtype=bool)
    voltages, rates = [], []
    for _ in range(30):
        actions, state = agent.predict(observations, state=state, episode_start=starts)
        observations, _, starts, _ = agent.env.step(actions)
        voltages.append(state["voltage.hidden"])
        rates.append(state["activity.hidden"])
    met = torch.stack(voltages)
    assert -10 <= met.min().item() <= met.max().item() < 15
    assert met.max().item() > 5
    assert 0.05 < torch.stack(rates).mean().item() < 0.6
    assert bool(state["trace.recurrent"].any())
