"""A policy that is fine-tuned within each lifetime by its own policy gradient (Finn, Abbeel & Levine 2017).

    x = [o, 1],  h = tanh(W1 x),  z = W2 [h, 1],  p = softmax(z),  W = W0 + F
    d = a - p,  grad W2 log p(a) = d [h, 1]^T,  grad W1 log p(a) = ((W2^T d)_h * (1 - h^2)) x^T
    F <- F + rate * mean over segments of  sum_t (G_t - b) grad log p(a_t | o_t)

The agent to compare plastic ones with. Not a local rule but the gradient moves its weights: that of the expected
return, estimated from the actions that it took and the rewards that it saw (REINFORCE; Williams 1992, doi
10.1007/BF00992696, theorem 1), written in closed form. So a whole lifetime is differentiable, through the gradient too,
and the outer loop learns from which weights W0, and at which rates, a few steps lead far (MAML: arXiv 1703.03400,
algorithm 3). A rate for each weight is Meta-SGD (Li et al. 2017, arXiv 1707.09835, section 3). With `first_order` the
outer gradient takes the inner one for a constant (arXiv 1703.03400, section 5.2).

A segment is a trial, or a number of steps. The order within a step: lifetimes that start are reset; action and reward
of the step before are taken in; where a segment ended with it, G and b are settled; where enough segments did, the
weights move; the forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from plastic_rl.config import ConfigModel
from plastic_rl.feedback import Feedback, FeedbackLayout
from plastic_rl.networks.base import Params, PlasticNetwork, State
from plastic_rl.plasticity import GainConfig, Parameter, StateEntry, after_reward
from plastic_rl.plasticity.gains import RATE, UNBOUNDED, Granularity

LAYERS = HIDDEN, OUTPUT = "hidden", "output"
SUMS = {"score", "discounted_score", "return", "steps"}
"""State entries, before a dot, that hold what a segment has brought so far."""


class InnerRateConfig(GainConfig):
    """Inner rates, and whether they are learned."""

    granularity: Granularity = Field(
        "scalar",
        description="One rate for each layer (scalar), for each unit (neuron) or for each weight (synapse: Meta-SGD).",
    )
    low: float = Field(0.1, description="Start values are uniform between low and high; equal bounds give a constant.")
    high: float = Field(0.1, description="Upper end of the start values.")


class FineTuningConfig(ConfigModel):
    """A policy whose weights take policy-gradient steps within each lifetime (MAML, Meta-SGD)."""

    kind: Literal["fine_tuning"] = Field("fine_tuning", description="Kind of network.")
    hidden_size: int = Field(48, ge=1, description="Number of hidden units.")
    inputs: Literal["features", "all"] = Field(
        "features",
        description="features: what stands before the feedback; all: also previous action, reward, trial start, time.",
    )
    output_scale: float = Field(
        0.1,
        ge=0,
        description="Start weights of the output are normal with this over sqrt(hidden_size) as deviation; small: "
        "actions start nearly uniform.",
    )
    inner_rate: InnerRateConfig = Field(
        InnerRateConfig(),
        description="Rate of the gradient steps within a lifetime. Kept at 0: the agent without fine-tuning.",
    )
    segment_steps: int | None = Field(
        None, ge=1, description="Steps of a segment, whose return is credited to its actions; null: a trial."
    )
    segments: int = Field(1, ge=1, description="Segments whose mean gradient one step of the weights takes.")
    credit: Literal["return", "reward_to_go"] = Field(
        "return",
        description="What an action is credited with. return: its segment's whole return; reward_to_go: only what came "
        "from it on.",
    )
    discount: float = Field(
        1.0, ge=0, le=1, description="Discount of rewards by their steps from the start of the segment, or from it on."
    )
    baseline: Literal["running_mean", "none"] = Field(
        "running_mean", description="What is taken off the credit: the lifetime's running mean of it, or nothing."
    )
    baseline_start: float = Field(0.0, description="Start of the learned start of the running mean.")
    baseline_rate: float = Field(
        0.1, ge=0, le=1, description="Start of the learned share of the way to a segment's credit that the mean moves."
    )
    first_order: bool = Field(
        False, description="Whether the outer gradient takes the inner one for a constant; false: second order."
    )


class FineTuningNetwork(PlasticNetwork):
    """One hidden tanh layer and a softmax over discrete actions, fine-tuned by REINFORCE; features are the logits z.

    Parameters: `hidden.weight` `(H, I + 1)` and `output.weight` `(A, H + 1)`, the last column the bias: W0;
    `hidden.inner_rate` and `output.inner_rate`, `(1, 1)`, `(O, 1)` or `(O, I)`; `baseline_start` and `baseline_rate`,
    `(1,)`. State entries: F, `trace.hidden` and `trace.output`; the step that waits for its reward, `presynaptic` o,
    `activity` h and `preference` z; of the segment, `steps`, `return` and the sums `score` of grad log p (for
    reward_to_go `discounted_score`, discounted since); `gradient` and `segments` since the weights moved; `baseline` b.
    While plasticity is frozen, weights, gradient and baseline hold, and a segment under way is forgotten.
    """

    config_model = FineTuningConfig
    config: FineTuningConfig
    has_readout = True
    discrete_only = True

    @override
    def build(self, feedback: FeedbackLayout, generator: torch.Generator | None, steps_per_trial: int | None) -> None:
        config = self.config
        self.output_size = feedback.action_size
        self.seen = self.input_size if config.inputs == "all" else feedback.start
        self.is_plastic = not config.inner_rate.is_zero
        self.to_go, self.has_baseline = config.credit == "reward_to_go", config.baseline == "running_mean"
        shapes = {HIDDEN: (config.hidden_size, self.seen + 1), OUTPUT: (self.output_size, config.hidden_size + 1)}
        for layer, (units, inputs) in shapes.items():
            setattr(self, layer, own := nn.ParameterDict())
            scale = (config.output_scale if layer == OUTPUT else 1.0) * max(inputs - 1, 1) ** -0.5
            weight = torch.zeros(units, inputs, dtype=torch.float32)
            weight[:, :-1].normal_(0.0, scale, generator=generator)
            self.adopt(f"{layer}.weight", Parameter(weight, is_gain=False), own)
            if self.is_plastic:
                self.adopt(f"{layer}.inner_rate", config.inner_rate.draw(units, inputs, generator), own)
        if not self.is_plastic:
            return
        sums = ["trace", "gradient", *(["discounted_score"] if self.to_go else [])]
        if self.has_baseline or not self.to_go:
            sums.append("score")
        self._entries = {f"{name}.{layer}": StateEntry(shapes[layer]) for name in sums for layer in LAYERS}
        self._entries |= {
            "presynaptic": StateEntry((self.seen,)),
            "activity": StateEntry((config.hidden_size,)),
            "preference": StateEntry((self.output_size,)),
            "return": StateEntry(()),
            "steps": StateEntry((), dtype=torch.int64),
            "segments": StateEntry((), dtype=torch.int64),
        }
        if self.has_baseline:
            for name, valid in (("baseline_start", UNBOUNDED), ("baseline_rate", RATE)):
                start = torch.full((1,), getattr(config, name), dtype=torch.float32)
                self.adopt(name, Parameter(start, valid=valid, is_gain=False))
            self._entries["baseline"] = StateEntry((), start="baseline_start")

    @override
    def step(
        self, params: Params, x: Tensor, feedback: Feedback, state: State, episode_start: Tensor
    ) -> tuple[Tensor, State]:
        current = self.begun(params, state, episode_start)
        if self.is_plastic and self.plasticity_frozen:
            # A segment of which steps are missing would be credited with what it did not earn.
            current = {**current, **_begun_anew(current)}
        elif self.is_plastic:
            current = self._learned(params, current, feedback, feedback.valid & ~episode_start)
        seen = x[..., : self.seen].contiguous()
        activity = torch.tanh(self._driven(HIDDEN, params, seen, current))
        preference = self._driven(OUTPUT, params, activity, current)
        self._show(HIDDEN, activity.unsqueeze(-2))
        self._show(OUTPUT, preference.unsqueeze(-2))
        if not self.is_plastic:
            return preference, current
        return preference, {**current, "presynaptic": seen, "activity": activity, "preference": preference}

    def _driven(self, layer: str, params: Params, pre: Tensor, state: State) -> Tensor:
        """What the weights of a layer make of `pre (.., B, I)`: `(.., B, O)`."""
        row = _with_one(pre)
        driven = row @ params[f"{layer}.weight"].mT
        if not self.is_plastic:
            return driven
        return driven + (row.unsqueeze(-2) @ state[f"trace.{layer}"].mT).squeeze(-2)

    @override
    def weights(self, params: Params, state: State) -> dict[str, Tensor]:
        starts = {layer: params[f"{layer}.weight"].unsqueeze(-3) for layer in LAYERS}
        return {layer: start + state.get(f"trace.{layer}", 0.0) for layer, start in starts.items()}

    def _learned(self, params: Params, state: State, feedback: Feedback, lived: Tensor) -> State:
        """The state that the step before leaves, where there was one: `lived (.., B)` bool."""
        length, segments = self.config.segment_steps, self.config.segments
        state = after_reward(state, self._taken_in(params, state, feedback), lived)
        ended = lived & (feedback.trial_start if length is None else state["steps"] >= length)
        if bool(ended.any()):
            state = after_reward(state, self._settled(params, state), ended)
            complete = ended & (state["segments"] >= segments)
            if bool(complete.any()):
                state = after_reward(state, self._moved(params, state), complete)
        return state

    def _taken_in(self, params: Params, state: State, feedback: Feedback) -> State:
        """The sums over the segment so far, with the step that `feedback` is of."""
        reward, discount = feedback.reward, self.config.discount
        updated: State = {"steps": state["steps"] + 1}
        for layer, score in self._scores(params, state, feedback.action):
            if f"score.{layer}" in state:
                updated[f"score.{layer}"] = state[f"score.{layer}"] + score
            if self.to_go:
                # sum_t grad_t sum_k>=t discount^(k-t) r_k = sum_k r_k sum_t<=k discount^(k-t) grad_t
                discounted = discount * state[f"discounted_score.{layer}"] + score
                updated[f"discounted_score.{layer}"] = discounted
                updated[f"gradient.{layer}"] = state[f"gradient.{layer}"] + _by_synapse(reward) * discounted
        before = state["steps"].to(reward.dtype)
        weight = discount**before
        if self.to_go:
            # How often it is credited: 1 + discount + .. + discount^before.
            weight = before + 1 if discount == 1 else (1 - discount * weight) / (1 - discount)
        return updated | {"return": state["return"] + weight * reward}

    def _scores(self, params: Params, state: State, action: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The gradient of log p of `action (.., B, A)` in the stored step by each layer's weights, `(.., B, O, I)`."""
        pre, activity, preference = state["presynaptic"], state["activity"], state["preference"]
        weight = params[f"{OUTPUT}.weight"].unsqueeze(-3) + state[f"trace.{OUTPUT}"]
        if self.config.first_order:
            pre, activity, preference, weight = (one.detach() for one in (pre, activity, preference, weight))
        error = action - torch.softmax(preference, -1)
        yield OUTPUT, _outer(error, activity)
        behind = (error.unsqueeze(-2) @ weight[..., :-1]).squeeze(-2)
        yield HIDDEN, _outer(behind * (1 - activity.square()), pre)

    def _settled(self, params: Params, state: State) -> State:
        """The gradient with the segment that ended, and the baseline; the sums over segments begin anew."""
        credit = state["return"] / state["steps"].clamp_min(1) if self.to_go else state["return"]
        baseline = state.get("baseline", torch.zeros_like(credit))
        # Rewards to go are in the gradient since they came.
        beyond = -baseline if self.to_go else credit - baseline
        updated: State = {"segments": state["segments"] + 1}
        for layer in LAYERS:
            if (score := state.get(f"score.{layer}")) is not None:
                updated[f"gradient.{layer}"] = state[f"gradient.{layer}"] + _by_synapse(beyond) * score
        if self.has_baseline:
            updated["baseline"] = baseline + params["baseline_rate"] * (credit - baseline)
        return updated | _begun_anew(state)

    def _moved(self, params: Params, state: State) -> State:
        """The weights after a gradient step, and no gradient."""
        moved: State = {"segments": torch.zeros_like(state["segments"])}
        for layer in LAYERS:
            gradient = state[f"gradient.{layer}"]
            rate = params[f"{layer}.inner_rate"].unsqueeze(-3)
            moved[f"trace.{layer}"] = state[f"trace.{layer}"] + rate * (gradient / self.config.segments)
            moved[f"gradient.{layer}"] = torch.zeros_like(gradient)
        return moved


def _begun_anew(state: State) -> State:
    """The sums over a segment, of which nothing was lived yet."""
    return {name: torch.zeros_like(entry) for name, entry in state.items() if name.split(".")[0] in SUMS}


def _with_one(pre: Tensor) -> Tensor:
    """`pre (.., I)` and the 1 that the bias weighs, `(.., I + 1)`."""
    return nn.functional.pad(pre, (0, 1), value=1.0)


def _outer(post: Tensor, pre: Tensor) -> Tensor:
    """`post [pre, 1]^T`, `(.., O, I + 1)`."""
    return post.unsqueeze(-1) * _with_one(pre).unsqueeze(-2)


def _by_synapse(number: Tensor) -> Tensor:
    """A number of each lifetime, `(.., B)`, to go with `(.., B, O, I)`."""
    return number.unsqueeze(-1).unsqueeze(-1)
