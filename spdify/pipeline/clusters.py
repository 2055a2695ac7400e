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
import signal
import socket
import threading
import time
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
#: What Ray raises where a task's own process or node, or what it gave, is lost for good; all else is the cluster's.
LOST = ("WorkerCrashedError", "NodeDiedError", "ObjectLostError")
INSTALL_HINT = "Install it: pip install 'spdify[ray]'."


@dataclass(frozen=True)
class ClusterSettings:
    """Where tasks run, and what each is given there.

    Attributes:
        address: Of the cluster's head, as `ray.init` takes it: `HOST:6379`, `ray://HOST:10001`, `auto`. None for that
            of the environment (RAY_ADDRESS), else a cluster on this machine alone, for as long as the tasks run.
        cpus: Cores of one task; a training computes with as many threads, a job of a sweep with one.
        gpus: GPUs of one task, or its part of one; a task with none sees none.
        memory_gb: Memory that one task reserves; None reserves none.
        retries: How often a task begins anew whose node or process was lost, or killed where memory ran out.
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
    """How a call ended: with a value, or lost for good, which `lost` says in words (`for_memory`: it ran out)."""

    name: str
    value: Any = None
    lost: str = ""
    for_memory: bool = False


class Cluster:
    """A cluster that this process is connected to; `connected` makes one.

    Attributes:
        settings: What it was asked for.
        nodes: Number of nodes that lived when last looked.
    """

    def __init__(self, settings: ClusterSettings, ray: Any, say: Callable[[str], None]) -> None:  # noqa: ANN401 - a module that may not be there
        """Take the settings, the module of Ray, and who is told what the user may not expect."""
        self.settings = settings
        self.nodes = 0
        self._ray = ray
        self._say = say
        self._began = self._told = False
        with self._asking():
            self._alive()

    @property
    def memory_gb(self) -> float:
        """Memory for one task on any node: the least that a node has for each of those it holds."""
        with self._asking():
            nodes = [(node, self._slots(node)) for node in self._alive()]
        shares = (node["memory"] / slots for node, slots in nodes if slots and "memory" in node)
        return min(shares, default=math.inf) / GIGABYTE

    def run(self, tasks: Iterable[Task]) -> Generator[TaskEnd, None, None]:
        """Run all tasks and give each as it ends; close the iterator to end early.

        Only as many are handed over as soon find room, so that later ones know what the driver has learnt meanwhile.

        Raises:
            UsageError: A task fits no node, or a node has other versions of what decides the outcome.
            SpdifyError: Whatever a task raises, or the cluster itself is lost.
        """
        waiting, pending = deque(tasks), dict[Any, str]()
        call = self._ray.remote(_call).options(
            num_cpus=self.settings.cpus, num_gpus=self.settings.gpus, max_retries=self.settings.retries,
            memory=int(self.settings.resources.get("memory", 0)) or None,
        )  # fmt: skip
        here, no_gpus = _deciding_versions(), not self.settings.gpus
        try:
            while waiting or pending:
                with self._asking():
                    room = self._room()
                    while waiting and len(pending) < room:
                        task = waiting.popleft()
                        pending[call.remote(task.run, here, no_gpus)] = task.name
                        self._began = True
                    ended = [self._end(pending.pop(reference), reference) for reference in self._ready(list(pending))]
                yield from ended
        finally:
            for reference in pending:
                # The cluster may be what was lost: Ray would start another one here, to ask that.
                with contextlib.suppress(Exception):
                    if self._ray.is_initialized():
                        self._ray.cancel(reference, force=True)

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """Ask the cluster something; where it is lost, no task has failed.

        Raises:
            SpdifyError: It is lost.
        """
        try:
            if not self._ray.is_initialized():
                raise ConnectionError("the connection has ended")  # noqa: TRY301 - as Ray tells it elsewhere
            yield
        except (self._ray.exceptions.RayError, ConnectionError) as error:
            raise SpdifyError(
                f"lost the cluster: {_first_line(error)}",
                hint="What has ended is kept: once there is a cluster again, go on with --resume.",
            ) from error

    def _ready(self, pending: list[Any]) -> list[Any]:
        """Wait for a task to end, but not long."""
        if not pending:
            time.sleep(WAIT_SECONDS)
            return []
        ready: list[Any] = self._ray.wait(pending, num_returns=1, timeout=WAIT_SECONDS)[0]
        return ready

    def _end(self, name: str, reference: Any) -> TaskEnd:  # noqa: ANN401 - a type of Ray's
        faults = self._ray.exceptions
        allowed = f"with --retries {self.settings.retries}"
        try:
            return TaskEnd(name, self._ray.get(reference))
        except faults.RayTaskError as error:
            raise _fault(error, name) from error
        except faults.OutOfMemoryError:
            return TaskEnd(name, lost=f"killed where the memory of its node ran out, {allowed}", for_memory=True)
        except tuple(getattr(faults, kind) for kind in LOST) as error:
            return TaskEnd(name, lost=f"lost with its worker or its node, {allowed} ({type(error).__name__})")

    def _alive(self) -> list[dict[str, float]]:
        found = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        self.nodes = len(found)
        return found

    def _slots(self, node: dict[str, float]) -> int:
        """Give how many tasks a node holds."""
        return int(min(node.get(name, 0) / amount for name, amount in self.settings.resources.items()))

    def _room(self) -> int:
        """Give how many tasks to hand over: what runs at a time, and once more as much to follow at once."""
        slots = sum(map(self._slots, self._alive()))
        if not slots and self._began:  # a node may come back: Ray begins there anew what was lost
            if not self._told:
                self._say("no node is left that fits a task: waiting for one to come back")
            self._told = True
        elif not slots:
            needs = ", ".join(f"{amount:g} {name}" for name, amount in self.settings.resources.items())
            raise UsageError(
                f"cannot run a task: it is to have {needs}, and none of the {self.nodes} nodes of the cluster has that",
                hint="Ask for less with --task-cpus, --task-gpus or --task-memory, or start nodes that have it.",
            )
        return min(2 * slots, self.settings.at_once or math.inf)  # type: ignore[return-value]


def _ignore(_: str) -> None:
    pass


@contextlib.contextmanager
def connected(settings: ClusterSettings, say: Callable[[str], None] = _ignore) -> Iterator[Cluster]:
    """Connect to a cluster, or start one on this machine where none is named; `say` is told what may surprise.

    Raises:
        UsageError: As `require_reachable` says, or what answers is no cluster of this version.
    """
    ray = require_reachable(settings)
    try:
        with _own_sigterm():
            # "local": without an address Ray would join any cluster that it finds on this machine.
            ray.init(address=_address(settings) or "local", log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, OSError, TimeoutError) as error:
        raise _unreachable(_address(settings) or "this machine", error) from error
    try:
        yield Cluster(settings, ray, say)
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep what this process does on SIGTERM: Ray would have it abort, with nothing put in order."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def require_reachable(settings: ClusterSettings) -> Any:  # noqa: ANN401 - a module that may not be there
    """Give Ray's module if a cluster may be had; to be asked before anything is written.

    Raises:
        UsageError: Ray is not installed, the resources make no sense, or nothing answers at the address.
    """
    if settings.cpus <= 0 or settings.gpus < 0 or (settings.memory_gb or 1) <= 0 or settings.retries < 0:
        raise UsageError("cannot run tasks: expected cores above 0 and no resource below 0")
    if not all(map(math.isfinite, (settings.cpus, settings.gpus, settings.memory_gb or 0))):
        raise UsageError("cannot run tasks: expected finite numbers for what each is to have")
    if settings.gpus > 1 and settings.gpus % 1:
        raise UsageError(f"cannot give a task {settings.gpus:g} GPUs: expected a part of one, or whole ones")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing goes out that nobody asked for
    os.environ.setdefault("RAY_task_oom_retries", str(settings.retries))  # by default Ray never gives up
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
        f"cannot reach a Ray cluster at {where}: {_first_line(error)}",
        hint="`ray start --head` starts one, `ray status` says what it has. Versions of Ray and Python must agree, and "
        "RAY_AUTH_MODE: `token` where the cluster asks for one.",
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _deciding_versions() -> dict[str, str]:
    found = versions()
    return {name: found[name] for name in DECIDING}


def _call(run: Callable[[], Any], expected: dict[str, str], no_gpus: bool) -> Any:  # noqa: ANN401 - whatever it gives
    """Run a task on its node, if it is what it is taken for."""
    if no_gpus:  # Ray would leave it all of the node's, and every task would take the first
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
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
