"""Checkpoints: written atomically, verified before they are read, never running code.

Data flows from a live algorithm (`get_checkpoint`) into a `Checkpoint` of tensors and plain data, from there into a
folder or zip, and back.
"""

from __future__ import annotations

from plastic_rl.checkpoint.codec import count_in, decode, encode, set_torch_rng_state, to_json, torch_rng_state
from plastic_rl.checkpoint.files import remove_unfinished, write_atomically
from plastic_rl.checkpoint.store import (
    Checkpoint,
    latest,
    library_version,
    library_versions,
    prune,
    read_checkpoint,
    saved_steps,
    write_checkpoint,
    write_zip,
)

__all__ = [
    "Checkpoint",
    "count_in",
    "decode",
    "encode",
    "latest",
    "library_version",
    "library_versions",
    "prune",
    "read_checkpoint",
    "remove_unfinished",
    "saved_steps",
    "set_torch_rng_state",
    "to_json",
    "torch_rng_state",
    "write_atomically",
    "write_checkpoint",
    "write_zip",
]
