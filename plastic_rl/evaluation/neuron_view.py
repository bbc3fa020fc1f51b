"""A neuron as a user looks at it: what it does under a held current, measured, and drawn.

Data flows from a neuron's name and options through runs of one unit at many currents at once to a `NeuronView`, and
from there to text or a picture. Nothing but the neuron's own `step` and `change` is asked: plug-ins' are shown too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from plastic_rl.arrays import FloatArray
from plastic_rl.errors import ConfigError
from plastic_rl.evaluation.plots import PALETTE, figure_title, new_figure, plain_axes, save_figure
from plastic_rl.neurons import NEURONS, Drive, Neuron, ResettingNeuron, exact_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_STEPS = 200_000
LONGEST_STEP = 0.1
"""Of a run that is to be drawn, unless asked otherwise, ms."""
DOUBLINGS = 2.0 ** np.arange(-6, 13)
"""Currents among which a rheobase is looked for."""
REFINED = 256
CURVE_POINTS = 49
LARGEST = 1e30
"""What is beyond it has grown without bound; a picture's axes could not show it."""
SETTLING, LEAST_SETTLING, ENOUGH = 0.5, 0.2, 3
"""Share of a run that is left out of a rate, and that where otherwise there are not enough spikes."""


@dataclass(frozen=True)
class NeuronView:
    """What one unit did.

    Attributes:
        name: Of the neuron.
        neuron: It, with its options.
        current: What it was driven with, held from rest on.
        times: Ends of the steps, ms, `(T,)`.
        traces: Its state at these times, `(T,)` each, by name.
        output: Rates, or spikes 0 or 1, `(T,)`.
        rest: Its state after as long without a drive; None if it spikes then.
        rheobase: The lowest held current at which it spikes within the run; None if it has none or is no spiking unit.
        currents: Of the curve of responses, `(n,)`.
        responses: Spikes per second at these (else the output at the end), `(n,)`.
        response: The same at `current`.
    """

    name: str
    neuron: Neuron
    current: float
    times: FloatArray
    traces: Mapping[str, FloatArray]
    output: FloatArray
    rest: Mapping[str, float] | None
    rheobase: float | None
    currents: FloatArray
    responses: FloatArray
    response: float

    @property
    def unbounded_from(self) -> float | None:
        """Time after which the run has grown without bound, ms; None if it stays bounded."""
        beyond = [~(np.abs(each) <= LARGEST) for each in (self.output, *self.traces.values())]
        found = np.flatnonzero(np.any(beyond, axis=0))
        return float(self.times[found[0]]) if found.size else None


def view_neuron(
    name: str,
    current: float,
    options: Mapping[str, Any] | None = None,
    *,
    duration: float = 300.0,
    step_size: float = LONGEST_STEP,
) -> NeuronView:
    """Drive a unit with a held current, and with many others.

    Args:
        name: Of the neuron.
        current: In the unit that the model names.
        options: The neuron's.
        duration: Of each run, ms.
        step_size: Length of a step, ms.

    Raises:
        UnknownNameError: If there is no neuron of this name.
        ConfigError: If an option is unknown or out of its range, or a number here is.
    """
    model = NEURONS[name]
    if not np.isfinite(current):
        raise ConfigError(f"the current must be a finite number, got {current}")
    for what, value in (("duration", duration), ("step", step_size)):
        if not (np.isfinite(value) and value > 0):
            raise ConfigError(f"the {what} must be a positive number of ms, got {value}")
    if not 1 <= round(duration / step_size) <= MOST_STEPS:
        raise ConfigError(
            f"{duration:g} ms in steps of {step_size:g} ms are {duration / step_size:,.0f} steps; use 1 to "
            f"{MOST_STEPS:,}"
        )
    neuron = model(step_size, **(options or {}))
    steps = round(duration / step_size)
    search = np.array([0.0, *DOUBLINGS]) if neuron.spiking else np.zeros(1)
    found, silent = _run(neuron, search, steps)
    firing = np.flatnonzero(found.any(0)) if neuron.spiking else np.zeros(0, np.int64)
    restless = firing.size > 0 and firing[0] == 0
    rheobase = None
    if firing.size and not restless:
        first = int(firing[0])
        finer = np.linspace(search[first - 1], search[first], REFINED + 1, dtype=np.float64)
        rheobase = float(finer[_run(neuron, finer, steps)[0].any(0).argmax()])
    top = 2 * max(abs(current), rheobase or 0.0) or 1.0
    currents = np.linspace(0.0 if neuron.spiking else -top, top, CURVE_POINTS, dtype=np.float64)
    outputs, traces = _run(neuron, np.array([current, *currents]), steps)
    times = step_size * np.arange(1, steps + 1, dtype=np.float64)
    responses = np.array([_rate(times, each) if neuron.spiking else each[-1] for each in outputs.T])
    return NeuronView(
        name,
        neuron,
        current,
        times,
        traces,
        outputs[:, 0],
        None if restless else {key: float(each[-1]) for key, each in silent.items()},
        rheobase,
        currents,
        responses[1:],
        float(responses[0]),
    )


