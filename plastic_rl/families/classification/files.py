"""The user's own samples, from a CSV, NPZ or IDX file (MNIST as it is downloaded).

Whatever is wrong with a file becomes one `ConfigError` that names the row: `read_samples` returns samples that can be
used, or raises.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from plastic_rl.arrays import Array, IntArray
from plastic_rl.errors import ConfigError, UnknownNameError

FORMATS: tuple[str, ...] = ("csv", "npz", "idx")
NPZ_NAMES: tuple[tuple[str, str], ...] = (
    ("x", "y"),
    ("data", "target"),
    ("features", "labels"),
    ("images", "labels"),
    ("x_train", "y_train"),
    ("x_test", "y_test"),
)
"""Names that features and labels may have in an NPZ file, in any case; x_train and x_test are joined."""

LARGEST_DECOMPRESSED = 2**30
"""Bytes that a compressed file may become (MNIST: 55 million); of any size are files that are not compressed."""

_IDX_TYPES: dict[int, str] = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_PIECE = 2**20
"""Bytes read at a time: memory is taken for what there is, not for what a head says."""


@dataclass(frozen=True)
class Samples:
    """A collection: raw features `(N, F)`, class of each sample `(N,)`, and what the classes were called."""

    features: Array
    labels: IntArray
    names: tuple[str, ...]


def read_samples(
    file: str,
    *,
    labels: str | None = None,
    label: str | int | None = None,
    delimiter: str = ",",
    format: str | None = None,  # noqa: A002 - the name that a config gives it
) -> Samples:
    """Read a labelled collection, as `ClassificationVectorEnv` says; again only when the file has changed.

    Args:
        file: Path, relative to the working directory; `~` is the home directory.
        labels: Path of the labels (IDX).
        label: Column of the label (CSV): its name, or its number from 0, negative from the end; the last by default.
        delimiter: Between the columns (CSV).
        format: `csv`, `npz` or `idx`; by default the file's ending says (`.csv`, `.npz`, else `idx`).

    Raises:
        ConfigError: If the file cannot be read, or what is in it cannot be learned. The message names the row.
    """
    stamp = _stamp(file)
    path = Path(stamp[0])
    kind = format or path.suffix.lower().removeprefix(".")
    if format is None and kind not in FORMATS:
        kind = "idx"
    if kind not in FORMATS:
        raise UnknownNameError("data format", format, FORMATS)
    if kind != "csv" and (label is not None or delimiter != ","):
        raise ConfigError(f"{path}: `label` and `delimiter` are for CSV files, this is read as {kind}")
    if (kind == "idx") != (labels is not None):
        raise ConfigError(
            f"{path}: an IDX file of images needs the file of their labels: `labels: PATH`"
            if kind == "idx"
            else f"{path}: `labels` (a second file) is for IDX files, this is read as {kind}"
        )
    if kind == "csv" and len(str(delimiter)) != 1:
        raise ConfigError(f"{path}: delimiter must be one character, got {delimiter!r}")
    return _read(kind, stamp, None if labels is None else _stamp(labels), label, delimiter)


Stamp = tuple[str, int, int]
"""Path, time of the last change and size: what tells whether a file must be read again."""


def _stamp(file: str) -> Stamp:
    path = Path(file)
    try:
        path = path.expanduser()
        status = path.stat()
    except RuntimeError:
        raise ConfigError(f"cannot read the data file {file}: the user after ~ has no home directory here") from None
    except (OSError, ValueError) as error:  # ValueError: a path that holds the character 0
        raise ConfigError(f"cannot read the data file {path}: {getattr(error, 'strerror', error)}") from None
    if not path.is_file():
        raise ConfigError(f"cannot read the data file {path}: it is no file")
    if status.st_size == 0:
        raise ConfigError(f"the data file {path} is empty")
    return str(path), status.st_mtime_ns, status.st_size


@lru_cache(maxsize=4)
def _read(kind: str, stamp: Stamp, second: Stamp | None, label: str | int | None, delimiter: str) -> Samples:
    path = Path(stamp[0])
    try:
        if kind == "csv":
            return _read_csv(path, label, delimiter)
        if kind == "npz":
            return _checked(path, *_read_npz(path))
        assert second is not None
        features, classes = _read_idx(path), _read_idx(Path(second[0]))
        if classes.ndim != 1 or features.ndim < 2:
            raise ConfigError(
                f"{path} must hold samples and {second[0]} one label for each, got the shapes {features.shape} and "
                f"{classes.shape}; are the two files exchanged?"
            )
        return _checked(path, features, classes)
    except OSError as error:
        raise ConfigError(f"cannot read the data file {path}: {error.strerror or error}") from None


# CSV ------------------------------------------------------------------------------------------------------------------


def _read_csv(path: Path, label: str | int | None, delimiter: str) -> Samples:
    rows = _cells(path, delimiter)
    first = rows[0][0]
    column = _label_column(path, first, label)
    title, names = str(column), [str(number) for number in range(len(first)) if number != column]
    labels = [row.pop(column).strip() for row, _ in rows]
    # A first row names columns where none of its features is a number or a gap.
    if isinstance(label, str) or not any(_number(cell) is not None or _is_gap(cell) for cell in first):
        title, names, rows = labels.pop(0), first, rows[1:]
    if not rows:
        raise ConfigError(f"{path} holds a header and no samples")
    features = np.empty((len(rows), len(names)))
    for place, (row, line) in enumerate(rows):
        if _is_gap(labels[place]):
            raise ConfigError(f"{path}, line {line}: no label in column {title!r}")
        numbers = [_number(cell) for cell in row]
        for number, cell, name in zip(numbers, row, names, strict=True):
            if number is None or not math.isfinite(number):
                got = "nothing" if not cell.strip() else repr(cell.strip()[:40])
                raise ConfigError(f"{path}, line {line}: column {name.strip()!r} must hold a number, got {got}")
        features[place] = numbers
    return _labelled(path, features, labels)


def _cells(path: Path, delimiter: str) -> list[tuple[list[str], int]]:
    """The rows of a table, equally long, of 2 cells or more, and the line that each ends in."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no text file in UTF-8 (byte {error.start}); is it really CSV?") from None
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    try:
        found = [(row, reader.line_num) for row in reader if row]
    except csv.Error as error:
        raise ConfigError(f"{path}, line {reader.line_num}: {error}") from None
    if not found:
        raise ConfigError(f"the data file {path} is empty")
    (first, top), width = found[0], len(found[0][0])
    for row, line in found:
        if len(row) != width:
            raise ConfigError(f"{path}, line {line}: {len(row)} columns, but {width} in line {top}")
    if width < 2:
        raise ConfigError(
            f"{path}, line {top}: one column only, {first[0][:40]!r}; samples need features and a label. Columns are "
            f"divided by {delimiter!r}; set `delimiter` if these are not"
        )
    return found


