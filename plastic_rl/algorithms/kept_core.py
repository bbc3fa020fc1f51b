"""What computed a checkpoint: recorded in it, and kept by what goes on from it, so that the bits stay the same."""

from __future__ import annotations

import warnings

import torch

from plastic_rl._native import Core
from plastic_rl.checkpoint import Checkpoint
from plastic_rl.policies import PlasticPolicy


def core_record(policy: PlasticPolicy) -> dict[str, str | None]:
    """What computes a policy here, as a checkpoint has it."""
    core = policy.network.core_in_use
    return {"name": core.name, "level": core.level, "torch": torch.backends.cpu.get_cpu_capability()}


def keep_core(policy: PlasticPolicy, checkpoint: Checkpoint) -> None:
    """Let a policy go on by the core that computed `checkpoint`; warn where it cannot, so that bits may differ."""
    network, stored = policy.network, checkpoint.core
    name = stored.get("name", "torch")  # there was no other before it was recorded
    if name == "torch" and network.core_in_use.name != name and not network.core.asked_for:
        network.core = Core(None, "it began on torch")
    here = core_record(policy)
    differences = []
    # Levels compute the same bits.
    if here["name"] != name:
        differences.append(f"it was computed by {name} so far, and goes on by {network.core_in_use}")
    if stored.get("torch") not in {None, here["torch"]} and policy.device.type == "cpu":
        differences.append(f"torch computed it with {stored['torch']} so far, and has {here['torch']} here")
    for difference in differences:
        warnings.warn(
            f"{checkpoint.source}: {difference}: training goes on, but its bits may differ from those of an "
            "undisturbed run",
            stacklevel=4,
        )
