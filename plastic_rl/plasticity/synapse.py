"""The one synapse: parts put together.

    W_t   = W0 + alpha * F_t                  what the forward pass of step t uses
    D_t   = term(pre, post, F_t)
    S_t   = D_t, or the old eligibility E_t
    F_t+1 = normalise(bound(rho F_t, G_t S_t))
    E_t+1 = (1 - eta_E) E_t + eta_E D_t       after F has used the old one

Data flows from a `SynapseConfig` into a `Synapse`, which holds no numbers: parameters and state come in with each call.
"""

from __future__ import annotations

import torch
from torch import Tensor

from plastic_rl.feedback import Feedback
from plastic_rl.plasticity.bounds import BOUNDS, NORMALISATIONS, unbounded
from plastic_rl.plasticity.eligibility import ELIGIBILITIES
from plastic_rl.plasticity.gains import RATE, NamedTensors, Parameter
from plastic_rl.plasticity.modulators import MODULATORS
from plastic_rl.plasticity.parts import StateEntry, make_part
from plastic_rl.plasticity.rules import SynapseConfig
from plastic_rl.plasticity.terms import TERMS


class Synapse:
    """All synapses from one layer of `I` units to one of `O` units, under one rule.

    Args:
        config: The rule.
        post_size: `O`.
        pre_size: `I`.
        step_size: Time that one update takes, ms.

    Attributes:
        reward_modulated: True where the update waits for the reward, which comes with the next observation.
        non_plastic: True where alpha is 0 for good: the trace is then never computed, since nothing reads it.
    """

    def __init__(self, config: SynapseConfig, post_size: int, pre_size: int, step_size: float = 1.0) -> None:
        self.config = config
        self.post_size = post_size
        self.pre_size = pre_size
        self.term = make_part(TERMS, config.term, step_size)
        self.modulator = make_part(MODULATORS, config.modulator, step_size)
        # A subclass with a `change` of its own does not mean the factors that it inherits.
        owners = {
            name: next(kind for kind in type(self.term).__mro__ if name in vars(kind)) for name in ("change", "factors")
        }
        self._factored = issubclass(owners["factors"], owners["change"])
        self.eligibility = make_part(ELIGIBILITIES, config.eligibility, step_size)
        self.bound = BOUNDS[config.bound]
        self.normalise = NORMALISATIONS[config.normalise]
        self.non_plastic = config.alpha.is_zero
        self.reward_modulated = self.modulator.reward_modulated and not self.non_plastic

    def parameters(self, generator: torch.Generator | None = None) -> dict[str, Parameter]:
        """Start values of alpha, eta and the parts' own parameters, by name."""
        config, sizes = self.config, (self.post_size, self.pre_size)
        parameters = {"alpha": config.alpha.draw(*sizes, generator)}
        if self.non_plastic:
            return parameters
        if config.uses_eta:
            parameters["eta"] = config.eta.draw(*sizes, generator, valid=config.eta_range)
        if self.eligibility.uses_eta:
            parameters["eta_eligibility"] = config.eta_eligibility.draw(*sizes, generator, valid=RATE)
        parameters |= self.eligibility.parameters()
        parameters |= self.modulator.parameters(self.post_size, generator)
        return parameters | self.term.parameters(*sizes, config.coefficients, generator)

    def state_entries(self) -> dict[str, StateEntry]:
        """The state, by name: `trace` F and `eligibility` E, `(O, I)`, and the parts' own."""
        if self.non_plastic:
            return {}
        matrix = StateEntry((self.post_size, self.pre_size))
        entries = {"trace": matrix}
        if self.eligibility.has_trace:
            entries["eligibility"] = matrix
        entries |= self.modulator.state_entries()
        return entries | self.term.state_entries(self.post_size, self.pre_size)

    def current(self, params: NamedTensors, pre: Tensor, state: NamedTensors) -> Tensor:
        """Plastic part of the input to the post neurons, `(alpha * F) x`.

        Args:
            params: The network's parameters.
            pre: `x`, `(.., B, I)`.
            state: Holds `trace`, `(.., B, O, I)`.

        Returns:
            `(.., B, O)`; zeros where the synapse is non-plastic.
        """
        if self.non_plastic:
            return pre.new_zeros(*pre.shape[:-1], self.post_size)
        # A row vector from the left is several times faster in a batched product than a column from the right.
        row = pre.unsqueeze(-2)
        alpha = params["alpha"]
        if alpha.shape[-1] == 1:
            return (row @ state["trace"].mT).squeeze(-2) * alpha.mT
        return (row @ (alpha.unsqueeze(-3) * state["trace"]).mT).squeeze(-2)

    def update(
        self,
        params: NamedTensors,
        pre: Tensor,
        post: Tensor,
        state: NamedTensors,
        feedback: Feedback | None = None,
    ) -> dict[str, Tensor]:
        """The synapse's state after the step in which `pre` met `post`.

        Args:
            params: The network's parameters.
            pre: `x`, `(.., B, I)`.
            post: `y`, `(.., B, O)`.
            state: As left by the last update; never modified.
            feedback: What that step brought; needed where `reward_modulated`.

        Returns:
            The entries of `state_entries`, new.
        """
        if self.non_plastic:
            return {}
        trace = state["trace"]
        eligibility = state.get("eligibility")
        change = self.term.change(params, pre, post, trace, state)
        source = self.eligibility.source(params, change, eligibility)
        updated = self.gated(params, post, source, state, feedback)
        if eligibility is not None:
            updated["eligibility"] = self.eligibility.next_trace(params, change, eligibility)
        return updated | self.term.next_state(params, pre, post, trace, state)

    def gated(
        self,
        params: NamedTensors,
        post: Tensor,
        source: Tensor,
        state: NamedTensors,
        feedback: Feedback | None = None,
    ) -> dict[str, Tensor]:
        """The trace F after `source` S was gated into it, and the modulator's own entries.

        Args:
            params: The network's parameters.
            post: `y`, `(.., B, O)`.
            source: `S`, `(.., B, O, I)`.
            state: As left by the last update; never modified.
            feedback: What the step brought; needed where `reward_modulated`.
        """
        trace = state["trace"]
        gate = self.modulator.gate(params, post, feedback, state)
        kept = (1 - params["eta"].unsqueeze(-3)) * trace if self.config.decay else trace
        if self.bound is unbounded:
            moved = torch.addcmul(kept, gate, source)
        else:
            moved = self.bound(kept, gate * source, self.config.clip)
        updated = {"trace": self.normalise(moved)}
        if feedback is not None:
            updated |= self.modulator.next_state(params, feedback, state)
        return updated

    def lived(
        self, params: NamedTensors, pre: Tensor, post: Tensor, state: NamedTensors
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Several substeps in which F stays: what they bring, and the state that they leave.

        Args:
            params: The network's parameters.
            pre: `x`, `(.., B, S, I)`: S substeps.
            post: `y`, `(.., B, S, O)`.
            state: Before them; never modified.

        Returns:
            The sum of D over the substeps, `(.., B, O, I)`, each less what an eligibility that takes in every substep
            has forgotten of it since; and the term's own entries, with what is left of such an E.
        """
        substeps, trace = pre.shape[-2], state["trace"]
        current, total = dict(state), torch.zeros_like(trace)
        lefts, rights = [], []
        for substep in range(substeps):
            x, y = pre[..., substep, :], post[..., substep, :]
            factors = self.term.factors(params, x, y, current) if self._factored else None
            if factors is None:
                total = self.eligibility.kept(params, total) + self.term.change(params, x, y, trace, current)
            else:
                lefts.append(self.eligibility.kept(params, factors[0], substeps - 1 - substep))
                rights.append(factors[1])
            current |= self.term.next_state(params, x, y, trace, current)
        if lefts:
            total = torch.cat(lefts, -2).mT @ torch.cat(rights, -2)
        if self.eligibility.by_substep:
            current["eligibility"] = self.eligibility.kept(params, current["eligibility"], substeps)
        return total, {name: current[name] for name in self.state_entries() if current[name] is not state[name]}

    def taken_in(self, params: NamedTensors, change: Tensor, state: NamedTensors) -> tuple[Tensor, dict[str, Tensor]]:
        """S, and E where there is one, once the eligibility took in what the substeps of a step brought.

        Args:
            params: The network's parameters.
            change: What they brought, `(.., B, O, I)`, from `lived`.
            state: What they left; never modified.
        """
        eligibility = state.get("eligibility")
        if eligibility is None:
            return change, {}
        if self.eligibility.by_substep:
            grown = eligibility + change
            return grown, {"eligibility": grown}
        source = self.eligibility.source(params, change, eligibility)
        return source, {"eligibility": self.eligibility.next_trace(params, change, eligibility)}


def after_reward(state: NamedTensors, updated: NamedTensors, happens: Tensor) -> dict[str, Tensor]:
    """The state after an update that waited for the reward, which came with this observation.

    Args:
        state: Entries `(.., B, ...)`; never modified.
        updated: What the update of the step before makes of some of them.
        happens: Where there was a step before, in this lifetime, `(.., B)` bool; a lifetime that starts has none.
    """
    if bool(happens.all()):
        return {**state, **updated}
    chosen = {
        name: torch.where(happens.reshape(happens.shape + (1,) * (entry.dim() - happens.dim())), entry, state[name])
        for name, entry in updated.items()
    }
    return {**state, **chosen}
