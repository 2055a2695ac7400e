"""What a detector is trained on: images of two sizes with made-up targets, and how far two networks' losses differ.

In train mode torchvision's detectors take (images, targets) and give losses by name. Both networks get the same ones
under the same seed, so that what they draw (which candidates count) is the same; every loss is compared, relative to
itself, and so is the gradient of their sum with respect to every parameter that conversion has left alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from spdify.verification.compare import relative_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spdify.graph.detectors import Detector

Targets: TypeAlias = list[dict[str, Tensor]]

BOXES_PER_IMAGE = 2  # each brings dozens of candidates through the heads of a second stage
#: A gradient below this share of the largest one is compared as if it were as large: that of a bias before a batch norm
#: is zero but for rounding.
GRADIENT_FLOOR = 1e-3


def training_inputs(
    detector: Detector, inputs: tuple[tuple[Tensor, ...], dict[str, Tensor]], *, seed: int
) -> tuple[tuple[Any, ...], dict[str, Tensor]]:
    """Make what a detector is trained on.

    Args:
        detector: Says what its targets hold.
        inputs: Of the forward pass in eval mode: a batch (N, 3, H, W) of at least 2.
        seed: Of boxes, labels, masks and keypoints.

    Returns:
        Positional inputs: two images (3, h, w), cut from the first ones of the batch to different odd sizes, and their
        targets. No named ones.
    """
    args, kwargs = inputs
    first, second, *_ = next(iter((*args, *kwargs.values())))
    _, height, width = first.shape
    images = [first[:, : _odd(height), : _odd(7 * width // 8)], second[:, : _odd(7 * height // 8), : _odd(width)]]
    generator = torch.Generator().manual_seed(seed)
    return (images, [_target(detector, image, generator) for image in images]), {}


def _odd(size: int) -> int:
    return size - 1 + size % 2


def _target(detector: Detector, image: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw boxes of 1/5 to 1/2 of the image's height and width that lie in it, and what belongs to each."""
    _, height, width = image.shape
    size = torch.tensor([width, height], dtype=image.dtype)

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64).to(image)

    extent = (0.2 + 0.3 * draw(BOXES_PER_IMAGE, 2)) * size
    corner = draw(BOXES_PER_IMAGE, 2) * (size - extent)
    lowest = min(1, detector.classes - 1)  # 0 may be the background
    target = {
        "boxes": torch.cat([corner, corner + extent], dim=1),
        "labels": torch.randint(lowest, max(detector.classes, lowest + 1), (BOXES_PER_IMAGE,), generator=generator),
    }
    if detector.masks:
        target["masks"] = (draw(BOXES_PER_IMAGE, height, width) > 0.5).to(torch.uint8)  # noqa: PLR2004 - half of all
    if detector.keypoints:
        places = corner[:, None] + draw(BOXES_PER_IMAGE, detector.keypoints, 2) * extent[:, None]
        visible = torch.ones_like(places[..., :1])
        # torchvision insists on float32; they become the places of classes, of which nothing is computed further.
        target["keypoints"] = torch.cat([places, visible], dim=2).float()
    return target


def losses_of(output: object) -> dict[str, Tensor]:
    """Give the losses by name; none where the output is something else."""
    if not isinstance(output, dict):
        return {}
    return {str(name): loss for name, loss in output.items() if isinstance(loss, Tensor) and loss.is_floating_point()}


def loss_error(expected: Mapping[str, Tensor], actual: Mapping[str, Tensor]) -> float:
    """Give the largest error of any loss, relative to that loss; infinite where others are there."""
    if expected.keys() != actual.keys():
        return math.inf
    return max(relative_error(expected[name], actual[name]) for name in expected)


def gradients_of(losses: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Differentiate the sum of all losses by every parameter that it depends on."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    total = torch.stack(list(losses.values())).sum()
    found: tuple[Tensor | None, ...] = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(parameters, found, strict=True) if gradient is not None}


def gradient_error(expected: Mapping[str, Tensor], actual: Mapping[str, Tensor]) -> float:
    """Give the largest error of the gradients that both have in one shape, relative to the largest in each."""
    common = [name for name, g in expected.items() if name in actual and actual[name].shape == g.shape]
    floor = GRADIENT_FLOOR * max((float(expected[name].abs().max()) for name in common), default=0.0)
    return max((relative_error(expected[name], actual[name], floor=floor) for name in common), default=0.0)
