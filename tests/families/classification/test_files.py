"""The user's own files: what is read from them, and what is said about those that cannot be."""

from __future__ import annotations

import gzip
import io
import resource
import struct
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plastic_rl.envs import make_vector
from plastic_rl.errors import ConfigError, UnknownNameError
from plastic_rl.families.classification.environment import ClassificationTasks
from plastic_rl.families.classification.files import LARGEST_DECOMPRESSED, read_samples

GOOD = "length,width,kind\n1.5,2,cat\n-3,4e1,dog\n0,0,cat\n"


@pytest.fixture
def write(tmp_path):
    def write(content, name="data.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def test_csv_with_a_header_and_texts_as_labels(write):
    samples = read_samples(write(GOOD))
    assert samples.names == ("cat", "dog")
    assert samples.features.tolist() == [[1.5, 2.0], [-3.0, 40.0], [0.0, 0.0]]
    assert samples.labels.tolist() == [0, 1, 0]


def test_csv_without_a_header_with_the_label_elsewhere(write):
    samples = read_samples(write("10;1;2\n9;3;4\n\n10;5;6\n"), label=0, delimiter=";")
    assert samples.names == ("9", "10")  # numbers in the order of numbers
    assert samples.labels.tolist() == [1, 0, 1]
    assert samples.features.tolist() == [[1, 2], [3, 4], [5, 6]]
    named = read_samples(write("kind,a\nx,1\ny,2\n", "named.csv"), label="kind")
    assert named.features.tolist() == [[1.0], [2.0]]
    # With a byte-order mark, as spreadsheets write it.
    assert read_samples(write(b"\xef\xbb\xbf" + GOOD.encode(), "bom.csv"), label="kind").names == ("cat", "dog")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("a,b,kind\n", "a header and no samples"),
        ("1,2,x\n1,2\n", r"line 2: 2 columns, but 3 in line 1"),
        ("a,b,k\n1,2,x\n1,2,3,y\n", r"line 3: 4 columns, but 3 in line 1"),
        ("1,2,x\n1,nan,y\n", r"line 2: column '1' must hold a number, got 'nan'"),
        ("a,b,k\n1,2,x\n1,,y\n", r"line 3: column 'b' must hold a number, got nothing"),
        ("a,b,k\n1,2,x\n1,inf,y\n", r"line 3: column 'b' must hold a number, got 'inf'"),
        ("a,b,k\n1,2,x\nred,2,y\n", r"line 3: column 'a' must hold a number, got 'red'"),
        ("1,2,x\n3,4,\n", r"line 2: no label in column '2'"),
        ("1,2,x\n3,4,NaN\n", r"line 2: no label in column '2'"),
        ("1,2,x\n3,4,x\n5,6,x\n", r"all 3 samples have the label 'x'"),
        ("1 2 x\n3 4 y\n", r"line 1: one column only"),
        (b"\xff\xfe1\x002\x00", r"no text file in UTF-8 \(byte 0\)"),
        ('1,2,"x\n', r"line|samples"),
    ],
)
def test_a_bad_table_is_told_by_its_line(write, content, message):
    path = write(content)
    with pytest.raises(ConfigError, match=message) as told:
        read_samples(path)
    assert path in str(told.value)
    assert "\n" not in str(told.value)


def test_numbers_as_labels_are_classes_by_their_value(write):
    samples = read_samples(write("1,2,1\n3,4,1.0\n5,6,2\n7,8,01\n"))
    assert (samples.names, samples.labels.tolist()) == (("1", "2"), [0, 0, 1, 0])
    large = read_samples(write("1,2,9007199254740993\n3,4,9007199254740992\n", "large.csv"))
    assert len(large.names) == 2
    with pytest.raises(ConfigError, match=r"the labels '1' and '1.0' are one number, but .* \('cat'\)"):
        read_samples(write("1,2,1\n3,4,1.0\n5,6,cat\n", "mixed.csv"))


