"""Plastic recurrent networks on the native core: which rules it knows, and its arrays as tensors.

Data flow: a network's parameters -> `numbers` (one canonical tensor for each part of the rule, still in torch's graph)
-> `Run`, which packs them and the state into the core's private layout (matrices transposed, units rounded up to
sixteen) and binds them once -> steps that take no arrays. `native_unroll` is a whole sequence as one function with its
own backward pass; `Acting` steps in place for who acts, and leaves behind what the backward pass needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from plastic_rl._native import extension
from plastic_rl.arrays import Array, BoolArray, IntArray
from plastic_rl.feedback import CutFeedback, Feedback, FeedbackLayout
from plastic_rl.networks.acting import ActsInPlace
from plastic_rl.plasticity import Synapse
from plastic_rl.plasticity.bounds import hard_clip, keep_scale, soft_clip, unbounded
from plastic_rl.plasticity.consolidation import Consolidation
from plastic_rl.plasticity.eligibility import DecayingTrace, Eligibility
from plastic_rl.plasticity.homeostasis import Homeostasis
from plastic_rl.plasticity.metaplasticity import Metaplasticity
from plastic_rl.plasticity.modulators import (
    Channels,
    Constant,
    FanOut,
    Modulator,
    Reward,
    RewardPredictionError,
    Simple,
)
from plastic_rl.plasticity.structure import HALF, Sparse, Structure
from plastic_rl.plasticity.terms import Covariance, Hebb, Oja, Term

LANES = 16
UPDATES, RESETS_TRACE, RESETS_ELIGIBILITY, RESETS_ACTIVITY = 1, 2, 4, 8
"""What happens to a lifetime before a step; see `level.h`."""

OUTPUTS, SAMPLES, MOST_PROBABLE = 0, 1, 2
"""What becomes of a step's outputs."""

MATRICES = ("weight", "alpha", "gate", "keep", "rate")
ROWS = ("offset", "modulator", "bias", "shift_post", "shift_pre")
NUMBERS = (*MATRICES, *ROWS, "fan", "input", "modulator_bias")
"""Canonical tensors: matrices `(.., O, I)`, or `(.., O, 1)` where all synapses onto a unit have the same; rows
`(.., O)`; `fan (.., K, O)`; `input (.., O, J)`; `modulator_bias (..)`."""

_HELD = ("activity", "trace", "eligibility", "presynaptic")
"""Entries of the state that a run holds in its own layout."""

State = dict[str, Tensor]


class Resets(NamedTuple):
    """Where entries start anew before a step, `(T, B)` bool."""

    activity: Tensor
    trace: Tensor
    eligibility: Tensor


