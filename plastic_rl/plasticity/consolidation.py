"""Consolidation: slow variables behind the trace, which remember what it was. They move once in an environment step."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from plastic_rl.config.signatures import handed_on
from plastic_rl.plasticity.gains import NamedTensors, Parameter
from plastic_rl.plasticity.parts import Curves, Part, StateEntry
from plastic_rl.registry import Registry


class Consolidation(Part):
    """No consolidation: nothing but the trace remembers.

    Attributes:
        slow_entries: Its state entries of each synapse, which start where F does.
    """

    slow_entries: ClassVar[tuple[str, ...]] = ()

    def parameters(self) -> dict[str, Parameter]:
        """Parameters of its own, by name: its `numbers` unless overridden."""
        return self.numbers()

    def state_entries(self, post_size: int, pre_size: int) -> dict[str, StateEntry]:
        """Its `slow_entries`, of shapes that end in `(O, I)`."""
        return {}

    def slow(self, state: NamedTensors) -> Tensor | None:
        """The slow copy of F, `(.., B, O, I)`; None: there is none."""
        return None

    def consolidated(
        self, params: NamedTensors, trace: Tensor, state: NamedTensors
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The trace and its own entries after an environment step.

        Args:
            params: The network's parameters.
            trace: `F`, `(.., B, O, I)`, after all else that changes it in a step.
            state: Its own entries; never modified.
        """
        return trace, {}


class TwoSpeeds(Consolidation):
    """`F_slow <- F_slow + eta_slow (F - F_slow)`, then `F <- F - pull (F - F_slow)`: a slow copy, and a pull to it.

    With a pull of 0 it only keeps the copy, for what reads one (`heterosynaptic`). After Hinton & Plaut 1987, who give
    every connection a fast and a slow weight.

    Args:
        slow_rate: eta_slow, in an environment step.
        slow_pull: Share of the way to the slow copy that F moves in a step.
    """

    slow_entries = ("slow_trace",)

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        slow_rate: Annotated[float, Field(ge=0, le=1)] = 0.01,
        slow_pull: Annotated[float, Field(ge=0, le=1)] = 0.1,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def state_entries(self, post_size: int, pre_size: int) -> dict[str, StateEntry]:
        """`slow_trace` F_slow, `(O, I)`."""
        return {"slow_trace": StateEntry((post_size, pre_size))}

    def slow(self, state: NamedTensors) -> Tensor | None:
        """F_slow."""
        return state["slow_trace"]

    def consolidated(
        self, params: NamedTensors, trace: Tensor, state: NamedTensors
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return both, each a share of the way to the other."""
        rate, pull = (params[name].unsqueeze(-1).unsqueeze(-1) for name in ("slow_rate", "slow_pull"))
        slow = torch.lerp(state["slow_trace"], trace, rate)
        return torch.lerp(trace, slow, pull), {"slow_trace": slow}


class BennaFusi(Consolidation):
    """`C_k du_k/dt = g_{k-1} (u_{k-1} - u_k) + g_k (u_{k+1} - u_k)`, u_1 = F: a chain (Benna & Fusi 2016).

    Beakers of liquid, `C_k = 2^k` wide, joined by tubes `g_k = 2^-(k+3)`, k from 1; nothing flows out at the end. So a
    change of F fades as `t^-1/2` up to about `4^n` steps, and the sum of `C_k u_k` stays as it is (doi
    10.1038/nn.4401).

    Args:
        variables: n, with F.
        chain_rate: Time that passes in the chain in an environment step.
    """

    slow_entries = ("chain",)

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        variables: Annotated[int, Field(ge=2, le=16)] = 6,
        chain_rate: Annotated[float, Field(ge=0, le=16)] = 1.0,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def state_entries(self, post_size: int, pre_size: int) -> dict[str, StateEntry]:
        """`chain`, u_2 to u_n: `(n - 1, O, I)`."""
        return {"chain": StateEntry((self.options.variables - 1, post_size, pre_size))}

    def slow(self, state: NamedTensors) -> Tensor | None:
        """u_2."""
        return state["chain"][..., 0, :, :]

    def consolidated(
        self, params: NamedTensors, trace: Tensor, state: NamedTensors
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the levels after what flowed through the tubes."""
        levels = torch.cat([trace.unsqueeze(-3), state["chain"]], -3)
        number = torch.arange(1, levels.shape[-3] + 1, dtype=trace.dtype, device=trace.device).view(-1, 1, 1)
        rate = params["chain_rate"].unsqueeze(-1).unsqueeze(-1).unsqueeze(-1)
        flow = rate * 2.0 ** -(number[:-1] + 3) * (levels[..., :-1, :, :] - levels[..., 1:, :, :])
        ends = torch.zeros_like(flow[..., :1, :, :])
        change = (torch.cat([ends, flow], -3) - torch.cat([flow, ends], -3)) * 2.0**-number
        return trace + change[..., 0, :, :], {"chain": state["chain"] + change[..., 1:, :, :]}

    def curves(self) -> Curves:
        """See `Part.curves`: what is left of a change of F."""
        params = {name: one.value for name, one in self.numbers().items()}
        trace, chain = torch.ones(1, 1, 1), torch.zeros(1, self.options.variables - 1, 1, 1)
        left = []
        for _ in range(1000):
            left.append(trace.squeeze())
            trace, moved = self.consolidated(params, trace, {"chain": chain})
            chain = moved["chain"]
        return Curves("environment steps", "left of a change", torch.arange(1000.0), {"": torch.stack(left)})


CONSOLIDATIONS: Registry[type[Consolidation]] = Registry("consolidation")
CONSOLIDATIONS.register("none", Consolidation)
CONSOLIDATIONS.register("two_speeds", TwoSpeeds)
CONSOLIDATIONS.register("benna_fusi", BennaFusi)
