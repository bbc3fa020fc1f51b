"""Modulators: the gain `G_t` that decides how much of a change a synapse keeps.

A modulator is computed from the network's own activity, and applied right after the forward pass; or the synapse is
reward-modulated: the outcome of the action arrives with the next observation, and the synapse changes at the start of
that step, from the stored activity of the step that acted.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Collection
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from plastic_rl.config.signatures import handed_on
from plastic_rl.feedback import Feedback
from plastic_rl.plasticity.bounds import TINY
from plastic_rl.plasticity.gains import NamedTensors, Parameter
from plastic_rl.plasticity.parts import Part, Setting, StateEntry
from plastic_rl.registry import Registry


class Modulator(Part):
    """Computes `G`.

    Attributes:
        reward_modulated: True where `gate` reads the reward, and so has to wait for it.
        uses_eta: True where `gate` reads the parameter `eta`.
        reads_post: True where it reads what the post units put out.
        eta_limit: The largest valid eta.
    """

    reward_modulated: bool = False
    uses_eta: ClassVar[bool] = False
    reads_post: ClassVar[bool] = True
    eta_limit: ClassVar[float] = 1.0

    def parameters(self, post_size: int, generator: torch.Generator | None = None) -> dict[str, Parameter]:
        """Parameters of its own, by name: its `numbers` unless overridden."""
        return self.numbers()

    def state_entries(self, post_size: int) -> dict[str, StateEntry]:
        """What it carries from step to step beside `O = post_size` units, by name. Nothing by default."""
        return {}

    @abstractmethod
    def gate(self, params: NamedTensors, post: Tensor, feedback: Feedback | None, state: NamedTensors) -> Tensor:
        """Return `G`, broadcastable to `(.., B, O, I)`.

        Args:
            params: The network's parameters.
            post: `y`, `(.., B, O)`.
            feedback: What the step that `post` belongs to brought. None unless `reward_modulated`.
            state: The network's state, with this modulator's own entries.
        """

    def next_state(
        self, params: NamedTensors, post: Tensor, feedback: Feedback | None, state: NamedTensors
    ) -> dict[str, Tensor]:
        """Its own state entries after the step, from the same arguments as `gate`. None by default."""
        return {}


class Constant(Modulator):
    """`G = eta`, meta-learned: one number, one per neuron or one per synapse."""

    uses_eta = True
    reads_post = False

    def gate(self, params: NamedTensors, post: Tensor, feedback: Feedback | None, state: NamedTensors) -> Tensor:
        """Return eta."""
        return params["eta"].unsqueeze(-3)


def signal(params: NamedTensors, post: Tensor) -> Tensor:
    """The modulator's `M`, `(.., B, 1)`, of `post` `(.., B, O)`."""
    return torch.tanh(post @ params["modulator_weight"].mT + params["modulator_bias"].unsqueeze(-2))


class Simple(Modulator):
    """`G = M_t = tanh(w_m . y_t + b_m)`, one number per lifetime (openreview r1lrAiA5Ym eq. 3)."""

    def parameters(self, post_size: int, generator: torch.Generator | None = None) -> dict[str, Parameter]:
        """`modulator_weight` `(1, O)` uniform within +-1/sqrt(O), `modulator_bias` `(1,)` zero."""
        bound = post_size**-0.5
        weight = torch.empty(1, post_size, dtype=torch.float32).uniform_(-bound, bound, generator=generator)
        return {
            "modulator_weight": Parameter(weight, is_gain=False),
            "modulator_bias": Parameter(torch.zeros(1, dtype=torch.float32), is_gain=False),
        }

    def gate(self, params: NamedTensors, post: Tensor, feedback: Feedback | None, state: NamedTensors) -> Tensor:
        """Return M for every synapse."""
        return signal(params, post).unsqueeze(-1)


FAN_OUT_START = 0.05
"""Start of f: slow, so that a trace takes tens of steps to its bound. With simple modulation mean |F| stood at .7 to .9
of the bound from the first updates on, where clipping stops gradients. Chosen on single-seed bandit trials in which
other settings changed too: the effect of this number alone was not isolated."""


