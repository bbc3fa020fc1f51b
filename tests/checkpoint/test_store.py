"""Checkpoints on disk: what is written comes back; every kind of damage is refused by name."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plastic_rl.checkpoint import (
    Checkpoint,
    latest,
    prune,
    read_checkpoint,
    remove_unfinished,
    saved_steps,
    to_json,
    write_checkpoint,
    write_zip,
)
from plastic_rl.checkpoint.files import file_named, temporary_beside
from plastic_rl.errors import CheckpointError

PARTS = ["params.safetensors", "optimizer.safetensors", "state.safetensors", "rng.json", "env.json", "algorithm.json"]


def example() -> Checkpoint:
    weight = torch.arange(12.0).reshape(3, 4)
    return Checkpoint(
        tensors={
            # A transposed view and two names for one tensor: legal in memory, not in a safetensors file.
            "params": {"weight": weight.mT, "twin": weight, "scalar": torch.tensor(0.1, dtype=torch.float64)},
            "optimizer": {"0.step": torch.tensor(3.0), "0.exp_avg": torch.full((4, 3), -0.0)},
            "state": {"hebb": torch.tensor([[float("nan"), float("inf")]]), "start": torch.tensor([True, False])},
        },
        documents={"rng": {"state": 2**127 + 1}, "env": {"rows": (1, 2)}, "algorithm": {"num_timesteps": 64}},
        config={"network": {"kind": "gru"}, "rate": 5e-3},
    )


def equal(first: Checkpoint, second: Checkpoint) -> bool:
    def raw(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
        return {name: (t.dtype, t.shape, t.contiguous().numpy().tobytes()) for name, t in tensors.items()}

    return (
        {name: raw(tensors) for name, tensors in first.tensors.items()}
        == {name: raw(tensors) for name, tensors in second.tensors.items()}
        and first.documents == second.documents
        and first.config == second.config
    )


def test_round_trip_as_folder_and_as_zip(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "64", example())
    assert sorted(file.name for file in (tmp_path / "64").iterdir()) == sorted([*PARTS, "manifest.json"])
    restored = read_checkpoint(tmp_path / "64")
    assert equal(restored, example())
    assert restored.libraries["torch"].split("+")[0] == torch.__version__.split("+")[0]
    write_zip(tmp_path / "agent.zip", example())
    assert equal(read_checkpoint(tmp_path / "agent.zip"), example())
    partial = read_checkpoint(tmp_path / "64", only=["params", "algorithm"])
    assert (set(partial.tensors), set(partial.documents)) == ({"params"}, {"algorithm"})


def test_equal_checkpoints_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_checkpoint(tmp_path / name, example())
        write_zip(tmp_path / f"{name}.zip", example())
    for part in [*PARTS, "manifest.json"]:
        assert (tmp_path / "first" / part).read_bytes() == (tmp_path / "second" / part).read_bytes()
    assert (tmp_path / "first.zip").read_bytes() == (tmp_path / "second.zip").read_bytes()


dtypes = st.sampled_from([torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool, torch.bfloat16])
shapes = st.lists(st.integers(0, 3), max_size=3)


@settings(deadline=None, max_examples=30)
@given(st.dictionaries(st.text("abc._", min_size=1, max_size=8), st.tuples(dtypes, shapes), max_size=4), st.integers(0))
def test_any_tensors_come_back(
    tmp_path_factory: pytest.TempPathFactory, named: dict[str, tuple[torch.dtype, list[int]]], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed % 2**31)
    tensors = {name: (torch.randn(shape, generator=generator) * 3).to(dtype) for name, (dtype, shape) in named.items()}
    path = tmp_path_factory.getbasetemp() / "any.zip"
    write_zip(path, Checkpoint({"params": tensors}, {}, {}))
    restored = read_checkpoint(path).tensors["params"]
    assert restored.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert restored[name].dtype == tensor.dtype
        assert restored[name].shape == tensor.shape
        assert torch.equal(restored[name], tensor)


def rewrite_manifest(folder: Path, change: Callable[[dict[str, Any]], None], *, seal: bool) -> None:
    manifest = json.loads((folder / "manifest.json").read_bytes())
    change(manifest)
    if seal:
        manifest.pop("sha256", None)
        manifest["sha256"] = hashlib.sha256(to_json(manifest)).hexdigest()
    (folder / "manifest.json").write_bytes(to_json(manifest))


@pytest.mark.parametrize("part", [*PARTS, "manifest.json"])
@pytest.mark.parametrize("damage", ["truncated", "extended", "emptied", "removed"])
def test_damaged_files_are_refused(tmp_path: Path, part: str, damage: str) -> None:
    write_checkpoint(tmp_path / "64", example())
    file = tmp_path / "64" / part
    data = file.read_bytes()
    file.unlink()
    if damage != "removed":
        file.write_bytes({"truncated": data[:-3], "extended": data + b"\n\n\0", "emptied": b""}[damage])
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(tmp_path / "64")
    assert part in str(caught.value)
    assert str(tmp_path / "64") in str(caught.value)


@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(part=st.sampled_from([*PARTS, "manifest.json"]), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_flipped_bit_goes_unnoticed(tmp_path: Path, part: str, place: float, bit: int) -> None:
    folder = tmp_path / "64"
    write_checkpoint(folder, example())
    data = bytearray((folder / part).read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    (folder / part).write_bytes(data)
    try:
        restored = read_checkpoint(folder)
    except CheckpointError:
        return
    # White space between the manifest's values carries nothing, so a change there (space to newline) harms nothing.
    assert part == "manifest.json"
    assert equal(restored, example())


def test_an_edited_manifest_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "64", example())
    rewrite_manifest(tmp_path / "64", lambda manifest: manifest["config"].update(rate=1.0), seal=False)
    with pytest.raises(CheckpointError, match=r"manifest.json was altered"):
        read_checkpoint(tmp_path / "64")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            lambda manifest: manifest.update(format_version=1),
            "is of format version 1, and this plastic_rl reads version 2",
        ),
        (lambda manifest: manifest.update(format="other"), "is not the manifest of a plastic_rl checkpoint"),
        (lambda manifest: manifest.pop("files"), "has no mapping 'files'"),
        (lambda manifest: manifest.update(files={}), "lists no files"),
        (lambda manifest: manifest.update(config=[]), "has no mapping 'config'"),
        (lambda manifest: manifest["files"].update({"../../x.json": {"bytes": 1, "sha256": ""}}), "is no part of a"),
        (lambda manifest: manifest["files"].update({"/etc/passwd": {"bytes": 1, "sha256": ""}}), "is no part of a"),
        (lambda manifest: manifest["files"].update({"x.json\n": {"bytes": 1, "sha256": ""}}), "is no part of a"),
        (lambda manifest: manifest.update(format_version=True), "is of format version True"),
        (lambda manifest: manifest["files"].update({"x.json": 3}), "is no part of a"),
        (lambda manifest: manifest["files"].update({"x.json": {"bytes": 1, "sha256": ""}}), "x.json is missing"),
    ],
)
def test_foreign_manifests_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], complaint: str
) -> None:
    write_checkpoint(tmp_path / "64", example())
    rewrite_manifest(tmp_path / "64", change, seal=True)
    with pytest.raises(CheckpointError, match=complaint):
        read_checkpoint(tmp_path / "64")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("size", [2**62, 2**63, 2**64, 10**40, -1, 1.0, True, None, "1", float("inf")])
def test_a_size_that_no_file_has_is_refused(tmp_path: Path, size: Any, packed: bool) -> None:
    folder = path = tmp_path / "64"
    write_checkpoint(folder, example())
    rewrite_manifest(folder, lambda manifest: manifest["files"]["rng.json"].update(bytes=size), seal=True)
    if packed:
        path = tmp_path / "agent.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for file in folder.iterdir():
                archive.write(file, file.name)
    complaint = (
        "/rng.json was altered: it has fewer bytes" if type(size) is int and size > 0 else "the bytes of 'rng.json'"
    )
    with pytest.raises(CheckpointError, match=complaint) as told:
        read_checkpoint(path)
    assert str(path) in str(told.value)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    for key in value if isinstance(value, dict) else ():
        yield from places(value[key], (*path, key))


values = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5) | st.just("\ud800")
)
values |= st.sampled_from([2**62, 2**63 - 1, 2**63, [], {}, {"a": 1}, {"$float": "nan"}, [[[]]]])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_altered_entry_of_a_manifest_is_refused_or_harmless(tmp_path: Path, data: st.DataObject) -> None:
    folder = tmp_path / "64"
    write_checkpoint(folder, example())
    manifest = json.loads((folder / "manifest.json").read_bytes())
    path = data.draw(st.sampled_from(list(places(manifest))))
    holder = manifest
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = data.draw(values)
    manifest.pop("sha256", None)
    with contextlib.suppress(UnicodeEncodeError):
        manifest["sha256"] = hashlib.sha256(to_json(manifest)).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    try:
        restored = read_checkpoint(folder)
    except CheckpointError as error:
        assert str(folder) in str(error)
    else:
        assert equal(replace(restored, config={}), replace(example(), config={}))


@pytest.mark.parametrize("depth", [130, 200, 496, 100_000])
def test_a_nested_manifest_is_refused(tmp_path: Path, depth: int) -> None:
    write_checkpoint(tmp_path / "64", example())
    manifest = (tmp_path / "64" / "manifest.json").read_bytes().replace(b"0.005", b"[" * depth + b"]" * depth)
    (tmp_path / "64" / "manifest.json").write_bytes(manifest)
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        read_checkpoint(tmp_path / "64")


class Payload:
    """Pickles to a command that leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.mark),))


