"""What acts in place on the native core, as who lets it act sees it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

from torch import Tensor

from plastic_rl.arrays import Array, BoolArray, IntArray


class ActsInPlace(Mapping[str, Tensor]):
    """A network that acts in place; as a mapping it is its state after the last step.

    Attributes:
        has_head: Whether it computes the parameters of the action distribution too, and chooses by them.
    """

    has_head: bool

    def __reduce__(self) -> tuple[type[dict[str, Tensor]], tuple[dict[str, Tensor]]]:
        """A copy, also one for another process, is the state as it is now."""
        return dict, (dict(self),)

    @abstractmethod
    def step(self, observation: Array, starts: BoolArray, choice: int = 0, noise: Array | None = None) -> bool:
        """Take a step.

        Args:
            observation: `(P B, J)`.
            starts: Where a lifetime starts with it, `(P B,)`.
            choice: What becomes of the outputs; see `plastic_rl.networks.native`.
            noise: Uniform numbers to sample by, `(P B,)`.

        Returns:
            Whether all outputs can be chosen by.
        """

    @property
    @abstractmethod
    def features(self) -> Tensor:
        """Of the last step, `(.., B, O)`."""

    @property
    @abstractmethod
    def outputs(self) -> Tensor:
        """Parameters of the action distribution, `(.., B, A)`, where it has a head."""

    @property
    @abstractmethod
    def actions(self) -> IntArray:
        """What was chosen, `(P B,)`."""

    @property
    @abstractmethod
    def steps_done(self) -> int:
        """How many steps it holds."""
