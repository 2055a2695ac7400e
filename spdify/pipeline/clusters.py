"""Tasks on a Ray cluster: the same calls on many machines, again where a machine or a process is lost.

What is called must be a function of an installed package (it goes by its name), and its arguments data. Ray
(https://docs.ray.io, extra `ray`) schedules, retries and brings back what the calls give; nothing of it is imported
before a cluster is asked for.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import platform
import socket
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spdify.errors import SpdifyError, UsageError
from spdify.pipeline.conversion import versions

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

GIGABYTE = 10**9
WAIT_SECONDS = 1.0
ANSWER_SECONDS = 10.0
#: Packages that must be the same on every node: what decides the outcome of a task.
DECIDING = ("spdify", "torch", "torchvision", "timm", "onnx", "onnxruntime", "onnxscript")
INSTALL_HINT = "Install it: pip install 'spdify[ray]'."


@dataclass(frozen=True)
class ClusterSettings:
    """Where tasks run, and what each is given there.

    Attributes:
        address: Of the cluster's head, as `ray.init` takes it: `HOST:6379`, `ray://HOST:10001`, `auto`. None for that
            of the environment (RAY_ADDRESS), else a cluster on this machine alone, for as long as the tasks run.
        cpus: Cores of one task, which computes with as many threads.
        gpus: GPUs of one task, or its part of one.
        memory_gb: Memory that one task reserves; None reserves none.
        retries: How often a task begins anew whose node or process was lost.
        at_once: Tasks at a time; None for as many as the cluster holds.
    """

    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    memory_gb: float | None = None
    retries: int = 3
    at_once: int | None = None

    @property
    def resources(self) -> dict[str, float]:
        """What one task takes, by the names that Ray's nodes give their resources."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus, "memory": (self.memory_gb or 0.0) * GIGABYTE}
        return {name: amount for name, amount in wanted.items() if amount}


@dataclass(frozen=True)
class Task:
    """A call."""

    name: str
    run: Callable[[], Any]


@dataclass(frozen=True)
class TaskEnd:
    """How a call ended: with a value, or lost for good, which `lost` says in words."""

    name: str
    value: Any = None
    lost: str = ""


class Cluster:
    """A cluster that this process is connected to; `connected` makes one."""

    def __init__(self, settings: ClusterSettings, ray: Any) -> None:  # noqa: ANN401 - a module that may not be there
        """Take the settings and the module of Ray."""
        self.settings = settings
        self._ray = ray

    @property
    def nodes(self) -> int:
        """Number of nodes that live."""
        return len(self._alive())

    def run(self, tasks: Iterable[Task]) -> Generator[TaskEnd, None, None]:
        """Run all tasks and give each as it ends; close the iterator to end early.

        Only as many are handed over as soon find room, so that later ones know what the driver has learnt meanwhile.

        Raises:
            UsageError: A task fits no node, or a node has other versions of what decides the outcome.
            SpdifyError: Whatever a task raises.
        """
        waiting, pending = deque(tasks), dict[Any, str]()
        call = self._ray.remote(_call).options(
            num_cpus=self.settings.cpus, num_gpus=self.settings.gpus, max_retries=self.settings.retries,
            memory=int(self.settings.resources.get("memory", 0)) or None,
        )  # fmt: skip
        here = _deciding_versions()
        try:
            while waiting or pending:
                room = self._room()
                while waiting and len(pending) < room:
                    task = waiting.popleft()
                    pending[call.remote(task.run, here)] = task.name
                ready, _ = self._ray.wait(list(pending), num_returns=1, timeout=WAIT_SECONDS)
                for reference in ready:
                    yield self._end(pending.pop(reference), reference)
        finally:
            for reference in pending:
                with contextlib.suppress(Exception):  # the cluster may be what was lost
                    self._ray.cancel(reference, force=True)

    def _end(self, name: str, reference: Any) -> TaskEnd:  # noqa: ANN401 - a type of Ray's
        try:
            return TaskEnd(name, self._ray.get(reference))
        except self._ray.exceptions.RayTaskError as error:
            raise _fault(error, name) from error
        except self._ray.exceptions.RayError as error:
            what = type(error).__name__
            return TaskEnd(name, lost=f"lost with its worker or its node, {self.settings.retries + 1} times ({what})")

    def _alive(self) -> list[dict[str, float]]:
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def _room(self) -> int:
        """Give how many tasks to hand over: what runs at a time, and once more as much to follow at once."""
        wanted = self.settings.resources
        slots = sum(int(min(node.get(name, 0) / amount for name, amount in wanted.items())) for node in self._alive())
        if not slots:
            needs = ", ".join(f"{amount:g} {name}" for name, amount in wanted.items())
            raise UsageError(
                f"cannot run a task: it is to have {needs}, and none of the {self.nodes} nodes of the cluster has that",
                hint="Ask for less with --task-cpus, --task-gpus or --task-memory, or start nodes that have it.",
            )
        return min(2 * slots, self.settings.at_once or math.inf)  # type: ignore[return-value]


