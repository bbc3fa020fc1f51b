"""How the weights of a rule-table network change: which entry of which table reaches which weight.

Data flows from the feedback and the state that the step before left, through what is known then (`Seen`), to look-ups
in the tables and new weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from plastic_rl.feedback import Feedback
from plastic_rl.networks.base import Params, State
from plastic_rl.networks.rule_table.config import RuleTableConfig
from plastic_rl.networks.rule_table.hand_written import HAND_WRITTEN
from plastic_rl.networks.rule_table.tables import (
    hidden_change,
    input_change,
    output_change,
    output_columns,
    scaled_,
    stacked,
)
from plastic_rl.plasticity import StateEntry


class Seen(NamedTuple):
    """What is known at an update.

    Attributes:
        feedback: Of the step that acted.
        rewarded: Whether its reward was above the average, `(.., B)` bool, where the network keeps one.
        outcome: Whether it had an outcome, `(.., B)` bool, where steps without one change weights too; else None.
        factor: What changes are multiplied by, `(.., B)`; None: nothing.
    """

    feedback: Feedback
    rewarded: Tensor | None
    outcome: Tensor | None
    factor: Tensor | None


def tidied_(config: RuleTableConfig, layer: str, weights: Tensor) -> Tensor:
    """`weights (.., O, I)` without self connections and scaled; may change them in place: they are fresh."""
    if layer == "hidden":
        weights.diagonal(dim1=-2, dim2=-1).zero_()
    normalise = getattr(config.normalise, layer)
    if normalise == "none":
        return weights
    return scaled_(weights, -1 if normalise == "incoming_l2" else -2)


class TableUpdate:
    """The update of all plastic layers; it holds no numbers: parameters and state come in with each call.

    Args:
        config: The network's.
        shapes: Layer to the shape `(O, I)` of its weights.

    Attributes:
        layers: Names of the plastic layers, in order.
        codes: Number of firing histories, `C`.
        reads_reward: Whether any update looks at the reward; the state then keeps its average.
    """

    def __init__(self, config: RuleTableConfig, shapes: Mapping[str, tuple[int, int]]) -> None:
        self.config = config
        self.shapes = shapes
        self.layers = config.plastic_layers()
        self.codes = int(2 ** (config.rounds + 1))
        gated = any(name in self.layers and getattr(config.gated, name) for name in ("input", "hidden"))
        label_free = not config.supervised and ("output" in self.layers or config.when == "errors")
        self.reads_reward = bool(self.layers) and (gated or label_free or config.surprise)

    def state_entries(self) -> dict[str, StateEntry]:
        """What an update needs to know of the step before, and the average reward."""
        config, units = self.config, self.config.hidden_size
        if not self.layers:
            return {}
        entries = {"code": StateEntry((units,), dtype=torch.uint8)}
        for layer in self.layers:
            if getattr(config.presynaptic, layer):
                entries[f"presynaptic.{layer}"] = StateEntry(self.shapes[layer][1:])
        if config.supervised and config.when == "errors":
            entries["preference"] = StateEntry(self.shapes["output"][:1])
        if self.reads_reward:
            entries["reward_average"] = StateEntry(())
        return entries

    def start_tables(self, generator: torch.Generator | None) -> dict[str, Tensor]:
        """The tables by name, as the config says that they start."""
        config, codes = self.config, self.codes
        shapes: dict[str, tuple[int, ...]] = {
            "input": (len(config.gates("input")), codes),
            "hidden": (len(config.gates("hidden")), codes, codes),
            "output": (codes, config.columns),
        }
        tables = {f"{layer}_table": torch.zeros(shapes[layer], dtype=torch.float32) for layer in self.layers}
        if config.tables == "normal":
            for table in tables.values():
                table.normal_(generator=generator)
        elif config.tables in HAND_WRITTEN and "output" in self.layers:
            tables["output_table"] = HAND_WRITTEN[config.tables].table(codes, config.columns, config.table_values)
        return tables

    def rows(self, params: Params) -> dict[str, Tensor]:
        """The rows of each plastic layer's table times its step, as look-ups take them, under `LAYER_rows`."""
        rows = {}
        for place, layer in enumerate(self.layers):
            table = params[f"{layer}_table"]
            step = getattr(self.config.step, layer) * params["log_step"][..., place].exp()
            rows[f"{layer}_rows"] = stacked(table.mT if layer == "output" else table, step)
        return rows

    def learned(self, ready: Params, feedback: Feedback, state: State, episode_start: Tensor) -> State:
        """The update of the step before: the entries that it changes, `(.., B, ...)`."""
        happens, seen, learned = self.look_back(feedback, state, episode_start)
        count = int(happens.sum())
        if count == 0:
            return learned
        changed = {f"{layer}_weight": self._changed(layer, ready, seen, state) for layer in self.layers}
        if count < happens.numel():
            mask = happens.unsqueeze(-1).unsqueeze(-1)
            changed = {name: torch.where(mask, value, state[name]) for name, value in changed.items()}
        return learned | changed

    def look_back(self, feedback: Feedback, state: State, episode_start: Tensor) -> tuple[Tensor, Seen, State]:
        """Where weights change, `(.., B)` bool; what is known then; and the new average reward, where kept."""
        config = self.config
        happens = feedback.valid & ~episode_start
        learned: State = {}
        rewarded = surprise = None
        outcome = feedback.reward != 0 if config.no_outcome == "zero_reward" else None
        if self.reads_reward:
            average = state["reward_average"]
            surprise = feedback.reward - average
            rewarded = surprise > 0
            counts = happens if outcome is None else happens & outcome
            learned["reward_average"] = torch.where(counts, average + config.reward_average_rate * surprise, average)
        if outcome is not None and not config.update_without_outcome:
            happens, outcome = happens & outcome, None
        if config.when == "errors":
            happens = happens & self._erred(feedback, rewarded, state)
        factor = surprise.abs() if config.surprise and surprise is not None else None
        return happens, Seen(feedback, rewarded, outcome, factor), learned

    def _erred(self, feedback: Feedback, rewarded: Tensor | None, state: State) -> Tensor:
        """Where the decision was an error, `(.., B)` bool; ties with the correct output are errors."""
        if not self.config.supervised:
            assert rewarded is not None, "label-free networks keep the average reward"
            return ~rewarded
        assert feedback.label is not None, "checked at the start of the step"
        correct = feedback.label > 0.5
        preference = state["preference"]
        right = preference.masked_fill(~correct, -math.inf).amax(-1)
        return right <= preference.masked_fill(correct, -math.inf).amax(-1)

    def uses(self, feedback: Feedback, state: State, episode_start: Tensor) -> dict[str, Tensor]:
        """How often the update that `step` would now make looks up each entry of each table, for how many weights.

        Args:
            feedback: As in `step`, entries `(B, ..)`.
            state: As in `step`.
            episode_start: `(B,)` bool.

        Returns:
            Table name to counts of the table's shape, float64.
        """
        happens, seen, _ = self.look_back(feedback, state, episode_start)
        if not self.layers or not bool(happens.any()):
            return {}
        histories = nn.functional.one_hot(state["code"][happens].long(), self.codes).sum(-2).double()
        counts = {}
        for layer in self.layers:
            if layer == "output":
                columns = nn.functional.one_hot(self._columns(seen)[happens], self.config.columns).sum(-2).double()
                counts["output_table"] = histories.mT @ columns
                continue
            gates = nn.functional.one_hot(self._gate(layer, seen)[happens], len(self.config.gates(layer))).double()
            if layer == "input":
                counts["input_table"] = gates.mT @ histories * self.shapes["input"][1]
            else:
                # Not from a unit to itself.
                pairs = histories.unsqueeze(-1) * histories.unsqueeze(-2) - torch.diag_embed(histories)
                counts["hidden_table"] = torch.einsum("rg,rij->gij", gates, pairs)
        return counts

    def _columns(self, seen: Seen) -> Tensor:
        """Which column of the output table holds for each output, int64 `(.., B, K)`."""
        return output_columns(
            self.config.output_table, seen.feedback.action, seen.rewarded, seen.feedback.label, seen.outcome
        )

    def _changed(self, layer: str, ready: Params, seen: Seen, state: State) -> Tensor:
        """The weights `(.., B, O, I)` of a plastic layer after the update, in every lifetime."""
        config, codes, weights = self.config, state["code"], state[f"{layer}_weight"]
        rows, individual = ready[f"{layer}_rows"], ready["individual"]
        presynaptic = state.get(f"presynaptic.{layer}")
        if layer == "output":
            place = torch.add(self._columns(seen), individual.unsqueeze(-1), alpha=config.columns)
            change = output_change(rows, place, codes)
            if presynaptic is not None:
                change = change * presynaptic.unsqueeze(-2)
        else:
            place = torch.add(self._gate(layer, seen), individual, alpha=len(config.gates(layer)))
            if layer == "hidden":
                change = hidden_change(rows, place, codes, presynaptic).view(weights.shape)
            else:
                change = input_change(rows, place, codes).unsqueeze(-1)
                if presynaptic is not None:
                    change = change * presynaptic.unsqueeze(-2)
        if seen.factor is not None:
            change = change * seen.factor.unsqueeze(-1).unsqueeze(-1)
        if config.update == "multiplicative":
            change = weights * change
        in_place = change.shape == weights.shape and not torch.is_grad_enabled()
        return tidied_(config, layer, change.add_(weights) if in_place else weights + change)

    def _gate(self, layer: str, seen: Seen) -> Tensor:
        """Which condition of the reward holds, int64 `(.., B)`."""
        if getattr(self.config.gated, layer):
            assert seen.rewarded is not None, "gated networks keep the average reward"
            gate = seen.rewarded.long()
        else:
            gate = torch.zeros_like(seen.feedback.reward, dtype=torch.int64)
        if seen.outcome is None:
            return gate
        return gate.masked_fill(~seen.outcome, len(self.config.gates(layer)) - 1)
