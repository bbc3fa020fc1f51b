"""Memory of learning, measured as peak resident memory in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from plastic_rl._native import levels

SCRIPT = """
import sys
import torch
from plastic_rl.feedback import FeedbackLayout
from plastic_rl.networks import Feedback, make_network

torch.set_num_threads(1)
batch, units, inputs = 30, 100, 17
network = make_network(
    {"kind": "plastic_rnn", "rule": sys.argv[2], "hidden_size": units, "unroll": sys.argv[3]},
    inputs,
    FeedbackLayout.after(inputs - 7, 4),
    torch.Generator().manual_seed(0),
)
params = dict(network.named_parameters())

def iteration(steps, recorded):
    xs = torch.randn(steps, batch, inputs, generator=torch.Generator().manual_seed(1))
    no = torch.zeros(steps, batch, dtype=torch.bool)
    feedbacks = Feedback(torch.zeros(steps, batch, 4), torch.zeros(steps, batch), no, ~no)
    state = network.initial_state(batch)
    acting = network.acting(params, state, (batch,), steps) if recorded else None
    for step in range(steps if recorded else 0):
        acting.step(xs[step].numpy(), no[step].numpy())
    features, _ = network.unroll(params, xs, feedbacks, state, no, acting)
    features.square().mean().backward()

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

recorded = sys.argv[1] == "recorded"
first, then = map(int, sys.argv[4:])
iteration(first, recorded)
before = peak()
iteration(then, recorded)
print((peak() - before) / 200)
"""


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def growth(how: str, rule: str, unroll: str, first: int = 2) -> float:
    """Megabytes by which an iteration of 200 steps more than a first one lets the process grow, for each of these."""
    command = [sys.executable, "-c", SCRIPT, how, rule, unroll, str(first), str(200 + (first if first > 2 else 0))]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not levels(), reason="the package is installed without its compiled core")
@pytest.mark.parametrize(
    ("how", "rule"), [("unroll alone", "backpropamine_fan_out"), ("recorded", "backpropamine_retroactive")]
)
def test_on_the_native_core_memory_grows_by_at_most_a_tenth_of_a_megabyte_a_step(how: str, rule: str) -> None:
    assert growth(how, rule, "fused", first=200) <= 0.1


@pytest.mark.parametrize(("rule", "limit"), [("backpropamine_retroactive", 2.4), ("bcm", 1.4)])
def test_the_reference_takes_a_fraction_of_what_autograd_keeps(rule: str, limit: float) -> None:
    """Without segments: 9.6 and 3.7 MB a step."""
    assert growth("unroll alone", rule, "reference") <= limit
