"""The command line in a trial's own process: watched, held to its folder, and judged.

The layout is `base/cwd`, where the command runs and may write, beside `base/outside`, where nothing may change.
Python's audit events show what the listing cannot: files opened for writing elsewhere, programs started,
addresses asked for.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.faults.trials import Outcome

CODES = (0, 1, 2, 3, 4, 130)
#: A file that hostile code makes where it is run; its path is in the environment under the same name.
CANARY = "SPDIFY_CANARY"
TOUCH = f"open(__import__('os').environ['{CANARY}'], 'w').close()"
#: What must never stand in a page, or reach a terminal, as it is.
MARKUP = "<script>canary()</script>"
ESCAPE = "\x1b]0;canary\x07"
#: That a trial may compute for; by the clock it has longer (`Part.timeout_s`), since the machine may be shared.
CPU_SECONDS = 10.0
#: Bytes that a trial may ask for above what the process has when it begins, and may really hold.
ADDRESSES = 4 * 2**30
HELD = 3 * 2**29
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
_STARTING = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn")
_NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.bind")
_MAKING = {
    "os.mkdir": 0,
    "os.rename": 1,
    "os.link": 1,
    "os.symlink": 1,
    "os.remove": 0,
    "os.rmdir": 0,
    "os.truncate": 0,
}


@dataclass
class Ran:
    """What a command did.

    Attributes:
        code: That it left to the shell; a text where it ended by an exception.
        out: Of stdout and stderr, its text.
        said: What it did that it must not, as outcome and words.
    """

    code: int | str
    out: str
    said: list[tuple[Outcome, str]] = field(default_factory=list)


@dataclass
class Place:
    """Where a trial runs: its folder, and one beside it that must stay as it is."""

    cwd: Path
    outside: Path

    @property
    def canary(self) -> Path:
        """The file that no code may have made."""
        return self.outside / "canary"


@contextmanager
def place(root: Path) -> Iterator[Place]:
    """Give a trial its folders, and take them away."""
    base = Path(tempfile.mkdtemp(prefix="trial", dir=root))
    made = Place(base / "cwd", base / "outside")
    try:
        made.cwd.mkdir()
        (made.outside / "deep").mkdir(parents=True)
        (made.outside / "sentinel").write_text("as it was", encoding="utf-8")
        (made.outside / "deep" / "sentinel").write_text("as it was", encoding="utf-8")
        yield made
    finally:
        for folder in base.rglob("*"):
            if folder.is_dir() and not folder.is_symlink():
                folder.chmod(0o700)
        shutil.rmtree(base, ignore_errors=True)


def run_spdify(where: Place, args: Sequence[str]) -> Ran:
    """Run `spdify ARGS` in a place; only in a process that ends with the trial."""
    from spdify.cli import main

    return run_watched(where, main, args)


def run_watched(where: Place, entry: Callable[[], object], args: Sequence[str] = ()) -> Ran:
    """Run something as the command line is run, and watch it."""
    before = _listing(where)
    events: list[tuple[str, str]] = []
    _settle(where, args)
    log = where.cwd.parent / "said"
    began, peak, resident = time.process_time(), _peak(), _resident()
    with _said_to(log):
        _limit_addresses()
        sys.addaudithook(lambda event, given: _note(events, event, given))
        code = _code_of(entry)
    ran = Ran(code, log.read_text(encoding="utf-8", errors="replace"))
    seconds, held = time.process_time() - began, _peak() - max(peak, resident)
    if seconds > CPU_SECONDS:
        ran.said.append(("hang", f"it computed for {seconds:.0f} s"))
    if held > HELD:
        ran.said.append(("crash", f"it held {held / 2**20:.0f} MiB more"))
    ran.said += _found(where, before, events)
    return ran


def judged(where: Place, ran: Ran, *, refuses: bool = False) -> tuple[Outcome, str]:
    """Say what a command came to.

    Args:
        where: Where it ran.
        ran: What it did.
        refuses: Whether it had to end with a fault of the user's.
    """
    tail = ran.out.strip()[-400:].partition("failed unexpectedly: ")[2] or ran.out.strip()[-400:]
    if where.canary.exists():
        return "ran code", tail
    if ran.said:
        return ran.said[0]
    if "Traceback (most recent call last)" in ran.out or "failed unexpectedly" in ran.out or ran.code not in CODES:
        return "traceback", f"{ran.code}: {tail}"
    if any(words in ran.out for words in ("can't allocate memory", "MemoryError", "bad_alloc", "bad allocation")):
        return "crash", f"asked for memory that there is not: {tail}"
    if ran.code == 0 and refuses:
        return "wrong", f"it should have been refused: {tail}"
    return ("held", "") if ran.code == 0 else ("refused", ran.out.strip()[:200])


def _settle(where: Place, args: Sequence[str]) -> None:
    home = where.cwd.parent / "home"
    home.mkdir(exist_ok=True)
    os.environ |= {
        CANARY: str(where.canary), "HOME": str(home), "TMPDIR": str(home), "XDG_CACHE_HOME": str(home),
        "TORCHINDUCTOR_CACHE_DIR": str(home), "COLUMNS": "200",
    }  # fmt: skip
    tempfile.tempdir = None
    os.chdir(where.cwd)
    sys.argv = ["spdify", *args]
    sys.dont_write_bytecode = True


@contextmanager
def _said_to(log: Path) -> Iterator[None]:
    """Have both streams go to a file, also what libraries write to them by number."""
    stream = log.open("w", encoding="utf-8", errors="backslashreplace")
    os.dup2(stream.fileno(), 1)
    os.dup2(stream.fileno(), 2)
    sys.stdout = sys.stderr = stream
    yield
    stream.flush()


def _code_of(entry: Callable[[], object]) -> int | str:
    try:
        entry()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        return f"SystemExit({end.code!r})"
    except BaseException as error:  # noqa: BLE001 - whatever comes through is what is looked for
        traceback.print_exc()
        return type(error).__name__
    return 0


def _limit_addresses() -> None:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def _note(events: list[tuple[str, str]], event: str, given: tuple[Any, ...]) -> None:
    """Note down an event that matters; a hook must not raise."""
    if event == "open":
        path, mode, flags = (*given, None, None)[:3]
        if isinstance(path, (str, bytes)) and (set(mode or "") & set("wax+") or (flags or 0) & _WRITING):
            events.append((event, os.path.abspath(os.fsdecode(path))))  # noqa: PTH100 - links as they are
    elif event in _MAKING and isinstance(path := given[_MAKING[event]], (str, bytes, os.PathLike)):
        events.append((event, os.path.abspath(os.fsdecode(path))))  # noqa: PTH100
    elif event in _STARTING or event in _NETWORK:
        events.append((event, str(given[:2])[:200]))


def _listing(where: Place) -> dict[str, tuple[int, int, str]]:
    found = {}
    for path in sorted(where.outside.rglob("*")):
        if path == where.canary:
            continue
        about = path.lstat()
        found[str(path)] = (about.st_mode, about.st_size, "" if not path.is_file() else path.read_bytes().hex()[:400])
    return found


def _found(
    where: Place, before: dict[str, tuple[int, int, str]], events: Sequence[tuple[str, str]]
) -> Iterator[tuple[Outcome, str]]:
    """Say what was done that must not be."""
    if (after := _listing(where)) != before:
        yield "escaped", f"beside its folder: {sorted(set(after.items()) ^ set(before.items()))[:3]}"
    allowed = (str(where.cwd), str(where.cwd.parent / "home"), "/dev/", str(where.cwd.parent / "said"))
    for event, what in events:
        if event in _STARTING:
            yield "ran code", f"{event} {what}"
        elif event in _NETWORK or not what.startswith(allowed):
            yield "escaped", f"{event} {what}"
    for name, module in sorted(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(where.cwd.parent)):
            yield "ran code", f"imported {name}"
    yield from _left(where)


def _left(where: Place) -> Iterator[tuple[Outcome, str]]:
    """Look at what lies in the folder afterwards."""
    if ESCAPE in (where.cwd.parent / "said").read_text(encoding="utf-8", errors="replace"):
        yield "ran code", "a text of the file's steers the terminal"
    for path in where.cwd.rglob("*"):
        if path.name.startswith(".spdify."):
            yield "wrong", f"left half-written: {path.name}"
        if path.suffix in {".html", ".svg"} and path.is_file() and MARKUP in path.read_text("utf-8", "replace"):
            yield "ran code", f"markup of the file's is in {path.name}"
