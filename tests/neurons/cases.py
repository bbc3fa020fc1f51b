"""Running a neuron, and reading its rests and bifurcations off its equations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from plastic_rl.neurons import Drive, IntegratedNeuron, Neuron, exact_numbers

GRID = 400


def newborn(neuron: Neuron, rows: int = 1) -> dict[str, Tensor]:
    """The state of one unit in each of some rows, in double precision, `(B, 1)`."""
    params = exact_numbers(neuron)
    starts = {name: entry.start for name, entry in neuron.state_entries(1).items()}
    return {
        name: torch.full((rows, 1), params[start].item() if isinstance(start, str) else start, dtype=torch.float64)
        for name, start in starts.items()
    }


def spike_times(neuron: Neuron, currents: Sequence[float], duration: float) -> list[list[float]]:
    """Ends of the steps with a spike, ms, of one unit for each current, held from rest on."""
    params, state = exact_numbers(neuron), newborn(neuron, len(currents))
    drive = Drive(torch.tensor(currents, dtype=torch.float64).unsqueeze(-1))
    times: list[list[float]] = [[] for _ in currents]
    with torch.no_grad():
        for step in range(round(duration / neuron.step_size)):
            output, state = neuron.step(params, drive, state)
            for row in output.squeeze(-1).nonzero().squeeze(-1).tolist():
                times[row].append((step + 1) * neuron.step_size)
    return times


def rates(neuron: Neuron, currents: Sequence[float], duration: float, after: float) -> list[float]:
    """Spikes per second from the first to the last one `after` so many ms."""
    late = [[time for time in times if time > after] for times in spike_times(neuron, currents, duration)]
    return [1000 * (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0 for times in late]


def held_by(neuron: IntegratedNeuron, voltage: Tensor) -> Tensor:
    """The current at which `voltage (n,)` is a fixed point: the equations are linear in the current."""
    params = exact_numbers(neuron)
    values = neuron.steady(params, voltage.unsqueeze(-1))
    without, with_one = (
        neuron.change(params, Drive(torch.full_like(values[0], current)), values)[0] for current in (0.0, 1.0)
    )
    return (-without / (with_one - without)).squeeze(-1)


def growth(neuron: IntegratedNeuron, voltage: float) -> float:
    """Largest real part of the eigenvalues of the Jacobian at the fixed point with this voltage, 1/ms."""
    params = exact_numbers(neuron)
    at = torch.tensor([[voltage]], dtype=torch.float64)
    drive = Drive(held_by(neuron, at[0]).unsqueeze(-1))
    values = torch.stack(neuron.steady(params, at)).flatten()

    def change(flat: Tensor) -> Tensor:
        return torch.stack(neuron.change(params, drive, list(flat.reshape(-1, 1, 1)))).flatten()

    jacobian = torch.autograd.functional.jacobian(change, values)
    return torch.linalg.eigvals(jacobian).real.max().item()


def hopf_currents(neuron: IntegratedNeuron, low: float, high: float) -> list[float]:
    """Currents of the fixed points with voltages from `low` to `high` at which they gain or lose stability."""
    voltages = torch.linspace(low, high, GRID, dtype=torch.float64).tolist()
    unstable = [growth(neuron, voltage) > 0 for voltage in voltages]
    found = []
    for index in range(GRID - 1):
        if unstable[index] != unstable[index + 1]:
            left, right = voltages[index], voltages[index + 1]
            for _ in range(40):
                middle = (left + right) / 2
                left, right = (middle, right) if (growth(neuron, middle) > 0) == unstable[index] else (left, middle)
            found.append(held_by(neuron, torch.tensor([left], dtype=torch.float64)).item())
    return found