class FanOut(Simple):
    """`G_j = f_j M_t + g_j`: each post neuron reads the signal in its own way (openreview r1lrAiA5Ym, section 2)."""

    def parameters(self, post_size: int, generator: torch.Generator | None = None) -> dict[str, Parameter]:
        """Those of `Simple`, and `modulator_fan_out` f and `modulator_offset` g, `(O,)`.

        f starts at `FAN_OUT_START` and g at 0; with f = 1 fan-out equals simple modulation.
        """
        fan_out = torch.full((post_size,), FAN_OUT_START, dtype=torch.float32)
        return super().parameters(post_size, generator) | {
            "modulator_fan_out": Parameter(fan_out, is_gain=False),
            "modulator_offset": Parameter(torch.zeros(post_size, dtype=torch.float32), is_gain=False),
        }

    def gate(self, params: NamedTensors, post: Tensor, feedback: Feedback | None, state: NamedTensors) -> Tensor:
        """Return f M + g, one per post neuron."""
        fan_out = params["modulator_fan_out"].unsqueeze(-2)
        return (fan_out * signal(params, post) + params["modulator_offset"].unsqueeze(-2)).unsqueeze(-1)


class Reward(Modulator):
    """`G = eta (r - rbar)`, the third factor given by the environment (Gerstner 2018).

    `rbar` is a running average: after each use, `rbar <- rbar + rate (r - rbar)`.

    Args:
        reward_average_rate: Share of the way to a reward that the running average of rewards moves.
        reward_average_start: The average at the start of a lifetime, e.g. 0.5 for rewards of 0 and 1.
    """

    reward_modulated = True
    uses_eta = True
    reads_post = False
    eta_limit = math.inf  # rewards may be of any size

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        reward_average_rate: Annotated[float, Field(ge=0, le=1)] = 0.1,
        reward_average_start: float = 0.0,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def state_entries(self, post_size: int) -> dict[str, StateEntry]:
        """`reward_average`: one number per lifetime."""
        return {"reward_average": StateEntry((), start="reward_average_start")}

    def gate(self, params: NamedTensors, post: Tensor, feedback: Feedback | None, state: NamedTensors) -> Tensor:
        """Return eta times the reward beyond its average so far."""
        return params["eta"].unsqueeze(-3) * self.surprise(params, feedback, state).unsqueeze(-1).unsqueeze(-1)

    def surprise(self, params: NamedTensors, feedback: Feedback | None, state: NamedTensors) -> Tensor:
        """Return `r - rbar`, `(.., B)`."""
        assert feedback is not None, "a reward-modulated synapse is given the feedback"
        return feedback.reward - state["reward_average"]

    def next_state(
        self, params: NamedTensors, post: Tensor, feedback: Feedback | None, state: NamedTensors
    ) -> dict[str, Tensor]:
        """Return the average with this reward taken in."""
        assert feedback is not None, "a reward-modulated synapse is given the feedback"
        average = state["reward_average"]
        return {"reward_average": average + params["reward_average_rate"] * (feedback.reward - average)}


class RewardPredictionError(Modulator):
    """`G = eta delta`, `delta_t = r_t + gamma V(s_t+1) - V(s_t)`: dopamine (Schultz, Dayan & Montague 1997).

    s is how many steps of the trial have passed (the complete serial compound of Sutton & Barto 1990), and V, a number
    for each, is learned within the lifetime by TD(0): `V(s_t) <- V(s_t) + rate delta_t`. Nothing is expected beyond the
    end of a trial. So steps of a trial that never pay are told from the one that does.

    Args:
        value_rate: Share of the way to its target that V moves.
        value_start: V at the start of a lifetime.
        discount: gamma.
        trial_steps: Steps of a trial that have a value of their own; later ones share the last.
    """

    reward_modulated = True
    uses_eta = True
    reads_post = False
    eta_limit = math.inf

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        value_rate: Annotated[float, Field(ge=0, le=1)] = 0.3,
        value_start: float = 0.0,
        discount: Annotated[float, Field(ge=0, le=1)] = 0.0,
        trial_steps: Annotated[int, Field(ge=1)] = 8,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def state_entries(self, post_size: int) -> dict[str, StateEntry]:
        """`value` V, `(trial_steps,)`; `trial_time` s."""
        return {
            "value": StateEntry((self.options.trial_steps,), start="value_start"),
            "trial_time": StateEntry((), momentary=True),
        }

    def gate(self, params: NamedTensors, post: Tensor, feedback: Feedback | None, state: NamedTensors) -> Tensor:
        """Return eta times the error."""
        return params["eta"].unsqueeze(-3) * self.surprise(params, feedback, state).unsqueeze(-1).unsqueeze(-1)

    def surprise(self, params: NamedTensors, feedback: Feedback | None, state: NamedTensors) -> Tensor:
        """Return delta, `(.., B)`."""
        assert feedback is not None, "a reward-modulated synapse is given the feedback"
        return self._error(params, feedback, state)[0]

    def next_state(
        self, params: NamedTensors, post: Tensor, feedback: Feedback | None, state: NamedTensors
    ) -> dict[str, Tensor]:
        """Return V moved by the error, and the time that the present step has."""
        assert feedback is not None, "a reward-modulated synapse is given the feedback"
        error, here = self._error(params, feedback, state)
        moved = params["value_rate"] * error
        return {
            "value": state["value"] + moved.unsqueeze(-1) * here,
            "trial_time": self._next_time(feedback, state),
        }

    def _next_time(self, feedback: Feedback, state: NamedTensors) -> Tensor:
        return torch.where(feedback.trial_start, 0.0, state["trial_time"] + 1)

    def _error(self, params: NamedTensors, feedback: Feedback, state: NamedTensors) -> tuple[Tensor, Tensor]:
        """Delta `(.., B)`, and 1 at the step of the trial whose value it corrects, `(.., B, trial_steps)`."""
        value = state["value"]
        steps = torch.arange(value.shape[-1], dtype=value.dtype, device=value.device)

        def at(time: Tensor) -> Tensor:
            return (steps == time.clamp_max(value.shape[-1] - 1).unsqueeze(-1)).to(value.dtype)

        here, there = at(state["trial_time"]), at(self._next_time(feedback, state))
        expected = torch.where(feedback.trial_start, 0.0, params["discount"] * (value * there).sum(-1))
        return feedback.reward + expected - (value * here).sum(-1), here


