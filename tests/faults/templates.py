"""What trials start from: small bundles, an ONNX file and a folder of images, made once per process by other ones."""

from __future__ import annotations

import atexit
import importlib
import pkgutil
import shutil
import sys
import tempfile
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from spdify.cli import main
from spdify.zoo.workers import Job, Limits, Workers

if TYPE_CHECKING:
    from collections.abc import Sequence

_SIZE = 32
_MODEL = ("timm:test_resnet", "--num-classes", "2", "--input-size", f"3,{_SIZE},{_SIZE}", "-q")
#: What a command imports only when it runs; a fork that has it takes no time for it.
_LAZY = ("onnxruntime", "onnx", "onnxscript", "torch.onnx", "torch.export", "torch._dynamo", "accelerate", "timm.optim")


@cache
def root() -> Path:
    """Give a folder that goes away with this process."""
    folder = Path(tempfile.mkdtemp(prefix="spdify-faults"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def warm() -> None:
    """Import what commands import, so that forks need not."""
    for name in ("spdify.cli", "spdify.pipeline", "spdify.exporting", "spdify.training", "spdify.reporting"):
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            importlib.import_module(module.name)
    for name in _LAZY:
        importlib.import_module(name)


@cache
def bundle() -> Path:
    """Give a bundle of timm's test_resnet for two classes at 32×32, with its ONNX file."""
    return _converted("bundle")


@cache
def gated_bundle() -> Path:
    """Give one whose blocks come behind modules: their places have names of spdify's own."""
    return _converted("gated", "--rules", "cbam", "--no-onnx")


@cache
def photos() -> Path:
    """Give a folder of two classes with ten images each."""
    folder = root() / "photos"
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        for number in range(10):
            picture = Image.linear_gradient("L").resize((_SIZE, _SIZE)).rotate(9 * number + 90 * (label == "dog"))
            picture.convert("RGB").save(folder / label / f"{number}.png")
    return folder


def _converted(name: str, *options: str) -> Path:
    """Convert in a fork: who has computed a gradient cannot be forked any more."""
    folder, job = root() / name, Job(name, partial(_convert, name, options))
    ended = next(iter(Workers(Limits(timeout_s=120)).run([job])))
    if not (folder / "spdify.json").is_file():
        raise RuntimeError(f"cannot make the template {name}: {ended.detail}")
    return folder


def _convert(name: str, options: Sequence[str]) -> bytes:
    sys.argv = ["spdify", "convert", *_MODEL, "-o", str(root() / name), *options]
    with suppress(SystemExit):
        main()
    return b""
