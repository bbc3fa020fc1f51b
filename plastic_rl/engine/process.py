"""A pool of spawned processes on this machine, in which the death of a worker costs only the work it was doing."""

from __future__ import annotations

import functools
import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from plastic_rl.engine.base import ENGINES, Engine, Item, Prepare, Result
from plastic_rl.errors import RunError

MAX_DEATHS = 3
"""Workers that may die of one item before the work is given up: one that runs out of memory would do so for ever."""

Answer = tuple[Exception | None, Any]
"""What became of an item: the error that its work raised, or its result."""


class ProcessEngine(Engine):
    """Spawned processes with one thread each.

    Results come by index and do not depend on the number of workers. A worker that dies (killed by the system for its
    memory, say) is replaced, and its item is done again.
    """

    workers: int

    def __init__(
        self, *, workers: int | None = None, address: str | None = None, prepare: Prepare | None = None
    ) -> None:
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        super().__init__(workers=workers or available, address=address, prepare=prepare)
        self._crew: list[_Hand] = []

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """See `Engine.map`; `work`, items and results must be picklable.

        Raises:
            RunError: If `MAX_DEATHS` workers died of one item.
        """
        if not items:
            return []
        parcel = Parcel.of(work, self.prepare)
        try:
            return self._map(parcel, items)
        except BaseException:
            # Answers to this call must not reach the next one.
            self.close()
            raise

    def _map(self, parcel: Parcel, items: Sequence[Any]) -> list[Any]:
        waiting = deque(range(len(items)))
        answers: dict[int, Answer] = {}
        failed = False
        deaths = [0] * len(items)
        self._start(min(self.workers, len(items)))
        while True:
            for hand in self._crew:
                if hand.index is None and waiting and not failed:
                    index = waiting.popleft()
                    hand.give(parcel, index, items[index])
            busy = {hand.connection: hand for hand in self._crew if hand.index is not None}
            if not busy:
                break
            # A worker's end of the pipe closes when it dies, however it dies.
            for hand in [busy[connection] for connection in wait(list(busy))]:  # type: ignore[index]  # any of three
                index, answer = hand.answer()
                if answer is not None:
                    answers[index] = answer
                    failed |= answer[0] is not None
                    continue
                deaths[index] += 1
                if deaths[index] == MAX_DEATHS:
                    code = hand.process.exitcode or 0
                    raise RunError(
                        f"{MAX_DEATHS} worker processes died while they did the same piece of work (number {index}); "
                        f"the last one ended with {f'signal {-code}' if code < 0 else f'exit code {code}'}. If memory "
                        "ran out, take fewer workers or smaller chunks"
                    )
                waiting.appendleft(index)
                self._crew[self._crew.index(hand)] = _Hand()
        return results_of([answers[index] for index in sorted(answers)])

    def _start(self, wanted: int) -> None:
        """Let there be `wanted` workers or more."""
        if self.say is not None and not self._crew:
            workers = f"{wanted} worker{'s' if wanted != 1 else ''}"
            if wanted < self.workers:
                workers += f" of {self.workers}, as many as there are pieces of work (see individuals_per_chunk)"
            self.say(f"starting {workers} (some seconds, until each has its imports)")
        while len(self._crew) < wanted:
            self._crew.append(_Hand())

    def close(self) -> None:
        """End the workers; a later `map` would start new ones."""
        crew, self._crew = self._crew, []
        for hand in crew:
            hand.dismiss()


