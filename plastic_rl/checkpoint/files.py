"""Writing files so that a killed process never leaves half of one under its final name."""

from __future__ import annotations

import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MARK = ".unfinished-"


def temporary_beside(path: Path) -> Path:
    """Return a fresh name in the folder of `path`, which `remove_unfinished` recognises."""
    return path.parent / f"{_MARK}{path.name}-{os.getpid()}-{uuid.uuid4().hex[:12]}"


def remove_unfinished(folder: Path, *, owned: bool = False) -> list[Path]:
    """Remove what killed processes left behind in `folder`, and return what was removed.

    Args:
        folder: Where to look.
        owned: Whether no other process writes there. Else what belongs to a process that still runs is left, and what
            is younger than an hour where processes cannot be asked for.
    """
    leftovers = [path for path in sorted(folder.glob(f"{_MARK}*")) if owned or _is_abandoned(path)]
    for leftover in leftovers:
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
    return leftovers


def _is_abandoned(path: Path) -> bool:
    match = re.fullmatch(rf"{re.escape(_MARK)}.*-(\d+)-[0-9a-f]{{12}}", path.name)
    if os.name == "posix" and match:
        try:
            os.kill(int(match.group(1)), 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            return False
        return False
    return path.stat().st_mtime < time.time() - 3600


@contextmanager
def file_named(path: Path) -> Iterator[None]:
    """Within this context an `OSError` names `path` if it names no file (a full disk says none)."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise


def write_synced(path: Path, data: bytes) -> None:
    """Write a new file and wait until the disk has it."""
    with file_named(path), path.open("xb") as file:
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
