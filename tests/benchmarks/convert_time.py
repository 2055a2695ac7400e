"""How long `spdify convert` takes beside `timm.create_model` and `torch.onnx.export` of the same model.

    python tests/benchmarks/convert_time.py [MODEL] [--runs N]

Whole processes, imports included, in turn A B A B after one warm-up each; prints the ratio pair by pair with its
median, and the peak memory of each process. ONNX and all proofs are part of the conversion. Not a test: it times.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BASELINE = """
import sys, timm, torch
model = timm.create_model(sys.argv[1]).eval()
size = timm.data.resolve_model_data_config(model)["input_size"]
batch = torch.export.Dim("batch")
x = torch.randn(2, *size)
torch.onnx.export(model, (x,), sys.argv[2], dynamo=True, dynamic_shapes=({0: batch},), verbose=False)
"""


def run(command: list[str]) -> tuple[float, float]:
    """Run a command; give its seconds and its peak memory in GB (10⁹ bytes)."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = process.stderr.read() if process.stderr is not None else b""
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"{command} failed: {errors.decode()[-2000:]}")
    return seconds, usage.ru_maxrss * 1024 / 1e9


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="resnet50")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ours = [sys.executable, "-m", "spdify", "convert", options.model, "-o", f"{folder}/out", "--overwrite"]
        theirs = [sys.executable, "-c", BASELINE, options.model, str(Path(folder) / "baseline.onnx")]
        ratios = []
        for i in range(options.runs + 1):
            (a, memory_a), (b, memory_b) = run(ours), run(theirs)
            if i:  # the first pair warms the disk cache
                ratios.append(a / b)
                print(
                    f"convert {a:.1f} s, {memory_a:.2f} GB; create + export {b:.1f} s, {memory_b:.2f} GB: {a / b:.2f}"
                )
    middle = statistics.median(ratios)
    print(f"{options.model}: median ratio {middle:.2f} of {len(ratios)} pairs, {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    main()
