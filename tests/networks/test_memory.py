"""Memory of learning, measured as peak resident memory in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
    recording = network.recording(steps) if recorded else None
    if recorded and recording is None:  # the native core
        recording = network.acting(params, state, (batch,), steps)
        for step in range(steps):
            recording.step(xs[step].numpy(), no[step].numpy())
    elif recorded:
        acting = state
        with torch.no_grad():
            for step in range(steps):
                feedback = feedbacks.at(step)
                _, acting = network.step(params, xs[step], feedback, acting, no[step])
                recording.append(acting)
    features, _ = network.unroll(params, xs, feedbacks, state, no, recording)
    features.square().mean().backward()

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

recorded = sys.argv[1] == "recorded"
iteration(2, recorded)
before = peak()
iteration(200, recorded)
print((peak() - before) / 200)
"""


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def growth(how: str, rule: str, unroll: str) -> float:
    """Megabytes by which an iteration of 200 steps lets the process grow, for each step."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, how, rule, unroll], capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.parametrize(
    ("how", "rule"),
    [
        ("plain acting", "backpropamine_fan_out"),
        ("recorded", "backpropamine_simple"),
        ("recorded", "backpropamine_fan_out"),
        ("recorded", "backpropamine_retroactive"),
    ],
)
def test_memory_grows_by_at_most_a_fifth_of_a_megabyte_a_step(how: str, rule: str) -> None:
    assert growth(how, rule, "fused") <= 0.2


@pytest.mark.parametrize(("rule", "limit"), [("backpropamine_retroactive", 2.4), ("bcm", 1.4)])
def test_the_reference_takes_a_fraction_of_what_autograd_keeps(rule: str, limit: float) -> None:
    """Without segments: 9.6 and 3.7 MB a step."""
    assert growth("plain acting", rule, "reference") <= limit