@pytest.mark.parametrize("part", ["params.safetensors", "algorithm.json"])
@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_a_planted_pickle_never_runs(tmp_path: Path, part: str, writer: str) -> None:
    mark = tmp_path / "mark"
    write_checkpoint(tmp_path / "64", example())
    file = tmp_path / "64" / part
    if writer == "pickle":
        file.write_bytes(pickle.dumps(Payload(mark)))
    else:
        torch.save({"weight": Payload(mark)}, file)
    (tmp_path / "64" / "extra.pkl").write_bytes(pickle.dumps(Payload(mark)))
    data = file.read_bytes()
    entry = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    rewrite_manifest(tmp_path / "64", lambda manifest: manifest["files"].update({part: entry}), seal=True)
    with pytest.raises(CheckpointError, match=part):
        read_checkpoint(tmp_path / "64")
    assert not mark.exists()
    # The payload itself works: only then does the test above say something.
    pickle.loads(pickle.dumps(Payload(mark)))
    assert mark.exists()


def test_pickled_files_and_other_archives_are_refused(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    path = tmp_path / "agent.zip"
    torch.save({"weight": Payload(mark)}, path)
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        read_checkpoint(path)
    path.write_bytes(pickle.dumps(Payload(mark)))
    with pytest.raises(CheckpointError, match="is not a readable checkpoint"):
        read_checkpoint(path)
    assert not mark.exists()


def test_zips_with_strange_entries_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "agent.zip"
    for name in ("../outside.json", "/etc/x.json", "folder/params.safetensors", "evil.pkl", "extra.json\n"):
        write_zip(path, example())
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(name, "{}")
        with pytest.raises(CheckpointError, match="holds the entry"):
            read_checkpoint(path)
    assert not (tmp_path.parent / "outside.json").exists()


def test_compressed_zips_and_truncated_zips_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "agent.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", b" " * 10_000_000)
    with pytest.raises(CheckpointError, match="is compressed or has a false size"):
        read_checkpoint(path)
    write_zip(path, example())
    data = path.read_bytes()
    for length in (0, 10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match="is not a readable checkpoint"):
            read_checkpoint(path)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "nowhere.zip")


