"""The one synapse: parts put together.

    W_t   = s M (W0 + alpha * F_t)            what the forward pass of step t uses
    D_t   = term(pre, post, F_t)
    S_t   = D_t, or the old eligibility E_t
    A_t   = G_t S_t                           less of it where metaplasticity says so
    F_t+1 = consolidate(homeostasis(normalise(M bound(rho F_t, A_t))))
    E_t+1 = (1 - eta_E) E_t + eta_E D_t       after F has used the old one

Synaptic scaling s and structure M are 1, and the functions leave F as it is, unless a rule names them.

Data flows from a `SynapseConfig` into a `Synapse`, which holds no numbers: parameters and state come in with each call.
"""

from __future__ import annotations

import torch
from torch import Tensor

from plastic_rl.feedback import Feedback
from plastic_rl.plasticity.bounds import BOUNDS, NORMALISATIONS, unbounded
from plastic_rl.plasticity.consolidation import CONSOLIDATIONS, Consolidation
from plastic_rl.plasticity.eligibility import ELIGIBILITIES
from plastic_rl.plasticity.gains import RATE, NamedTensors, Parameter
from plastic_rl.plasticity.homeostasis import HOMEOSTASES, Homeostasis
from plastic_rl.plasticity.metaplasticity import METAPLASTICITIES, Metaplasticity
from plastic_rl.plasticity.modulators import MODULATORS
from plastic_rl.plasticity.parts import StateEntry, make_part
from plastic_rl.plasticity.rules import SynapseConfig
from plastic_rl.plasticity.structure import STRUCTURES, Rewire, Sparse
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
        non_plastic: True where alpha is 0 for good, and neither scale nor structure changes: there is then no trace.
        is_plain: True where `W = W0 + alpha F`, without scale and structure.
        is_bare: True where F follows from term, modulator, eligibility, bound and normalisation alone, and is plain.
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
        self.metaplasticity = make_part(METAPLASTICITIES, config.metaplasticity, step_size)
        self.homeostasis = make_part(HOMEOSTASES, config.homeostasis, step_size)
        self.consolidation = make_part(CONSOLIDATIONS, config.consolidation, step_size)
        self.structure = make_part(STRUCTURES, config.structure, step_size)
        # What a rule does not name is not even called.
        self._metaplastic = type(self.metaplasticity) is not Metaplasticity
        self._homeostatic = type(self.homeostasis) is not Homeostasis
        self._consolidates = type(self.consolidation) is not Consolidation
        self.is_plain = not (self.homeostasis.scales or self.structure.is_sparse)
        self.is_bare = self.is_plain and not (self._metaplastic or self._homeostatic or self._consolidates)
        self.non_plastic = config.alpha.is_zero and not (self.homeostasis.scales or self.structure.rewires)
        self.reward_modulated = self.modulator.reward_modulated and not self.non_plastic

    def parameters(self, generator: torch.Generator | None = None) -> dict[str, Parameter]:
        """Start values of alpha, eta and the parts' own parameters, by name."""
        config, sizes = self.config, (self.post_size, self.pre_size)
        parameters = {"alpha": config.alpha.draw(*sizes, generator)}
        if self.non_plastic:
            return parameters | self.structure.parameters(*sizes, generator)
        if config.uses_eta:
            parameters["eta"] = config.eta.draw(*sizes, generator, valid=config.eta_range)
        if self.eligibility.uses_eta:
            parameters["eta_eligibility"] = config.eta_eligibility.draw(*sizes, generator, valid=RATE)
        parameters |= self.eligibility.parameters()
        parameters |= self.modulator.parameters(self.post_size, generator)
        parameters |= self.term.parameters(*sizes, config.coefficients, generator)
        parameters |= self.metaplasticity.parameters() | self.homeostasis.parameters() | self.consolidation.parameters()
        return parameters | self.structure.parameters(*sizes, generator)

    def state_entries(self) -> dict[str, StateEntry]:
        """The state that an update changes, by name: `trace` F and `eligibility` E, `(O, I)`, and the parts' own."""
        if self.non_plastic:
            return {}
        matrix = StateEntry((self.post_size, self.pre_size))
        entries = {"trace": matrix}
        if self.eligibility.has_trace:
            entries["eligibility"] = StateEntry(matrix.shape, momentary=True)
        sizes = self.post_size, self.pre_size
        entries |= self.modulator.state_entries(self.post_size)
        entries |= self.metaplasticity.state_entries(*sizes) | self.homeostasis.state_entries(self.post_size)
        return entries | self.consolidation.state_entries(*sizes) | self.term.state_entries(*sizes)

    def structure_entries(self) -> dict[str, StateEntry]:
        """`connected` M, `(O, I)` bool, where it is state: drawn as lifetimes start, and changed by `rewired`."""
        return self.structure.state_entries(self.post_size, self.pre_size)

    def driven(self, params: NamedTensors, start: Tensor | None, pre: Tensor, state: NamedTensors) -> Tensor:
        """The input to the post neurons, `W x`, `(.., B, O)`; for the arguments see `weight` and `current`."""
        if not self.is_plain:
            return (pre.unsqueeze(-2) @ self.weight(params, start, state).mT).squeeze(-2)
        if start is None:
            return self.current(params, pre, state)
        total = pre @ start.mT
        return total if self.non_plastic else total + self.current(params, pre, state)

    def weight(self, params: NamedTensors, start: Tensor | None, state: NamedTensors) -> Tensor:
        """`W = s M (W0 + alpha F)`, what a step uses.

        Args:
            params: The network's parameters.
            start: W0, broadcastable to `(.., O, I)`; None: 0.
            state: Holds `trace`, and scale and structure where there are; `start`, where lifetimes have W0 of their
                own, `(.., B, O, I)`.

        Returns:
            `(.., B, O, I)`, or `(.., 1, O, I)` where it is the same in all lifetimes.
        """
        begun = state.get("start") if start is None or "start" in state else start.unsqueeze(-3)
        if self.non_plastic:
            assert begun is not None, "a synapse without a trace has a start weight"
            weight = begun.expand(*begun.shape[:-2], self.post_size, self.pre_size)
        else:
            weight = params["alpha"].unsqueeze(-3) * state["trace"]
            weight = weight if begun is None else begun + weight
        weight = self.present(params, weight, state)
        return state["scale"].unsqueeze(-1) * weight if self.homeostasis.scales else weight

    def present(self, params: NamedTensors, entry: Tensor, state: NamedTensors) -> Tensor:
        """A number of each synapse, `(.., B, O, I)`, and 0 where M says that there is none."""
        if not isinstance(self.structure, Sparse):
            return entry
        return torch.where(self.structure.connected(params, state), entry, 0.0)

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
        openness: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The synapse's state after the step in which `pre` met `post`.

        Args:
            params: The network's parameters.
            pre: `x`, `(.., B, I)`.
            post: `y`, `(.., B, O)`.
            state: As left by the last update; never modified.
            feedback: What that step brought; needed where `reward_modulated`.
            openness: See `gated`.

        Returns:
            The entries of `state_entries`, new.
        """
        if self.non_plastic:
            return {}
        trace = state["trace"]
        eligibility = state.get("eligibility")
        change = self.term.change(params, pre, post, trace, state)
        source = self.eligibility.source(params, change, eligibility)
        observed = self.homeostasis.observed(params, post.unsqueeze(-2), state) if self._homeostatic else {}
        known = {**state, **observed} if observed else state
        updated = observed | self.gated(params, post, source, known, feedback, openness)
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
        openness: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The trace F after `source` S was gated into it and has settled, and the entries of what took part.

        Args:
            params: The network's parameters.
            post: `y`, `(.., B, O)`.
            source: `S`, `(.., B, O, I)`.
            state: As left by the last update; never modified.
            feedback: What the step brought; needed where `reward_modulated`.
            openness: What a critical period leaves of the lifetime's plasticity, `(.., B, 1, 1)`; None: all.
        """
        trace = state["trace"]
        gate = self.modulator.gate(params, post, feedback, state)
        share = self.metaplasticity.share(params, state) if self._metaplastic else None
        if openness is not None:
            share = openness if share is None else share * openness
        if share is not None:
            gate = gate * share
        kept = trace
        if self.config.decay:
            rate = params["eta"].unsqueeze(-3)
            kept = (1 - (rate if share is None else rate * share)) * trace
        if self.bound is unbounded:
            moved = torch.addcmul(kept, gate, source)
        else:
            moved = self.bound(kept, gate * source, self.config.clip)
        updated = {"trace": self.normalise(moved)} if self.is_bare else self._settled(params, kept, moved, state)
        return updated | self.modulator.next_state(params, post, feedback, state)

    def _settled(self, params: NamedTensors, kept: Tensor, moved: Tensor, state: NamedTensors) -> dict[str, Tensor]:
        """F after what comes after its bound, and the entries of the parts that see to it.

        Args:
            params: The network's parameters.
            kept: `rho F`, `(.., B, O, I)`.
            moved: The bounded sum of it and the change.
            state: As left by the last update, with what homeostasis has observed since.
        """
        updated: dict[str, Tensor] = {}
        moved = self.present(params, moved, state)
        if self._metaplastic:
            updated |= self.metaplasticity.next_state(params, moved - self.present(params, kept, state), state)
        trace = self.normalise(moved)
        if self._homeostatic:
            trace, held = self.homeostasis.held(params, trace, self.consolidation.slow(state), state)
            updated |= held
        if self._consolidates:
            trace, consolidated = self.consolidation.consolidated(params, trace, state)
            updated |= consolidated
        return updated | {"trace": trace}

    def pruned(self, params: NamedTensors, state: NamedTensors) -> dict[str, Tensor]:
        """F, and what stands behind it, 0 where M says that there is no synapse."""
        assert isinstance(self.structure, Sparse), "only such a structure leaves synapses out"
        connected, pruned = self.structure.connected(params, state), {}
        for name in ("trace", *self.metaplasticity.own_entries, *self.consolidation.slow_entries):
            entry, there = state[name], connected
            for _ in range(entry.dim() - state["trace"].dim()):
                there = there.unsqueeze(-3)
            pruned[name] = torch.where(there, entry, 0.0)
        return pruned

    def rewired(
        self, params: NamedTensors, start: Tensor | None, state: NamedTensors, numbers: Tensor, due: Tensor
    ) -> dict[str, Tensor]:
        """M and the entries of each synapse after some went and others came.

        Args:
            params: The network's parameters.
            start: W0, as `weight` has it.
            state: The synapse's, with `connected`; never modified.
            numbers: Uniform random numbers, `(.., B, O I)`.
            due: Which lifetimes rewire, `(.., B)` bool.
        """
        assert isinstance(self.structure, Rewire), "only such a structure rewires"
        before = state["connected"]
        weight = self.weight(params, start, state)
        after = self.structure.rewired(weight, before, state.get("eligibility"), numbers)
        due = due.unsqueeze(-1).unsqueeze(-1)
        connected = torch.where(due, after, before)
        stays = self.pruned(params, {**state, "connected": connected & before | ~due})
        rewired = stays | {"connected": connected}
        if self.eligibility.has_trace:
            rewired["eligibility"] = torch.where(connected & ~before, 0.0, state["eligibility"])
        return rewired

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
        if self._homeostatic:
            current |= self.homeostasis.observed(params, post, state)
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
