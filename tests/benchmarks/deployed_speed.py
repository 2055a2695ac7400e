"""How fast converted networks are in the form that is deployed, and SPD-Convs in training: README's performance tables.

    python tests/benchmarks/deployed_speed.py [MODEL ...] [--threads 1 2] [--rounds N] [--device cpu|cuda] [--compile]
    python tests/benchmarks/deployed_speed.py --layers [--threads 1 2] [--device cpu|cuda]

Networks: ONNX Runtime (PyTorch with --device cuda), batch 1, the network's own input size, every weight moved as
training would, so that nothing folds back. In turns in one run: the original; its strided convolutions and average
pools converted and fused; the same with the max pools as trained tournaments; the form that was released (slices,
concatenation, odd kernels, dense shortcuts; pools as they were). Ratios to the original, median of the rounds with
quartiles.

Layers: PyTorch, forward and backward pass of an SPD-Conv beside slices, concatenation and the same convolution; for
every layer each form that computes the same, in both memory formats; `spdify.tune` takes the faster one.

Prints tables in Markdown. Not a test: it times.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm
import torch

from spdify.benchmarking import forward_of, paired_seconds, ratio_to
from spdify.benchmarking.released import RULES, SlicedConv, slice_blocks
from spdify.blocks import SPDConv
from spdify.engine import apply, fuse, plan_model
from spdify.exporting import Example, OnnxModel, write_unchecked
from spdify.graph import survey
from spdify.records import Inputs, InputSpec
from spdify.rulebook import load_rules, with_overrides
from spdify.rulebook.parsing import parse_rulebook
from spdify.sources import example_inputs
from spdify.verification.form_proof import trained_like

if TYPE_CHECKING:
    from torch import nn

    from spdify.rulebook import Rulebook

MODELS = ["resnet50", "resnet18", "mobilenetv3_small_100", "efficientnet_b0", "densenet121", "convnext_tiny"]
#: Name, batch, channels in and out, input positions a side, taps of the convolution over blocks, groups.
LAYERS = [
    ("ResNet stem, 7×7", 8, 3, 64, 224, 4, 1),
    ("ResNet-18 layer2, 3×3", 8, 64, 128, 56, 2, 1),
    ("ResNet-50 layer2, 3×3", 8, 128, 128, 56, 2, 1),
    ("ResNet-50 layer3, 3×3", 8, 256, 256, 28, 2, 1),
    ("ResNet-50 layer4, 3×3", 8, 512, 512, 14, 2, 1),
    ("ResNet-50 shortcut, dense 1×1", 8, 256, 512, 56, 1, 1),
    ("paper's 3×3, 128 channels", 8, 128, 128, 28, 3, 1),
    ("YOLOv5s backbone 1, 3×3", 4, 32, 64, 160, 2, 1),
    ("YOLOv5s backbone 3, 3×3", 4, 64, 128, 80, 2, 1),
    ("ConvNeXt-T downsampling, 2×2", 8, 96, 192, 56, 1, 1),
    ("EfficientNet-B0, depthwise 3×3", 4, 96, 96, 112, 2, 96),
    ("EfficientNet-B0, depthwise 5×5", 8, 144, 144, 56, 3, 144),
    ("MobileNetV3, depthwise 5×5", 8, 72, 72, 56, 3, 72),
]


def main() -> None:
    """Read the arguments and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--layers", action="store_true")
    given = parser.parse_args()
    if given.layers:
        for threads in given.threads:
            _layers(threads, given.rounds, given.device)
        return
    runs = [_Network(name) for name in given.models]
    for threads in given.threads:
        print(f"\n{'PyTorch' if given.device == 'cuda' else 'ONNX Runtime'}, {threads} thread(s), batch 1\n")
        print("| network | original, ms | convolutions fused | max pools too | released form | released / fused |")
        print("|---|---|---|---|---|---|")
        for network in runs:
            print(network.row(threads, given.rounds, given.device, compiled=given.compile), flush=True)