def _run(neuron: Neuron, currents: FloatArray, steps: int) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Outputs of one unit at each current, `(T, n)`, and the state's entries at the first current, `(T,)` each."""
    params, entries = exact_numbers(neuron), neuron.state_entries(1)
    state: dict[str, Tensor] = {}
    for name, entry in entries.items():
        start = params[entry.start].item() if isinstance(entry.start, str) else entry.start
        state[name] = torch.full((len(currents), 1), start, dtype=torch.float64)
    drive = Drive(torch.from_numpy(currents).unsqueeze(-1))
    outputs, traces = np.empty((steps, len(currents))), {name: np.empty(steps) for name in entries}
    with torch.no_grad():
        for step in range(steps):
            output, state = neuron.step(params, drive, state)
            outputs[step] = output.squeeze(-1).numpy()
            for name, trace in traces.items():
                trace[step] = state[name][0].item()
    return outputs, traces


def _rate(times: FloatArray, spikes: FloatArray) -> float:
    """Spikes per second; 0 where they do not go on to the end."""
    at = times[(spikes > 0) & (times > SETTLING * times[-1])]
    if len(at) < ENOUGH:
        at = times[(spikes > 0) & (times > LEAST_SETTLING * times[-1])]
    if len(at) < 2 or times[-1] - at[-1] > 1.5 * (at[-1] - at[-2]):
        return 0.0
    return float(1000 * (len(at) - 1) / (at[-1] - at[0]))


def plot_neuron(view: NeuronView, path: str | Path) -> Path:
    """Draw the run, the response to other currents and, of a model of two variables, the phase plane.

    Args:
        view: What to draw.
        path: `.png`, `.svg` or `.pdf`.

    Returns:
        `path`.

    Raises:
        ConfigError: If the unit grows without bound.
    """
    since = view.unbounded_from
    if since is not None or not bool((np.abs(view.responses) <= LARGEST).all()):
        when = (
            f"other currents than {view.current:g}"
            if since is None
            else f"a current of {view.current:g} after {since:g} ms"
        )
        raise ConfigError(
            f"{view.name} grows beyond {LARGEST:g} within {view.times[-1]:g} ms, at {when}: too much for a picture. "
            "Use a shorter duration, or options with which it stays bounded"
        )
    variables = view.neuron.variables
    groups = _panels(view)
    plane = len(variables) == 2
    rows: list[Any] = [[f"run{index}", "curve", *(["plane"] if plane else [])] for index in range(len(groups))] or [
        ["curve"]
    ]
    figure = new_figure(5.2 * len(rows[0]) + 0.6 * bool(groups), 4.4 if len(groups) < 2 else 5.2)
    ratios = [1.6, *[1.0] * (len(groups) - 1)] if groups else [1.0]
    axes = figure.subplot_mosaic(rows, height_ratios=ratios)
    for index, group in enumerate(groups):
        _draw_run(axes[f"run{index}"], view, group, spikes=index == 0)
        axes[f"run{index}"].set_xlabel("ms" if index == len(groups) - 1 else "", fontsize=11)
    _draw_curve(axes["curve"], view)
    if plane:
        _draw_plane(axes["plane"], view)
    figure_title(figure, f"{view.name} at a current of {view.current:g}")
    return save_figure(figure, path)