def test_no_flipped_bit_of_a_zip_is_anything_but_refused(tmp_path: Path) -> None:
    """The archive's own flags too: an entry that seems encrypted, or of a later version of the format."""
    path = tmp_path / "agent.zip"
    write_zip(path, Checkpoint({}, {"rng": 1}, {}))
    data = path.read_bytes()
    for place in range(len(data)):
        for bit in range(8):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
            with contextlib.suppress(CheckpointError):  # dates and the like may change: they stand for nothing
                assert read_checkpoint(path).documents == {"rng": 1}


def test_unfinished_folders_do_not_count_and_are_removed(tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    assert latest(checkpoints) is None
    for step in (64, 8, 1024):
        write_checkpoint(checkpoints / str(step), example())
    for name in ("0064", "64\n", "\u0663", "-8"):
        (checkpoints / name).mkdir()
    unfinished = checkpoints / ".unfinished-2048-0123456789ab"
    shutil.copytree(checkpoints / "64", unfinished)
    (checkpoints / ".unfinished-file").write_text("")
    assert saved_steps(checkpoints) == [8, 64, 1024]
    assert latest(checkpoints) == checkpoints / "1024"
    assert remove_unfinished(checkpoints) == []  # they may belong to another process
    assert remove_unfinished(checkpoints, owned=True) == [
        checkpoints / ".unfinished-2048-0123456789ab",
        checkpoints / ".unfinished-file",
    ]
    assert sorted(entry.name for entry in checkpoints.iterdir()) == ["-8", "0064", "1024", "64", "64\n", "8", "\u0663"]


def test_what_a_killed_process_left_is_told_from_what_another_one_writes(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    abandoned = tmp_path / f".unfinished-run-{ended.pid}-0123456789ab"
    in_use, own = tmp_path / f".unfinished-run-{os.getppid()}-0123456789ab", temporary_beside(tmp_path / "run")
    for path in (abandoned, in_use, own):
        path.mkdir()
    assert remove_unfinished(tmp_path) == [abandoned]
    assert in_use.exists()
    assert own.exists()


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: '.*metrics.csv'") as raised, file_named(path):
        path.write_text("step\n")
    assert raised.value.errno == errno.ENOSPC


def test_pruning_keeps_the_newest_and_the_chosen(tmp_path: Path) -> None:
    for step in (8, 16, 24, 32, 40):
        write_checkpoint(tmp_path / str(step), example())
    prune(tmp_path, keep=2, also=[16])
    assert saved_steps(tmp_path) == [16, 32, 40]
    prune(tmp_path, keep=2, also=[40])
    assert saved_steps(tmp_path) == [32, 40]


def test_an_existing_checkpoint_is_replaced_whole(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "64", example())
    (tmp_path / "64" / "params.safetensors").write_bytes(b"damaged")
    other = Checkpoint({"params": {"weight": torch.ones(2)}}, {}, {"rate": 1.0})
    write_checkpoint(tmp_path / "64", other)
    assert equal(read_checkpoint(tmp_path / "64"), other)
    assert [entry.name for entry in tmp_path.iterdir()] == ["64"]
