"""Ray: the same work as stateless tasks, on this machine or on any cluster whose address is given."""

from __future__ import annotations

import importlib
import importlib.util
import ipaddress
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from plastic_rl.engine.base import ENGINES, Engine, Item, Prepare, Result
from plastic_rl.engine.process import Answer, Parcel, done, results_of
from plastic_rl.errors import ConfigError, RunError

RETRIES = 3
PATIENCE = 10.0
"""Seconds to wait for a cluster to answer."""


class RayEngine(Engine):
    """Tasks of Ray (the extra `ray`), each on one processor and with one thread, as Ray has it.

    Ray does a task again whose worker died. On a cluster, this package and every plugin must be installed on all
    machines, of the same version and on processors of the same type.

    Args:
        workers: Tasks under way at a time; None: as many as the cluster has processors.
        address: Of a cluster (`ray://HOST:10001`, `HOST:6379` or `auto`); None: the cluster that this process is
            connected to already, else Ray is started on this machine, and stopped by `close`.
        prepare: What workers do first.

    Raises:
        ConfigError: If Ray is not installed; when work begins, if no cluster answers at the address, or this process is
            connected to another one already.
    """

    def __init__(
        self, *, workers: int | None = None, address: str | None = None, prepare: Prepare | None = None
    ) -> None:
        if importlib.util.find_spec("ray") is None:
            raise ConfigError(
                "the engine 'ray' needs the package ray, which is not installed. Install it with: "
                "pip install 'plastic-rl[ray]'; or take the engine serial or process"
            )
        super().__init__(workers=workers, address=address, prepare=prepare)
        self._task: Any = None
        self._mine = False
        self._home = ""
        self._parcel: Parcel | None = None
        self._reference: Any = None

    def _start(self) -> Any:
        ray = importlib.import_module("ray")
        if self._task is None:
            if ray.is_initialized():
                if self.address is not None:
                    _check_connected_to(ray, self.address)
            else:
                # Ray tells of its usage only where that was asked for.
                os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
                local: dict[str, Any] = {}
                if self.address is not None:
                    try:
                        _knock(self.address)
                    except (OSError, OverflowError) as error:
                        raise ConfigError(
                            f"cannot reach Ray at {self.address}: {error}. Give the address of a running cluster "
                            "(HOST:6379 or ray://HOST:10001), or none, to start Ray on this machine"
                        ) from error
                else:
                    local = {"num_cpus": self.workers, "include_dashboard": False}
                if self.say is not None:
                    where = "starting Ray on this machine" if self.address is None else f"joining Ray at {self.address}"
                    self.say(f"{where} (some seconds)")
                try:
                    ray.init(address=self.address, log_to_driver=False, logging_level="ERROR", **local)
                except (ConnectionError, ValueError, RuntimeError) as error:
                    raise ConfigError(f"cannot reach Ray at {self.address or 'this machine'}: {error}") from error
                self._mine = True
            through_client = self._mine and (self.address or "").startswith("ray://")
            self._home = str(self.address if through_client else ray.get_runtime_context().gcs_address)
            self._task = ray.remote(done).options(num_cpus=1, max_retries=RETRIES)
        return ray

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """See `Engine.map`; `work`, items and results must be picklable.

        Raises:
            RunError: If the cluster died under the work, or its workers did, each time that Ray tried again.
        """
        if not items:
            return []
        ray = self._start()
        try:
            answers = self._answers(ray, Parcel.of(work, self.prepare), items)
        except (ray.exceptions.RayError, OSError) as error:
            # What is left of a dead cluster is no longer waited for.
            self._forget()
            reason = str(error).partition("\n")[0]
            raise RunError(
                f"Ray at {self.address or 'this machine'} died under the work ({type(error).__name__}: {reason}). "
                "What was learned up to the last checkpoint is kept: where Ray runs again, plastic-rl resume goes on"
            ) from error
        return results_of(answers)

    def _answers(self, ray: Any, parcel: Parcel, items: Sequence[Any]) -> list[Answer]:
        _check_alive(self._home)
        if self._parcel != parcel:
            self._parcel, self._reference = parcel, ray.put(parcel)
        limit = self.workers or max(int(ray.cluster_resources().get("CPU", 1)), 1)
        answers: dict[int, Answer] = {}
        waiting, under_way = deque(enumerate(items)), dict[Any, int]()
        while waiting or under_way:
            while waiting and len(under_way) < limit:
                index, item = waiting.popleft()
                under_way[self._task.remote(self._reference, item)] = index
            ready, _ = ray.wait(list(under_way), num_returns=1, timeout=PATIENCE)
            if not ready:
                _check_alive(self._home)
            for reference in ready:
                answers[under_way.pop(reference)] = ray.get(reference)
        return [answers[index] for index in range(len(items))]

    def close(self) -> None:
        """Leave the cluster; stop Ray where this engine started it."""
        if self._mine:
            importlib.import_module("ray").shutdown()
        self._forget()

    def _forget(self) -> None:
        self._task, self._mine, self._parcel, self._reference = None, False, None, None


def _knock(address: str) -> None:
    """Raise an OSError if nobody listens at an address; Ray itself would try for minutes."""
    endpoint = _endpoint(address)
    if endpoint is not None:
        socket.create_connection(endpoint, timeout=PATIENCE).close()


def _check_alive(address: str) -> None:
    """Raise an OSError if a cluster is not there, and does not come back while one waits.

    Ray itself would wait for a minute, and end this process then without a word of ours.
    """
    for patience in (PATIENCE, PATIENCE, 0.0):
        try:
            _knock(address)
        except OSError:
            if not patience:
                raise
            time.sleep(patience)
        else:
            return


def _check_connected_to(ray: Any, address: str) -> None:
    """Refuse the address of a cluster that is not the one this process is connected to.

    Raises:
        ConfigError: Naming both.
    """
    connected = ray.get_runtime_context().gcs_address
    asked, own = _endpoint(address), _endpoint(connected)
    if asked is None or own is None:
        return
    here = ray.util.get_node_ip_address()
    same_host = bool(_machines(asked[0], here) & _machines(own[0], here))
    # The port of `ray://` is not that of the cluster itself, which tells nothing of it.
    if not same_host or (asked[1] != own[1] and not address.startswith("ray://")):
        raise ConfigError(
            f"the engine is to work on Ray at {address}, but this process is connected to Ray at {connected} already, "
            "and to one cluster at a time. Leave out the address to work there; or first end that connection: close "
            "the engine that made it, or call ray.shutdown()"
        )


def _endpoint(address: str) -> tuple[str, int] | None:
    """Host and port of an address; None for `auto` and the like, which Ray looks up."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    return (host.strip("[]"), int(port)) if separator and port.isdecimal() else None


def _machines(host: str, here: str) -> set[str]:
    """IP addresses of a host, `here` in place of those that only mean this machine."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return {host}
    return {here if ipaddress.ip_address(entry).is_loopback else entry for entry in found}


ENGINES.register("ray", RayEngine)
