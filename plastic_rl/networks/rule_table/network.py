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
from collections.abc import Mapping

import torch
from torch import Tensor
from typing_extensions import override

from plastic_rl.errors import SpaceError
from plastic_rl.feedback import Feedback, FeedbackLayout
from plastic_rl.networks.acting import ActsInPlace
from plastic_rl.networks.base import Params, PlasticNetwork, State, reset_entry
from plastic_rl.networks.rule_table.config import LAYERS, RuleTableConfig
from plastic_rl.networks.rule_table.native import TableActing
from plastic_rl.networks.rule_table.tables import add_round
from plastic_rl.networks.rule_table.update import TableUpdate, tidied_
from plastic_rl.networks.start_weights import next_keys, normal_weights
from plastic_rl.neurons import k_cap
from plastic_rl.plasticity import LOGARITHM, Parameter, StateEntry


class RuleTableNetwork(PlasticNetwork):
    """One hidden layer of k-capped units; the outputs are its own preferences among actions.

    Parameters (a table is there if its layer is plastic): `input_table (G, C)`, `hidden_table (G, C, C)` by pre and
    post code, `output_table (C, S)`, `log_step` with one entry for each plastic layer in order, and
    `log_inverse_temperature (1,)` and `exploration (1,)` where the selection uses them.

    State entries: `key`, from which the start weights follow at the first `episode_start`; the layers' weights; what
    the update of the next step needs to know of this one: each hidden unit's `code`, and, where the config uses them,
    the presynaptic activity, the outputs (`preference`) and the `reward_average`.

    Raises:
        SpaceError: If the observation leaves no inputs, or the output table needs labels and the environment shows
            none, or the other way round.
    """

    config_model = RuleTableConfig
    config: RuleTableConfig
    has_readout = True
    discrete_only = True

    @override
    def build(self, feedback: FeedbackLayout, generator: torch.Generator | None, steps_per_trial: int | None) -> None:
        config = self.config
        self._check_labels(feedback)
        self.output_size = feedback.action_size
        if config.inputs == "features" and not feedback.start:
            raise SpaceError(
                f"observations of {self.input_size} columns leave no features before the feedback; use inputs: all, "
                "which takes the feedback as input"
            )
        # All of them: and a constant 1.
        self.feature_size = feedback.start if config.inputs == "features" else feedback.time[1] + 1
        self._shapes = {
            "input": (config.hidden_size, self.feature_size),
            "hidden": (config.hidden_size, config.hidden_size),
            "output": (self.output_size, config.hidden_size),
        }
        self.update = TableUpdate(config, self._shapes)
        self.is_plastic = bool(self.update.layers)
        weights = [layer for layer in LAYERS if layer != "hidden" or config.rounds]
        self._entries = {
            "key": StateEntry((), dtype=torch.int64),
            **{f"{layer}_weight": StateEntry(self._shapes[layer]) for layer in weights},
            **self.update.state_entries(),
        }
        for name, table in self.update.start_tables(generator).items():
            self.adopt(name, Parameter(table, is_gain=False))
        if self.is_plastic:
            steps = torch.zeros(len(self.update.layers), dtype=torch.float32)
            self.adopt("log_step", Parameter(steps, config.learn_steps, valid=LOGARITHM))
        # An inverse temperature's logarithm, and the logit of how often to explore.
        heads = {"log_inverse_temperature": config.selection == "softmax", "exploration": config.exploration > 0}
        for name in (name for name, used in heads.items() if used):
            self.adopt(name, Parameter(torch.zeros(1, dtype=torch.float32), valid=LOGARITHM, is_gain=False))

    @override
    def step(
        self, params: Params, x: Tensor, feedback: Feedback, state: State, episode_start: Tensor
    ) -> tuple[Tensor, State]:
        following = dict(state)
        if bool(episode_start.any()):
            following |= self._born(state, episode_start)
        if self.is_plastic and not self.plasticity_frozen:
            following |= self.update.learned(self.prepared(params), feedback, following, episode_start)
        inputs = self._inputs(x)
        outputs, seen = self._forward(inputs, following)
        following |= {name: value for name, value in seen.items() if name in self._entries}
        return outputs, following

    @override
    def prepared(self, params: Params) -> Params:
        if "individual" in params or not self._parameters:
            return params
        config, ready = self.config, dict(params)
        name, own = next(self.named_parameters())
        value = params[name]
        population = value.shape[0] if value.dim() > own.dim() else 0
        ready["individual"] = torch.arange(max(population, 1), device=value.device)
        if population:
            ready["individual"] = ready["individual"].unsqueeze(-1)
        ready |= self.update.rows(params)
        if config.selection == "softmax":
            ready["beta"] = config.inverse_temperature * params["log_inverse_temperature"].exp()
        if config.exploration > 0:
            start = math.log(config.exploration / (1 - config.exploration))
            epsilon = torch.sigmoid(params["exploration"] + start)
            ready |= {"uniform": epsilon / self.output_size, "guided": 1 - epsilon}
        if population:
            # One number for each individual, to go with (P, B, K).
            ready |= {name: ready[name].unsqueeze(-1) for name in ("beta", "uniform", "guided") if name in ready}
        return ready

    @override
    def readout(self, params: Params, features: Tensor) -> Tensor:
        """Log of the probabilities of actions: softmax or argmax of the outputs, mixed with uniform exploration."""
        config, ready = self.config, self.prepared(params)
        guided = ready["guided"] if config.exploration > 0 else None
        if config.selection == "softmax":
            logits = features * ready["beta"]
            if guided is None:
                return logits
            probabilities = guided * torch.softmax(logits, -1)
        else:
            best = features == features.amax(-1, keepdim=True)
            probabilities = best * (
                (1 if guided is None else guided) / best.sum(-1, keepdim=True, dtype=features.dtype)
            )
        if guided is not None:
            probabilities = probabilities + ready["uniform"]
        return probabilities.log()

    @override
    def acting(
        self,
        params: Params,
        state: Mapping[str, Tensor],
        shape: tuple[int, ...],
        steps: int,
        head: tuple[Tensor, Tensor] | None = None,
    ) -> ActsInPlace | None:
        ready = self.prepared(params)
        numbers = [value for value in ready.values() if value.is_floating_point()]
        plain = all(value.dtype is torch.float32 and value.device.type == "cpu" for value in numbers)
        if self.core.level is None or not plain or state["input_weight"].dtype is not torch.float32:
            return None
        feedback, _ = self._surroundings
        return TableActing(
            self.core.level,
            self.config,
            self.update,
            ready,
            feedback,
            self.input_size,
            self._shapes,
            tuple(self._entries),
            shape,
            state,
            self._born,
            lambda outputs: self.readout(ready, outputs),
            frozen=self.plasticity_frozen,
        )

    def _check_labels(self, feedback: FeedbackLayout) -> None:
        if self.config.supervised and feedback.label is None:
            raise SpaceError(
                f"output_table: {self.config.output_table} learns from labels, but this environment shows none; use a "
                "supervised environment (plastic_rl/SupervisedClassification-v0) or output_table: label_free"
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
        for name in (name for name in self._entries if name in state):
            layer = name.removesuffix("_weight")
            if layer in LAYERS:
                drawn = self._start_weights(layer, key, state[name])
                start = episode_start.unsqueeze(-1).unsqueeze(-1)
                born[name] = drawn if everywhere else torch.where(start, drawn, state[name])
            elif name != "key":
                born[name] = reset_entry(episode_start, state[name])
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
        return tidied_(self.config, layer, weights)

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
            "presynaptic.output": kept,
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


def _through(weights: Tensor, activity: Tensor) -> Tensor:
    """`weights (.., O, I)` times `activity (.., I)`, `(.., O)`."""
    if weights.dim() == 4 and weights.stride(0) == 0:
        # One set of weights for the whole population: one product for each lifetime. What follows is slow on strides.
        return (activity.transpose(0, 1) @ weights[0].mT).transpose(0, 1).contiguous()
    # A row vector from the left is several times faster in a batched product than a column from the right.
    rows = activity.reshape(-1, 1, activity.shape[-1])
    return torch.bmm(rows, weights.flatten(0, -3).mT).view(*activity.shape[:-1], -1)
