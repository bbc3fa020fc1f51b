"""Write `cases.bin`: small plastic networks and what the float64 reference makes of them, for `driver.cpp`.

    python tests/native/record.py

Of a case the file holds sizes, switches and what is expected. What goes in is drawn by `Stream`, in an order that the
driver repeats. Everything is in the core's orientation, matrices `(.., I, O)`, without padding.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from plastic_rl.feedback import Feedback, FeedbackLayout
from plastic_rl.networks import PlasticRNN, make_network
from plastic_rl.networks.native import RESETS_ACTIVITY, RESETS_ELIGIBILITY, RESETS_TRACE, NativeRule

FILE = Path(__file__).with_name("cases.bin")
MAGIC = b"PLASTIC1"
INPUTS, OUTPUTS = 5, 3

NEURON, SYNAPSE = ({"granularity": name, "low": 0.0, "high": 1.0} for name in ("neuron", "synapse"))
_CLIPPED = {"bound": "hard_clip", "clip": 0.3}
RULES: dict[str, dict[str, Any]] = {
    # The quickest path: Hebb's term, and all but alpha the same for all synapses onto a unit.
    "hard_clip": {"rule": "hard_clip", "clip": 0.3, "eta": NEURON},
    "decay": {"rule": "differentiable_plasticity", "eta": NEURON, "alpha": NEURON, "reset": {"trace": "trial"}},
    "simple": {"rule": "backpropamine_simple", "clip": 0.3, "reset": {"activity": "trial"}},
    "fan_out": {"rule": "backpropamine_fan_out", "clip": 0.3},
    "retroactive": {
        "rule": "backpropamine_retroactive",
        "clip": 0.2,
        "eta_eligibility": NEURON,
        "reset": {"eligibility": "trial"},
    },
    # All others: by term, eligibility and soft clip.
    "gate": {"rule": "hard_clip", "clip": 0.3, "eta": SYNAPSE},
    "soft": {"rule": "soft_clip", "eta": NEURON},
    "traced": {"rule": "backpropamine_fan_out", **_CLIPPED, "eligibility": "trace", "eta_eligibility": SYNAPSE},
    "traced_decay": {
        "rule": "differentiable_plasticity",
        **_CLIPPED,
        "eligibility": "trace",
        "eta": SYNAPSE,
        "eta_eligibility": SYNAPSE,
        "reset": {"trace": "trial"},
    },
    "traced_soft": {"rule": "soft_clip", "modulator": "simple", "eligibility": "trace", "eta_eligibility": NEURON},
    "oja": {"rule": "oja", "eta": NEURON, "reset": {"activity": "trial"}},
    "oja_soft": {"rule": "oja", "bound": "soft_clip", "eta": SYNAPSE},
    "oja_traced": {"rule": "oja", **_CLIPPED, "eligibility": "trace", "eta": NEURON, "eta_eligibility": NEURON},
    "oja_traced_soft": {
        "rule": "oja",
        "bound": "soft_clip",
        "modulator": "fan_out",
        "eligibility": "trace",
        "eta_eligibility": SYNAPSE,
    },
}
SIZES = [(1, 1, 1), (1, 3, 7), (5, 1, 1), (5, 3, 7), (17, 1, 7)]
"""Units, lifetimes and steps of every rule."""
LARGE = {
    "hard_clip": [(33, 1, 7), (33, 3, 1)],
    "decay": [(17, 3, 1)],
    "fan_out": [(33, 1, 1)],
    "retroactive": [(33, 1, 7), (17, 3, 1)],
    "gate": [(33, 1, 7)],
    "oja_traced_soft": [(17, 3, 1)],
}
WIDE = {"hard_clip", "decay", "fan_out", "retroactive", "gate", "oja_traced_soft"}
"""Rules with a case of many blocks of columns, which levels are only compared in."""


class Stream:
    """Uniform numbers that are the same in every language: the top bits of splitmix64, of a seed and a counter."""

    def __init__(self, seed: int) -> None:
        self.seed, self.count = seed, 0

    def draw(self, low: float, high: float, *shape: int) -> Tensor:
        """float32 between low and high, computed as the driver does."""
        size = int(np.prod(shape))
        word = np.arange(self.count, self.count + size, dtype=np.uint64) + (np.uint64(self.seed) << np.uint64(32))
        self.count += size
        word = word * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)
        word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        word ^= word >> np.uint64(31)
        share = (word >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)
        low32, high32 = np.float32(low), np.float32(high)
        return torch.from_numpy((low32 + (high32 - low32) * share).reshape(shape))


@dataclass
class Case:
    """A header, and what is expected; see `driver.cpp` for the order of both."""

    name: str
    header: list[int]
    clip: float
    expected: list[npt.NDArray[np.float32]]

    def packed(self) -> bytes:
        """As it stands in the file."""
        numbers = np.concatenate([one.ravel() for one in self.expected]) if self.expected else np.empty(0, np.float32)
        head = self.name.encode().ljust(24, b"\0") + struct.pack(f"<{len(self.header)}i", *self.header)
        return head + struct.pack("<fI", self.clip, numbers.size) + numbers.astype("<f4").tobytes()


def make_case(name: str, seed: int, units: int, batch: int, steps: int, *, with_reference: bool = True) -> Case:
    """A case; the order of draws is that of the driver's `Inputs`."""
    config = {"kind": "plastic_rnn", "hidden_size": units, "alpha": SYNAPSE, **RULES[name]}
    network = make_network(config, INPUTS, FeedbackLayout.after(0, INPUTS - 3))
    assert isinstance(network, PlasticRNN)
    rule = NativeRule.of(network.synapse)
    assert rule is not None
    shapes = {key: tuple(value.shape) for key, value in network.named_parameters()}
    resets = RULES[name].get("reset", {})
    by_trial = sum(
        flag
        for entry, flag in (
            ("activity", RESETS_ACTIVITY), ("trace", RESETS_TRACE), ("eligibility", RESETS_ELIGIBILITY)
        )
        if resets.get(entry) == "trial"
    )  # fmt: skip
    by_synapse = {key: shapes[key][-1] > 1 if key in shapes else False for key in ("alpha", "eta", "eta_eligibility")}
    if units == 1:  # of one unit, a number of each synapse is one of the unit
        by_synapse = dict.fromkeys(by_synapse, False)
    has_eta, fans_out = "eta" in shapes, "modulator_fan_out" in shapes
    by_gate = has_eta and not rule.computed and by_synapse["eta"]
    simple = not (rule.oja or rule.soft or by_gate or by_synapse["eta_eligibility"] or (rule.traced and rule.decays))
    simple = simple and not (rule.decays and by_synapse["eta"])
    switches = [rule.oja, rule.traced, rule.decays, rule.soft, by_gate, rule.computed, simple, has_eta, fans_out]
    header = [seed, units, batch, steps, INPUTS, OUTPUTS, by_trial, *map(int, switches), *map(int, by_synapse.values())]
    case = Case(f"{name}_{units}_{batch}_{steps}", header, rule.clip, [])
    if not with_reference:
        return case

    stream = Stream(seed)
    weight = stream.draw(-1, 1, units, units) * np.float32(0.8) / np.float32(units) ** np.float32(0.5)
    params = {"recurrent_weight": weight}
    params["alpha"] = stream.draw(-0.5, 0.5, units if by_synapse["alpha"] else 1, units)
    if has_eta:
        params["eta"] = stream.draw(0.1, 0.6, units if by_synapse["eta"] else 1, units)
    if rule.traced:
        params["eta_eligibility"] = stream.draw(0.1, 0.6, units if by_synapse["eta_eligibility"] else 1, units)
    if fans_out:
        params["modulator_offset"] = stream.draw(-0.2, 0.2, units)
        params["modulator_fan_out"] = stream.draw(0.5, 1.5, units)
    if rule.computed:
        params["modulator_weight"] = stream.draw(-1, 1, units)
        params["modulator_bias"] = stream.draw(-0.3, 0.3, 1)
    params["input_weight"] = stream.draw(-0.6, 0.6, INPUTS, units)
    params["input_bias"] = stream.draw(-0.2, 0.2, units)
    head, head_bias = stream.draw(-0.5, 0.5, OUTPUTS, units), stream.draw(-0.5, 0.5, OUTPUTS)
    xs = stream.draw(-1, 1, steps, batch, INPUTS)
    stream.draw(0, 1, steps, batch)  # noise of the actions
    starts = stream.draw(0, 1, steps, batch) < np.float32(0.15)
    trials = stream.draw(0, 1, steps, batch) < np.float32(0.3)
    state = {"activity": stream.draw(-0.7, 0.7, batch, units), "trace": stream.draw(-0.2, 0.2, batch, units, units)}
    pushes = {}
    if rule.traced:
        state["eligibility"] = stream.draw(-0.3, 0.3, batch, units, units)
    pushes["activity"] = stream.draw(-1, 1, steps, batch, units)
    pushes["trace"] = stream.draw(-1, 1, batch, units, units)
    if rule.traced:
        pushes["eligibility"] = stream.draw(-1, 1, batch, units, units)

    leaves = {key: value.double().requires_grad_() for key, value in {**params, **state}.items()}
    xs = xs.double().requires_grad_()
    wide = {key: _oriented(key, leaf, shapes) for key, leaf in leaves.items()}
    quiet = torch.zeros(steps, batch, dtype=torch.bool)
    feedback = Feedback(xs[..., : INPUTS - 3], torch.zeros(steps, batch).double(), trials, quiet)
    before = {key: wide[key] for key in state}
    features, after = network.unroll_reference({key: wide[key] for key in params}, xs, feedback, before, starts)
    found = {"activity": features, **{key: after[key].mT for key in ("trace", "eligibility") if key in after}}
    loss = sum((found[key] * push.double()).sum() for key, push in pushes.items())
    assert isinstance(loss, Tensor)
    loss.backward()  # type: ignore[no-untyped-call]
    outputs = features @ head.double().mT + head_bias.double()
    gradients = [leaves[key].grad for key in params if key != "recurrent_weight"]  # which torch computes
    last = [xs.grad, *(leaves[key].grad for key in state)]
    values = [features, outputs, *(found[key] for key in ("trace", "eligibility") if key in found)]
    case.expected = [one.detach().numpy().astype(np.float32) for one in [*values, *gradients, *last] if one is not None]
    assert len(case.expected) == len(values) + len(gradients) + len(last)
    return case


def _oriented(name: str, leaf: Tensor, shapes: dict[str, tuple[int, ...]]) -> Tensor:
    """A tensor of the core's orientation as the network has it."""
    if name in {"recurrent_weight", "alpha", "eta", "eta_eligibility", "input_weight", "trace", "eligibility"}:
        return leaf.mT
    return leaf.reshape(shapes[name]) if name in shapes else leaf


def make_cases() -> list[Case]:
    """All of them, in the file's order."""
    made = [
        make_case(name, 100 * place + number, *sizes)
        for place, name in enumerate(RULES)
        for number, sizes in enumerate([*SIZES, *LARGE.get(name, [])])
    ]
    return made + [make_case(name, 1, 130, 2, 3, with_reference=False) for name in sorted(WIDE)]


def packed(cases: list[Case]) -> bytes:
    """The bytes of the file."""
    return MAGIC + struct.pack("<i", len(cases)) + b"".join(case.packed() for case in cases)


if __name__ == "__main__":
    FILE.write_bytes(packed(make_cases()))
    print(f"{FILE}: {FILE.stat().st_size:,} bytes")
