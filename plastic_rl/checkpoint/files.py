"""Writing files so that a killed process never leaves half of one under its final name."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from pathlib import Path

_MARK = ".unfinished-"


def temporary_beside(path: Path) -> Path:
    """Return a fresh name in the folder of `path`, which `remove_unfinished` recognises."""
    return path.parent / f"{_MARK}{path.name}-{uuid.uuid4().hex[:12]}"


def remove_unfinished(folder: Path, older_than: float = 0.0) -> list[Path]:
    """Remove what killed processes left behind in `folder`, and return what was removed.

    Args:
        folder: Where to look.
        older_than: Seconds that it must have been there. With 0, call it only while no other process writes there.
    """
    latest = time.time() - older_than
    leftovers = [path for path in sorted(folder.glob(f"{_MARK}*")) if not older_than or path.stat().st_mtime < latest]
    for leftover in leftovers:
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
    return leftovers


def write_synced(path: Path, data: bytes) -> None:
    """Write a new file and wait until the disk has it."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in `folder` (where the system can: not on Windows)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, data: bytes) -> None:
    """Write or replace `path`: at any moment it holds all of the old bytes or all of the new ones."""
    temporary = temporary_beside(path)
    write_synced(temporary, data)
    temporary.replace(path)
    sync_folder(path.parent)