@contextlib.contextmanager
def connected(settings: ClusterSettings) -> Iterator[Cluster]:
    """Connect to a cluster, or start one on this machine where none is named.

    Raises:
        UsageError: As `require_reachable` says, or what answers is no cluster of this version.
    """
    ray = require_reachable(settings)
    try:
        ray.init(address=settings.address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, OSError, TimeoutError) as error:
        raise _unreachable(_address(settings) or "this machine", error) from error
    try:
        yield Cluster(settings, ray)
    finally:
        ray.shutdown()


def require_reachable(settings: ClusterSettings) -> Any:  # noqa: ANN401 - a module that may not be there
    """Give Ray's module if a cluster may be had; to be asked before anything is written.

    Raises:
        UsageError: Ray is not installed, the resources make no sense, or nothing answers at the address.
    """
    if settings.cpus <= 0 or settings.gpus < 0 or (settings.memory_gb or 1) <= 0 or settings.retries < 0:
        raise UsageError("cannot run tasks: expected cores above 0 and no resource below 0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing goes out that nobody asked for
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what Ray is going to do, and warns about
    try:
        import ray  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UsageError("cannot run on a cluster: Ray is not installed", hint=INSTALL_HINT) from error
    _require_answer(_address(settings))
    return ray


def _address(settings: ClusterSettings) -> str:
    return settings.address or os.environ.get("RAY_ADDRESS", "")


def _require_answer(address: str) -> None:
    """Refuse an address where nothing listens: Ray would wait for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _unreachable(address, error) from error


def _unreachable(where: str, error: Exception) -> UsageError:
    return UsageError(
        f"cannot reach a Ray cluster at {where}: {(str(error) or type(error).__name__).splitlines()[0]}",
        hint="`ray start --head` starts one, `ray status` says what it has. Versions of Ray and Python must agree, and "
        "RAY_AUTH_MODE: `token` where the cluster asks for one.",
    )


def _deciding_versions() -> dict[str, str]:
    found = versions()
    return {name: found[name] for name in DECIDING}


def _call(run: Callable[[], Any], expected: dict[str, str]) -> Any:  # noqa: ANN401 - whatever the task gives
    """Run a task on its node, if it is what it is taken for."""
    here = _deciding_versions()
    if other := next((name for name in expected if here[name] != expected[name]), None):
        raise UsageError(
            f"cannot run on node {platform.node()}: it has {other} {here[other]}, expected {expected[other]}",
            hint="Install the same versions on all nodes.",
        )
    return run()


def _fault(error: Any, name: str) -> SpdifyError:  # noqa: ANN401 - a type of Ray's
    """Give the fault that a task has raised."""
    cause = error.cause
    if isinstance(cause, SpdifyError):
        return cause
    if isinstance(cause, ModuleNotFoundError) or "ModuleNotFoundError" in str(error):
        missing = getattr(cause, "name", None) or "spdify"
        return UsageError(
            f"cannot run {name}: a node of the cluster has no module {missing!r}",
            hint="Install the same packages on all nodes.",
        )
    return SpdifyError(f"cannot run {name}: a node of the cluster failed: {type(cause).__name__}: {cause}")