@dataclass(frozen=True)
class NativeRule:
    """Which member of the family that the core knows a synapse is.

    Attributes:
        oja: Oja's term instead of Hebb's.
        computed: The network computes a signal of the gain, `tanh(w_m . y + b_m)`.
        channels: Signals that come with the observation, by the names of `Channels`.
        delayed: The update waits for the observation that follows.
        traced: The gain gates an eligibility trace.
        decays: The trace decays by 1 - eta.
        soft: Changes shrink towards the bound.
        clip: Bound of the trace; infinite where there is none.
        shifted: Activities enter the term less a threshold for each unit (covariance).
        scaled_by_eta: The gain is eta, or eta times a signal.
        channel_order: Places of the signals, the computed one first, among the rule's channels.
    """

    oja: bool
    computed: bool
    channels: tuple[str, ...]
    delayed: bool
    traced: bool
    decays: bool
    soft: bool
    clip: float
    shifted: bool
    scaled_by_eta: bool
    channel_order: tuple[int, ...]

    @classmethod
    def of(cls, synapse: Synapse) -> Self | None:
        """The member that `synapse` is, or None where it has a part that is not of the family."""
        # Exact types: a user's part registered under a built-in's name must not be mistaken for it.
        soft = synapse.bound is soft_clip
        known = (
            not synapse.non_plastic
            and (
                type(synapse.structure) is Structure
                or (type(synapse.structure) is Sparse and not synapse.structure.draws)
            )
            and type(synapse.metaplasticity) is Metaplasticity
            and type(synapse.homeostasis) is Homeostasis
            and type(synapse.consolidation) is Consolidation
            and (type(synapse.term) in {Hebb, Oja} or _is_shifted(synapse.term))
            and _gated_natively(synapse.modulator)
            and type(synapse.eligibility) in {Eligibility, DecayingTrace}
            and synapse.bound in {unbounded, hard_clip, soft_clip}
            and synapse.normalise is keep_scale
            and not (soft and synapse.config.decay)
        )
        if not known:
            return None
        channels = _channels(synapse.modulator)
        clip = 1.0 if soft else math.inf if synapse.bound is unbounded else synapse.config.clip
        return cls(
            oja=type(synapse.term) is Oja,
            computed="learned_signal" in channels,
            channels=tuple(name for name in channels if name != "learned_signal"),
            delayed=synapse.reward_modulated,
            traced=type(synapse.eligibility) is DecayingTrace,
            decays=synapse.config.decay,
            soft=soft,
            clip=clip,
            shifted=_is_shifted(synapse.term),
            scaled_by_eta=synapse.modulator.uses_eta,
            channel_order=tuple(sorted(range(len(channels)), key=lambda place: channels[place] != "learned_signal")),
        )

    def numbers(self, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The canonical tensors of a network's parameters, by name (see `NUMBERS`); in torch's graph where they are."""
        bias = params["input_bias"]
        units = bias.shape[-1]

        def by_unit(gain: Tensor) -> Tensor:
            """Of each unit at least: `(.., O, 1 or I)`."""
            return gain if gain.shape[-2] == units else gain.expand(*gain.shape[:-2], units, 1)

        weight, alpha = params["recurrent_weight"], by_unit(params["alpha"])
        if "connected" in params:
            # What is not there weighs nothing, whatever its trace.
            there = params["connected"] > HALF
            weight, alpha = torch.where(there, weight, 0.0), torch.where(there, alpha, 0.0)
        found = {"weight": weight, "alpha": alpha, "bias": bias}
        if self.shifted:
            found |= {"shift_post": params["threshold_post"], "shift_pre": params["threshold_pre"]}
        if "input_weight" in params:
            found["input"] = params["input_weight"]
        if self.traced:
            found["rate"] = by_unit(params["eta_eligibility"])
        ones = bias.new_ones(bias.shape)
        found["keep"] = 1 - by_unit(params["eta"]) if self.decays else ones.unsqueeze(-1)
        if self.computed:
            found["modulator"] = params["modulator_weight"].squeeze(-2)
            found["modulator_bias"] = params["modulator_bias"].squeeze(-1)
        if self.scaled_by_eta and params["eta"].shape[-1] > 1:
            found["gate"] = params["eta"]
            return found
        found["offset"] = params.get("modulator_offset", bias.new_zeros(bias.shape))
        if "channel_weight" in params:
            order = list(self.channel_order)
            found["fan"] = params["channel_weight"][..., order, :]
        elif self.channels:
            found["fan"] = by_unit(params["eta"]).mT
        elif self.computed:
            found["fan"] = params.get("modulator_fan_out", ones).unsqueeze(-2)
        else:
            found["offset"] = by_unit(params["eta"]).squeeze(-1)
        return found

    def is_simple(self, numbers: Mapping[str, Tensor]) -> bool:
        """Whether the core's quickest path serves it; see `level.h`."""
        by_row = all(numbers[name].shape[-1] == 1 for name in ("keep", "rate") if name in numbers)
        plain = not (self.oja or self.soft or "gate" in numbers)
        return plain and by_row and not (self.traced and self.decays)


def _is_shifted(term: Term) -> bool:
    return type(term) is Covariance and term.options.threshold == "parameter"


def _channels(modulator: Modulator) -> tuple[str, ...]:
    """What the gain of a modulator is a weighted sum of, by the names of `Channels`."""
    if isinstance(modulator, Channels):
        return modulator.channels
    if isinstance(modulator, Simple):
        return ("learned_signal",)
    named = {Reward: "reward", RewardPredictionError: "reward_prediction_error"}
    return (named[type(modulator)],) if type(modulator) in named else ()


def _gated_natively(modulator: Modulator) -> bool:
    """Whether the core computes the gain: of its channels only those are hard that depend on the past of y."""
    if type(modulator) is Channels:
        return "novelty" not in modulator.channels and not modulator.options.attention
    return type(modulator) in {Constant, Simple, FanOut, Reward, RewardPredictionError}


def given_signals(
    rule: NativeRule, modulator: Modulator, params: Mapping[str, Tensor], feedback: Feedback, state: State
) -> tuple[Tensor, State]:
    """The signals that come with an observation, `(.., B, K)`, and what the modulator carries on from there.

    Args:
        rule: The member of the family.
        modulator: The rule's.
        params: The network's parameters.
        feedback: Of the observation.
        state: The modulator's entries.
    """
    post = feedback.reward.unsqueeze(-1)  # that such channels do not read
    if isinstance(modulator, Channels):
        found = [modulator.signal(name, params, post, feedback, state) for name in rule.channels]
    else:
        assert isinstance(modulator, Reward | RewardPredictionError), "no other modulator is given its signal"
        found = [modulator.surprise(params, feedback, state)]
    return torch.stack(found, -1), modulator.next_state(params, post, feedback, state)


def padded(values: Tensor, lanes: int) -> Tensor:
    """`values (.., O)` in rows of `lanes`, 0 beyond; a copy, which a later change of a parameter does not reach."""
    rows = values.new_zeros(*values.shape[:-1], lanes)
    rows[..., : values.shape[-1]] = values.detach()
    return rows


class Run:
    """The arrays of T steps of some lifetimes, bound to a plan of the core.

    Args:
        level: Of instructions.
        rule: The member of the family.
        numbers: Canonical tensors, with a leading `P` where there is a population.
        shape: `(B,)` or `(P, B)`.
        steps: `T`.
        driven: Whether the drive is given, and not computed from observations.
        head: Weights `(.., A, O)` and bias `(.., A)` of outputs `V y + c` that each step computes too.

    Attributes:
        post: `(T + 1, P B, S)`, what was before the first step first.
        observation: `(T, P B, J)`, or the drive `(T, P B, S)` where `driven`.
        flags: `(T + 1, P B)`, what happens before each step, and after the last one.
        trace: `(P B, I, S)`, of the step that comes next; and `eligibility`, where the rule has one.
    """

    def __init__(
        self,
        level: str,
        rule: NativeRule,
        numbers: Mapping[str, Tensor],
        shape: tuple[int, ...],
        steps: int,
        *,
        driven: bool = False,
        head: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        core = extension()
        assert core is not None, "a level comes with the extension"
        self.rule, self.shape, self.steps = rule, shape, steps
        self.units = units = numbers["bias"].shape[-1]
        self.lanes = lanes = -(-units // LANES) * LANES
        self.rows = rows = math.prod(shape)
        inputs = 0 if driven else numbers["input"].shape[-1]
        self.signals = rule.computed + len(rule.channels)
        self._population = len(shape) == 2
        self.plan = core.Plan(
            level,
            oja=rule.oja,
            shifted=rule.shifted,
            traced=rule.traced,
            decays=rule.decays,
            soft=rule.soft,
            gate_by_synapse="gate" in numbers,
            computes_signal=rule.computed,
            simple=rule.is_simple(numbers),
            clip=rule.clip,
            individuals=shape[0] if self._population else 1,
            lifetimes=shape[-1],
            steps=steps,
            units=units,
            inputs=inputs,
            signals=self.signals,
            outputs=0 if head is None else head[1].shape[-1],
        )
        like = numbers["bias"]
        self.packed = {name: self._packed(name, value) for name, value in numbers.items() if name != "input" or inputs}
        self.post = like.new_empty(steps + 1, rows, lanes)
        self.post[0] = 0
        self.observation = like.new_zeros(steps, rows, lanes if driven else inputs)
        self.flags = torch.zeros(steps + 1, rows, dtype=torch.uint8)
        bound = {**self.packed, "post": self.post, "flags": self.flags}
        bound["drive" if driven else "observation"] = self.observation
        if rule.shifted:
            self.shifted = like.new_empty(2, steps + 1, rows, lanes)
            bound |= {"shifted_post": self.shifted[0], "shifted_pre": self.shifted[1]}
        if "gate" not in numbers:
            bound["gated"] = like.new_empty(steps + 1, rows, lanes)
        if self.signals:
            self.signal = like.new_empty(steps + 1, rows, self.signals)
            bound["signal"] = self.signal
        if head is not None:
            weight, bias = (own.detach() if self._population else own.detach().unsqueeze(0) for own in head)
            self.output = like.new_empty(steps, rows, bias.shape[-1])
            self.noise, self.action = like.new_empty(steps, rows), torch.empty(steps, rows, dtype=torch.int64)
            bound |= {"head": padded(weight, lanes), "head_bias": bias.clone(memory_format=torch.contiguous_format)}
            bound |= {"output": self.output, "noise": self.noise, "action": self.action}
        self.plan.bind(**bound)
        self.trace: Tensor | None = None
        self.eligibility: Tensor | None = None

    def _packed(self, name: str, value: Tensor) -> Tensor:
        own = value.detach()
        own = own if self._population else own.unsqueeze(0)
        if name == "modulator_bias":
            return own.clone(memory_format=torch.contiguous_format)
        return padded(own.mT if name in MATRICES or name == "input" else own, self.lanes)

    def unpacked(self, name: str, packed: Tensor) -> Tensor:
        """What is shaped as `packed`, in the shape of the canonical tensor."""
        own = packed if name == "modulator_bias" else packed[..., : self.units]
        own = own.mT if name in MATRICES or name == "input" else own
        return own if self._population else own.squeeze(0)

    def matrix(self, values: Tensor) -> Tensor:
        """`values (.., B, O, I)` of lifetimes in the private layout, a copy."""
        packed = values.new_zeros(self.rows, self.units, self.lanes)
        packed[..., : self.units] = values.detach().reshape(self.rows, self.units, self.units).mT
        return packed

    def exported(self, packed: Tensor) -> Tensor:
        """A matrix of lifetimes as state has it, `(.., B, O, I)`, a copy."""
        own = packed[..., : self.units].mT
        return own.contiguous().reshape(*self.shape, self.units, self.units)

    def vectors(self, values: Tensor) -> Tensor:
        """`values (.., B, O)` of lifetimes in the private layout, a copy."""
        return padded(values.reshape(self.rows, self.units), self.lanes)

    def begin(self, state: Mapping[str, Tensor], reset: Tensor) -> None:
        """Take in activities before the first step, which resets some `(P B,)` bool of them."""
        self.post[0] = self.vectors(state["activity"])
        if self.rule.delayed:
            self.plan.bind(presynaptic=self.vectors(state["presynaptic"]))
        else:
            self.post[0].masked_fill_(reset.unsqueeze(-1), 0)

    def hold(self, trace: Tensor | None, eligibility: Tensor | None) -> None:
        """Let the core read and write these, `(P B, I, S)`."""
        self.trace, self.eligibility = trace, eligibility
        self.plan.bind(trace=trace, eligibility=eligibility)

    def settled(self, time: int) -> State:
        """Trace and eligibility with what waits after `time` steps, `(.., B, O, I)`; its own stay as they are."""
        assert self.trace is not None, "a run holds a trace"
        before = self.trace, self.eligibility
        try:
            self.hold(*(None if own is None else own.clone() for own in before))
            self.plan.settle(time)
            found = {"trace": self.exported(self.trace)}
            if self.eligibility is not None:
                found["eligibility"] = self.exported(self.eligibility)
        finally:
            self.hold(*before)
        return found


def checkpoint_spacing(steps: int) -> int:
    """Steps between checkpoints of the backward pass: both they and the steps between two of them are kept.

    >>> checkpoint_spacing(200)
    14
    """
    return max(1, round(math.sqrt(steps)))


class _NativeUnroll(torch.autograd.Function):
    """`forward(run, recorded, start, inputs, signals, activity, .., presynaptic, *NUMBERS)`; absent are None."""

    @staticmethod
    def forward(
        ctx: Any, run: Run, recorded: bool, start: tuple[Tensor | None, Tensor | None], *tensors: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        ctx.set_materialize_grads(False)
        ctx.run, ctx.start = run, start
        ctx.save_for_backward(tensors[0])
        last: State = {}
        if not recorded:
            run.hold(*(None if own is None else own.clone() for own in start))
            run.plan.forward()
            last = run.settled(run.steps)
            run.hold(None, None)
        features = run.post[1:, :, : run.units]
        return features, last.get("trace"), last.get("eligibility")

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_post: Tensor | None, d_trace: Tensor | None, d_eligibility: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        (inputs,) = ctx.saved_tensors
        names = ("inputs", "signals", *_HELD, *NUMBERS)
        needed = dict(zip(names, ctx.needs_input_grad[3:], strict=True))
        last = {"trace": d_trace, "eligibility": d_eligibility}
        packed, d_totals = _packed_gradients(ctx.run, ctx.start, needed, d_post, last)
        found = _unpacked_gradients(ctx.run, needed, packed, d_totals[..., : ctx.run.units], inputs)
        return None, None, None, *(found.get(name) if needed[name] else None for name in names)


def _packed_gradients(
    run: Run,
    start: tuple[Tensor | None, Tensor | None],
    needed: Mapping[str, bool],
    d_post: Tensor | None,
    last: Mapping[str, Tensor | None],
) -> tuple[dict[str, Tensor | None], Tensor]:
    """Gradients in the core's layout, by `d_` and the name; and those by what the units add up, `(T, P B, S)`.

    Args:
        run: With what acting or the forward pass wrote.
        start: Trace and eligibility before the first step, `(P B, I, S)`; None: 0.
        needed: Which gradients are asked for.
        d_post: By the features.
        last: By trace and eligibility after the last step.
    """
    like = run.post
    d_totals = like.new_empty(run.steps, run.rows, run.lanes)
    packed: dict[str, Tensor | None] = {
        f"d_{name}": torch.zeros_like(value)
        for name, value in run.packed.items()
        if name not in {"weight", "input", "bias"}
    }
    packed |= {"d_total": d_totals, "d_post": None if d_post is None else d_post.contiguous()}
    if run.signals:
        packed["d_signal"] = torch.zeros_like(run.signal)
    asked = any(one is not None for one in last.values())
    for (name, own), first in zip(last.items(), start, strict=True):
        if first is not None and (needed[name] or asked):
            packed[f"d_{name}"] = torch.zeros_like(first) if own is None else run.matrix(own)
    for name in ("activity", "presynaptic"):
        if needed[name]:
            packed[f"d_{name}"] = like.new_zeros(run.rows, run.lanes)
    try:
        run.plan.bind(trace=start[0], eligibility=start[1], **packed)
        run.plan.backward(checkpoint_spacing(run.steps))
    finally:
        run.plan.bind(**dict.fromkeys(packed))
        run.hold(run.trace, run.eligibility)
    return packed, d_totals


def _unpacked_gradients(
    run: Run, needed: Mapping[str, bool], packed: Mapping[str, Tensor | None], d_total: Tensor, inputs: Tensor
) -> dict[str, Tensor]:
    """Gradients as autograd takes them, by name; those that need no trace are single products over all steps."""
    flat = d_total.reshape(-1, run.units)
    found: dict[str, Tensor] = {}
    if needed["weight"]:
        pre, resets = run.post[:-1], (run.flags[:-1] & RESETS_ACTIVITY) > 0
        # Before the first step a reset is an activity of 0, unless an update still reads it.
        if bool(resets[not run.rule.delayed :].any()):
            pre = pre.masked_fill(resets.unsqueeze(-1), 0)
        found["weight"] = flat.mT @ pre.reshape(-1, run.lanes)[:, : run.units]
    if needed["bias"]:
        found["bias"] = flat.sum(0)
    if needed["input"]:
        found["input"] = flat.mT @ inputs.reshape(flat.shape[0], -1)
    if needed["signals"]:
        given = packed["d_signal"]
        assert given is not None, "signals that are given are signals"
        found["signals"] = given[:-1, :, run.rule.computed :]
    if needed["inputs"]:
        driven = "input" not in run.packed
        found["inputs"] = d_total if driven else d_total @ run.unpacked("input", run.packed["input"])
    for name, own in packed.items():
        name = name.removeprefix("d_")
        if own is None or not needed.get(name):
            continue
        if name in {"trace", "eligibility"}:
            found[name] = run.exported(own)
        elif name in {"activity", "presynaptic"}:
            found[name] = own[:, : run.units]
        else:
            found[name] = run.unpacked(name, own)
    return found


def native_unroll(
    level: str,
    rule: NativeRule,
    params: Mapping[str, Tensor],
    inputs: Tensor,
    state: Mapping[str, Tensor],
    resets: Resets,
    updates: Tensor,
    *,
    signals: Tensor | None = None,
    driven: bool = False,
    recorded: Acting | None = None,
) -> tuple[Tensor, Mapping[str, Tensor]]:
    """`unroll` of a plastic recurrent network whose rule is of the family.

    Args:
        level: Of instructions.
        rule: The member of the family.
        params: The network's parameters, float32, on the CPU.
        inputs: Observations `(T, B, J)`, or the drive `(T, B, O)`.
        state: Those of `activity`, `trace`, `eligibility` and `presynaptic` that the rule has, before the first step.
        resets: Where entries start anew.
        updates: Where synapses change with what was before a step, and after the last one, `(T + 1, B)` bool.
        signals: Those that come with the observations, `(T, B, K)`, where the rule has some.
        driven: Whether the drive is given.
        recorded: What acting left of these steps, or None.

    Returns:
        Features `(T, B, O)`, and the state after the last step.
    """
    numbers = rule.numbers(params)
    run = None if recorded is None else recorded.run
    steps, batch = inputs.shape[:2]
    if run is None:
        run = Run(level, rule, numbers, (batch,), steps, driven=driven)
        run.observation.copy_(padded(inputs, run.lanes) if driven else inputs.detach())
        flags = resets.activity.to(torch.uint8) * RESETS_ACTIVITY + resets.trace.to(torch.uint8) * RESETS_TRACE
        if rule.traced:
            flags += resets.eligibility.to(torch.uint8) * RESETS_ELIGIBILITY
        run.flags[:-1] = flags
        run.flags |= updates.to(torch.uint8) * UPDATES
        run.begin(state, resets.activity[0])
    if signals is not None and recorded is None:
        run.signal[:-1, :, rule.computed :] = signals.detach()
    # What every lifetime begins without need not be known.
    newborn = bool(resets.trace[0].all()) and (not rule.traced or bool(resets.eligibility[0].all()))
    before: Mapping[str, Tensor] = {} if newborn and recorded is not None else state
    starts = [before.get(name) for name in _HELD]
    post, trace, eligibility = _NativeUnroll.apply(  # type: ignore[no-untyped-call]
        run,
        recorded is not None,
        tuple(None if own is None else run.matrix(own) for own in starts[1:3]),
        inputs,
        signals,
        *starts,
        *(None if driven and name in {"input", "bias"} else numbers.get(name) for name in NUMBERS),
    )
    if recorded is not None:
        return post, recorded
    following = {"activity": post[-1], "trace": trace}
    if rule.traced:
        following["eligibility"] = eligibility
    if rule.delayed:
        pre = post[-2] if steps > 1 else state["activity"]
        following["presynaptic"] = pre.masked_fill(resets.activity[-1].unsqueeze(-1), 0)
    return post, following


class Acting(ActsInPlace):
    """A network that acts on the native core, in place; as a mapping it is its state after the last step.

    Args:
        run: For as many steps as are kept: all of a rollout, or the last few.
        state: Before the first step, entries `(.., B, ...)`.
        by_trial: What resets with a trial, of `RESETS_ACTIVITY` and so on.
        layout: Where in the observation the feedback stands.
        follow: Turns feedback, where lifetimes start, where updates happen and the modulator's entries into signals
            `(.., B, K)` and its next entries; None where no signal comes with the observation.
        connected: Which synapses there are, `(.., 1, O, I)` bool; None: all.
        show: Told what the layer `hidden` puts out, `(.., B, 1, O)`; None: nobody is.
        frozen: Whether synapses keep the state they have.
    """

    def __init__(
        self,
        run: Run,
        state: Mapping[str, Tensor],
        by_trial: int,
        layout: FeedbackLayout,
        follow: Callable[[Feedback, Tensor, Tensor, State], tuple[Tensor, State]] | None,
        connected: Tensor | None,
        show: Callable[[str, Tensor], None] | None,
        *,
        frozen: bool,
    ) -> None:
        self.run, self._show, self._connected = run, show, connected
        self._before: Mapping[str, Tensor] | None = state
        self._by_trial, self._layout, self._follow, self._frozen = by_trial, layout, follow, frozen
        self._others = {} if follow is None else {name: own for name, own in state.items() if name not in _HELD}
        self._by_lifetime = RESETS_ACTIVITY | RESETS_TRACE | RESETS_ELIGIBILITY
        self._flags: npt.NDArray[np.uint8] = run.flags.numpy()
        if not (frozen or run.rule.delayed):
            self._flags[1:] = UPDATES
        self._observations: npt.NDArray[np.float32] = run.observation.numpy()
        self.has_head = hasattr(run, "output")
        if self.has_head:
            self._noise: npt.NDArray[np.float32] = run.noise.numpy()
            self._actions: npt.NDArray[np.int64] = run.action.numpy()
        self._features = run.post[1:, :, : run.units].view(run.steps, *run.shape, run.units).unbind(0)
        self._time = 0
        self._exported: State | None = None

    def step(self, observation: Array, starts: BoolArray, choice: int = OUTPUTS, noise: Array | None = None) -> bool:
        """Take a step.

        Args:
            observation: `(P B, J)`.
            starts: Where a lifetime starts with it, `(P B,)`.
            choice: `SAMPLES` or `MOST_PROBABLE` where actions are to be chosen by the softmax of the outputs.
            noise: Uniform numbers to sample by, `(P B,)`.

        Returns:
            Whether all outputs can be chosen by: none is NaN or infinite, but for minus infinity.
        """
        run = self.run
        if self._before is not None:
            self._load(self._before, starts)
            self._before = None
        if self._time == run.steps:
            self._wrap()
        time = self._time
        self._observations[time] = observation
        if np.count_nonzero(starts):
            self._flags[time] |= starts * np.uint8(self._by_lifetime)
        if self._by_trial:
            trials = observation[:, self._layout.trial_start[0]] > 0.5
            self._flags[time] |= trials * np.uint8(self._by_trial)
        if self._follow is not None:
            self._take_signals(time, self._follow, starts)
        if noise is not None:
            self._noise[time] = noise
        well: bool = run.plan.step(time, choice)
        self._exported = None
        self._time = time + 1
        if self._show is not None:
            self._show("hidden", self._features[time].unsqueeze(-2))
        return well

    def _take_signals(
        self,
        time: int,
        follow: Callable[[Feedback, Tensor, Tensor, State], tuple[Tensor, State]],
        starts: BoolArray,
    ) -> None:
        """What comes with the observation of a step for the update that waited for it."""
        run = self.run
        begins = torch.from_numpy(starts).view(run.shape)
        happens = torch.zeros_like(begins) if self._frozen else ~begins
        shown = run.observation[time].view(*run.shape, -1)
        feedback = cast("Feedback", CutFeedback(self._layout, shown, begins))
        signals, self._others = follow(feedback, begins, happens, self._others)
        run.signal[time, :, run.rule.computed :] = signals.reshape(run.rows, -1)
        self._flags[time] |= happens.numpy().reshape(-1) * np.uint8(UPDATES)

    @property
    def features(self) -> Tensor:
        """Of the last step, `(.., B, O)`; good until `run.steps` more are done, as are the next two."""
        return self._features[self._time - 1]

    @property
    def outputs(self) -> Tensor:
        """Of the head, `(.., B, A)`."""
        run = self.run
        return run.output[self._time - 1].clone().view(*run.shape, -1)

    @property
    def actions(self) -> IntArray:
        """What was chosen, `(P B,)`."""
        return np.asarray(self._actions[self._time - 1])

    @property
    def steps_done(self) -> int:
        """How many steps it holds."""
        return self._time

    def _load(self, state: Mapping[str, Tensor], starts: BoolArray) -> None:
        run = self.run
        traced = run.rule.traced
        if starts.all():  # whatever was is forgotten
            like = run.post.new_zeros(run.rows, run.units, run.lanes)
            run.hold(like, like.clone() if traced else None)
            return
        run.begin(state, torch.from_numpy(starts))
        run.hold(run.matrix(state["trace"]), run.matrix(state["eligibility"]) if traced else None)

    def _wrap(self) -> None:
        """Begin at the first place again: what waits is an update into it."""
        run = self.run
        pre = run.post[-2].masked_fill((run.flags[-2] & RESETS_ACTIVITY).bool().unsqueeze(-1), 0)
        run.plan.bind(presynaptic=pre)
        run.post[0] = run.post[-1]
        self._flags[1:] &= UPDATES
        if run.rule.delayed:
            self._flags[:] = 0
        self._flags[0] = self._flags[-1]
        self._time = 0

    def state(self) -> State:
        """The state after the last step, in tensors of its own."""
        if self._before is not None:
            return dict(self._before)
        if self._exported is None:
            run = self.run
            settled = run.settled(self._time)
            if self._connected is not None:
                settled["trace"] = torch.where(self._connected, settled["trace"], 0.0)
            self._exported = {**self._others, **self._activities(), **settled}
        return self._exported

    def _activities(self) -> State:
        run, time = self.run, self._time
        found = {"activity": run.post[time]}
        if run.rule.delayed:
            reset = (run.flags[time - 1] & RESETS_ACTIVITY).bool().unsqueeze(-1)
            found["presynaptic"] = run.post[time - 1].masked_fill(reset, 0)
        return {name: own[:, : run.units].reshape(*run.shape, -1).clone() for name, own in found.items()}

    def __getitem__(self, name: str) -> Tensor:
        return self.state()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.state())

    def __len__(self) -> int:
        return len(self.state())