class _Network:
    """One network in the forms that are compared."""

    def __init__(self, name: str) -> None:
        self.name = name
        original = timm.create_model(name).eval()
        size = original.default_cfg["input_size"]
        self.inputs = Inputs(args=(InputSpec(shape=(1, *size)),))
        default = load_rules(("spd",))
        self.forms: dict[str, nn.Module] = {
            "original": original,
            "fused": fuse(self._trained(original, with_overrides(default, ("max-pool.form=keep",)))),
        }
        plan = plan_model(original, survey(original, self.inputs), default, inputs=self.inputs)
        if any(d.site.operator == "max_pool" for d in plan.applied):
            self.forms["pools"] = fuse(self._trained(original, default))
        released = self._trained(original, parse_rulebook(RULES, name="released", file="-"))
        slice_blocks(released)
        self.forms["released"] = released
        self.scratch = tempfile.TemporaryDirectory()
        self.files: dict[str, Path] = {}

    def _trained(self, original: nn.Module, rulebook: Rulebook) -> nn.Module:
        plan = plan_model(original, survey(original, self.inputs), rulebook, inputs=self.inputs)
        return trained_like(apply(original, plan), lambda dtype: self._example(2, dtype), seed=0)

    def _example(self, batch: int, dtype: torch.dtype | None = None) -> Any:  # noqa: ANN401 - args and kwargs
        return example_inputs(self.inputs, batch=batch, seed=0, dtype=dtype)

    def row(self, threads: int, rounds: int, device: str, *, compiled: bool) -> str:
        """Time the forms in turns."""
        args, kwargs = self._example(1)
        torch.set_num_threads(threads)
        calls = {}
        for form, network in self.forms.items():
            if device == "cuda":
                ready: Any = torch.compile(network.cuda()) if compiled else network.cuda()
                calls[form] = forward_of(ready, *(x.cuda() for x in args))
                continue
            if form not in self.files:
                folder = Path(self.scratch.name) / form
                self.files[form] = write_unchecked(network, folder, make_inputs=self._example, batch=1, opset=20)
            calls[form] = OnnxModel(self.files[form], threads=threads).runner(Example(args, kwargs))
        times = paired_seconds(calls, rounds=rounds)
        base = times["original"]
        cells = [self.name, f"{1000 * statistics.median(base):.2f}"]
        cells += [str(ratio_to(base, times[form])) if form in times else "has none" for form in ("fused", "pools")]
        cells += [str(ratio_to(base, times["released"])), str(ratio_to(times["fused"], times["released"]))]
        return f"| {' | '.join(cells)} |"


def _layers(threads: int, rounds: int, device: str) -> None:
    torch.set_num_threads(threads)
    print(f"\nPyTorch on {device}, {threads} thread(s), forward and backward pass\n")
    print(
        "| layer | slices, ms | slices, channels last | space to depth | strided | both channels last | faster of all |"
    )
    print("|---|---|---|---|---|---|---|")
    best, fair = [], []
    for name, *shape in LAYERS:
        gains = _layer(*shape, rounds=rounds, device=device)
        best.append(max(value for key, value in gains.items() if not key.startswith("slices")))
        fair.append(best[-1] / max(1.0, gains["slices, last"]))
        last = f"{gains['space_to_depth, last']:.2f}, {gains['strided, last']:.2f}"
        plain = f"{gains['slices, last']:.2f} | {gains['space_to_depth']:.2f} | {gains['strided']:.2f}"
        print(f"| {name} | {gains['slices']:.1f} | {plain} | {last} | {best[-1]:.2f} |", flush=True)
    means = [math.exp(statistics.fmean(map(math.log, values))) for values in (best, fair)]
    print(f"\nGeometric mean {means[0]:.2f}, least {min(best):.2f}; against the faster of both formats of slices "
          f"{means[1]:.2f}, least {min(fair):.2f}.")  # fmt: skip


def _layer(
    batch: int, channels: int, filters: int, size: int, kernel: int, groups: int, *, rounds: int, device: str
) -> dict[str, float]:
    """Give how many times as fast as slices each form is; for `slices` itself, milliseconds."""
    pads = {1: (0, 1), 2: (2, 1), 3: (2, 3), 4: (4, 3)}[kernel]
    block = SPDConv(channels, filters, kernel, padding=[pads] * 2, groups=groups).to(device)
    calls = {}
    for form in ("slices", "space_to_depth", "strided"):
        for layout, suffix in ((torch.contiguous_format, ""), (torch.channels_last, ", last")):
            module: Any = SlicedConv(block) if form == "slices" else SPDConv(
                channels, filters, kernel, padding=[pads] * 2, groups=groups, form=form  # type: ignore[arg-type]
            )  # fmt: skip
            module = module.to(device=device, memory_format=layout)
            x = (
                torch.randn(batch, channels, size, size, device=device)
                .contiguous(memory_format=layout)
                .requires_grad_()
            )
            calls[form + suffix] = partial(_step, module, x, torch.randn_like(module(x)))
    times = paired_seconds(calls, rounds=rounds, least_seconds=0.1)
    gains = {form: statistics.median(a / b for a, b in zip(times["slices"], found, strict=True))
             for form, found in times.items()}  # fmt: skip
    return gains | {"slices": 1000 * statistics.median(times["slices"])}


def _step(module: nn.Module, x: torch.Tensor, cotangent: torch.Tensor) -> None:
    torch.autograd.grad(module(x), [x, *module.parameters()], cotangent)
    if x.is_cuda:
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