def test_bad_paths_and_arguments(tmp_path, write):
    with pytest.raises(ConfigError, match="No such file"):
        read_samples(str(tmp_path / "missing.csv"))
    with pytest.raises(ConfigError, match="it is no file"):
        read_samples(str(tmp_path))
    for path in ("~nouser/x.csv", "~nouser/x.npz"):
        with pytest.raises(ConfigError, match=f"data file {path}: the user after ~ has no home directory"):
            read_samples(path)
    with pytest.raises(ConfigError, match="data file ~nouser/y: the user after ~ has no home"):
        read_samples(write(idx(IMAGES, 8), "images-idx3-ubyte"), labels="~nouser/y")
    with pytest.raises(ConfigError, match="embedded null byte"):
        read_samples("x\0.csv")
    with pytest.raises(UnknownNameError, match="Did you mean 'kind'"):
        read_samples(write(GOOD), label="knd")
    with pytest.raises(ConfigError, match="3 columns, so that `label` cannot be 3"):
        read_samples(write(GOOD), label=3)
    with pytest.raises(ConfigError, match="needs the file of their labels"):
        read_samples(write(GOOD, "train-images-idx3-ubyte"))
    with pytest.raises(ConfigError, match="is for IDX files"):
        read_samples(write(GOOD), labels="other")
    with pytest.raises(ConfigError, match="for CSV files, this is read as idx"):
        read_samples(write(GOOD, "images"), label=0)
    with pytest.raises(UnknownNameError, match="data format"):
        read_samples(write(GOOD), format="excel")
    with pytest.raises(ConfigError, match="one character"):
        read_samples(write(GOOD), delimiter=", ")


def test_a_changed_file_is_read_again(write):
    assert read_samples(write(GOOD)).names == ("cat", "dog")
    assert read_samples(write(GOOD.replace("dog", "horse"))).names == ("cat", "horse")


cells = st.floats(-1e6, 1e6, allow_nan=False).map(repr)
tables = st.integers(1, 5).flatmap(
    lambda width: st.lists(
        st.tuples(st.lists(cells, min_size=width, max_size=width), st.sampled_from(["a", "b", "c"])),
        min_size=2,
        max_size=20,
    )
)


@settings(max_examples=60, deadline=None)
@given(table=tables, header=st.booleans())
def test_whatever_numbers_were_written_are_read(tmp_path_factory, table, header):
    width = len(table[0][0])
    lines = [",".join([*row, label]) for row, label in table]
    if header:
        lines.insert(0, ",".join([*(f"feature {number}" for number in range(width)), "label"]))
    path = tmp_path_factory.mktemp("tables") / "table.csv"
    path.write_text("\n".join(lines))
    if len({label for _, label in table}) == 1:
        with pytest.raises(ConfigError, match="there must be two classes"):
            read_samples(str(path))
        return
    samples = read_samples(str(path))
    np.testing.assert_array_equal(samples.features, [[float(cell) for cell in row] for row, _ in table])
    assert [samples.names[label] for label in samples.labels] == [label for _, label in table]


@settings(max_examples=80, deadline=None)
@given(
    table=tables,
    where=st.tuples(st.integers(0, 100), st.integers(0, 100)),
    bad=st.sampled_from(["", "nan", "-inf", "text", "1,2", "0x10", "NaN"]),
)
def test_one_bad_cell_is_always_found(tmp_path_factory, table, where, bad):
    place = where[0] % len(table)
    column = where[1] % len(table[0][0])
    rows = [[*row, label] for row, label in table]
    rows[place][column] = bad
    path = tmp_path_factory.mktemp("bad") / "table.csv"
    path.write_text("\n".join(",".join(row) for row in rows))
    if place == 0 and len(table[0][0]) == 1 and bad in {"text", "0x10"}:
        return  # that is a header
    # A row that is too long shows at the next one, where it comes first.
    line = 2 if place == 0 and bad == "1,2" else place + 1
    with pytest.raises(ConfigError, match=rf"line {line}: "):
        read_samples(str(path))


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=200), name=st.sampled_from(["x.csv", "x.npz", "x.idx"]))
def test_any_bytes_are_read_or_refused_clearly(tmp_path_factory, content, name):
    path = tmp_path_factory.mktemp("bytes") / name
    path.write_bytes(content)
    try:
        samples = read_samples(str(path), labels=str(path) if name == "x.idx" else None)
    except (ConfigError, UnknownNameError):
        return
    assert np.isfinite(samples.features.astype(float)).all()
    assert len(samples.names) >= 2


