"""Recurrent networks without plastic synapses, as controls: tanh RNN, GRU and LSTM.

Same interface as the plastic networks. Sequences run through torch's own fused kernels, cut only where a lifetime (or
a trial, if configured so) starts in mid-sequence.
"""

from __future__ import annotations

import functools
import itertools
import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from plastic_rl.config import ConfigModel
from plastic_rl.feedback import Feedback, FeedbackLayout
from plastic_rl.networks.acting import ActsInPlace
from plastic_rl.networks.base import (
    Params,
    PlasticNetwork,
    State,
    reset_entry,
    scoped_entries,
)
from plastic_rl.networks.hidden_layers import HiddenLayer, hidden_layer
from plastic_rl.plasticity import ResetScope, StateEntry

Tensors = tuple[Tensor, ...]


class RecurrentConfig(ConfigModel):
    """What the controls have in common."""

    hidden_size: int = Field(48, ge=1, description="Number of recurrent units.")
    reset: dict[str, ResetScope] = Field(
        default_factory=dict,
        description="When a state entry resets, if not with the lifetime: e.g. {activity: trial}.",
    )


class RNNConfig(RecurrentConfig):
    """A plain tanh RNN."""

    kind: Literal["rnn"] = Field("rnn", description="Kind of network.")


class GRUConfig(RecurrentConfig):
    """A gated recurrent unit network (Cho et al. 2014)."""

    kind: Literal["gru"] = Field("gru", description="Kind of network.")


class LSTMConfig(RecurrentConfig):
    """A long short-term memory network (Hochreiter & Schmidhuber 1997)."""

    kind: Literal["lstm"] = Field("lstm", description="Kind of network.")


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`x WT + b`, `(.., B, O)`, with or without a population axis on everything."""
    if weight.dim() == 2:
        return nn.functional.linear(x, weight, bias)
    return x @ weight.mT + bias.unsqueeze(-2)


def unroll_stretches(
    kernel: Callable[..., Any], xs: Tensor, hidden: Tensors, starts: Tensors, weights: Tensors
) -> tuple[Tensor, Tensors]:
    """Steps by one of torch's own recurrent kernels, one call for each stretch without a reset.

    Args:
        kernel: `torch.rnn_tanh`, `torch.gru` or `torch.lstm`.
        xs: `(T, B, I)`.
        hidden: What the kernel carries from step to step, each `(B, O)`, the activity first.
        starts: Where each of them is reset, `(T, B)` bool.
        weights: Input weights, recurrent weights, and a bias for each.

    Returns:
        Features `(T, B, O)` and what is carried after the last step.
    """
    cuts = functools.reduce(torch.logical_or, starts).any(dim=1).nonzero().flatten().tolist()
    pieces = []
    for first, last in itertools.pairwise(sorted({0, *cuts, xs.shape[0]})):
        before = [reset_entry(start[first], entry).unsqueeze(0) for start, entry in zip(starts, hidden, strict=True)]
        carried = before if len(before) > 1 else before[0]
        features, *after = kernel(xs[first:last], carried, weights, True, 1, 0.0, False, False, False)
        hidden = tuple(entry.squeeze(0) for entry in after)
        pieces.append(features)
    return torch.cat(pieces), hidden


class RecurrentNetwork(PlasticNetwork):
    """One layer of a recurrent network whose weights stay as they are within a lifetime.

    State entries: `activity` h, and the LSTM's `cell` c. The feedback is input like any other; start weights are
    uniform within +-1/sqrt(hidden_size), as torch's layers have them.
    """

    config: RecurrentConfig

    kernel: ClassVar[Callable[..., Any]]
    """Torch's own, for whole sequences."""
    gates: ClassVar[int]
    """Stacked blocks of weights per unit."""
    entry_names: ClassVar[tuple[str, ...]] = ("activity",)
    is_plastic = False

    @override
    def build(self, feedback: FeedbackLayout, generator: torch.Generator | None, steps_per_trial: int | None) -> None:
        config = self.config
        self.output_size = units = config.hidden_size
        self._entries = scoped_entries(
            dict.fromkeys(self.entry_names, StateEntry((units,))), config.reset, steps_per_trial
        )
        bound = 1 / math.sqrt(units)
        rows = self.gates * units

        def uniform(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape, dtype=torch.float32).uniform_(-bound, bound, generator=generator))

        self.input_weight = uniform(rows, self.input_size)
        self.recurrent_weight = uniform(rows, units)
        self.input_bias = uniform(rows)
        self.recurrent_bias = uniform(rows)

    @override
    def hidden_layers(self) -> tuple[HiddenLayer, ...]:
        size = self.config.hidden_size
        parameters = dict(self.named_parameters()), dict(self.rebuilt(hidden_size=size + 1).named_parameters())
        return (hidden_layer("hidden", *parameters, size, is_features=True, stacked=True),)

    @abstractmethod
    def cell(self, x: Tensor, hidden: Tensors, weights: Tensors) -> Tensors:
        """One step: the entries after it, each `(.., B, O)`."""

    @override
    def step(
        self, params: Params, x: Tensor, feedback: Feedback, state: State, episode_start: Tensor
    ) -> tuple[Tensor, State]:
        state = self.reset(feedback.trial_start, self.reset(episode_start, state), "trial")
        hidden = self.cell(x, tuple(state[name] for name in self.entry_names), _weights(params))
        self._show("hidden", hidden[0].unsqueeze(-2))
        return hidden[0], {**state, **dict(zip(self.entry_names, hidden, strict=True))}

    @override
    def unroll(
        self,
        params: Params,
        xs: Tensor,
        feedbacks: Feedback,
        state: State,
        episode_starts: Tensor,
        recorded: ActsInPlace | None = None,
    ) -> tuple[Tensor, State]:
        before = tuple(state[name] for name in self.entry_names)
        starts = tuple(self.starts(name, feedbacks, episode_starts) for name in self.entry_names)
        features, hidden = unroll_stretches(type(self).kernel, xs, before, starts, _weights(params))
        return features, {**state, **dict(zip(self.entry_names, hidden, strict=True))}