def _panels(view: NeuronView) -> list[list[str]]:
    """Names of the traces that share a panel: the first alone, shares from 0 to 1 together, each other alone."""
    first, *others = list(view.traces) or [""]
    shares = [name for name in others if view.traces[name].min() >= 0 and view.traces[name].max() <= 1]
    groups = [[first], shares, *([name] for name in others if name not in shares)]
    return [group for group in groups if group and group != [""]]


def _draw_run(axis: Axes, view: NeuronView, names: list[str], *, spikes: bool) -> None:
    for place, name in enumerate(names):
        axis.plot(view.times, view.traces[name], color=PALETTE[place], linewidth=1.4, label=name.replace("_", " "))
    if len(names) > 1:
        axis.legend(frameon=False, fontsize=10, ncols=len(names), loc="lower right", bbox_to_anchor=(1.0, 0.98))
    else:
        axis.set_ylabel(names[0].replace("_", " "))
    plain_axes(axis)
    if spikes and view.neuron.spiking:
        low, high = axis.get_ylim()
        at = view.times[view.output > 0]
        axis.set_ylim(low, high + 0.12 * (high - low))
        axis.vlines(at, high + 0.03 * (high - low), high + 0.1 * (high - low), color="#333333", linewidth=1.2)
        axis.annotate(
            "spikes", (0.0, 1.0), xycoords="axes fraction", xytext=(2, 2), textcoords="offset points", fontsize=9
        )


def _draw_curve(axis: Axes, view: NeuronView) -> None:
    axis.plot(view.currents, view.responses, color=PALETTE[0], linewidth=2)
    axis.plot(view.current, view.response, color=PALETTE[1], marker="o", markersize=7)
    if view.rheobase is not None:
        axis.axvline(view.rheobase, color="#555555", linestyle=(0, (5, 2)), linewidth=1.2)
        axis.annotate(
            f"rheobase {view.rheobase:.4g}", (view.rheobase, 1.0), xycoords=("data", "axes fraction"), xytext=(4, 2),
            textcoords="offset points", fontsize=9.5, color="#333333",
        )  # fmt: skip
    axis.set_xlabel("current", fontsize=11)
    axis.set_ylabel("spikes per second" if view.neuron.spiking else "output")
    plain_axes(axis)


def _draw_plane(axis: Axes, view: NeuronView) -> None:
    """The run in the plane of its two variables, with the lines on which one of them does not change."""
    from matplotlib.lines import Line2D

    names = view.neuron.variables
    x, y = (view.traces[name] for name in names)
    ends = [(each.min() - 0.15 * np.ptp(each) - 1e-3, each.max() + 0.15 * np.ptp(each) + 1e-3) for each in (x, y)]
    grid = np.meshgrid(*(np.linspace(low, high, 300) for low, high in ends))
    values = [torch.from_numpy(each.reshape(-1, 1)) for each in grid]
    drive = Drive(torch.full_like(values[0], view.current))
    for place, change in enumerate(view.neuron.change(exact_numbers(view.neuron), drive, values)):
        axis.contour(*grid, change.reshape(300, 300).numpy(), levels=[0.0], colors=PALETTE[1 + place], linewidths=1.6)
    resets = np.flatnonzero(view.output) if isinstance(view.neuron, ResettingNeuron) else np.zeros(0, np.int64)
    run = (np.insert(each, resets, np.nan) for each in (x, y))  # no line from before a reset to after it
    axis.plot(*run, color=PALETTE[0], linewidth=1.2, zorder=3)
    handles = [Line2D([], [], color=PALETTE[0], label="run")]
    handles += [
        Line2D([], [], color=PALETTE[1 + place], label=f"no change of {name.replace('_', ' ')}")
        for place, name in enumerate(names)
    ]
    axis.legend(handles=handles, frameon=False, fontsize=9.5, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    axis.set_xlabel(names[0].replace("_", " "), fontsize=11)
    axis.set_ylabel(names[1].replace("_", " "))
    plain_axes(axis)
