"""Recurrent networks without plastic synapses, as controls: tanh RNN, GRU and LSTM.

Same interface as the plastic networks. Sequences run through torch's own fused kernels, cut only where a lifetime (or
a trial, if configured so) starts in mid-sequence.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from plastic_rl.config import ConfigModel
from plastic_rl.feedback import FeedbackLayout
from plastic_rl.networks.base import Feedback, Params, PlasticNetwork, Recording, State, StateEntry
from plastic_rl.networks.resets import ResetScope, check_reset_scopes, reset_where, stretches


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


class RecurrentNetwork(PlasticNetwork):
    """One layer of a recurrent network whose weights stay as they are within a lifetime.

    Args:
        config: Sizes and reset scopes.
        input_size: `I`.
        feedback: Not used: the feedback is input like any other.
        generator: Draws the start weights, uniform within +-1/sqrt(hidden_size) as torch's layers have them.
        steps_per_trial: Length of a trial where it is fixed, else None.
    """

    config: RecurrentConfig

    gates: int
    """Stacked blocks of weights per unit."""
    entry_names: tuple[str, ...] = ("activity",)
    is_plastic = False

    def __init__(
        self,
        config: RecurrentConfig,
        input_size: int,
        feedback: FeedbackLayout,
        generator: torch.Generator | None = None,
        steps_per_trial: int | None = None,
    ) -> None:
        super().__init__(config, input_size, feedback, generator, steps_per_trial)
        self.output_size = units = config.hidden_size
        check_reset_scopes(config.reset, self.entry_names, steps_per_trial)
        self._entries = {name: StateEntry((units,), config.reset.get(name, "lifetime")) for name in self.entry_names}
        bound = 1 / math.sqrt(units)
        rows = self.gates * units

        def uniform(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape, dtype=torch.float32).uniform_(-bound, bound, generator=generator))

        self.input_weight = uniform(rows, input_size)
        self.recurrent_weight = uniform(rows, units)
        self.input_bias = uniform(rows)
        self.recurrent_bias = uniform(rows)

    def state_entries(self) -> dict[str, StateEntry]:
        """`activity` h, and the LSTM's `cell` c."""
        return self._entries

    @abstractmethod
    def cell(self, x: Tensor, hidden: tuple[Tensor, ...], weights: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """One step: the entries after it, each `(.., B, O)`."""

    @abstractmethod
    def sequence(
        self, xs: Tensor, hidden: tuple[Tensor, ...], weights: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Steps without a reset between them: features `(T, B, O)` and the entries after the last."""

    def step(
        self, params: Params, x: Tensor, feedback: Feedback, state: State, episode_start: Tensor
    ) -> tuple[Tensor, State]:
        """One time step; see `PlasticNetwork.step`."""
        state = self._reset(state, episode_start, feedback.trial_start)
        hidden = self.cell(x, tuple(state[name] for name in self.entry_names), _weights(params))
        return hidden[0], {**state, **dict(zip(self.entry_names, hidden, strict=True))}

    def unroll(
        self,
        params: Params,
        xs: Tensor,
        feedbacks: Feedback,
        state: State,
        episode_starts: Tensor,
        recorded: Recording | None = None,
    ) -> tuple[Tensor, State]:
        """`T` steps at once, one fused call for each stretch without a reset; see `PlasticNetwork.unroll`."""
        resets = episode_starts
        if any(entry.reset == "trial" for entry in self._entries.values()):
            resets = resets | feedbacks.trial_start
        weights = _weights(params)
        pieces = []
        for first, last in stretches(resets):
            state = self._reset(state, episode_starts[first], feedbacks.trial_start[first])
            features, hidden = self.sequence(xs[first:last], tuple(state[name] for name in self.entry_names), weights)
            state = {**state, **dict(zip(self.entry_names, hidden, strict=True))}
            pieces.append(features)
        return torch.cat(pieces), state

    def _reset(self, state: State, episode_start: Tensor, trial_start: Tensor) -> State:
        state = reset_where(episode_start, state, self._entries, "lifetime")
        return reset_where(trial_start, state, self._entries, "trial")


def _weights(params: Params) -> tuple[Tensor, ...]:
    return params["input_weight"], params["recurrent_weight"], params["input_bias"], params["recurrent_bias"]


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`x WT + b`, `(.., B, O)`, with or without a population axis on everything."""
    if weight.dim() == 2:
        return nn.functional.linear(x, weight, bias)
    return x @ weight.mT + bias.unsqueeze(-2)


def _projections(x: Tensor, hidden: Tensor, weights: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """What the input and the recurrent weights contribute, `(.., B, gates O)` each, with or without a population."""
    input_weight, recurrent_weight, input_bias, recurrent_bias = weights
    return (
        affine(x, input_weight, input_bias),
        affine(hidden, recurrent_weight, recurrent_bias),
    )


def tanh_sequence(xs: Tensor, activity: Tensor, weights: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Steps of a tanh RNN by torch's own kernel: features `(T, B, O)` and the last activity `(B, O)`.

    Args:
        xs: `(T, B, I)`.
        activity: `(B, O)` before the first step.
        weights: Input weights, recurrent weights, and a bias for each.
    """
    features, last = torch.rnn_tanh(xs, activity.unsqueeze(0), weights, True, 1, 0.0, False, False, False)
    return features, last.squeeze(0)


class PlainRNN(RecurrentNetwork):
    """`h_t = tanh(U o_t + b + W h_{t-1} + b')`."""

    config_model = RNNConfig
    gates = 1

    def cell(self, x: Tensor, hidden: tuple[Tensor, ...], weights: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """One step."""
        from_input, from_hidden = _projections(x, hidden[0], weights)
        return (torch.tanh(from_input + from_hidden),)

    def sequence(
        self, xs: Tensor, hidden: tuple[Tensor, ...], weights: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Steps without a reset between them."""
        features, last = tanh_sequence(xs, hidden[0], weights)
        return features, (last,)


class GRU(RecurrentNetwork):
    """Gated recurrent unit, with torch's order of gates: reset, update, new."""

    config_model = GRUConfig
    gates = 3

    def cell(self, x: Tensor, hidden: tuple[Tensor, ...], weights: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """One step."""
        if x.dim() == 2:
            return (torch.gru_cell(x, hidden[0], *weights),)
        from_input, from_hidden = _projections(x, hidden[0], weights)
        reset_input, update_input, new_input = from_input.chunk(3, dim=-1)
        reset_hidden, update_hidden, new_hidden = from_hidden.chunk(3, dim=-1)
        reset = torch.sigmoid(reset_input + reset_hidden)
        update = torch.sigmoid(update_input + update_hidden)
        new = torch.tanh(new_input + reset * new_hidden)
        return ((1 - update) * new + update * hidden[0],)

    def sequence(
        self, xs: Tensor, hidden: tuple[Tensor, ...], weights: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Steps without a reset between them."""
        features, last = torch.gru(xs, hidden[0].unsqueeze(0), weights, True, 1, 0.0, False, False, False)
        return features, (last.squeeze(0),)


class LSTM(RecurrentNetwork):
    """Long short-term memory, with torch's order of gates: input, forget, cell, output."""

    config_model = LSTMConfig
    gates = 4
    entry_names = ("activity", "cell")

    def cell(self, x: Tensor, hidden: tuple[Tensor, ...], weights: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """One step."""
        if x.dim() == 2:
            return torch.lstm_cell(x, hidden, *weights)
        from_input, from_hidden = _projections(x, hidden[0], weights)
        into, forget, new, out = (from_input + from_hidden).chunk(4, dim=-1)
        cell = torch.sigmoid(forget) * hidden[1] + torch.sigmoid(into) * torch.tanh(new)
        return torch.sigmoid(out) * torch.tanh(cell), cell

    def sequence(
        self, xs: Tensor, hidden: tuple[Tensor, ...], weights: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Steps without a reset between them."""
        start = [entry.unsqueeze(0) for entry in hidden]
        features, activity, cell = torch.lstm(xs, start, weights, True, 1, 0.0, False, False, False)
        return features, (activity.squeeze(0), cell.squeeze(0))
