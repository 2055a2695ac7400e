"""A converted timm model still is timm's model: its own methods work, untouched parameters keep their names."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

import spdify

SIZE = 64
LARGE = [pytest.param(name, marks=pytest.mark.slow) for name in ("densenet121", "efficientnet_b0", "convnext_tiny")]
NAMES = ["resnet18", "mobilenetv3_small_100", *LARGE]


@pytest.fixture(scope="module", params=NAMES)
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, spdify.Conversion]:
    """Give a model with weights that let every branch be seen, and its conversion."""
    torch.manual_seed(0)
    model = timm.create_model(request.param, num_classes=7).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5)
    return model, spdify.convert(model, example_input=torch.randn(1, 3, SIZE, SIZE), proof="site")


def images(batch: int = 2, size: int = SIZE) -> torch.Tensor:
    """Give images; 61 is divided by no stride."""
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    """Compare float32 results relative to their scale: 1e-4 is rounding through a deep network."""
    assert a.shape == b.shape
    assert (a - b).abs().max() <= 1e-4 * a.abs().max()
    assert a.std() > 0


@torch.no_grad()
def test_features_and_head(pair: tuple[nn.Module, spdify.Conversion]) -> None:
    model, conversion = pair
    for size in (SIZE, 61, 96):
        x = images(size=size)
        features = conversion.model.forward_features(x)
        close(model.forward_features(x), features)
        close(model.forward_head(model.forward_features(x)), conversion.model.forward_head(features))
        close(model.forward_head(features, pre_logits=True), conversion.model.forward_head(features, pre_logits=True))
        close(model(x), conversion.model(x))


@torch.no_grad()
def test_forward_intermediates(pair: tuple[nn.Module, spdify.Conversion]) -> None:
    model, conversion = pair
    final, maps = model.forward_intermediates(images())
    converted_final, converted_maps = conversion.model.forward_intermediates(images())
    close(final, converted_final)
    assert len(maps) == len(converted_maps) >= 4
    for a, b in zip(maps, converted_maps, strict=True):
        close(a, b)
    assert list(conversion.model.feature_info) == list(model.feature_info)


def test_names_of_untouched_parameters(pair: tuple[nn.Module, spdify.Conversion]) -> None:
    model, conversion = pair
    sites = {d.site.path for d in conversion.plan.applied}
    untouched = {k: v for k, v in model.state_dict().items() if k.rpartition(".")[0] not in sites}
    converted = conversion.model.state_dict()
    assert untouched
    assert all(torch.equal(converted[k], v) for k, v in untouched.items())
    convs = [d.site.path for d in conversion.plan.applied if d.site.operator == "conv"]
    assert all(f"{path}.weight" in converted for path in convs)
    assert type(conversion.model) is type(model)


def test_reset_classifier_and_train_step(pair: tuple[nn.Module, spdify.Conversion]) -> None:
    _, conversion = pair
    converted = spdify.apply(pair[0], conversion.plan)
    converted.reset_classifier(5)
    converted.train()
    optimiser = torch.optim.SGD(converted.parameters(), lr=0.01)
    before = {k: v.clone() for k, v in converted.named_parameters()}
    logits = converted(images(4))
    assert logits.shape == (4, 5)
    loss = nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 3]))
    loss.backward()
    optimiser.step()
    assert loss.isfinite()
    sites = tuple(f"{d.site.path}." for d in conversion.plan.applied)
    moved = [k for k, v in converted.named_parameters() if k.startswith(sites) and not torch.equal(v, before[k])]
    assert moved == [k for k, _ in converted.named_parameters() if k.startswith(sites)]


def test_original_is_unchanged_by_training_the_conversion(pair: tuple[nn.Module, spdify.Conversion]) -> None:
    model, conversion = pair
    converted = spdify.apply(model, conversion.plan)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        for parameter in converted.parameters():
            parameter.add_(1)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
