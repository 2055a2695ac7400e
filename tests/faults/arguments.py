"""Command lines that hypothesis makes: every command with its options, values of all kinds, wrong ones mostly."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import typing
import warnings
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import hypothesis
import typer
from hypothesis import strategies as st

from spdify.cli.app import app
from tests.faults import templates
from tests.faults.commands import judged, place, run_spdify
from tests.faults.trials import Case, Part

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tests.faults.commands import Place
    from tests.faults.trials import Outcome

#: Seconds after which an interrupt comes: what works for long must end by it, and what does not has hung.
PATIENCE = 8
LONG = {"convert", "finetune", "study", "evaluate", "calibrate", "export", "bench", "report", "inspect", "zoo run"}
_ODD = (
    "", " ", "-", "--", "0", "1", "2", "3", "-1", "10", "1e999", "nan", "-inf", "inf", str(2**31), str(2**63),
    "9" * 30, "9" * 5000, "1.5", "0.1", "x", "é漢", "🙂", "\u202e", "\x1b]0;canary\x07", "[red]", "[/]", "%s", "{0}",
    "a=b", "=", "a.b=c", "a=", "..", ".", "/", "~", "~nobody-of-that-name", "/dev/null", "/dev/full", "/dev/stdin",
    "/proc/self/mem", "/etc/passwd", "x" * 5000, "3,32,32", "3,0,32", "3,32", "1,1,1,1,1", "3,99999,99999", "auto",
    "none", "spd", "cbam,spd", "digits", "cifar10", "*", "?",
)  # fmt: skip
#: What lies in the working directory of a trial, and names of networks that are small.
_THERE = (
    "bundle", "bundle/model.onnx", "bundle/model.safetensors", "bundle/spdify.json", "photos", "imagefolder:photos",
    "net.py", "net.py:build", "net.py:none", "net.py:fails", "empty", "file.txt", "loop", "pipe", "new",
    "new/deep/er", "book.toml", "../outside/sentinel", "bundle/model.onnx/x", "timm:test_resnet", "timm:test_vit",
    "timm:nothing", "tv:nothing", "local-dir:bundle", "local-dir:empty", "ultralytics:nothing", "nothing:nothing",
    "os:system", "strided-conv.kernel=odd", "macs=+5%", "macs=1e999", "params=-1", "latency=0", "num_classes=5",
    "epochs=1", "mixup=nan", "lr=inf", "aa=x",
)  # fmt: skip
NET = """
from torch import nn

def build(width: int = 4, num_classes: int = 2):
    head = nn.Linear(width, num_classes)
    return nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)

def fails():
    raise KeyError("x")

