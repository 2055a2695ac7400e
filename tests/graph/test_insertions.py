"""Sites of other kinds: ends of stages and blocks, the input, pyramids, plain convolutions."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import pytest
import timm
import torch
from torch import Tensor, nn

from spdify.graph import survey
from spdify.graph.edits import edit_module
from spdify.graph.insertions import entry_method
from spdify.records import Inputs, InputSpec

if TYPE_CHECKING:
    from spdify.records import Kind, Site

SIDE = 64


def found(model: nn.Module, *kinds: Kind, size: int = SIDE) -> list[Site]:
    seen = survey(model, Inputs(args=(InputSpec(shape=(1, 3, size, size)),)), kinds)
    return [site for site in seen.sites if site.kind != "downsampling"]


#: Name → paths of the stage ends, channels of each.
STAGES = {
    "resnet18": (["layer1", "layer2", "layer3", "layer4"], [64, 128, 256, 512]),
    "efficientnet_b0": ([f"blocks.{i}" for i in (0, 1, 2, 4, 6)], [16, 24, 40, 112, 320]),
    "convnext_atto": ([f"stages.{i}" for i in range(4)], [40, 80, 160, 320]),
    "densenet121": ([*(f"features.denseblock{i}" for i in (1, 2, 3)), "features"], [256, 512, 1024, 1024]),
}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_ends_with_the_last_map_of_its_size(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    sites = found(model, "stage_end")
    assert ([site.path for site in sites], [site.geometry.in_channels for site in sites]) == STAGES[name]
    assert [site.stage for site in sites] == list(range(len(sites)))
    assert {site.operation for site in sites} == {"end:0"}


def test_tokens_and_channels_last_are_no_stages() -> None:
    for name, size in (("vit_tiny_patch16_224", 224), ("swin_tiny_patch4_window7_224", 224)):
        with torch.device("meta"):
            model = timm.create_model(name)
        assert not found(model, "stage_end", "block_end", size=size)


def test_blocks_end_in_the_order_in_which_they_run() -> None:
    with torch.device("meta"):
        model = timm.create_model("resnet18")
    paths = [site.path for site in found(model, "block_end")]
    assert paths == [f"layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1)]


def test_convolutions_that_do_not_downsample() -> None:
    with torch.device("meta"):
        model = timm.create_model("resnet18")
    sites = found(model, "convolution")
    assert len(sites) == 13  # 20 convolutions: 1 + 3 strided, 3 shortcuts
    assert {site.geometry.kernel for site in sites} == {(3, 3)}
    assert {site.stage for site in sites} == {0, 1, 2, 3}
    assert sites[0].macs == 16 * 16 * 64 * 64 * 9


class Pyramid(nn.Module):
    """Two maps of different sizes, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        a = self.first(x)
        return OrderedDict(fine=a, coarse=self.second(a))


class Around(nn.Module):
    """Something around a pyramid that gives the same, in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Pyramid()

    def forward(self, x: Tensor) -> list[Tensor]:
        return [*self.inner(x).values()]


def test_the_outermost_of_several_pyramids() -> None:
    (site,) = found(Around(), "pyramid")
    assert (site.path, site.operation) == ("", "end:0")
    assert [call.output[1] for call in site.calls] == [4, 6]


def test_maps_of_one_size_are_no_pyramid() -> None:
    class Twice(Around):
        def forward(self, x: Tensor) -> list[Tensor]:
            fine = self.inner(x)["fine"]
            return [fine, fine + 1]

    sites = found(Twice(), "pyramid")
    assert [site.path for site in sites] == ["inner"]


def test_the_image_goes_in_where_features_are_made() -> None:
    with torch.device("meta"):
        model = timm.create_model("resnet18")
    (site,) = found(model, "input")
    assert (site.path, site.operation, site.geometry.in_channels) == ("", "forward_features:input:0", 3)


def test_code_that_does_something_first_is_entered_by_forward() -> None:
    class First(nn.Module):
        def forward_features(self, x: Tensor) -> Tensor:
            return x

        def forward(self, x: Tensor) -> Tensor:
            y = x + 1
            return self.forward_features(y)

    assert entry_method(First()) == "forward"


def test_a_second_block_has_a_number_of_its_own() -> None:
    model = timm.create_model("resnet10t")
    model.layer1.add_module("end_0", nn.Identity())
    edit_module(model.layer1, (("end:0", "stage_end"),))
    operations = {site.path: site.operation for site in found(model, "stage_end")}
    assert operations["layer1"] == "end:1"
    assert operations["layer2"] == "end:0"


def test_a_network_that_wants_targets_has_sites_in_eval_mode_only() -> None:
    class Strict(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor, targets: object = None) -> Tensor:
            if self.training and targets is None:
                msg = "targets should not be none"
                raise ValueError(msg)
            return self.conv(x)

    (site,) = found(Strict(), "convolution")
    assert site.modes == ("eval",)


def stage() -> nn.Sequential:
    """Three convolutions, of which the first halves the map."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1)
    )