Channel = Literal["reward", "reward_prediction_error", "novelty", "serotonin", "learned_signal"]

_CHANNEL_NUMBERS: dict[Channel, tuple[str, ...]] = {
    "reward": ("reward_average_rate", "reward_average_start"),
    "reward_prediction_error": ("value_rate", "value_start", "discount"),
    "novelty": ("novelty_rate",),
    "serotonin": ("serotonin_rate",),
    "learned_signal": (),
}
"""Numbers that each channel needs."""


class Channels(Modulator):
    """`G_j = a_j sum_c w_cj C_c`: signals for all, which each post neuron weighs in its own way (Doya 2002).

    The weights w are learned by the outer loop, one for each channel and neuron (doi 10.1016/S0893-6080(02)00044-8).
    Channels C: `reward` is `r - rbar`, as the modulator of this name has it; `reward_prediction_error` delta, likewise;
    `novelty` is `1 - m.y / |y|^2`, from 1 at first sight to 0, m a running mean of the post units' activity y;
    `serotonin` a slow running average of r; `learned_signal` is `tanh(w_m . y + b_m)`, as `simple` has it. Attention,
    where asked for, gates each neuron by the context y, `a = sigmoid(W_a y + b_a)` (Roelfsema & van Ooyen 2005).

    Args:
        channels: Which there are.
        channel_start: Start of every weight w.
        attention: Whether there is a gate a; else it is 1.
        novelty_rate: Share of the way to y that m moves in a step.
        serotonin_rate: Share of the way to r that the slow average moves.
        reward_average_rate: Share of the way to r that rbar moves.
        reward_average_start: rbar at the start of a lifetime.
        value_rate: Share of the way to its target that a value moves.
        value_start: Values at the start of a lifetime.
        discount: gamma of the prediction error.
        trial_steps: Steps of a trial that have a value of their own.
    """

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        channels: Annotated[tuple[Channel, ...], Field(min_length=1)] = ("reward", "novelty"),
        channel_start: Annotated[float, Setting] = 0.1,
        attention: bool = False,
        novelty_rate: Annotated[float, Field(ge=0, le=1)] = 0.1,
        serotonin_rate: Annotated[float, Field(ge=0, le=1)] = 0.01,
        reward_average_rate: Annotated[float, Field(ge=0, le=1)] = 0.1,
        reward_average_start: float = 0.0,
        value_rate: Annotated[float, Field(ge=0, le=1)] = 0.3,
        value_start: float = 0.0,
        discount: Annotated[float, Field(ge=0, le=1)] = 0.0,
        trial_steps: Annotated[int, Field(ge=1)] = 8,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))
        self.channels: tuple[Channel, ...] = tuple(dict.fromkeys(self.options.channels))
        self.reward_modulated = not {*self.channels} <= {"novelty", "learned_signal"}
        self._surprises: dict[str, Reward | RewardPredictionError] = {}
        if "reward" in self.channels:
            self._surprises["reward"] = Reward(step_size)
        if "reward_prediction_error" in self.channels:
            steps = self.options.trial_steps
            self._surprises["reward_prediction_error"] = RewardPredictionError(step_size, trial_steps=steps)

    @classmethod
    def used_numbers(cls, options: Any) -> Collection[str]:
        """See `Part.used_numbers`: those that the channels need."""
        return {name for channel in options.channels for name in _CHANNEL_NUMBERS[channel]}

    def parameters(self, post_size: int, generator: torch.Generator | None = None) -> dict[str, Parameter]:
        """`channel_weight` w `(C, O)`, the numbers that the channels need, `modulator_weight` and so on of `simple`.

        With attention also `attention_weight` `(O, O)`, uniform within +-1/sqrt(O), and `attention_bias` `(O,)`, zero.
        """
        parameters = self.numbers()
        weight = torch.full((len(self.channels), post_size), self.options.channel_start, dtype=torch.float32)
        parameters["channel_weight"] = Parameter(weight, is_gain=False)
        if "learned_signal" in self.channels:
            parameters |= Simple().parameters(post_size, generator)
        if self.options.attention:
            bound = post_size**-0.5
            drawn = torch.empty(post_size, post_size, dtype=torch.float32).uniform_(-bound, bound, generator=generator)
            parameters["attention_weight"] = Parameter(drawn, is_gain=False)
            parameters["attention_bias"] = Parameter(torch.zeros(post_size, dtype=torch.float32), is_gain=False)
        return parameters

    def state_entries(self, post_size: int) -> dict[str, StateEntry]:
        """Those of its channels: `familiar` m `(O,)` of novelty, `serotonin`, and of `reward` and so on."""
        entries: dict[str, StateEntry] = {}
        for surprise in self._surprises.values():
            entries |= surprise.state_entries(post_size)
        if "novelty" in self.channels:
            entries["familiar"] = StateEntry((post_size,))
        if "serotonin" in self.channels:
            entries["serotonin"] = StateEntry(())
        return entries

    def gate(self, params: NamedTensors, post: Tensor, feedback: Feedback | None, state: NamedTensors) -> Tensor:
        """Return the weighted sum, one gain for each post neuron."""
        signals = [self.signal(channel, params, post, feedback, state) for channel in self.channels]
        gain = torch.stack(signals, -1) @ params["channel_weight"]
        if self.options.attention:
            context = post @ params["attention_weight"].mT + params["attention_bias"].unsqueeze(-2)
            gain = gain * torch.sigmoid(context)
        return gain.unsqueeze(-1)

    def signal(
        self, channel: str, params: NamedTensors, post: Tensor, feedback: Feedback | None, state: NamedTensors
    ) -> Tensor:
        """Return C of a channel, `(.., B)`; for the other arguments see `gate`."""
        if channel == "novelty":
            # Of a silent layer there is nothing to know: it is new.
            size = post.square().sum(-1)
            known = (state["familiar"] * post).sum(-1) / size.masked_fill(size < TINY, 1.0)
            return 1 - known.clamp(0, 1)
        if channel == "serotonin":
            return state["serotonin"]
        if channel == "learned_signal":
            return signal(params, post).squeeze(-1)
        return self._surprises[channel].surprise(params, feedback, state)

    def next_state(
        self, params: NamedTensors, post: Tensor, feedback: Feedback | None, state: NamedTensors
    ) -> dict[str, Tensor]:
        """Return averages and values with this step's activity and reward taken in."""
        following: dict[str, Tensor] = {}
        for surprise in self._surprises.values():
            following |= surprise.next_state(params, post, feedback, state)
        if "novelty" in self.channels:
            following["familiar"] = torch.lerp(state["familiar"], post, params["novelty_rate"].unsqueeze(-2))
        if "serotonin" in self.channels:
            assert feedback is not None, "a reward-modulated synapse is given the feedback"
            following["serotonin"] = torch.lerp(state["serotonin"], feedback.reward, params["serotonin_rate"])
        return following


MODULATORS: Registry[type[Modulator]] = Registry("modulator")
MODULATORS.register("constant", Constant)
MODULATORS.register("simple", Simple)
MODULATORS.register("fan_out", FanOut)
MODULATORS.register("reward", Reward)
MODULATORS.register("reward_prediction_error", RewardPredictionError)
MODULATORS.register("channels", Channels)
