"""Conductance synapses: what they bring depends on the voltage that it meets.

    I_syn = g_e (E_e - u) + g_i (E_i - u),  g_e = sum_j max(W_j, 0) s_j,  g_i = sum_j max(-W_j, 0) s_j

s is what synapses see of their presynaptic units: spikes, or the kinetics of what spikes release. A `Drive` holds the
sum as `current = g_e E_e + g_i E_i` and `conductance = g_e + g_i`; a leaky unit of resistance R then tends to
`(rest + R current) / (1 + R conductance)`. Intrinsic plasticity and layer normalisation change what currents do;
conductances they leave alone.

Source: Gerstner, Kistler, Naud & Paninski 2014, Neuronal Dynamics, chapter 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from pydantic import Field
from torch import Tensor

from plastic_rl.config import ConfigModel
from plastic_rl.neurons import Drive


class ConductanceConfig(ConfigModel):
    """Potentials to which conductances pull a unit, in the unit and from the zero of its own voltage."""

    excitatory: float = Field(ge=-1000, le=1000, description="Reversal potential of positive weights, mV.")
    inhibitory: float = Field(ge=-1000, le=1000, description="Reversal potential of negative weights, mV.")


def carried(weights: Tensor, reversal: ConductanceConfig | None) -> Callable[[Tensor], Drive]:
    """What synapses bring in several substeps, `(.., B, S, O)`, of what they see, `(.., B, S, I)`.

    Args:
        weights: W, `(.., B, O, I)` or `(.., 1, O, I)`.
        reversal: None: they bring currents `W s`. Else conductances, none where s is below 0.
    """
    if reversal is None:
        return lambda seen: Drive(seen @ weights.mT)
    excitatory, inhibitory = weights.clamp_min(0).mT, (-weights).clamp_min(0).mT

    def conducted(seen: Tensor) -> Drive:
        opening = seen.clamp_min(0)
        to_excitatory, to_inhibitory = opening @ excitatory, opening @ inhibitory
        current = reversal.excitatory * to_excitatory + reversal.inhibitory * to_inhibitory
        return Drive(current, to_excitatory + to_inhibitory)

    return conducted


def at_substep(drive: Drive, substep: int) -> Drive:
    """One of the substeps of a drive `(.., B, S, O)`: `(.., B, O)`."""
    conductance = drive.conductance
    return Drive(drive.current[..., substep, :], None if conductance is None else conductance[..., substep, :])


def separated(drives: Sequence[Drive]) -> tuple[Tensor, Drive | None]:
    """The sum of the currents, `(.., B, O)`, and that of the conductances with what they carry, None without any."""
    currents = [one.current for one in drives if one.conductance is None]
    conducting = [one for one in drives if one.conductance is not None]
    if not conducting:
        return _sum(currents), None
    joined = Drive(_sum([one.current for one in conducting]), _sum([one.conductance for one in conducting]))
    return _sum(currents) if currents else torch.zeros_like(joined.current), joined


def together(current: Tensor, conducted: Drive | None) -> Drive:
    """A drive of currents `(.., B, O)` and conductances."""
    return Drive(current) if conducted is None else conducted._replace(current=current + conducted.current)


def _sum(terms: Sequence[Tensor | None]) -> Tensor:
    present = [one for one in terms if one is not None]
    total = present[0]
    for one in present[1:]:
        total = total + one
    return total
