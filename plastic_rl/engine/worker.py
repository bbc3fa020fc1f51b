"""What runs in the worker processes of every engine: it keeps the last work it was sent, and calls it.

Work travels as bytes with a digest, so that what it has made (an environment, a network) is kept from one generation
to the next.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Prepare = Callable[[], None]
"""Called once in each worker before it unpickles any work, e.g. to import plugins."""


@dataclass(frozen=True)
class Parcel:
    """Work as bytes.

    Attributes:
        digest: Tells equal work.
        data: The pickled function.
        prepare: The pickled `Prepare`, or None.
    """

    digest: bytes
    data: bytes
    prepare: bytes | None

    @classmethod
    def of(cls, work: Callable[[Any], Any], prepare: Prepare | None) -> Parcel:
        """Pack a function and what has to be done before it is unpacked.

        Raises:
            AttributeError, TypeError, pickle.PicklingError: If one of them cannot be pickled (a lambda, say).
        """
        data = pickle.dumps(work)
        own = None if prepare is None else pickle.dumps(prepare)
        return cls(hashlib.sha256(data + (own or b"")).digest(), data, own)


class Worker:
    """Unpacks parcels and calls what is in them; keeps the last one."""

    def __init__(self) -> None:
        self._digest = b""
        self._prepared: set[bytes] = set()
        self._work: Callable[[Any], Any] | None = None

    def run(self, parcel: Parcel, item: Any) -> Any:
        """Return `work(item)`."""
        if parcel.digest != self._digest or self._work is None:
            if parcel.prepare is not None and parcel.prepare not in self._prepared:
                pickle.loads(parcel.prepare)()  # noqa: S301 - from the process that started this one
                self._prepared.add(parcel.prepare)
            self._close()
            self._work = pickle.loads(parcel.data)  # noqa: S301 - from the process that started this one
            self._digest = parcel.digest
        return self._work(item)

    def _close(self) -> None:
        close = getattr(self._work, "close", None)
        if close is not None:
            close()


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
