"""Name -> object tables that users may extend: rules, terms, networks, policies, task distributions, ..."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from plastic_rl.errors import UnknownNameError

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """A table of named entries of one kind; an unknown name raises with the nearest match.

    >>> colours: Registry[int] = Registry("colour")
    >>> colours.register("red", 1)
    1
    >>> colours["red"]
    1
    """

    def __init__(self, kind: str, check: Callable[[T], None] | None = None) -> None:
        self.kind = kind
        self._check = check
        self._entries: dict[str, T] = {}

    def register(self, name: str, entry: T, *, replace: bool = False) -> T:
        """Add `entry` under `name` and return it.

        Raises:
            ValueError: If the name is taken by another entry and `replace` is false.
            ConfigError: If the registry checks its entries, and this one is no good.
        """
        if self._check is not None:
            self._check(entry)
        if not replace and self._entries.get(name, entry) is not entry:
            raise ValueError(f"the {self.kind} {name!r} is registered already; pass replace=True to replace it")
        self._entries[name] = entry
        return entry

    def __getitem__(self, name: str) -> T:
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownNameError(self.kind, name, self._entries) from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
