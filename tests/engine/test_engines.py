"""Every engine returns results by index, raises what the work raised, and outlives the death of its workers."""

from __future__ import annotations

import importlib.util
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from plastic_rl.engine import ENGINES, Engine, ProcessEngine
from plastic_rl.errors import ConfigError, RunError, UnknownNameError

HAS_RAY = importlib.util.find_spec("ray") is not None
NAMES = [
    pytest.param(name, marks=[pytest.mark.skipif(not HAS_RAY, reason="ray is not installed")] * (name == "ray"))
    for name in sorted(ENGINES)
]


@pytest.fixture(scope="module", params=NAMES)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """One of each kind for all tests: workers take seconds to start."""
    with ENGINES[request.param](workers=2) as made:
        yield made


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessEngine]:
    with ProcessEngine(workers=2) as made:
        yield made


@dataclass
class Closing:
    """Work that says when it is closed, and how often it was sent."""

    log: str
    name: str

    def __call__(self, item: int) -> int:
        return item

    def close(self) -> None:
        with Path(self.log).open("a") as file:
            file.write(f"{self.name} closed\n")

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__dict__.update(state)
        with Path(self.log).open("a") as file:
            file.write(f"{self.name} unpacked\n")


def test_work_is_unpacked_once_and_closed_when_other_work_comes(tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    with ProcessEngine(workers=1) as engine:
        for _ in range(2):
            assert engine.map(Closing(log, "first"), range(5)) == list(range(5))
        assert engine.map(Closing(log, "second"), range(5)) == list(range(5))
    assert Path(log).read_text().split("\n")[:3] == ["first unpacked", "first closed", "second unpacked"]


def test_work_travels_once_to_each_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[object] = []
    with ProcessEngine(workers=1) as engine:
        assert engine.map(square, [1]) == [1]
        connection = type(engine._crew[0].connection)
        send = connection.send
        monkeypatch.setattr(connection, "send", lambda self, order: (sent.append(order[0]), send(self, order))[1])
        assert engine.map(square, [2, 3]) == [4, 9]
        assert engine.map(abs, [-2, -3]) == [2, 3]
    assert [parcel is None for parcel in sent] == [True, True, False, True]


def square(item: int) -> int:
    if item < 0:
        raise ValueError(f"{item} is negative")
    return item * item


class UnportableError(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class StubbornError(Exception):
    def __init__(self, number: str) -> None:
        super().__init__(f"number {int(number)}")


def unportable(item: int) -> int:
    raise StubbornError(str(item)) if item < 0 else UnportableError(item, item)


def unsendable(item: int) -> object:
    return lambda: item


@dataclass
class Counting:
    """Work that keeps something costly, as an environment is: it tells how often it was called since it was made."""

    name: str
    calls: list[int] = field(default_factory=list)

    def __getstate__(self) -> dict[str, object]:
        return {"name": self.name, "calls": []}

    def __call__(self, item: int) -> tuple[int, int]:
        self.calls.append(item)
        return os.getpid(), len(self.calls)


@dataclass(frozen=True)
class DiesOnce:
    """Work that kills its own process, as the system does when memory runs out: once, or for ever."""

    marker: Path
    always: bool = False

    def __call__(self, item: int) -> int:
        if item == 3 and (self.always or not self.marker.exists()):
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)
        return item * item


def mark(path: Path) -> None:
    path.write_text("prepared")


def read(path: Path) -> str:
    return path.read_text()


def nap(item: float) -> int:
    time.sleep(item)
    return os.getpid()


def test_results_come_by_index(engine: Engine) -> None:
    assert engine.map(square, range(20)) == [item * item for item in range(20)]
    assert engine.map(square, []) == []
    assert engine.map(square, [7]) == [49]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("process", "starting 2 workers of 3, as many as there are pieces of work"),
        pytest.param(
            "ray",
            "starting Ray on this machine",
            marks=pytest.mark.skipif(not HAS_RAY, reason="ray is not installed"),
        ),
    ],
)
def test_starting_workers_is_said_once(name: str, line: str) -> None:
    said: list[str] = []
    with ENGINES[name](workers=3) as engine:
        engine.say = said.append
        for _ in range(2):
            engine.map(square, [1, 2])
    assert [each.split(" (")[0] for each in said] == [line]


def test_the_first_failure_by_index_is_raised_and_the_engine_goes_on(engine: Engine) -> None:
    with pytest.raises(ValueError, match="-2 is negative"):
        engine.map(square, [1, -2, 3, -4])
    assert engine.map(square, [5, 6]) == [25, 36]


def test_errors_that_cannot_be_sent_are_told(pool: ProcessEngine) -> None:
    with pytest.raises(RuntimeError, match="UnportableError: 4 and 4"):
        pool.map(unportable, [4])
    with pytest.raises(RuntimeError, match="StubbornError: number -4"):
        pool.map(unportable, [-4])


def test_results_that_cannot_be_sent_are_told(pool: ProcessEngine) -> None:
    with pytest.raises((AttributeError, pickle.PicklingError), match="unsendable"):
        pool.map(unsendable, [4])


def test_an_unknown_engine_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'process'"):
        ENGINES["proces"]()


@pytest.mark.skipif(HAS_RAY, reason="ray is installed")
def test_without_ray_the_message_says_what_to_install() -> None:
    with pytest.raises(ConfigError, match=r"plastic-rl\[ray\]"):
        ENGINES["ray"]()


