"""The tool's own speed and memory: loading beside timm, the phases of a conversion, the memory that one takes.

    python tests/benchmarks/tool_speed.py [MODEL ...] [--large MODEL] [--rounds N]

Loading: `spdify.load` of a bundle beside `timm.create_model` and `load_state_dict` of the same original from
safetensors, in one process, in turn A B A B after one warm-up each. Both read from the disk cache. Phases: seconds of
`spdify.convert` and saving without ONNX, in a process of its own. Memory: the most that such a process holds, without
what importing takes, over the bytes of the original's weights; from random weights, and from a safetensors file. Linux
only: it asks /proc. Prints tables in Markdown. Not a test: it times.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm
from safetensors.torch import load_file, save_file

import spdify

if TYPE_CHECKING:
    from collections.abc import Callable

MODELS = ["resnet50", "convnext_tiny", "efficientnet_b0", "regnety_640"]

# Not getrusage: what it says of a process includes the parent that it was forked from.
PEAK = """
import json, re, sys, time
from pathlib import Path
import spdify, timm, torch, torchvision
convert = spdify.convert
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
"""
IMPORTS = PEAK + "print(peak())"
CONVERSION = (
    PEAK
    + """
model, folder, checkpoint = sys.argv[1:]
steps = []
def step(name):
    steps.append((re.sub(r" (\\d|\\().*", "", name), time.perf_counter()))
conversion = convert(model, checkpoint=checkpoint or None, progress=step)
step("writing")
conversion.save(folder, onnx=False)
step("end")
seconds = {name: after - begun for (name, begun), (_, after) in zip(steps, steps[1:])}
report = conversion.report
print(json.dumps({"seconds": seconds, "peak": peak(), "weights": report.before.weight_bytes, "proof": report.proof}))
"""
)


def convert_apart(model: str, checkpoint: Path | None = None) -> dict[str, Any]:
    """Convert a model in a process of its own.

    Returns:
        Seconds by phase, bytes of the weights, level of the proof, and `ratio`: of the memory that the process held at
        most, without what it holds after imports, to the weights.
    """
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, Any] = json.loads(_run(CONVERSION, model, f"{folder}/out", str(checkpoint or "")))
    found["ratio"] = (found["peak"] - _imported()) / found["weights"]
    return found


@cache
def _imported() -> int:
    """Give the bytes that a process holds at most that only imports."""
    return int(_run(IMPORTS))


def _run(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.splitlines()[-1]


def write_checkpoint(model: str, file: Path) -> None:
    """Write random weights of a model."""
    save_file(timm.create_model(model).state_dict(), file)


def compare_loading(model: str, rounds: int) -> tuple[list[float], list[float]]:
    """Give the seconds of loading a model's bundle, and those of loading the original with timm."""
    with tempfile.TemporaryDirectory() as folder:
        conversion = spdify.convert(model, proof="site")
        conversion.save(f"{folder}/bundle", onnx=False)
        save_file(conversion.original.state_dict(), f"{folder}/original.safetensors")
        del conversion

        def theirs() -> None:
            timm.create_model(model).load_state_dict(load_file(f"{folder}/original.safetensors"))

        ways: tuple[Callable[[], object], ...] = (lambda: spdify.load(f"{folder}/bundle"), theirs)
        found: tuple[list[float], list[float]] = ([], [])
        for number in range(rounds + 1):
            for way, seconds in zip(ways, found, strict=True):
                begun = time.perf_counter()
                way()
                if number:
                    seconds.append(time.perf_counter() - begun)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--large", default="convnext_xxlarge")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print("| model | load, s | timm, s | ratio, median (spread) |\n|---|---|---|---|")
    for model in options.models:
        ours, theirs = compare_loading(model, options.rounds)
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        words = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {model} | {statistics.median(ours):.3f} | {statistics.median(theirs):.3f} | {words} |", flush=True)
    found = {model: convert_apart(model) for model in options.models}
    found[options.large] = convert_apart(options.large)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.safetensors"
        write_checkpoint(options.large, file)
        found[f"{options.large}, from a file"] = convert_apart(options.large, file)
    phases = list(found[options.large]["seconds"])
    print(f"\n| seconds | {' | '.join(phases)} | proof | weights, GB | memory / weights |")
    print(f"|---|{'---|' * (len(phases) + 3)}")
    for title, one in found.items():
        seconds = " | ".join(f"{one['seconds'][phase]:.1f}" for phase in phases)
        print(f"| {title} | {seconds} | {one['proof']} | {one['weights'] / 1e9:.2f} | {one['ratio']:.2f} |")


if __name__ == "__main__":
    main()
