"""A randomly wired network that learns by a table of local rules (Cristian et al. 2021; Joosten 2021).

    a_0 = cap(f(A x))
    a_t = cap(f(W (a_0 + a_{t-1})))     t = 1..N   (Joosten)
    a_t = cap(f(W a_{t-1} + A x))                  (Cristian)
    o   = U a_N

`A`, `W` (no self connections) and `U` are drawn anew in each lifetime and then belong to its state; parameters are the
tables that say how they change, the steps and how outputs become actions. The order within a step: lifetimes that
start get new weights; the update of the step before is made, now that its outcome is known; the forward pass.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from plastic_rl.errors import SpaceError
from plastic_rl.networks.base import Feedback, Params, PlasticNetwork, Recording, State, StateEntry
from plastic_rl.networks.rule_table_config import LAYERS, RuleTableConfig
from plastic_rl.networks.start_weights import draw_keys, next_keys, normal_weights
from plastic_rl.plasticity.tables import (
    add_round,
    code_count,
    hidden_change,
    input_change,
    k_cap,
    output_change,
    output_columns,
    scaled_,
    stacked,
)
from plastic_rl.plasticity.tables_hand_written import HAND_WRITTEN

FEEDBACK_BESIDES_ACTION = 3
"""Reward, trial_start and t/T."""


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


class RuleTableNetwork(PlasticNetwork):
    """One hidden layer of k-capped units; the outputs are its own preferences among actions.

    Parameters (a table is there if its layer is plastic): `input_table (G, C)`, `hidden_table (G, C, C)` by pre and
    post code, `output_table (C, S)`, `log_step` with one entry for each plastic layer in order, and
    `log_inverse_temperature (1,)` and `exploration (1,)` where the selection uses them.

    Args:
        config: The network's shape and which rules it may have.
        input_size: `I`, the whole observation.
        action_size: `K`, the number of actions.
        generator: Draws the tables, where they start at random.

    Raises:
        SpaceError: If the observation leaves no inputs.
    """

    has_readout = True

    def __init__(
        self,
        config: RuleTableConfig,
        input_size: int,
        action_size: int,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.input_size = input_size
        self.output_size = action_size
        features = input_size - action_size - FEEDBACK_BESIDES_ACTION - (action_size if config.supervised else 0)
        if features < (config.inputs == "features"):
            raise SpaceError(
                f"observations of {input_size} columns leave {features} features beside the feedback of {action_size} "
                f"actions{' and as many labels' if config.supervised else ''}. "
                + (
                    "A supervised output table needs an environment that shows labels; use output_table: label_free."
                    if config.supervised
                    else "Use inputs: all, which takes the feedback as input."
                )
            )
        self.feature_size = features if config.inputs == "features" else features + action_size + 4
        self.codes = code_count(config.rounds)
        self.plastic_layers = config.plastic_layers()
        self.is_plastic = bool(self.plastic_layers)
        self._shapes = {
            "input": (config.hidden_size, self.feature_size),
            "hidden": (config.hidden_size, config.hidden_size),
            "output": (action_size, config.hidden_size),
        }
        self._entries = self._make_entries()
        for name, table in self._start_tables(generator).items():
            self.register_parameter(f"{name}_table", nn.Parameter(table))
        if self.plastic_layers:
            self.log_step = nn.Parameter(torch.zeros(len(self.plastic_layers)), requires_grad=config.learn_steps)
        if config.selection == "softmax":
            self.log_inverse_temperature = nn.Parameter(torch.zeros(1))
        if config.exploration > 0:
            self.exploration = nn.Parameter(torch.zeros(1))

    def _make_entries(self) -> dict[str, StateEntry]:
        config, layers = self.config, self.plastic_layers
        entries = {"key": StateEntry((), dtype=torch.int64)}
        for name in LAYERS:
            if name != "hidden" or config.rounds:
                entries[f"{name}_weight"] = StateEntry(self._shapes[name])
        if layers:
            entries["code"] = StateEntry((config.hidden_size,), dtype=torch.uint8)
        if "input" in layers and config.presynaptic.input:
            entries["presynaptic.input"] = StateEntry((self.feature_size,))
        if "hidden" in layers and config.presynaptic.hidden:
            entries["presynaptic.hidden"] = StateEntry((config.hidden_size,))
        if layers and config.supervised and config.when == "errors":
            entries["preference"] = StateEntry((self.output_size,))
        if self._reads_reward():
            entries["reward_average"] = StateEntry(())
        return entries

    def _reads_reward(self) -> bool:
        """Whether any update looks at the reward."""
        config, layers = self.config, self.plastic_layers
        gated = any(name in layers and getattr(config.gated, name) for name in ("input", "hidden"))
        label_free = not config.supervised and ("output" in layers or config.when == "errors")
        return bool(layers) and (gated or label_free or config.surprise)

    def _start_tables(self, generator: torch.Generator | None) -> dict[str, Tensor]:
        config, codes = self.config, self.codes
        shapes: dict[str, tuple[int, ...]] = {
            "input": (len(config.gates("input")), codes),
            "hidden": (len(config.gates("hidden")), codes, codes),
            "output": (codes, config.columns),
        }
        tables = {name: torch.zeros(shapes[name]) for name in self.plastic_layers}
        if config.tables == "normal":
            for table in tables.values():
                table.normal_(generator=generator)
        elif config.tables in HAND_WRITTEN and "output" in tables:
            tables["output"] = HAND_WRITTEN[config.tables].table(codes, config.columns, config.table_values)
        return tables

    def plasticity_parameters(self) -> list[str]:
        """The steps, where they are trained."""
        return ["log_step"] if self.plastic_layers and self.config.learn_steps else []

    def state_entries(self) -> dict[str, StateEntry]:
        """`key`, the layers' weights, and what the update of the next step needs to know of this one.

        That is each hidden unit's `code`, and, where the config uses them, the presynaptic activity, the outputs
        (`preference`) and the `reward_average`.
        """
        return self._entries

    def initial_state(self, batch: int, generator: torch.Generator | None = None) -> State:
        """Zero but for `key`, from which the start weights follow at the first `episode_start`."""
        own = next(self.parameters(), torch.zeros(()))
        state = {
            name: torch.zeros(batch, *entry.shape, dtype=entry.dtype or own.dtype, device=own.device)
            for name, entry in self._entries.items()
        }
        return state | {"key": draw_keys(batch, generator).to(own.device)}

    # --- acting ---------------------------------------------------------------------------------------------------

    def step(
        self, params: Params, x: Tensor, feedback: Feedback, state: State, episode_start: Tensor
    ) -> tuple[Tensor, State]:
        """One time step; see `PlasticNetwork.step`. Features are the outputs `(.., B, K)`.

        Raises:
            SpaceError: If the output table needs a label and the environment shows none, or the other way round.
        """
        self._check_label(feedback)
        following = dict(state)
        if bool(episode_start.any()):
            following |= self._born(state, episode_start)
        if self.plastic_layers and not self.plasticity_frozen:
            following |= self._learn(self.prepared(params), feedback, following, episode_start)
        inputs = self._inputs(x)
        outputs, seen = self._forward(inputs, following)
        following |= {name: value for name, value in seen.items() if name in self._entries}
        return outputs, following

    def prepared(self, params: Params) -> Params:
        """`params` with the tables' rows as the update takes them, and what `readout` computes from them alone."""
        if "individual" in params or not self._parameters:
            return params
        config, ready = self.config, dict(params)
        name, own = next(self.named_parameters())
        value = params[name]
        population = value.shape[0] if value.dim() > own.dim() else 0
        ready["individual"] = torch.arange(max(population, 1), device=value.device)
        if population:
            ready["individual"] = ready["individual"].unsqueeze(-1)
        for place, layer in enumerate(self.plastic_layers):
            table = params[f"{layer}_table"]
            step = getattr(config.step, layer) * params["log_step"][..., place].exp()
            ready[f"{layer}_rows"] = stacked(table.mT if layer == "output" else table, step)
        if config.selection == "softmax":
            ready["beta"] = config.inverse_temperature * params["log_inverse_temperature"].exp()
        if config.exploration > 0:
            start = math.log(config.exploration / (1 - config.exploration))
            ready["epsilon"] = torch.sigmoid(params["exploration"] + start)
        return ready

    def readout(self, params: Params, features: Tensor) -> Tensor:
        """Log of the probabilities of actions: softmax or argmax of the outputs, mixed with uniform exploration."""
        config, ready = self.config, self.prepared(params)
        if config.selection == "softmax":
            logits = features * _lift(ready["beta"], features)
            if config.exploration == 0:
                return logits
            probabilities = torch.softmax(logits, -1)
        else:
            best = (features == features.amax(-1, keepdim=True)).to(features.dtype)
            probabilities = best / best.sum(-1, keepdim=True)
        if config.exploration > 0:
            epsilon = _lift(ready["epsilon"], features)
            probabilities = probabilities * (1 - epsilon) + epsilon / self.output_size
        return probabilities.log()

    def _check_label(self, feedback: Feedback) -> None:
        if self.config.supervised and feedback.label is None:
            raise SpaceError(
                f"output_table: {self.config.output_table} learns from labels, but this environment shows none; use an "
                "environment that teaches (plastic_rl/SupervisedClassification-v0) or output_table: label_free"
            )
        if not self.config.supervised and feedback.label is not None:
            raise SpaceError(
                "a label-free network cannot act in an environment that shows labels; use one that rewards "
                "(plastic_rl/Classification-v0), or output_table: supervised"
            )

    def _inputs(self, x: Tensor) -> Tensor:
        """The columns of observations `(.., B, I)` that the network sees: never a label."""
        if self.config.inputs == "features":
            return x[..., : self.feature_size]
        return torch.cat([x[..., : self.feature_size - 1], torch.ones_like(x[..., :1])], -1)

    def _born(self, state: State, episode_start: Tensor) -> State:
        """New weights, and nothing remembered, where `episode_start (.., B)`."""
        key = next_keys(state["key"], episode_start)
        born: State = {"key": key}
        everywhere = bool(episode_start.all())
        for name, entry in self._entries.items():
            if name == "key":
                continue
            start = episode_start.reshape(episode_start.shape + (1,) * len(entry.shape))
            layer = name.removesuffix("_weight")
            if layer in LAYERS:
                drawn = self._start_weights(layer, key, state[name])
                born[name] = drawn if everywhere else torch.where(start, drawn, state[name])
            else:
                born[name] = state[name].masked_fill(start, 0)
        return born

    def _start_weights(self, layer: str, key: Tensor, like: Tensor) -> Tensor:
        """Start weights `(.., B, O, I)` of a layer, as the keys `(.., B)` say."""
        if key.dim() == 2 and bool((key == key[:1]).all()):
            # A population that shares its keys shares its start weights, and while they are frozen their memory.
            return self._start_weights(layer, key[0], like[0]).expand(key.shape[0], *[-1] * (like.dim() - 1))
        kind = getattr(self.config.start_weights, layer)
        scale = getattr(self.config.start_scale, layer)
        shape = self._shapes[layer]
        if kind == "normal":
            weights = normal_weights(key, LAYERS.index(layer), shape).to(like.dtype)
            weights = weights * (shape[1] ** -0.5 if scale is None else scale)
        else:
            value = 0.0 if kind == "zeros" else 1.0 if scale is None else scale
            weights = like.new_full((*key.shape, *shape), value)
        return self._tidied(layer, weights)

    def _tidied(self, layer: str, weights: Tensor) -> Tensor:
        """`weights (.., O, I)` without self connections and scaled; may change them in place: they are fresh."""
        if layer == "hidden":
            weights.diagonal(dim1=-2, dim2=-1).zero_()
        normalise = getattr(self.config.normalise, layer)
        if normalise == "none":
            return weights
        return scaled_(weights, -1 if normalise == "incoming_l2" else -2)

    def _forward(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """Outputs `(.., B, K)`, and what there was to see: codes, presynaptic activity."""
        config = self.config
        drive = _through(state["input_weight"], inputs)
        first = kept = k_cap(self._activation(drive), config.cap)
        codes = add_round(None, kept, 0)
        arriving = kept
        for number in range(1, config.rounds + 1):
            if config.recurrence == "joosten":
                arriving = first + kept
                total = _through(state["hidden_weight"], arriving)
            else:
                arriving = kept
                total = _through(state["hidden_weight"], arriving) + drive
            kept = k_cap(self._activation(total), config.cap)
            codes = add_round(codes, kept, number)
        outputs = _through(state["output_weight"], kept)
        return outputs, {
            "code": codes,
            "presynaptic.input": inputs,
            "presynaptic.hidden": arriving,
            "preference": outputs,
        }

    def _activation(self, total: Tensor) -> Tensor:
        match self.config.activation:
            case "relu":
                return torch.relu(total)
            case "sigmoid":
                return torch.sigmoid(total)
            case "tanh":
                return torch.tanh(total)
        return total

    # --- learning within the lifetime -----------------------------------------------------------------------------

    def _learn(self, ready: Params, feedback: Feedback, state: State, episode_start: Tensor) -> State:
        """The update of the step before: the entries that it changes, `(.., B, ...)`."""
        happens, seen, learned = self._look_back(feedback, state, episode_start)
        count = int(happens.sum())
        if count == 0:
            return learned
        changed = {f"{layer}_weight": self._changed(layer, ready, seen, state) for layer in self.plastic_layers}
        if count < happens.numel():
            mask = happens.unsqueeze(-1).unsqueeze(-1)
            changed = {name: torch.where(mask, value, state[name]) for name, value in changed.items()}
        return learned | changed

    def _look_back(self, feedback: Feedback, state: State, episode_start: Tensor) -> tuple[Tensor, Seen, State]:
        """Where weights change, `(.., B)` bool; what is known then; and the new average reward, where kept."""
        config = self.config
        happens = feedback.valid & ~episode_start
        learned: State = {}
        rewarded = surprise = None
        outcome = feedback.reward != 0 if config.no_outcome == "zero_reward" else None
        if "reward_average" in self._entries:
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
        happens, seen, _ = self._look_back(feedback, state, episode_start)
        if not self.plastic_layers or not bool(happens.any()):
            return {}
        histories = nn.functional.one_hot(state["code"][happens].long(), self.codes).sum(-2).double()
        counts = {}
        for layer in self.plastic_layers:
            if layer == "output":
                columns = nn.functional.one_hot(self._columns(seen)[happens], self.config.columns).sum(-2).double()
                counts["output_table"] = histories.mT @ columns
                continue
            gates = nn.functional.one_hot(self._gate(layer, seen)[happens], len(self.config.gates(layer))).double()
            if layer == "input":
                counts["input_table"] = gates.mT @ histories * self.feature_size
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
        return self._tidied(layer, change.add_(weights) if in_place else weights + change)

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

    def unroll(
        self,
        params: Params,
        xs: Tensor,
        feedbacks: Feedback,
        state: State,
        episode_starts: Tensor,
        recorded: Recording | None = None,
    ) -> tuple[Tensor, State]:
        """`T` steps at once; differentiable in table entries, steps and the readout's parameters."""
        return self.unroll_reference(params, xs, feedbacks, state, episode_starts)

    def extra_repr(self) -> str:
        """Sizes and the kind of table."""
        return (
            f"inputs={self.feature_size}, hidden={self.config.hidden_size}, outputs={self.output_size}, "
            f"rounds={self.config.rounds}, output_table={self.config.output_table}"
        )


def _lift(value: Tensor, like: Tensor) -> Tensor:
    """One number per individual, `(1,)` or `(P, 1)`, broadcastable against `like (P?, ..)`."""
    return value.reshape(value.shape[:-1] + (1,) * (like.dim() - value.dim() + 1))


def _through(weights: Tensor, activity: Tensor) -> Tensor:
    """`weights (.., O, I)` times `activity (.., I)`, `(.., O)`."""
    if weights.dim() == 4 and weights.stride(0) == 0:
        # One set of weights for the whole population: one product for each lifetime.
        return (activity.transpose(0, 1) @ weights[0].mT).transpose(0, 1)
    # A row vector from the left is several times faster in a batched product than a column from the right.
    rows = activity.reshape(-1, 1, activity.shape[-1])
    return torch.bmm(rows, weights.flatten(0, -3).mT).view(*activity.shape[:-1], -1)