none = None
"""
_MODELS = ("bundle", "timm:test_resnet", "net.py:build", "bundle/model.onnx", "book.toml", "spd")
#: Values with which a command goes on, by option.
_LIKELY = {
    "--data": ("imagefolder:photos", "digits"), "--input-size": ("3,32,32",), "--rules": ("spd", "cbam", "spd-paper"),
    "--output": ("new",), "--epochs": ("1",), "--batch-size": ("8", "2"), "--rounds": ("3",), "--num-classes": ("2",),
    "--code": ("net.py:build",), "--checkpoint": ("bundle/model.safetensors",), "--mean": ("0.5,0.5,0.5", "0.5"),
    "--std": ("0.2,0.2,0.2", "0,0,0"), "--set": ("max-pool.form=keep",), "--validation-share": ("0.3", "0"),
}  # fmt: skip
#: What would ask the network: that is promised, and there is none here.
_ASKING = ("--pretrained", "--download", "hf-hub:")
#: Not tried: it would begin 1,500 conversions, each in a process of its own.
_LEFT_OUT = {("zoo", "run")}


def commands() -> dict[tuple[str, ...], Any]:
    """Give every command by its words."""
    return dict(_walk(typer.main.get_command(app), ()))


def _walk(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from _walk(inner, (*words, name))
    elif words not in _LEFT_OUT:
        yield words, command


def _value(parameter: Any) -> st.SearchStrategy[str]:
    """Give what may stand for a parameter: of its own choices, of what is there, numbers, texts."""
    kinds = [st.sampled_from(_THERE), st.sampled_from(_ODD), st.integers().map(str), st.floats().map(str)]
    kinds.append(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=20))
    choices = [
        str(choice) for choice in typing.get_args(parameter.type_descriptor.annotation) if isinstance(choice, str)
    ]
    if choices := choices or (parameter.metavar or "").strip("[]").lower().split("|"):
        kinds += [st.sampled_from(choices)] * 4
    if likely := _LIKELY.get(parameter.opts[0]):
        kinds += [st.sampled_from(likely)] * 6
    return st.one_of(kinds)


@st.composite
def command_lines(draw: st.DrawFn, known: dict[tuple[str, ...], Any]) -> tuple[str, ...]:
    """Draw the words of a command line."""
    words = draw(st.sampled_from(sorted(known)))
    line = list(words)
    parameters = known[words].params
    arguments = [p for p in parameters if p.param_type_name == "argument" and draw(st.integers(0, 9))]
    line += [draw(st.one_of([st.sampled_from(_MODELS)] * 4 + [st.sampled_from(_THERE), _value(p)])) for p in arguments]
    # With --debug, tracebacks are what was asked for.
    options = [p for p in parameters if p.param_type_name == "option" and not {"--help", "--debug"} & {*p.opts}]
    for option in draw(st.lists(st.sampled_from(options), max_size=5)) if options else ():
        line.append(draw(st.sampled_from([*option.opts, *option.secondary_opts])))
        if not option.is_flag:
            line.append(draw(_value(option)))
    if draw(st.integers(0, 29)) == 29:  # hypothesis likes zeros
        line.insert(
            draw(st.integers(0, len(line))), draw(st.sampled_from(("--no-such", "-Z", "extra", "--help", "--version")))
        )
    return tuple(line)


def made_lines(count: int, seed: int) -> list[tuple[str, ...]]:
    """Have hypothesis make command lines, the same for the same numbers."""
    lines: dict[tuple[str, ...], None] = {}

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count, database=None, deadline=None, phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(command_lines(commands()))
    def collect(line: tuple[str, ...]) -> None:
        lines[line] = None

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collect()
    return list(lines)


def argument_cases(count: int, seed: int) -> Iterable[Case]:
    """Give command lines; named by what they say."""
    templates.warm()
    templates.photos()
    templates.bundle()
    for line in made_lines(count, seed):
        text = shlex.join(line)
        name = f"{sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]} {ascii(text)[:120]}"
        group = " ".join(word for word in line[:2] if tuple(line[:2]) in commands() or word == line[0])
        yield Case(name, group, partial(try_line, line))


def try_line(line: Sequence[str]) -> tuple[Outcome, str]:
    """Run a command line in a folder with this and that in it."""
    with place(templates.root()) as where:
        _furnish(where)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
        signal.alarm(PATIENCE)
        ran = run_spdify(where, line)
        signal.alarm(0)
        ran.said = [(what, words) for what, words in ran.said if not words.startswith(_expected(line))]
        if ran.code == 130 and not LONG & {line[0], " ".join(line[:2])}:
            return "hang", f"interrupted after {PATIENCE} s"
        return judged(where, ran)


def _expected(line: Sequence[str]) -> tuple[str, ...]:
    """Give how the words begin of what was asked for: code that the line names, and the network."""
    asks = any(word.startswith(_ASKING) for word in line)
    return ("imported spdify_code_net_", "socket.") if asks else ("imported spdify_code_net_",)


def _furnish(where: Place) -> None:
    shutil.copytree(templates.bundle(), where.cwd / "bundle")
    shutil.copytree(templates.photos(), where.cwd / "photos")
    (where.cwd / "net.py").write_text(NET, encoding="utf-8")
    (where.cwd / "empty").mkdir()
    (where.cwd / "file.txt").write_text("hello", encoding="utf-8")
    (where.cwd / "loop").symlink_to("loop")
    (where.cwd / "book.toml").write_text('schema = 1\nsummary = "x"\n', encoding="utf-8")
    os.mkfifo(where.cwd / "pipe")


ARGUMENTS = Part("arguments", argument_cases, full=400, short=14, timeout_s=120)
