"""What a regulariser is: a penalty on leaving what earlier stages of training have taught.

Data flow: `begun` -> (`penalty`, a step of the optimizer, `stepped`, `set_anew` where weights are exchanged or units
replaced) again and again -> `stage_ended` -> next stage. A regulariser holds nothing itself: its state goes in and
comes out, by `ENTRY/PARAMETER`, and stands in checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

from torch import Tensor

from plastic_rl.checkpoint import Checkpoint
from plastic_rl.errors import CheckpointError
from plastic_rl.plasticity.gains import NamedTensors
from plastic_rl.plasticity.parts import Part
from plastic_rl.registry import Registry

RegulariserState = dict[str, Tensor]
"""Tensors of the shapes of parameters, by `ENTRY/PARAMETER`."""
GradientsOfSamples = Callable[[int], Iterator[NamedTensors]]
"""Given a number of samples, yields the gradient of each one's log-likelihood by name of the parameter."""


class Regulariser(Part):
    """No regulariser: nothing holds parameters to what earlier stages have taught.

    Attributes:
        entries: What it may keep of each parameter.
        sees_steps: Whether `stepped` and `set_anew` are to be called.
    """

    entries: ClassVar[tuple[str, ...]] = ()
    sees_steps: ClassVar[bool] = False

    def begun(self, parameters: NamedTensors) -> RegulariserState:
        """The state at the start of the first stage."""
        return {}

    def penalty(self, parameters: NamedTensors, state: NamedTensors) -> Tensor | None:
        """What is added to the loss, a scalar that is differentiable in `parameters`; None in the first stage."""
        return None

    def stepped(
        self, state: NamedTensors, gradients: NamedTensors, before: NamedTensors, after: NamedTensors
    ) -> RegulariserState:
        """The state after a step of the optimizer.

        Args:
            state: Before the step; never modified.
            gradients: Of the loss alone, without the penalty, and before they were scaled down.
            before: The parameters that they were taken at.
            after: The parameters after the step.
        """
        return dict(state)

    def set_anew(self, state: NamedTensors, before: NamedTensors, after: NamedTensors) -> RegulariserState:
        """The state after something other than the optimizer has put parameters elsewhere, following `stepped`.

        Args:
            state: Before that; never modified.
            before: The parameters after the step of the optimizer.
            after: The parameters now.
        """
        return dict(state)

    def stage_ended(
        self, state: NamedTensors, parameters: NamedTensors, gradients: GradientsOfSamples
    ) -> RegulariserState:
        """The state that the next stage begins with, now that a stage ends at `parameters`."""
        return dict(state)


def entry(state: NamedTensors, name: str) -> dict[str, Tensor]:
    """What a state holds under an entry, by name of the parameter; nothing where it has none yet."""
    return {key.partition("/")[2]: value for key, value in state.items() if key.partition("/")[0] == name}


def quadratic_penalty(difference: Tensor, weight: Tensor) -> Tensor:
    """`1/2 dT F d`, for `d (N,)` and `F (N, N)`, or for `d` of any shape and a diagonal `F` of the same shape.

    >>> import torch
    >>> quadratic_penalty(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 1.0]))
    tensor(3.5000)
    >>> quadratic_penalty(torch.tensor([1.0, 2.0]), torch.tensor([[3.0, 1.0], [1.0, 1.0]]))
    tensor(5.5000)
    """
    if weight.shape == difference.shape:
        return 0.5 * (weight * difference.square()).sum()
    return 0.5 * difference @ weight @ difference


def restored(regulariser: Regulariser, checkpoint: Checkpoint, parameters: Mapping[str, Tensor]) -> RegulariserState:
    """The state that a checkpoint holds, on the parameters' devices; that of a first stage where it holds none.

    Raises:
        CheckpointError: If it is no state of this regulariser and these parameters.
    """
    stored = checkpoint.tensors.get("regulariser")
    if stored is None:
        return regulariser.begun(parameters)
    checkpoint.check_finite("regulariser")
    found = {key.partition("/")[0] for key in stored}
    wanted = {f"{kind}/{name}" for kind in found for name in parameters}
    where = f"{checkpoint.source}: in regulariser.safetensors"
    if not found <= set(regulariser.entries) or wanted != stored.keys():
        raise CheckpointError(
            f"{where} are not the entries of {type(regulariser).__name__}: missing {sorted(wanted - stored.keys())}, "
            f"unknown {sorted(key for key in stored if key.partition('/')[0] not in regulariser.entries)}"
        )
    for key, value in stored.items():
        own = parameters[key.partition("/")[2]]
        if (value.shape, value.dtype) != (own.shape, own.dtype):
            raise CheckpointError(
                f"{where} {key!r} must be {own.dtype} of shape {tuple(own.shape)}, got {value.dtype} of shape "
                f"{tuple(value.shape)}"
            )
    # In the order of the parameters, on which the last bits of sums over all of them depend.
    keys = [f"{kind}/{name}" for kind in regulariser.entries if kind in found for name in parameters]
    return {key: stored[key].to(parameters[key.partition("/")[2]].device) for key in keys}


REGULARISERS: Registry[type[Regulariser]] = Registry("regulariser")