def _is_gap(cell: str) -> bool:
    return cell.strip().casefold() in {"", "nan", "na", "null", "none", "?"}


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _label_column(path: Path, first: Sequence[str], label: str | int | None) -> int:
    if isinstance(label, str):
        stripped = [name.strip() for name in first]
        if label not in stripped:
            raise UnknownNameError(f"label column of {path}", label, stripped)
        return stripped.index(label)
    column = -1 if label is None else label
    if isinstance(column, bool) or not -len(first) <= column < len(first):
        raise ConfigError(f"{path} has {len(first)} columns, so that `label` cannot be {label!r}")
    return column % len(first)


# NPZ and IDX ----------------------------------------------------------------------------------------------------------


def _read_npz(path: Path) -> tuple[Array, Array]:
    if not zipfile.is_zipfile(path):
        raise ConfigError(
            f"{path} is no NPZ file, which is a zip archive of arrays; is it complete? Write it with "
            "numpy.savez(PATH, x=features, y=labels), or say `format` if it is something else"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            stored = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            names = {name.casefold(): name for name in stored}
            pairs = [(names[x], names[y]) for x, y in NPZ_NAMES if x in names and y in names]
            if not pairs:
                raise ConfigError(
                    f"{path} holds the arrays {', '.join(stored) or 'none'}; name them x and y (or "
                    f"{', '.join(f'{x} and {y}' for x, y in NPZ_NAMES[1:])})"
                )
            # x and y, or the parts that a published split has.
            chosen = pairs if pairs[0][0].casefold() == "x_train" else pairs[:1]
            _check_decompressed(path, sum(stored[name].file_size for pair in chosen for name in pair))
            parts = [(_member(path, archive, stored[x]), _member(path, archive, stored[y])) for x, y in chosen]
    except (ConfigError, OSError):
        raise
    # Headers are Python's syntax, and what NumPy raises about them can be anything. Its own message would advise to
    # allow pickled objects, which run code.
    except Exception as error:
        raise ConfigError(
            f"{path} is no NPZ file of plain arrays: it is damaged, or an array holds Python objects. Write it with "
            "numpy.savez(PATH, x=features, y=labels), features as numbers, labels as numbers or texts"
        ) from error
    shapes = {(features.shape[1:], labels.shape[1:]) for features, labels in parts}
    if len(shapes) != 1:
        raise ConfigError(f"{path}: the parts have samples of different shapes, {sorted(shapes)}")
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


def _check_decompressed(path: Path, size: int) -> None:
    """Refuse a compressed file that would become too many bytes, before any of them is read."""
    if size > max(LARGEST_DECOMPRESSED, path.stat().st_size):
        raise ConfigError(
            f"{path} would become {size:,} bytes when decompressed, and compressed files may become "
            f"{LARGEST_DECOMPRESSED:,}. Store it without compression (numpy.savez, gunzip), or take fewer samples"
        )


def _member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    """Read an array, of 1 axis at least, whose header says no more than the archive holds."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("not as NumPy compresses")
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = header(stream)
        stated, held = math.prod(shape) * kind.itemsize, member.file_size - stream.tell()
    if stated != held and not kind.hasobject:
        raise ConfigError(
            f"{path}: {member.filename} says that it holds {stated:,} bytes ({kind} of shape {shape}), but there are "
            f"{held:,}; is it complete?"
        )
    with archive.open(member) as stream:
        return np.atleast_1d(np.lib.format.read_array(stream, allow_pickle=False))


def _read_idx(path: Path) -> Array:
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        try:
            with gzip.open(file) if zipped else file as stream:
                return _idx_array(path, cast("BinaryIO", stream), zipped=zipped)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ConfigError(f"{path} is a damaged gzip file: {error}") from None


def _idx_array(path: Path, stream: BinaryIO, *, zipped: bool) -> Array:
    head = stream.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _IDX_TYPES or not 1 <= head[3] <= 8:
        raise ConfigError(f"{path} is no IDX file (nor does its name end in .csv or .npz; else say `format`)")
    sizes = stream.read(4 * head[3])
    if len(sizes) < 4 * head[3]:
        raise ConfigError(f"{path} ends within its head; is it complete?")
    shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    kind = np.dtype(_IDX_TYPES[head[2]])
    wanted = math.prod(shape) * kind.itemsize
    if zipped:
        _check_decompressed(path, wanted)
    raw = bytearray()
    while len(raw) <= wanted and (piece := stream.read(min(_PIECE, wanted + 1 - len(raw)))):
        raw += piece
    if len(raw) != wanted:
        got = f"{len(raw):,}" if len(raw) < wanted else "more"
        raise ConfigError(f"{path}: {got} bytes of samples, but its head says {wanted:,}; is it complete?")
    return np.frombuffer(raw, kind).reshape(shape).astype(kind.newbyteorder("="))


def _checked(path: Path, features: Array, classes: Array) -> Samples:
    if features.dtype.kind not in "biuf" or features.ndim < 2:
        raise ConfigError(
            f"{path}: features must be numbers, a row for each sample; got {features.dtype} of shape {features.shape}"
        )
    if classes.dtype.kind not in "biufUS" or classes.shape not in {(len(features),), (len(features), 1)}:
        raise ConfigError(
            f"{path}: labels must be one number or text for each of {len(features)} samples, got {classes.dtype} of "
            f"shape {classes.shape}"
        )
    if features.size == 0:
        raise ConfigError(f"{path} holds no samples: features of shape {features.shape}")
    flat = features.reshape(len(features), -1)
    classes = classes.reshape(-1)
    if flat.dtype.kind == "f":
        bad = np.argwhere(~np.isfinite(flat))
        if len(bad):
            row, column = bad[0].tolist()
            raise ConfigError(f"{path}, row {row}: feature {column} must be a number, got {flat[row, column]}")
    if classes.dtype.kind == "f":
        bad_labels = np.flatnonzero(~np.isfinite(classes))
        if len(bad_labels):
            raise ConfigError(f"{path}, row {bad_labels[0]}: no label, got {classes[bad_labels[0]]}")
        whole = classes.astype(np.int64)
        classes = whole if (whole == classes).all() else classes
    texts = [each.decode("utf-8", "replace") if isinstance(each, bytes) else str(each) for each in classes.tolist()]
    return _labelled(path, flat, texts)


def _labelled(path: Path, features: Array, classes: Sequence[str]) -> Samples:
    """Number the classes in the order of their names, numbers before texts."""
    classes = _one_spelling(path, classes)
    numbers = {name: _number(name) for name in set(classes)}
    names = sorted(numbers, key=lambda name: (numbers[name] is None, numbers[name] or 0.0, name))
    if len(names) < 2:
        raise ConfigError(f"{path}: all {len(classes)} samples have the label {names[0]!r}; there must be two classes")
    place = {name: number for number, name in enumerate(names)}
    return Samples(features, np.array([place[name] for name in classes], dtype=np.int64), tuple(names))


def _one_spelling(path: Path, classes: Sequence[str]) -> Sequence[str]:
    """The labels, with those that are equal as numbers written in one way, the shortest that occurs.

    Where other labels are texts, whether 1 and 1.0 differ cannot be told: refused.
    """
    spellings: dict[int | float | str, list[str]] = {}
    for name in sorted(set(classes), key=lambda name: (len(name), name)):
        spellings.setdefault(_value(name), []).append(name)
    twice = [found for found in spellings.values() if len(found) > 1]
    if not twice:
        return classes
    if texts := [value for value in spellings if isinstance(value, str)]:
        raise ConfigError(
            f"{path}: the labels {' and '.join(map(repr, twice[0]))} are one number, but other labels are texts "
            f"({texts[0]!r}). Write the same class in the same way everywhere"
        )
    chosen = {name: found[0] for found in spellings.values() for name in found}
    return [chosen[name] for name in classes]


def _value(label: str) -> int | float | str:
    """What a label says: whole numbers exactly, however large."""
    for kind in (int, float):
        try:
            value = kind(label)
        except ValueError:
            continue
        return value if np.isfinite(value) else label
    return label
