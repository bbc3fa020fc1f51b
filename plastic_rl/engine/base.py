"""The interface of engines, and the one that works in this process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TypeVar

from plastic_rl.registry import Registry

Item = TypeVar("Item")
Result = TypeVar("Result")


class Engine(ABC):
    """Runs a function over items; a context manager that frees its workers at the end."""

    @abstractmethod
    def __init__(self, *, workers: int | None = None, address: str | None = None) -> None: ...

    @abstractmethod
    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Return `work(item)` for each item, in the order of `items` whatever the order of completion.

        Args:
            work: A function of the item alone: all randomness comes from seeds inside the item.
            items: Independent pieces of work.

        Raises:
            Exception: What `work` raised for the first item, by index, that failed.
        """

    @abstractmethod
    def close(self) -> None:
        """Free the workers; the engine can't be used afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class SerialEngine(Engine):
    """Everything in this process, one item after the other.

    Args:
        workers: For the sake of the other engines; there is one, this process.
        address: For the sake of the other engines; it leads nowhere.

    >>> with SerialEngine() as engine:
    ...     engine.map(lambda item: item**2, [1, 2, 3])
    [1, 4, 9]
    """

    def __init__(self, *, workers: int | None = None, address: str | None = None) -> None: ...

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """See `Engine.map`."""
        return [work(item) for item in items]

    def close(self) -> None:
        """There are no workers to free."""


ENGINES: Registry[type[Engine]] = Registry("engine")
"""Each takes `workers` and `address`, both optional."""
ENGINES.register("serial", SerialEngine)


def make_engine(name: str = "serial", *, workers: int | None = None, address: str | None = None) -> Engine:
    """Make an engine by name.

    Args:
        name: In `ENGINES`.
        workers: Processes, or pieces of work under way at a time; None: as many as there are processors.
        address: Of a cluster, for engines that can reach one.

    Raises:
        UnknownNameError: If there is no such engine.
        ConfigError: If it needs a package that is not installed.
    """
    return ENGINES[name](workers=workers, address=address)
