"""What every neuron keeps to, whatever its model; one that is registered is tried here."""

from __future__ import annotations

import inspect
import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from plastic_rl.config.signatures import arguments_of
from plastic_rl.errors import ConfigError
from plastic_rl.neurons import NEURONS, Drive, Neuron, SpikingNeuron, smooth_spike
from plastic_rl.plasticity import Part
from plastic_rl.plasticity.parts import ranges

NAMES = sorted(NEURONS)
SPIKING = [name for name in NAMES if NEURONS[name].spiking]
ROWS, UNITS, POPULATION = 3, 4, 2
STRENGTH = {"fitzhugh_nagumo": 1.0, "linear_2d": 1.0, "tanh": 1.0, "sigmoid": 1.0, "relu": 1.0, "linear": 1.0}
"""Of drives that make a unit do something; the others take tens of mV or uA/cm2."""


def make(name: str, step_size: float = 1.0, **options: Any) -> Neuron:
    return NEURONS[name](step_size, **options)


def longest(name: str) -> float:
    limit = NEURONS[name].largest_step
    return limit if math.isfinite(limit) else 50.0


def numbers(neuron: Neuron, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return {name: one.value.to(dtype) for name, one in neuron.parameters(UNITS).items()}


def newborn(
    neuron: Neuron, params: dict[str, Tensor], shape: tuple[int, ...], dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    state = {}
    for name, entry in neuron.state_entries(UNITS).items():
        start = params[entry.start].unsqueeze(-2) if isinstance(entry.start, str) else torch.tensor(entry.start)
        state[name] = start.to(dtype).expand(*shape, UNITS).clone()
    return state


def drives(name: str, steps: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[Drive]:
    """Random drives, with a conductance where the neuron takes one."""
    generator, strength = torch.Generator().manual_seed(0), STRENGTH.get(name, 60.0)
    shapes = [*shape, UNITS]
    found = []
    for _ in range(steps):
        current = strength * (2 * torch.rand(shapes, generator=generator, dtype=dtype) - 0.3)
        conductance = torch.rand(shapes, generator=generator, dtype=dtype)
        found.append(Drive(current, conductance if NEURONS[name].takes_conductance else None))
    return found


def run(
    neuron: Neuron, params: dict[str, Tensor], drive: list[Drive], state: dict[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    outputs = []
    for one in drive:
        output, state = neuron.step(params, one, state)
        outputs.append(output)
    return torch.stack(outputs), state


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_shapes_types_and_outputs(name: str, dtype: torch.dtype) -> None:
    neuron = make(name)
    params = numbers(neuron, dtype)
    state = newborn(neuron, params, (ROWS,), dtype)
    outputs, after = run(neuron, params, drives(name, 20, (ROWS,), dtype), state)
    assert tuple(outputs.shape) == (20, ROWS, UNITS)
    assert outputs.dtype == dtype
    assert after.keys() == state.keys() == neuron.state_entries(UNITS).keys()
    assert all((tuple(entry.shape), entry.dtype) == ((ROWS, UNITS), dtype) for entry in after.values())
    if neuron.spiking:
        assert set(outputs.unique().tolist()) <= {0.0, 1.0}
    else:
        assert len(outputs.unique()) > 20


@pytest.mark.parametrize("name", NAMES)
def test_a_population_is_its_individuals_stacked(name: str) -> None:
    neuron = make(name)
    base, limits = numbers(neuron, torch.float64), ranges(type(neuron.options))
    each = [
        {key: (value * factor).clamp(*limits[key]) for key, value in base.items()}
        for factor in torch.linspace(0.97, 1.0, POPULATION, dtype=torch.float64)
    ]
    stacked = {key: torch.stack([individual[key] for individual in each]) for key in base}
    state = newborn(neuron, stacked, (POPULATION, ROWS), torch.float64)
    drive = drives(name, 12, (POPULATION, ROWS), torch.float64)
    outputs, after = run(neuron, stacked, drive, state)
    for index in range(POPULATION):
        own = [Drive(*(None if entry is None else entry[index] for entry in one)) for one in drive]
        alone, left = run(neuron, each[index], own, {key: entry[index] for key, entry in state.items()})
        torch.testing.assert_close(outputs[:, index], alone, atol=1e-9, rtol=1e-9)
        for key, entry in left.items():
            torch.testing.assert_close(after[key][index], entry, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_arguments_are_never_modified(name: str) -> None:
    neuron = make(name)
    params = numbers(neuron)
    state, (drive,) = newborn(neuron, params, (ROWS,)), drives(name, 1, (ROWS,))
    before = {key: entry.clone() for key, entry in (params | state).items()}
    current, conductance = drive.current.clone(), None if drive.conductance is None else drive.conductance.clone()
    neuron.step(params, drive, state)
    assert all(torch.equal(entry, before[key]) for key, entry in (params | state).items())
    assert torch.equal(drive.current, current)
    assert drive.conductance is None or (conductance is not None and torch.equal(drive.conductance, conductance))


@pytest.mark.parametrize("name", NAMES)
def test_it_starts_where_it_stays_without_a_drive(name: str) -> None:
    neuron = make(name)
    params = numbers(neuron, torch.float64)
    state = newborn(neuron, params, (1,), torch.float64)
    outputs, after = run(neuron, params, [Drive(torch.zeros(1, UNITS, dtype=torch.float64))] * 30, state)
    assert outputs.unique().tolist() == [0.5 if name == "sigmoid" else 0.0]
    for key, entry in after.items():
        torch.testing.assert_close(entry, state[key], atol=1e-4, rtol=0)


@pytest.mark.parametrize("strength", [1e-3, 1e3])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", NAMES)
def test_the_state_stays_finite_at_the_longest_step(name: str, sign: int, strength: float) -> None:
    neuron = make(name, longest(name))
    params = numbers(neuron)
    state = newborn(neuron, params, (ROWS,))
    held = torch.full((ROWS, UNITS), strength)
    conductance = held if neuron.takes_conductance else None
    leaf = (sign * held).requires_grad_()
    for one in (Drive(leaf), Drive(leaf, conductance)):
        outputs, after = run(neuron, params, [one] * 60, state)
        assert bool(outputs.isfinite().all())
        assert all(bool(entry.isfinite().all()) for entry in after.values())
        total = outputs.sum() + sum(entry.sum() for entry in after.values())
        assert bool(torch.autograd.grad(total, leaf)[0].isfinite().all())


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_the_drive(name: str) -> None:
    neuron = make(name)
    params = numbers(neuron)
    current = torch.full((ROWS, UNITS), 0.3 * STRENGTH.get(name, 10.0), requires_grad=True)
    outputs, _ = run(neuron, params, [Drive(current)] * 3, newborn(neuron, params, (ROWS,)))
    (gradient,) = torch.autograd.grad(outputs.sum(), current)
    assert bool((gradient > 0).all())


@pytest.mark.parametrize(
    ("name", "conductance"), [(name, one) for name in NAMES for one in sorted({False, NEURONS[name].takes_conductance})]
)
def test_gradients_are_those_of_the_network_with_smooth_spikes(name: str, conductance: bool) -> None:
    options = {"differentiate_reset": True} if "differentiate_reset" in arguments_of(NEURONS[name], Part) else {}
    neuron = make(name, min(1.0, 4 * NEURONS[name].largest_step), **options)
    if isinstance(neuron, SpikingNeuron):
        neuron.spike_function = smooth_spike
    params = numbers(neuron, torch.float64)
    generator = torch.Generator().manual_seed(1)
    start = newborn(neuron, params, (1,), torch.float64)
    moved = {"voltage": 5.0, "refractory_left": 0.1}  # off the kinks that some start at
    leaves = [one + moved.get(key, 0.0) for key, one in start.items()] + list(params.values())
    currents = STRENGTH.get(name, 60.0) * torch.rand(5, 1, UNITS, generator=generator, dtype=torch.float64)
    held = torch.rand(5, 1, UNITS, generator=generator, dtype=torch.float64) if conductance else None

    def outcome(drive: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        state = dict(zip(start, values[: len(start)], strict=True))
        own = dict(zip(params, values[len(start) :], strict=True))
        each = [Drive(one, None if held is None else held[step]) for step, one in enumerate(drive)]
        outputs, after = run(neuron, own, each, state)
        return outputs, *after.values()

    tried = [one.clone().requires_grad_() for one in [currents, *leaves]]
    assert torch.autograd.gradcheck(outcome, tried, eps=1e-7, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", SPIKING)
def test_the_surrogate_gradient_falls_with_the_distance_as_its_slope_says(name: str) -> None:
    neuron = make(name, surrogate_slope=3.0)
    assert isinstance(neuron, SpikingNeuron)
    distance = torch.tensor([-2.0, 0.0, 1.0], requires_grad=True)
    assert neuron.spikes(distance).tolist() == [0.0, 1.0, 1.0]
    assert torch.autograd.grad(neuron.spikes(distance).sum(), distance)[0].tolist() == pytest.approx(
        [1 / 49, 1, 1 / 16]
    )


@pytest.mark.parametrize("name", NAMES)
def test_options_are_told_and_bounded(name: str) -> None:
    neuron = NEURONS[name]
    arguments = arguments_of(neuron, Part)
    assert [one for one, argument in arguments.items() if not argument.help] == []
    assert [one for one, (low, high) in ranges(type(make(name).options)).items() if not math.isfinite(high - low)] == []


@pytest.mark.parametrize("name", NAMES)
def test_unknown_options_come_with_the_nearest(name: str) -> None:
    right = max([*arguments_of(NEURONS[name], Part), "learned"], key=len)
    with pytest.raises(ConfigError, match=f"{right}s: unknown key. Did you mean '{right}'"):
        make(name, **{f"{right}s": 1})


@pytest.mark.parametrize("name", NAMES)
def test_numbers_can_be_learned_within_their_range(name: str) -> None:
    every = sorted(ranges(type(make(name).options)))
    parameters = make(name, learned=tuple(every[:1])).parameters(UNITS)
    assert [one for one, parameter in parameters.items() if parameter.trainable] == every[:1]
    for parameter in parameters.values():
        low, high = parameter.valid
        assert low <= parameter.value.item() <= high


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is(name: str) -> None:
    told = inspect.cleandoc(vars(NEURONS[name])["__doc__"])
    first = told.split("\n")[0]
    assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
    assert first.endswith(".")
    assert len(first) <= 80
    assert "=" in told.partition("Args:")[0]  # its equation


CUT_OFF = {"quadratic": "reset", "exponential": "reset", "izhikevich": "c"}
"""Where a unit is after it met its cut-off, by the name of this number."""


@pytest.mark.parametrize(("name", "reset"), CUT_OFF.items())
@pytest.mark.parametrize("beyond", [0.0, 5.0, 500.0])
def test_a_reset_that_was_learned_beyond_the_cut_off_lies_just_below_it(name: str, reset: str, beyond: float) -> None:
    neuron = make(name, step_size=longest(name) if name != "quadratic" else 1.0, differentiate_reset=True)
    params = numbers(neuron, torch.float64)
    params[reset] = (params["cutoff"] + beyond).requires_grad_()
    silent = [Drive(torch.zeros(ROWS, UNITS, dtype=torch.float64))] * 40
    outputs, _ = run(neuron, params, silent, newborn(neuron, params, (ROWS,), torch.float64))
    assert not outputs.any(), "it spikes without a drive"
    driven = [Drive(torch.full((ROWS, UNITS), 60.0, dtype=torch.float64))] * 150
    outputs, after = run(neuron, params, driven, newborn(neuron, params, (ROWS,), torch.float64))
    first = int(outputs[:, 0, 0].nonzero()[0])
    # Set back to just below the cut-off it meets it again in the next step.
    assert outputs[first : first + 3].all()
    assert all(bool(torch.isfinite(entry).all()) for entry in after.values())
    assert bool((after["voltage"] <= params["cutoff"]).all())
    gradients = torch.autograd.grad(sum(entry.sum() for entry in after.values()) + outputs.sum(), params[reset])
    assert bool(torch.isfinite(gradients[0]).all())


def test_an_upstroke_that_was_learned_too_sharp_does_not_overflow() -> None:
    neuron = make("exponential", 0.1)
    params = numbers(neuron)
    params["slope_factor"] = torch.full((1,), 0.01)
    driven = [Drive(torch.full((ROWS, UNITS), 60.0))] * 150
    outputs, after = run(neuron, params, driven, newborn(neuron, params, (ROWS,)))
    assert outputs.any()
    assert bool(torch.isfinite(after["voltage"]).all())
