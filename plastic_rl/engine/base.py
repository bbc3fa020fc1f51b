"""The interface of engines, and the one that works in this process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pydantic import Field, ModelWrapValidatorHandler, field_validator, model_validator

from plastic_rl.config import ConfigModel
from plastic_rl.errors import unknown_name_message
from plastic_rl.registry import Registry

Item = TypeVar("Item")
Result = TypeVar("Result")
Prepare = Callable[[], None]
"""Called once in each worker process before any work is unpickled, e.g. to import plugins."""


class Engine(ABC):
    """Runs a function over items; a context manager that frees its workers at the end. They start with the first `map`.

    Args:
        workers: Processes, or pieces of work under way at a time; None: as many as there are processors.
        address: Of a cluster, for engines that can reach one.
        prepare: What workers do first.

    Attributes:
        say: Told what a person might wonder at, e.g. that workers are being started; None: nobody is.
    """

    say: Callable[[str], None] | None = None

    def __init__(
        self, *, workers: int | None = None, address: str | None = None, prepare: Prepare | None = None
    ) -> None:
        self.workers, self.address, self.prepare = workers, address, prepare

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
        """Free the workers; a later `map` starts new ones."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


class SerialEngine(Engine):
    """Everything in this process, one item after the other.

    >>> with SerialEngine() as engine:
    ...     engine.map(lambda item: item**2, [1, 2, 3])
    [1, 4, 9]
    """

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """See `Engine.map`."""
        return [work(item) for item in items]

    def close(self) -> None:
        """There are no workers to free."""


class EngineConfig(ConfigModel):
    """Where individuals are evaluated; results do not depend on it."""

    name: str = "serial"
    """serial (in this process), process (a pool of processes) or ray (a cluster; needs the extra `ray`)."""
    workers: int | None = Field(default=None, ge=1)
    """Processes of the pool; null: one for each processor. ray: chunks under way at a time."""
    address: str | None = None
    """ray: address of the cluster; null: Ray on this machine."""

    @model_validator(mode="wrap")
    @classmethod
    def _engines_are_themselves(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Any:
        if isinstance(value, Engine):
            return value
        return handler({"name": value} if isinstance(value, str) else value)

    @field_validator("name", mode="after")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in ENGINES:
            raise ValueError(unknown_name_message(ENGINES.kind, value, ENGINES))
        return value


if TYPE_CHECKING:
    EngineArgument = str | EngineConfig | Engine
else:
    EngineArgument = EngineConfig
"""An argument that is an `Engine`, the name of one, or its settings."""


ENGINES: Registry[type[Engine]] = Registry("engine")
ENGINES.register("serial", SerialEngine)