class Staged(nn.Module):
    """One stage between an entry and a head, as a kind of module that the test gives."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.head = inner, nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        y = y["out"] if isinstance(y, dict) else y[0] if isinstance(y, tuple) else y
        return self.head(y.mean((2, 3)))


class Wrapped(nn.Module):
    """Gives the map of a stage in a tuple or a dictionary."""

    def __init__(self, form: type) -> None:
        super().__init__()
        self.layers, self.form = nn.ModuleList(stage()), form

    def forward(self, x: Tensor) -> object:
        for layer in self.layers:
            x = layer(x)
        return {"out": x} if self.form is dict else (x,) if self.form is tuple else (x, None)


@pytest.mark.parametrize("form", [tuple, dict, object])
def test_a_map_in_a_tuple_or_dictionary_is_no_end(form: type) -> None:
    assert not found(Staged(Wrapped(form)), "stage_end", "block_end")


class Named(nn.Module):
    """Has something of its own under the name that a block would have."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = stage()

    @property
    def end_0(self) -> nn.Module:
        return self.layers[0]

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + self.end_0(x)


def test_names_that_a_module_has_are_passed_by() -> None:
    model = Staged(Named())
    sites = found(model, "stage_end", "block_end")
    assert [site.operation for site in sites if site.path == "inner"] == ["end:1", "end:2"]
    wanted = [("inner", "stage_end")]
    assert [(site.path, site.operator) for site in sites if site.operator == "stage_end"] == wanted


def test_a_forward_of_an_instance_would_not_call_a_block() -> None:
    model = Staged(stage())
    assert [site.path for site in found(model, "stage_end")] == ["inner"]
    model.inner.forward = model.inner.forward  # type: ignore[method-assign]
    assert not found(model, "stage_end", "block_end")


def test_what_is_run_in_parallel_is_looked_into_and_holds_the_block_itself() -> None:
    parallel = nn.DataParallel(stage())
    parallel.device_ids = []  # as where there is no GPU
    seen = survey(Staged(parallel), Inputs(args=(InputSpec(shape=(1, 3, SIDE, SIDE)),)), ("stage_end",))
    assert not seen.disagreements
    assert [site.name for site in seen.sites] == ["inner.module.0", "inner.module#end:0"]


def test_a_model_that_only_runs_in_eval_mode_has_sites_in_that_one() -> None:
    class Untrained(Staged):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                raise ValueError("targets should not be None")
            return super().forward(x)

    kinds: tuple[Kind, ...] = ("stage_end", "convolution", "input")
    assert {site.modes for site in found(Untrained(stage()), *kinds)} == {("eval",)}
    assert {site.modes for site in found(Staged(stage()), *kinds)} == {("eval", "train")}


def test_levels_with_the_channels_last_are_no_pyramid() -> None:
    class Last(Around):
        def forward(self, x: Tensor) -> list[Tensor]:
            return [level.permute(0, 2, 3, 1) for level in self.inner(x).values()]

    assert [site.path for site in found(Last(), "pyramid")] == ["inner"]


def test_a_pyramid_that_does_not_grow_with_the_image_may_end_with_one_position() -> None:
    class Resizing(Around):
        def forward(self, x: Tensor) -> list[Tensor]:
            fine, coarse = self.inner(nn.functional.interpolate(x, (32, 32))).values()
            return [fine, coarse.amax((2, 3), keepdim=True)]

    model = nn.Sequential(Resizing())
    assert [site.path for site in found(model, "pyramid")] == [""]


def test_of_two_images_none_is_the_input() -> None:
    class Difference(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            return self.conv(first - second)

    spec = InputSpec(shape=(1, 3, SIDE, SIDE))
    assert not survey(Difference(), Inputs(args=(spec, spec)), {"input"}).sites
    assert not survey(Difference(), Inputs(args=(spec,), kwargs={"second": spec}), {"input"}).sites