class _Hand:
    """One worker process, seen from here.

    Attributes:
        index: Number of the item that it is doing; None: of none.
    """

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        own, other = context.Pipe()
        self.connection: Connection[Any, Any] = own
        self.process = context.Process(target=_serve, args=(other,), daemon=True)
        self.process.start()
        # Only the worker may hold its end, so that its death closes it.
        other.close()
        self.index: int | None = None
        self._has: Parcel | None = None

    def give(self, parcel: Parcel, index: int, item: Any) -> None:
        """Send an item; if the worker is dead, `answer` will tell."""
        self.index = index
        with suppress(OSError):
            self.connection.send((None if parcel == self._has else parcel, item))
            self._has = parcel

    def answer(self) -> tuple[int, Answer | None]:
        """Number of the item, and what became of it; None if the worker died instead."""
        index, self.index = self.index, None
        assert index is not None
        try:
            return index, self.connection.recv()
        except (EOFError, OSError):
            self.dismiss()
            return index, None

    def dismiss(self) -> None:
        """End the process."""
        self.connection.close()
        if self.index is not None:
            self.process.kill()
        self.process.join()


def _serve(connection: Connection[Any, Any]) -> None:
    """The life of a worker: answer until the other end closes."""
    # Read by torch when the work imports it: one thread for each worker.
    os.environ["OMP_NUM_THREADS"] = "1"
    # Ctrl-C goes to all processes of a terminal; the one that started this one decides what to do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    parcel: Parcel | None = None
    while True:
        try:
            given, item = connection.recv()
        except (EOFError, OSError):
            return
        parcel = given or parcel
        assert parcel is not None
        answer = done(parcel, item)
        try:
            connection.send(answer)
        except OSError:
            return
        except Exception as raised:  # noqa: BLE001 - a result that cannot be pickled is told, not died of
            connection.send((portable(raised), None))


def _end_with_parent() -> None:
    """End this process as soon as the one that started it is gone: nobody would take what it is working on."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


# --- what runs in the worker processes of every engine ---------------------------------------------------------------


class Parcel(NamedTuple):
    """Work as bytes: equal ones are unpacked once, so that what it makes (an environment, a network) is kept.

    Attributes:
        work: The pickled function.
        prepare: The pickled `Prepare`, or None.
    """

    work: bytes
    prepare: bytes | None

    @classmethod
    def of(cls, work: Callable[[Any], Any], prepare: Prepare | None) -> Parcel:
        """Pack a function and what has to be done before it is unpacked.

        Raises:
            AttributeError, TypeError, pickle.PicklingError: If one of them cannot be pickled (a lambda, say).
        """
        return cls(pickle.dumps(work), None if prepare is None else pickle.dumps(prepare))


@functools.cache
def _prepare(prepare: bytes) -> None:
    pickle.loads(prepare)()  # noqa: S301 - from the process that started this one


_unpacked: list[tuple[Parcel, Callable[[Any], Any]]] = []
"""The work of this worker process, unpacked: the last one alone."""


def _work_of(parcel: Parcel) -> Callable[[Any], Any]:
    if _unpacked and _unpacked[0][0] == parcel:
        return _unpacked[0][1]
    for _, replaced in _unpacked:
        close = getattr(replaced, "close", None)
        if close is not None:
            close()
    _unpacked.clear()
    if parcel.prepare is not None:
        _prepare(parcel.prepare)
    work: Callable[[Any], Any] = pickle.loads(parcel.work)  # noqa: S301 - from the process that started this one
    _unpacked.append((parcel, work))
    return work


def done(parcel: Parcel, item: Any) -> Answer:
    """Do the work of a parcel on an item, in a worker process."""
    try:
        return None, _work_of(parcel)(item)
    except Exception as raised:  # noqa: BLE001 - whatever the work raised is raised where it was asked for
        return portable(raised), None


def portable(error: Exception) -> Exception:
    """Return the error, or what can be said of it where it cannot be sent to another process.

    >>> portable(ValueError("-2 is negative"))
    ValueError('-2 is negative')
    """
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - own bytes
    except Exception:  # noqa: BLE001 - a constructor of someone else's is called, which may raise anything
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def results_of(answers: Sequence[Answer]) -> list[Any]:
    """The results, or the first error raised."""
    for raised, _ in answers:
        if raised is not None:
            raise raised
    return [result for _, result in answers]


ENGINES.register("process", ProcessEngine)