def _weights(params: Params) -> Tensors:
    return params["input_weight"], params["recurrent_weight"], params["input_bias"], params["recurrent_bias"]


def _projections(x: Tensor, hidden: Tensor, weights: Tensors) -> tuple[Tensor, Tensor]:
    """What the input and the recurrent weights contribute, `(.., B, gates O)` each, with or without a population."""
    input_weight, recurrent_weight, input_bias, recurrent_bias = weights
    return affine(x, input_weight, input_bias), affine(hidden, recurrent_weight, recurrent_bias)


class PlainRNN(RecurrentNetwork):
    """`h_t = tanh(U o_t + b + W h_{t-1} + b')`."""

    config_model = RNNConfig
    kernel = torch.rnn_tanh
    gates = 1

    @override
    def cell(self, x: Tensor, hidden: Tensors, weights: Tensors) -> Tensors:
        from_input, from_hidden = _projections(x, hidden[0], weights)
        return (torch.tanh(from_input + from_hidden),)


class GRU(RecurrentNetwork):
    """Gated recurrent unit, with torch's order of gates: reset, update, new."""

    config_model = GRUConfig
    kernel = torch.gru
    gates = 3

    @override
    def cell(self, x: Tensor, hidden: Tensors, weights: Tensors) -> Tensors:
        if x.dim() == 2:
            return (torch.gru_cell(x, hidden[0], *weights),)
        from_input, from_hidden = _projections(x, hidden[0], weights)
        reset_input, update_input, new_input = from_input.chunk(3, dim=-1)
        reset_hidden, update_hidden, new_hidden = from_hidden.chunk(3, dim=-1)
        reset = torch.sigmoid(reset_input + reset_hidden)
        update = torch.sigmoid(update_input + update_hidden)
        new = torch.tanh(new_input + reset * new_hidden)
        return ((1 - update) * new + update * hidden[0],)


class LSTM(RecurrentNetwork):
    """Long short-term memory, with torch's order of gates: input, forget, cell, output."""

    config_model = LSTMConfig
    kernel = torch.lstm
    gates = 4
    entry_names = ("activity", "cell")

    @override
    def cell(self, x: Tensor, hidden: Tensors, weights: Tensors) -> Tensors:
        if x.dim() == 2:
            return torch.lstm_cell(x, hidden, *weights)
        from_input, from_hidden = _projections(x, hidden[0], weights)
        into, forget, new, out = (from_input + from_hidden).chunk(4, dim=-1)
        cell = torch.sigmoid(forget) * hidden[1] + torch.sigmoid(into) * torch.tanh(new)
        return torch.sigmoid(out) * torch.tanh(cell), cell
