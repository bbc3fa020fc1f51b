"""Checkpoints on disk: a folder (or a zip of one) that is complete and verified, or refused.

    manifest.json            format version, config, library versions, what computed it, size and SHA-256 of every file;
                             written last
    params.safetensors, optimizer.safetensors, state.safetensors   tensors by name
    rng.json, env.json, algorithm.json, ...                        plain data, see `codec`

Writing goes to a temporary folder beside the final one, is flushed to disk, and is renamed. Reading checks every byte
against the manifest before anything is interpreted; tensors and plain data are all that a checkpoint can hold, so
reading one never runs code.
"""

from __future__ import annotations

import hashlib
import io
import platform
import re
import shutil
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from plastic_rl.checkpoint.codec import from_json, to_json
from plastic_rl.checkpoint.files import sync_folder, temporary_beside, write_atomically, write_synced
from plastic_rl.errors import CheckpointError

FORMAT = "plastic_rl checkpoint"
FORMAT_VERSION = 2
MANIFEST = "manifest.json"
_MANIFEST_LIMIT = 64 * 2**20
_FILE_NAME = re.compile(r"[a-z][a-z0-9_]*\.(?:safetensors|json)")
_STEP = re.compile(r"0|[1-9][0-9]*")
_LIBRARIES = ("plastic-rl", "torch", "numpy", "gymnasium", "stable-baselines3", "safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """Everything that training needs to go on, or that an agent needs to act.

    Attributes:
        tensors: Tensors by file and name: `"params"`, `"optimizer"`, `"state"`.
        documents: Plain data by file (see `codec.encode`): `"rng"`, `"env"`, `"algorithm"`, ...
        config: The configuration that it belongs to.
        libraries: Versions of the libraries that wrote it; filled in when it is read.
        source: What messages call it: where it was read from.
        core: What computed it: `name` (torch or native), `level` of instructions, and `torch`, the CPU capability that
            torch computes with. Empty: it was written before this was recorded.
    """

    tensors: dict[str, dict[str, Tensor]]
    documents: dict[str, Any]
    config: dict[str, Any]
    libraries: dict[str, str] = field(default_factory=dict)
    source: str = "the checkpoint"
    core: dict[str, str | None] = field(default_factory=dict)

    def check_finite(self, part: str) -> None:
        """Refuse NaN and infinity among the tensors of `part`.

        Raises:
            CheckpointError: Naming the first such tensor and number.
        """
        for name, tensor in self.tensors[part].items():
            bad = ~torch.isfinite(tensor)
            if bad.any():
                place = [int(index) for index in bad.nonzero()[0]]
                raise CheckpointError(
                    f"{self.source}: {name!r} in {part}.safetensors is {tensor[bad][0].item()} at {place} "
                    f"({int(bad.sum()):,} of its {tensor.numel():,} numbers are NaN or infinite). Nothing can act or "
                    "go on from it: use an earlier checkpoint, or train anew"
                )


def library_version(name: str) -> str | None:
    """Return the version of an installed library, None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that results depend on."""
    versions = {name: library_version(name) or "not installed" for name in _LIBRARIES}
    return {"python": platform.python_version(), **versions}


def _files_of(checkpoint: Checkpoint) -> dict[str, bytes]:
    """Return the bytes of every file, the manifest last."""
    files: dict[str, bytes] = {}
    for name, tensors in checkpoint.tensors.items():
        # Views and shared storage are legal in memory but not in a file.
        own = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
        files[f"{name}.safetensors"] = safetensors.torch.save(own)
    for name, document in checkpoint.documents.items():
        files[f"{name}.json"] = to_json(document)
    for name in files:
        if not _FILE_NAME.fullmatch(name) or name == MANIFEST:
            raise ValueError(f"not a name for a part of a checkpoint: {name!r}")
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "libraries": library_versions(),
        **({"core": checkpoint.core} if checkpoint.core else {}),
        "config": checkpoint.config,
        "files": {name: {"bytes": len(data), "sha256": _digest(data)} for name, data in files.items()},
    }
    manifest["sha256"] = _digest(to_json(manifest))
    files[MANIFEST] = to_json(manifest)
    return files


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` as `folder`, which appears complete or not at all.

    An existing folder of that name is replaced.
    """
    files = _files_of(checkpoint)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(folder)
    temporary.mkdir()
    for name, data in files.items():
        write_synced(temporary / name, data)
    sync_folder(temporary)
    if folder.exists():
        retired = temporary_beside(folder)
        folder.rename(retired)
        temporary.rename(folder)
        shutil.rmtree(retired)
    else:
        temporary.rename(folder)
    sync_folder(folder.parent)


def write_zip(path: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` as one uncompressed zip file; an existing one is replaced."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in _files_of(checkpoint).items():
            # A fixed date: equal checkpoints give equal bytes.
            archive.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), data)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())


def read_checkpoint(path: Path, *, only: Iterable[str] | None = None) -> Checkpoint:
    """Read and verify a checkpoint.

    Args:
        path: A folder, or a zip of one.
        only: Names of the parts to read (`"params"`, `"algorithm"`, ...); all of them by default.

    Raises:
        CheckpointError: If it is missing, incomplete, altered, or of another format or version.
    """
    if path.is_dir():
        return _read(path, _folder_reader(path), only)
    if not path.exists():
        raise CheckpointError(f"no such checkpoint: {path}. Give a checkpoint folder or a .zip that `save` wrote.")
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(path, _zip_reader(path, archive), only)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, OSError, EOFError, RuntimeError) as error:
        # RuntimeError: altered flags make an entry look encrypted, or as of a later version of the format.
        raise CheckpointError(f"{path} is not a readable checkpoint: {error}.") from None


Reader = Callable[[str, int], bytes | None]
"""Returns the bytes of a file by name, at most as many as given plus one; None if there is no such file.

The limit comes from the manifest, which may say anything; memory is taken for bytes that there are.
"""


def _folder_reader(folder: Path) -> Reader:
    def read(name: str, limit: int) -> bytes | None:
        file = folder / name
        if not file.is_file():
            return None
        try:
            with file.open("rb") as stream:
                return stream.read(min(limit, file.stat().st_size) + 1)
        except OSError as error:
            raise CheckpointError(f"cannot read {file}: {error.strerror}.") from None

    return read


def _zip_reader(path: Path, archive: zipfile.ZipFile) -> Reader:
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename
        if not _FILE_NAME.fullmatch(name) or name in members:
            raise CheckpointError(f"{path} is not a checkpoint: it holds the entry {name!r}.")
        # Without compression a small file cannot grow into a huge one.
        if member.compress_type != zipfile.ZIP_STORED or member.file_size > path.stat().st_size:
            raise CheckpointError(f"{path} is not a checkpoint: its entry {name!r} is compressed or has a false size.")
        members[name] = member

    def read(name: str, limit: int) -> bytes | None:
        if name not in members:
            return None
        with archive.open(members[name]) as stream:
            return stream.read(min(limit, members[name].file_size) + 1)

    return read


def _read(path: Path, read: Reader, only: Iterable[str] | None) -> Checkpoint:
    manifest = _read_manifest(path, read)
    wanted = None if only is None else set(only)
    checkpoint = Checkpoint({}, {}, manifest["config"], manifest["libraries"], str(path), manifest.get("core", {}))
    for name, entry in manifest["files"].items():
        stem, _, kind = name.partition(".")
        if wanted is not None and stem not in wanted:
            continue
        data = _verified(path, name, entry, read)
        if kind == "json":
            checkpoint.documents[stem] = from_json(data, f"{path}/{name}")
        else:
            checkpoint.tensors[stem] = _tensors(path, name, data)
    return checkpoint


def _read_manifest(path: Path, read: Reader) -> dict[str, Any]:
    data = read(MANIFEST, _MANIFEST_LIMIT)
    if data is None:
        raise CheckpointError(f"{path} is not a complete checkpoint: it has no {MANIFEST} (which is written last).")
    if len(data) > _MANIFEST_LIMIT:
        raise CheckpointError(f"{path}/{MANIFEST} is larger than any manifest.")
    manifest = from_json(data, f"{path}/{MANIFEST}")
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CheckpointError(f"{path}/{MANIFEST} is not the manifest of a {FORMAT}.")
    version = manifest.get("format_version")
    if type(version) is not int or version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} is of format version {version!r}, and this plastic_rl reads version {FORMAT_VERSION}. "
            "Use the plastic_rl that wrote it."
        )
    stated = manifest.pop("sha256", None)
    try:
        own = _digest(to_json(manifest))
    except UnicodeEncodeError:
        own = None  # half of a surrogate pair, which JSON can spell and no file of ours holds
    if own is None or stated != own:
        raise CheckpointError(f"{path}/{MANIFEST} was altered: it does not match its own checksum.")
    _check_manifest_shape(path, manifest)
    return manifest


def _check_manifest_shape(path: Path, manifest: Mapping[str, Any]) -> None:
    for key in ("config", "libraries", "files"):
        if not isinstance(manifest.get(key), dict):
            raise CheckpointError(f"{path}/{MANIFEST} has no mapping {key!r}.")
    core = manifest.get("core", {})
    if not isinstance(core, dict) or core.get("name", "torch") not in ("torch", "native"):
        raise CheckpointError(f"{path}/{MANIFEST}: 'core' must say torch or native under 'name', got {core!r}.")
    if not manifest["files"]:
        raise CheckpointError(f"{path}/{MANIFEST} lists no files, and a checkpoint has some.")
    for name, entry in manifest["files"].items():
        if not _FILE_NAME.fullmatch(name) or name == MANIFEST or not isinstance(entry, dict):
            raise CheckpointError(f"{path}/{MANIFEST} lists {name!r}, which is no part of a checkpoint.")
        size = entry.get("bytes")
        if type(size) is not int or size < 0:
            raise CheckpointError(
                f"{path}/{MANIFEST}: the bytes of {name!r} must be a whole number of 0 or more, got {size!r}."
            )


def _verified(path: Path, name: str, entry: Mapping[str, Any], read: Reader) -> bytes:
    data = read(name, entry["bytes"])
    if data is None:
        raise CheckpointError(f"{path} is incomplete: {name} is missing.")
    if len(data) != entry["bytes"]:
        comparison = "fewer" if len(data) < entry["bytes"] else "more"
        raise CheckpointError(
            f"{path}/{name} was altered: it has {comparison} bytes than the {entry['bytes']} written."
        )
    if _digest(data) != entry.get("sha256"):
        raise CheckpointError(f"{path}/{name} was altered: its bytes do not match the checksum in {MANIFEST}.")
    return data


def _tensors(path: Path, name: str, data: bytes) -> dict[str, Tensor]:
    try:
        return {key: tensor.clone() for key, tensor in safetensors.torch.load(data).items()}
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{path}/{name} is not a safetensors file: {error}") from None


def saved_steps(folder: Path) -> list[int]:
    """Return the steps of the checkpoints in `folder`, ascending. Unfinished ones do not count."""
    if not folder.is_dir():
        return []
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.is_dir() and _STEP.fullmatch(entry.name))


def latest(folder: Path) -> Path | None:
    """Return the newest checkpoint `folder/STEP`, or None if there is none."""
    steps = saved_steps(folder)
    return folder / str(steps[-1]) if steps else None


def prune(folder: Path, keep: int, also: Iterable[int] = ()) -> None:
    """Remove all checkpoints in `folder` but the newest `keep` and those of the steps `also`."""
    steps = saved_steps(folder)
    for step in set(steps[:-keep]) - set(also):
        # A killed removal must not leave a folder that looks like a checkpoint.
        retired = temporary_beside(folder / str(step))
        (folder / str(step)).rename(retired)
        shutil.rmtree(retired)
