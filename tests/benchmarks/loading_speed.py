"""Images per second from spdify's batches of images in memory, beside timm's own loader on the same images.

    python tests/benchmarks/loading_speed.py [--images N] [--size S] [--workers W] [--rounds R]

Random images in memory; batches of 128, cropped anew and mirrored, normalised float32 on the CPU. timm's loader gets
them as PIL images, with its transforms for training (random resized crop, mirror images), in W worker processes and in
none. In turn A B C A B C after one warm-up each; prints medians and ratios. Not a test: it times.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import TYPE_CHECKING

import torch
from timm.data.loader import create_loader
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import to_pil_image

from spdify.datasets import Pixels
from spdify.records import Preprocessing
from spdify.training import make_batches, make_recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MEAN = STD = (0.5, 0.5, 0.5)
BATCH = 128


class Pictures(Dataset[tuple[object, int]]):
    """The same images as timm's loader wants them."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images = [to_pil_image(image) for image in images]
        self.transform: Callable[[object], object] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[object, int]:
        image = self.images[index]
        return self.transform(image) if self.transform else image, index % 10


def speed(batches: Callable[[], Iterable[object]], count: int) -> float:
    """Give images per second of one pass."""
    began = time.perf_counter()
    for _ in batches():
        pass
    return count / (time.perf_counter() - began)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10240)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    images = torch.randint(0, 256, (options.images, 3, options.size, options.size), dtype=torch.uint8)
    how = Preprocessing(input_size=(3, options.size, options.size), mean=MEAN, std=STD)
    ours = make_batches(
        Pixels(images, torch.arange(options.images) % 10),
        make_recipe("finetune", {"batch_size": BATCH}),
        how,
        classes=10,
    )
    ways: dict[str, Callable[[], Iterable[object]]] = {"spdify, in memory": lambda: ours.epoch(1)}
    for workers in sorted({0, options.workers}):
        loader = create_loader(
            Pictures(images), how.input_size, BATCH, is_training=True, use_prefetcher=False, mean=MEAN, std=STD,
            num_workers=workers, persistent_workers=False, color_jitter=None,
        )  # fmt: skip
        ways[f"timm, {workers} workers"] = lambda loader=loader: loader
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(options.rounds + 1):
        for name, batches in ways.items():
            value = speed(batches, options.images)
            if number:
                found[name].append(value)
    first = next(iter(found.values()))
    for name, values in found.items():
        ratio = statistics.median(a / b for a, b in zip(first, values, strict=True))
        spread = f"{min(values):,.0f} to {max(values):,.0f}"
        print(f"{name:20} {statistics.median(values):10,.0f} images/s ({spread}); spdify's is {ratio:.1f} times that")


if __name__ == "__main__":
    main()
