from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import timm
import torchvision
from torch import Tensor, nn

from spdify.graph import take_census
from spdify.graph.parts import parts_of, shown_parts
from spdify.records import Inputs, InputSpec
from spdify.reporting import measure

if TYPE_CHECKING:
    from spdify.records import Part

ZOO = {
    "timm:resnet18": ("layer1.0", "layer4.1"),
    "timm:densenet121": ("features.denseblock1.denselayer1", "features.transition1.pool"),
    "timm:convnext_atto": ("stages.1.downsample", "stages.1.blocks.0"),
    "timm:regnety_002": ("s3.b2", "s4.b7"),
    "timm:vit_tiny_patch16_224": ("patch_embed", "blocks.11"),
    "timm:hrnet_w18_small": ("stage3.0", "downsamp_modules.0"),
    "timm:repvgg_a0": ("stages.0.1", "stages.3.0"),
    "tv:googlenet": ("inception3a", "conv2"),
    "tv:mobilenet_v2": ("features.0", "features.18"),
    "tv:inception_v3": ("Mixed_5b", "Conv2d_1a_3x3"),
}


def parts(model: nn.Module, *shape: int) -> tuple[Part, ...]:
    inputs = Inputs(args=(InputSpec(shape=shape),))
    return parts_of(model, take_census(model, inputs, mode="eval"))


@pytest.mark.parametrize("name", ZOO)
def test_blocks_are_parts_and_their_costs_add_up(name: str) -> None:
    kind, _, model_name = name.partition(":")
    size = 299 if "inception" in name else 224
    make = {"inception_v3": torchvision.models.inception_v3, "googlenet": torchvision.models.googlenet}
    if kind == "timm":
        model = timm.create_model(model_name).eval()
    elif model_name in make:
        model = make[model_name](weights=None, init_weights=False).eval()
    else:
        model = torchvision.models.get_model(model_name).eval()
    inputs = Inputs(args=(InputSpec(shape=(1, 3, size, size)),))
    census = take_census(model, inputs, mode="eval")
    found, whole = parts_of(model, census), measure(model, census)
    assert set(ZOO[name]) <= {part.path for part in found}
    assert sum(part.params for part in found) == whole.params
    assert sum(part.macs for part in found) == whole.macs
    assert sum(part.activation_bytes for part in found) == whole.activation_bytes
    paths = [part.path for part in found]
    assert paths[-1] == ""
    assert not any(b.startswith(f"{a}.") for a in paths for b in paths if a)


def test_parts_are_in_the_order_of_their_calls_with_their_shapes() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.late = nn.Conv2d(4, 5, 1)
            self.early = nn.Conv2d(3, 4, 3, 2, 1)
            self.unused = nn.Linear(2, 3)
            self.idle = nn.ReLU()
            self.scale = nn.Parameter(Tensor([2.0]))

        def forward(self, x: Tensor) -> Tensor:
            return self.late(self.early(x)) * self.scale

    found = parts(Net(), 1, 3, 8, 8)
    assert [(p.path, p.input, p.output) for p in found] == [
        ("early", (1, 3, 8, 8), (1, 4, 4, 4)), ("late", (1, 4, 4, 4), (1, 5, 4, 4)), ("unused", None, None),
        ("", None, None),
    ]  # fmt: skip
    assert [p.params for p in found] == [112, 25, 9, 1]


def test_a_module_at_two_places_is_one_part() -> None:
    conv = nn.Conv2d(3, 3, 3, padding=1)
    found = parts(nn.Sequential(conv, nn.Sequential(conv, nn.ReLU()), nn.ReLU()), 1, 3, 8, 8)
    assert sum(p.params for p in found) == 84
    assert sum(p.macs for p in found) == 2 * 8 * 8 * 81


def test_what_is_called_past_its_hooks_is_seen_by_what_it_calls() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())

        def forward(self, x: Tensor) -> Tensor:
            return self.block[1](self.block[0](x))

    part, _ = parts(Net(), 1, 3, 8, 8)
    assert (part.path, part.input, part.output) == ("block", (1, 3, 8, 8), (1, 4, 8, 8))


def test_more_parts_than_anybody_reads_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(9)))
    census = take_census(model, Inputs(args=(InputSpec(shape=(1, 3, 4, 4)),)), mode="eval")
    assert len(shown_parts(model, census)) == 10
    monkeypatch.setattr("spdify.graph.parts.MAX_PARTS", 9)
    assert shown_parts(model, census) == ()
