"""Weights under which a detector finds much, and what it finds differs.

With random weights all scores are alike: none reaches the threshold, or rounding chooses among thousands of equals.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from spdify.graph.detectors import detector_of
from spdify.graph.structure import detached_copy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spdify.exporting.examples import Example

#: Deviation and mean of every class's logit over the places: as probabilities, softmax or sigmoid, some reach 0.5 and
#: most stay near zero.
SPREAD, MEAN = 2.0, -4.0


def spread_scores(model: nn.Module, weights: Mapping[str, Tensor], example: Example) -> dict[str, Tensor]:
    """Change the layers that scores come from so that each class's logit varies from place to place.

    Args:
        model: A network; not changed. One that is no detector has no such layers.
        weights: Full state dict to start from; not changed.
        example: Inputs to measure on.

    Returns:
        The state dict, with other weights and biases in those layers.
    """
    detector = detector_of(model)
    if detector is None:
        return dict(weights)
    twin = detached_copy(model).eval()
    twin.load_state_dict(dict(weights))
    layers: dict[str, Any] = {path: twin.get_submodule(path) for path in detector.scores}
    seen: dict[str, list[Tensor]] = defaultdict(list)
    for path, layer in layers.items():
        layer.register_forward_hook(lambda _m, _args, out, path=path: seen[path].append(_by_channel(out)))
    with torch.no_grad():
        twin(*example.args, **example.kwargs)
        for path, outputs in seen.items():
            _spread(layers[path], torch.cat(outputs, dim=1))
    return dict(twin.state_dict())


def _by_channel(output: Tensor) -> Tensor:
    """Bring (N, C) or (N, C, H, W) to (C, places)."""
    return output.transpose(0, 1).flatten(1)


def _spread(layer: nn.Linear | nn.Conv2d, seen: Tensor) -> None:
    """Scale and shift each output channel to `SPREAD` and `MEAN`, in place; one that hardly varies stays as it is.

    A map of one place has no deviation: there, it is that of all channels.
    """
    if layer.bias is None:
        return
    seen = seen if seen.shape[1] > 1 else seen.reshape(1, -1)
    mean, deviation = seen.mean(dim=1), seen.std(dim=1)
    factor = torch.where(deviation > 1e-6 * mean.abs(), SPREAD / deviation.clamp(min=1e-12), 1.0)
    factor = factor.expand(len(layer.bias))
    layer.weight.mul_(factor.reshape(-1, *[1] * (layer.weight.dim() - 1)))
    layer.bias.copy_((layer.bias - mean) * factor + MEAN)