def test_workers_keep_what_the_work_has_made(pool: ProcessEngine) -> None:
    work = Counting("one")
    first, second = pool.map(work, [0, 1, 2, 3]), pool.map(work, [0, 1, 2, 3])
    processes = {process for process, _ in first}
    assert os.getpid() not in processes
    assert {process for process, _ in second} <= processes
    counts = [count for _, count in first + second]
    assert sum(count == 1 for count in counts) == len(processes)
    assert max(counts) >= 4
    # Other work begins anew.
    assert min(count for _, count in pool.map(Counting("two"), [0, 1])) == 1


def test_workers_are_prepared_before_work_is_unpacked(tmp_path: Path) -> None:
    note = tmp_path / "note"
    with ProcessEngine(workers=1, prepare=partial(mark, note)) as engine:
        assert engine.map(read, [note]) == ["prepared"]


def test_a_killed_worker_costs_a_retry_and_nothing_else(engine: Engine, tmp_path: Path) -> None:
    if not isinstance(engine, (ProcessEngine, ENGINES["ray"])):
        pytest.skip("this process must live")
    work = DiesOnce(tmp_path / "died")
    assert engine.map(work, range(8)) == [item * item for item in range(8)]
    assert work.marker.exists()
    assert engine.map(square, [2, 3]) == [4, 9]


def test_workers_killed_from_outside_are_replaced(pool: ProcessEngine) -> None:
    before = set(pool.map(nap, [0.05] * 4))
    for process in before:
        os.kill(process, signal.SIGKILL)
    after = pool.map(nap, [0.05] * 4)
    assert not set(after) & before
    assert len(after) == 4


def test_work_that_kills_every_worker_is_given_up(pool: ProcessEngine, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"3 worker processes died .* \(number 3\); the last one ended with signal 9"):
        pool.map(DiesOnce(tmp_path / "died", always=True), range(5))
    assert pool.map(square, [4]) == [16]


MAIN = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.engine.test_engines import nap
from plastic_rl.engine import ProcessEngine

if __name__ == "__main__":
    with ProcessEngine(workers=2) as engine:
        print(*engine.map(nap, [0.3, 0.3]), flush=True)
        engine.map(nap, [1.0] * 100)
"""


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(MAIN)
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen([sys.executable, str(tmp_path / "main.py"), root], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    workers = [int(number) for number in process.stdout.readline().split()]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers
    assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]


ELSEWHERE = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.engine.test_engines import square
from plastic_rl.engine import RayEngine

with RayEngine(workers=2, address=sys.argv[2]) as engine:
    print(engine.map(square, range(6)))
"""


UNDER_WORK = """
import os, signal, subprocess, sys, threading, time
from plastic_rl.engine import RayEngine
from plastic_rl.errors import RunError

def kill(name, parent):
    rows = subprocess.run(["ps", "--ppid", str(parent), "-o", "pid=,args="], capture_output=True, text=True).stdout
    for pid, command, *_ in map(str.split, rows.splitlines()):
        if os.path.basename(command) == name:
            os.kill(int(pid), signal.SIGKILL)
        kill(name, pid)

with RayEngine(workers=2) as engine:
    assert engine.map(abs, [-1]) == [1]
    for name in sys.argv[1:]:
        threading.Timer(2, kill, (name, os.getpid())).start()
    try:
        engine.map(time.sleep, [4.0] * 4)
        engine.map(abs, [-1])
    except RunError as error:
        print(error)
"""


@pytest.mark.skipif(not HAS_RAY, reason="ray is not installed")
@pytest.mark.parametrize("killed", [["raylet"], ["gcs_server"], ["raylet", "gcs_server"]])
def test_a_cluster_that_dies_under_the_work_is_one_message(killed: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNDER_WORK, *killed], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    # Ray itself prints before it.
    message = done.stdout.splitlines()[-1]
    assert message.startswith("Ray at this machine died under the work (")
    assert message.endswith("plastic-rl resume goes on")


@pytest.mark.skipif(not HAS_RAY, reason="ray is not installed")
def test_an_address_leads_to_a_cluster_that_goes_on_without_its_guests() -> None:
    import ray

    with ENGINES["ray"](workers=2) as host:
        assert host.map(square, [3]) == [9]
        address = ray.get_runtime_context().gcs_address
        root = str(Path(__file__).parents[2])
        guest = subprocess.run(
            [sys.executable, "-c", ELSEWHERE, root, address], capture_output=True, text=True, check=False, cwd=root
        )
        assert guest.stdout.strip() == "[0, 1, 4, 9, 16, 25]", guest.stderr
        assert host.map(square, [4]) == [16]
        port = address.rpartition(":")[2]
        for known in (address, f"localhost:{port}", "auto", "ray://localhost:10001"):
            with ENGINES["ray"](address=known) as neighbour:
                assert neighbour.map(square, [5]) == [25]
        for unknown in (f"localhost:{int(port) + 1}", f"192.0.2.1:{port}", "ray://192.0.2.1:10001"):
            with (
                pytest.raises(ConfigError, match=rf"Ray at {unknown}, but .* connected to Ray at {address} already"),
                ENGINES["ray"](address=unknown) as elsewhere,
            ):
                elsewhere.map(square, [1])
        assert host.map(square, [6]) == [36]
    # In a process of its own: this one is connected where another test still holds its engine.
    lost = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, root, "127.0.0.1:1"], capture_output=True, text=True, check=False, cwd=root
    )
    assert "ConfigError: cannot reach Ray at 127.0.0.1:1" in lost.stderr