def idx(array, kind):
    head = struct.pack(">BBBB", 0, 0, kind, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


IMAGES = np.arange(5 * 2 * 3, dtype=np.uint8).reshape(5, 2, 3)
LABELS = np.array([7, 2, 7, 2, 2], dtype=np.uint8)


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_as_mnist_is_downloaded(write, zipped):
    wrap = gzip.compress if zipped else bytes
    images = write(wrap(idx(IMAGES, 8)), "images-idx3-ubyte" + ".gz" * zipped)
    labels = write(wrap(idx(LABELS, 8)), "labels-idx1-ubyte" + ".gz" * zipped)
    samples = read_samples(images, labels=labels)
    np.testing.assert_array_equal(samples.features, IMAGES.reshape(5, 6))
    assert samples.features.dtype == np.uint8  # 60,000 images of MNIST stay 47 MB
    assert (samples.names, samples.labels.tolist()) == (("2", "7"), [1, 0, 1, 0, 0])
    with pytest.raises(ConfigError, match="are the two files exchanged"):
        read_samples(labels, labels=images)
    with pytest.raises(ConfigError, match="is it complete"):
        read_samples(write(wrap(idx(IMAGES, 8)[:-1]), "short"), labels=labels)
    with pytest.raises(ConfigError, match="one number or text for each of 5 samples"):
        read_samples(images, labels=write(wrap(idx(LABELS[:4], 8)), "few"))
    if zipped:
        with pytest.raises(ConfigError, match="damaged gzip file"):
            read_samples(write(wrap(idx(IMAGES, 8))[:-9], "cut.gz"), labels=labels)


@pytest.mark.parametrize(("x", "y"), [("x", "y"), ("X", "Y"), ("data", "target"), ("images", "labels")])
def test_npz(tmp_path, x, y):
    path = tmp_path / "data.npz"
    np.savez(path, **{x: IMAGES, y: LABELS.astype(float)})
    samples = read_samples(str(path))
    np.testing.assert_array_equal(samples.features, IMAGES.reshape(5, 6))
    assert (samples.names, samples.labels.tolist()) == (("2", "7"), [1, 0, 1, 0, 0])


def test_npz_with_a_published_split_is_joined(tmp_path):
    path = tmp_path / "mnist.npz"
    np.savez(path, x_train=IMAGES[:3], y_train=LABELS[:3], x_test=IMAGES[3:], y_test=LABELS[3:])
    assert read_samples(str(path)).labels.tolist() == [1, 0, 1, 0, 0]


def test_bad_npz(tmp_path, write):
    def saved(**arrays):
        path = tmp_path / f"bad{len(list(tmp_path.iterdir()))}.npz"
        np.savez(path, **arrays)
        return str(path)

    broken = IMAGES.reshape(5, 6).astype(float)
    broken[3, 1] = np.nan
    for path, message in (
        (saved(a=IMAGES, b=LABELS), "holds the arrays a, b; name them x and y"),
        (saved(x=broken, y=LABELS), "row 3: feature 1 must be a number, got nan"),
        (saved(x=broken[:3], y=np.array([1.0, np.nan, 2.0])), "row 1: no label"),
        (saved(x=IMAGES, y=LABELS[:2]), "for each of 5 samples"),
        (saved(x=IMAGES, y=np.ones(5)), "all 5 samples have the label '1'"),
        (saved(x=np.array([["a"]] * 5), y=LABELS), "features must be numbers"),
        (saved(x=IMAGES[:0], y=LABELS[:0]), "holds no samples"),
        (saved(x=np.array([{}] * 5, dtype=object), y=LABELS), "no NPZ file of plain arrays"),
        (write(b"PK\x03\x04 nothing", "zip.npz"), "no NPZ file"),
        (write("text", "text.npz"), "no NPZ file"),
    ):
        with pytest.raises(ConfigError, match=message) as told:
            read_samples(path)
        assert "pickle" not in str(told.value)


def npy(header, data=b""):
    """A member of an NPZ file, whose header says what it likes."""
    text = header if isinstance(header, bytes) else repr(header).encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text + b"\n" + data


def header(shape, descr="<f8"):
    return {"descr": descr, "fortran_order": False, "shape": shape}


def npz(path, x, y=None, **kwargs):
    labels = io.BytesIO()
    np.save(labels, LABELS)
    with zipfile.ZipFile(path, "w", **kwargs) as archive:
        archive.writestr("x.npy", x)
        archive.writestr("y.npy", labels.getvalue() if y is None else y)
    return str(path)


@pytest.mark.parametrize(
    ("shape", "descr", "stated"),
    [
        ((200_707_000_000,), "<f8", "1,605,656,000,000"),  # 1.46 TiB
        ((2**40, 2**40), "<f8", f"{2**83:,}"),
        ((5, -1), "<f8", "-40"),
        ((1,), "<U500000000", "2,000,000,000"),
        ((5, 6), "<f8", "240"),
    ],
)
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_npz_header_that_says_more_than_there_is(tmp_path, shape, descr, stated, compression):
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path = npz(tmp_path / "x.npz", npy(header(shape, descr), bytes(80)), compression=compression)
    with pytest.raises(
        ConfigError, match=rf"x.npy says that it holds {stated} bytes .* but there are 80; is it"
    ) as told:
        read_samples(path)
    assert path in str(told.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begun < 100 * 2**10


@settings(max_examples=150)
@given(
    text=st.binary(max_size=60)
    | st.text("({[-'\"\\n\\x01,:<f8shapedecrotnF} )]", max_size=80).map(str.encode)
    | st.sampled_from([b"(" * 5000, b"-" * 9000 + b"1", b"{'descr': (((((('<f8',))))))}"])
    | st.builds(
        header,
        st.tuples(st.integers(-(2**70), 2**70) | st.integers(0, 5)) | st.none() | st.floats(),
        st.sampled_from(["<f8", "|O", "<f2", "V8", ">c16", "<M8[s]", [("a", "<f8")], "nonsense", 3, "<U9"]),
    ),
    data=st.binary(max_size=40),
)
def test_any_npz_header_is_read_or_refused_clearly(tmp_path_factory, text, data):
    path = npz(tmp_path_factory.getbasetemp() / "any.npz", npy(text, data))
    for file in (
        path,
        npz(tmp_path_factory.getbasetemp() / "labels.npz", npy(header((1, 1)), bytes(8)), npy(text, data)),
    ):
        try:
            samples = read_samples(file)
        except ConfigError:
            continue
        assert np.isfinite(samples.features.astype(float)).all()


def test_npz_files_that_only_numpy_reads(tmp_path):
    for compression in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with pytest.raises(ConfigError, match="no NPZ file of plain arrays"):
            read_samples(npz(tmp_path / "x.npz", npy(header((5, 1)), bytes(40)), compression=compression))
    np.savez(tmp_path / "parts.npz", x_train=IMAGES, y_train=LABELS, x_test=IMAGES, y_test=LABELS[:, None])
    with pytest.raises(ConfigError, match="the parts have samples of different shapes"):
        read_samples(str(tmp_path / "parts.npz"))
    np.savez(tmp_path / "single.npz", x=np.array(5.0), y=np.array(5))
    with pytest.raises(ConfigError, match="features must be numbers, a row for each sample"):
        read_samples(str(tmp_path / "single.npz"))


def zeros(size):
    """`size` zeros as a raw deflate stream: 1 MiB compressed once, repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * (size // 2**20)


@pytest.mark.parametrize("rows", [1100, 1])
def test_a_gzip_that_would_become_gigabytes_is_refused(tmp_path, write, rows):
    """Whether its head says so (1,100 MiB) or speaks of one image."""
    images = idx(np.empty((0, 1024, 1024), np.uint8), 8)[:4] + struct.pack(">3I", rows, 1024, 1024)
    head = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = head.compress(images) + head.flush(zlib.Z_FULL_FLUSH) + zeros(1100 * 2**20)
    path = write(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03" + packed, "images.gz")
    assert (tmp_path / "images.gz").stat().st_size < 2**21
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    message = "would become 1,153,433,600 bytes .* may become 1,073,741,824" if rows > 1 else "more bytes of samples"
    with pytest.raises(ConfigError, match=message):
        read_samples(path, labels=write(idx(LABELS, 8), "labels"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begun < 100 * 2**10


def test_an_npz_that_would_become_gigabytes_is_refused(tmp_path):
    rows = LARGEST_DECOMPRESSED // 2**20 + 1
    member = npy(header((rows, 2**20), "|u1"))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("y.npy", npy(header((rows,), "|u1"), bytes(rows)))
        # What a compressor makes of so many zeros, written as it is, and then called compressed.
        head = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = head.compress(member) + head.flush(zlib.Z_FULL_FLUSH) + zeros(rows * 2**20)
        archive.writestr("x.npy", packed)
        info = archive.getinfo("x.npy")
        info.compress_type, info.file_size = zipfile.ZIP_DEFLATED, len(member) + rows * 2**20
    with zipfile.ZipFile(tmp_path / "x.npz") as archive, archive.open("x.npy") as stream:
        assert stream.read(len(member) + 2**21) == member + bytes(2**21)  # such a file can be read
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ConfigError, match=r"would become 1,074,\d+,\d+ bytes when decompressed"):
        read_samples(str(tmp_path / "x.npz"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begun < 100 * 2**10


def test_an_array_alone_is_no_npz(tmp_path):
    with (tmp_path / "x.npz").open("wb") as file:
        np.save(file, IMAGES)
    with pytest.raises(ConfigError, match="no NPZ file, which is a zip archive"):
        read_samples(str(tmp_path / "x.npz"))


def test_a_file_becomes_tasks_with_disjoint_splits(write):
    generator = np.random.default_rng(0)
    rows = [f"{x:.3f},{y:.3f},{'up' if y > x else 'down'}" for x, y in generator.standard_normal((300, 2))]
    kwargs = {"data": {"file": write("\n".join(rows)), "held_out": 20}, "steps": 30}
    tasks = ClassificationTasks(**kwargs)
    assert tasks.task("test", 0).params["data"] == "data.csv(held_out=20)"
    members = {}
    for split in ("train", "valid", "test"):
        data = tasks.data_set(tasks.task(split, 0))
        assert len(data.held_out) == (20 if split != "valid" else 18)
        members[split] = {*data.stream.tolist(), *data.held_out.tolist()}
    assert sum(map(len, members.values())) == len(set.union(*members.values())) == 300
    env = make_vector("plastic_rl/Classification-v0", 3, env_kwargs=kwargs)
    observations, _ = env.reset(seed=0)
    assert observations.shape == (3, 2 + 2 + 3)
    with pytest.raises(ConfigError, match="too few for the split"):
        ClassificationTasks({"file": write("\n".join([*rows[:50], "1,2,rare"]), "rare.csv")})
    with pytest.raises(ConfigError, match="file: must be a valid string"):
        ClassificationTasks({"file": 3})
