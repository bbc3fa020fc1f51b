"""Modulators: the gain `G_t` that decides how much of a change a synapse keeps.

A modulator is computed from the network's own activity, and applied right after the forward pass; or the synapse is
reward-modulated: the outcome of the action arrives with the next observation, and the synapse changes at the start of
that step, from the stored activity of the step that acted.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from plastic_rl.config.signatures import handed_on
from plastic_rl.feedback import Feedback
from plastic_rl.plasticity.gains import NamedTensors, Parameter
from plastic_rl.plasticity.parts import Part, StateEntry
from plastic_rl.registry import Registry


class Modulator(Part):
    """Computes `G`.

    Attributes:
        reward_modulated: True where `gate` reads the reward, and so has to wait for it.
        uses_eta: True where `gate` reads the parameter `eta`.
        eta_limit: The largest valid eta.
    """

    reward_modulated: ClassVar[bool] = False
    uses_eta: ClassVar[bool] = False
    eta_limit: ClassVar[float] = 1.0

    def parameters(self, post_size: int, generator: torch.Generator | None = None) -> dict[str, Parameter]:
        """Parameters of its own, by name: its `numbers` unless overridden."""
        return self.numbers()

    def state_entries(self) -> dict[str, StateEntry]:
        """What it carries from step to step, by name. Nothing by default."""
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

    def next_state(self, params: NamedTensors, feedback: Feedback, state: NamedTensors) -> dict[str, Tensor]:
        """Its own state entries after the step. None by default."""
        return {}


class Constant(Modulator):
    """`G = eta`, meta-learned: one number, one per neuron or one per synapse."""

    uses_eta = True

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

    def state_entries(self) -> dict[str, StateEntry]:
        """`reward_average`: one number per lifetime."""
        return {"reward_average": StateEntry((), start="reward_average_start")}

    def gate(self, params: NamedTensors, post: Tensor, feedback: Feedback | None, state: NamedTensors) -> Tensor:
        """Return eta times the reward beyond its average so far."""
        assert feedback is not None, "a reward-modulated synapse is given the feedback"
        surprise = feedback.reward - state["reward_average"]
        return params["eta"].unsqueeze(-3) * surprise.unsqueeze(-1).unsqueeze(-1)

    def next_state(self, params: NamedTensors, feedback: Feedback, state: NamedTensors) -> dict[str, Tensor]:
        """Return the average with this reward taken in."""
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

    def state_entries(self) -> dict[str, StateEntry]:
        """`value` V, `(trial_steps,)`; `trial_time` s."""
        return {
            "value": StateEntry((self.options.trial_steps,), start="value_start"),
            "trial_time": StateEntry(()),
        }

    def gate(self, params: NamedTensors, post: Tensor, feedback: Feedback | None, state: NamedTensors) -> Tensor:
        """Return eta times the error."""
        assert feedback is not None, "a reward-modulated synapse is given the feedback"
        error, _ = self._error(params, feedback, state)
        return params["eta"].unsqueeze(-3) * error.unsqueeze(-1).unsqueeze(-1)

    def next_state(self, params: NamedTensors, feedback: Feedback, state: NamedTensors) -> dict[str, Tensor]:
        """Return V moved by the error, and the time that the present step has."""
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


MODULATORS: Registry[type[Modulator]] = Registry("modulator")
MODULATORS.register("constant", Constant)
MODULATORS.register("simple", Simple)
MODULATORS.register("fan_out", FanOut)
MODULATORS.register("reward", Reward)
MODULATORS.register("reward_prediction_error", RewardPredictionError)
