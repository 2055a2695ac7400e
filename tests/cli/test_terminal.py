"""Standard streams that cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spdify.cli.terminal import Stream
from spdify.errors import OutputError

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="has no /dev/full (Linux)")


def spdify(script: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command by a shell, which closes or redirects its streams."""
    path = os.pathsep.join(p for p in sys.path if p)
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {script}', "sh", sys.executable, "-m", "spdify", *arguments],
        capture_output=True, text=True, check=False, timeout=60, env={**os.environ, "PYTHONPATH": path, **env},
    )  # fmt: skip


@needs_full
@pytest.mark.parametrize("through", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("argument", ["--version", "--help"])
def test_full_stdout_is_a_fault(argument: str, through: str) -> None:
    done = spdify("> /dev/full", argument, PYTHONUNBUFFERED=through)
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot write to stdout: No space left on device\n")
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@needs_full
def test_full_stderr_changes_nothing() -> None:
    done = spdify("2> /dev/full", "rules", "show", "nonsense")
    assert (done.returncode, done.stdout) == (1, "")
    assert spdify("2> /dev/full", "--version").stdout.startswith("spdify ")


@pytest.mark.parametrize("script", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams(script: str) -> None:
    done = spdify(script, "rules", "check", "spd")
    assert (done.returncode, done.stderr) == (0, "")
    assert ("sound" in done.stdout) is (script == "2>&-")


@needs_full
def test_full_stream_says_so_each_time() -> None:
    stream = Stream(FULL.open("w"), results=True)  # type: ignore[arg-type]
    stream.write("some text")
    with pytest.raises(OutputError, match="No space left"):
        stream.flush()
    with pytest.raises(OutputError, match="No space left"):
        stream.write("more")
    stream.close()  # the interpreter does, in the end


def test_no_file_becomes_stdout() -> None:
    code = "from spdify.cli.terminal import take_streams; take_streams(); print(open('/dev/null').fileno() > 2)"
    script = f"{sys.executable} -c \"{code}; import sys; sys.exit(open('/dev/null').fileno() <= 2)\" >&-"
    path = os.pathsep.join(p for p in sys.path if p)
    assert subprocess.run(script, shell=True, check=False, env={**os.environ, "PYTHONPATH": path}).returncode == 0  # noqa: S602
