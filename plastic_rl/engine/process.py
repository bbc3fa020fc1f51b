"""A pool of spawned processes on this machine, in which the death of a worker costs only the work it was doing."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from plastic_rl.engine.base import ENGINES, Engine, Item, Result
from plastic_rl.engine.worker import Parcel, Prepare, Worker, portable
from plastic_rl.errors import RunError

MAX_DEATHS = 3
"""Workers that may die of one item before the work is given up: one that runs out of memory would do so for ever."""


class ProcessEngine(Engine):
    """Spawned processes with one thread each.

    Results come by index and do not depend on the number of workers. A worker that dies (killed by the system for its
    memory, say) is replaced, and its item is done again.

    Args:
        workers: Processes; None: one for each processor that this process may use.
        address: For the sake of the other engines; it leads nowhere.
        prepare: Called once in each worker before any work is unpickled, e.g. to import plugins.
    """

    def __init__(
        self, *, workers: int | None = None, address: str | None = None, prepare: Prepare | None = None
    ) -> None:
        self.workers = workers or available_processors()
        self._prepare = prepare
        self._crew: list[_Hand] = []

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """See `Engine.map`; `work`, items and results must be picklable.

        Raises:
            RunError: If `MAX_DEATHS` workers died of one item.
        """
        if not items:
            return []
        parcel = Parcel.of(work, self._prepare)
        try:
            return self._map(parcel, items)
        except BaseException:
            # Answers to this call must not reach the next one.
            self.close()
            raise

    def _map(self, parcel: Parcel, items: Sequence[Any]) -> list[Any]:
        waiting = deque(range(len(items)))
        results: dict[int, Any] = {}
        errors: dict[int, Exception] = {}
        deaths = [0] * len(items)
        self._start(min(self.workers, len(items)))
        while waiting or any(hand.busy for hand in self._crew):
            for hand in self._crew:
                if not hand.busy and waiting and not errors:
                    index = waiting.popleft()
                    hand.give(parcel, index, items[index])
            if errors and not any(hand.busy for hand in self._crew):
                break
            for hand in self._ready():
                answer = hand.answer()
                if answer is None:
                    index = hand.lost()
                    deaths[index] += 1
                    if deaths[index] == MAX_DEATHS:
                        raise RunError(
                            f"{MAX_DEATHS} worker processes died while they did the same piece of work (number "
                            f"{index}); the last one ended with {hand.exit_text()}. If memory ran out, take fewer "
                            "workers or smaller chunks"
                        )
                    waiting.appendleft(index)
                    self._crew[self._crew.index(hand)] = _Hand()
                    continue
                index, error, result = answer
                if error is None:
                    results[index] = result
                else:
                    errors[index] = error
        if errors:
            raise errors[min(errors)]
        return [results[index] for index in range(len(items))]

    def _start(self, wanted: int) -> None:
        """Let there be `wanted` workers or more."""
        if self.say is not None and not self._crew:
            workers = f"{wanted} worker{'s' if wanted != 1 else ''}"
            if wanted < self.workers:
                workers += f" of {self.workers}, as many as there are pieces of work (see individuals_per_chunk)"
            self.say(f"starting {workers} (some seconds, until each has its imports)")
        while len(self._crew) < wanted:
            self._crew.append(_Hand())

    def _ready(self) -> list[_Hand]:
        busy = {hand.connection: hand for hand in self._crew if hand.busy}
        # A worker's end of the pipe closes when it dies, however it dies.
        return [busy[connection] for connection in wait(list(busy))]  # type: ignore[index]  # typeshed: any of three

    def close(self) -> None:
        """End the workers; a later `map` would start new ones."""
        crew, self._crew = self._crew, []
        for hand in crew:
            hand.dismiss()


def available_processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class _Order:
    """What a worker is sent: an item, and the work where it does not have it yet."""

    digest: bytes
    parcel: Parcel | None
    index: int
    item: Any


class _Hand:
    """One worker process, seen from here."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        own, other = context.Pipe()
        self.connection: Connection[Any, Any] = own
        self.process: SpawnProcess = context.Process(target=_serve, args=(other,), daemon=True)
        self.process.start()
        # Only the worker may hold its end, so that its death closes it.
        other.close()
        self._digest = b""
        self._index: int | None = None

    @property
    def busy(self) -> bool:
        """Whether an item was given and not answered."""
        return self._index is not None

    def give(self, parcel: Parcel, index: int, item: Any) -> None:
        """Send an item; if the worker is dead, `answer` will tell."""
        self._index = index
        order = _Order(parcel.digest, None if self._digest == parcel.digest else parcel, index, item)
        data = pickle.dumps(order)
        try:
            self.connection.send_bytes(data)
        except OSError:
            return
        self._digest = parcel.digest

    def answer(self) -> tuple[int, Exception | None, Any] | None:
        """Index, error and result; None if the worker died instead."""
        try:
            answer: tuple[int, Exception | None, Any] = self.connection.recv()
        except (EOFError, OSError):
            return None
        self._index = None
        return answer

    def lost(self) -> int:
        """Number of the item that a dead worker was doing."""
        assert self._index is not None
        self.process.join()
        self.connection.close()
        return self._index

    def exit_text(self) -> str:
        """How the process ended."""
        code = self.process.exitcode
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"

    def dismiss(self) -> None:
        """End the process."""
        self.connection.close()
        if self.busy:
            self.process.kill()
        self.process.join()


def _serve(connection: Connection[Any, Any]) -> None:
    """The life of a worker: answer orders until the other end closes."""
    # Read by torch when the work imports it: one thread for each worker.
    os.environ["OMP_NUM_THREADS"] = "1"
    # Ctrl-C goes to all processes of a terminal; the one that started this one decides what to do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker = Worker()
    parcel: Parcel | None = None
    while True:
        try:
            order: _Order = pickle.loads(connection.recv_bytes())  # noqa: S301 - from the process that started this one
        except (EOFError, OSError):
            return
        parcel = order.parcel or parcel
        assert parcel is not None
        error: Exception | None = None
        result: Any = None
        try:
            result = worker.run(parcel, order.item)
        except Exception as raised:  # noqa: BLE001 - whatever the work raised is raised where it was asked for
            error = portable(raised)
        try:
            connection.send((order.index, error, result))
        except OSError:
            return
        except Exception as raised:  # noqa: BLE001 - a result that cannot be pickled is told, not died of
            connection.send((order.index, portable(raised), None))


ENGINES.register("process", ProcessEngine)
