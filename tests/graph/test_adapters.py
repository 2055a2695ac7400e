"""Classes of timm with a forward of their own: what is read of them, and that nothing else is taken for them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
import timm
import timm.layers
import torch
from timm.layers.conv2d_same import Conv2dSameExport
from timm.layers.pool2d_same import MaxPool2dSame
from torch import Tensor, nn

from spdify.graph import survey
from spdify.graph.adapters import TIMM, adapter_of, constants_of, module_operator, unlike
from spdify.records import Inputs, InputSpec
from tests.rewrites.sites import surveyed

if TYPE_CHECKING:
    from collections.abc import Callable

    from spdify.records import Site


@pytest.mark.parametrize(
    ("module", "operator", "window", "constants"),
    [
        (timm.layers.Conv2dSame(4, 6, 3, 2), "conv", "3x3 s2 same", {}),
        (timm.layers.AvgPool2dSame(3, 2, ceil_mode=True), "avg_pool", "3x3 s2 same ceil", {}),
        (MaxPool2dSame(3, 2, dilation=2), "max_pool", "3x3 s2 d2 same", {}),
        (timm.layers.StdConv2d(4, 6, 3, 2, eps=1e-8), "conv", "3x3 s2 p1", {"eps": 1e-8}),
        (timm.layers.StdConv2dSame(4, 6, 3, 2), "conv", "3x3 s2 same", {"eps": 1e-6}),
        (timm.layers.StdConv2dSame(4, 6, 3, 2, padding=""), "conv", "3x3 s2 p1", {"eps": 1e-6}),
        (timm.layers.StdConv2dSame(4, 6, 3, 2, padding="valid"), "conv", "3x3 s2", {"eps": 1e-6}),
        (timm.layers.ScaledStdConv2d(4, 6, 3, 2), "conv", "3x3 s2 p1", {"eps": 1e-6, "gain_scale": 36**-0.5}),
        (
            timm.layers.ScaledStdConv2dSame(4, 6, 1, 2, gamma=3.0),
            "conv",
            "1x1 s2 same",
            {"eps": 1e-6, "gain_scale": 1.5},
        ),
        (timm.layers.BlurPool2d(4, 5), "blur_pool", "5x5 s2 p2 reflect", {}),
        (timm.layers.BlurPool2d(None, 4, 3, "constant"), "blur_pool", "4x4 s3 p2", {}),
    ],
    ids=str,
)
def test_what_is_read(module: nn.Module, operator: str, window: str, constants: dict[str, float]) -> None:
    site = surveyed(module, (4, 17, 16))
    assert site.obstacles == ()
    assert (site.operator, str(site.geometry).removesuffix(" dw"), site.constants) == (operator, window, constants)
    assert site.calls[0].output == (1, *module(torch.zeros(1, 4, 17, 16)).shape[1:])
    spatial = site.calls[0].output[2:]
    assert tuple(site.geometry.output_size(n, axis) for axis, n in enumerate((17, 16))) == spatial


@pytest.mark.parametrize("padding", ["", "same"])
def test_a_conditional_convolution_in_both_modes(padding: str) -> None:
    """Its operator runs over a batch that lies in the channels; the site has the module's own."""
    module = timm.layers.CondConv2d(4, 6, 3, 2, padding, groups=2, bias=True)
    site = surveyed(module, (4, 17, 16), (4,))
    assert site.modes == ("eval", "train")
    assert (site.geometry.in_channels, site.geometry.out_channels, site.geometry.groups) == (4, 6, 2)
    assert site.geometry.bias
    assert (site.geometry.padding_mode == "same") == (padding == "same")
    assert site.calls[0].input == (1, 4, 17, 16)
    assert site.constants == {"experts": 4}


class FoldedFrames(nn.Module):
    """Frames in the batch, and inputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = timm.layers.CondConv2d(3, 4, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        frames = x.flatten(0, 1)
        return self.conv(x=frames, routing_weights=frames.mean((2, 3))[:, :1].expand(-1, 4))


def test_frames_in_the_batch_of_a_conditional_convolution(inputs_of: Callable[..., Inputs]) -> None:
    seen = survey(FoldedFrames(), inputs_of(5, 3, 16, 16))
    assert not seen.disagreements
    (site,) = seen.sites
    assert (site.obstacles, site.calls[0].input) == ((), (5, 3, 16, 16))


def test_a_convolution_without_stride_is_no_site(inputs_of: Callable[..., Inputs]) -> None:
    model = nn.Sequential(
        timm.layers.StdConv2d(3, 3, 3), timm.layers.BlurPool2d(3, stride=1), timm.layers.Conv2dSame(3, 3, 2)
    )
    seen = survey(model, inputs_of(3, 16, 16))
    assert (seen.sites, seen.left_alone, seen.disagreements) == ((), (), ())


def own_forward(base: Any) -> type[nn.Module]:  # noqa: ANN401 - classes of timm have no types
    class Twice(base):  # type: ignore[misc]
        def forward(self, *args: Tensor) -> Tensor:
            return 2 * super().forward(*args)

    return Twice


def plain_subclass(base: Any) -> type[nn.Module]:  # noqa: ANN401 - as above
    class Renamed(base):  # type: ignore[misc]
        pass

    return Renamed


@pytest.mark.parametrize("derive", [own_forward, plain_subclass])
@pytest.mark.parametrize(
    ("base", "arguments"),
    [
        (timm.layers.Conv2dSame, (4, 4, 3, 2)),
        (MaxPool2dSame, (3, 2)),
        (timm.layers.AvgPool2dSame, (3, 2)),
        (timm.layers.ScaledStdConv2d, (4, 4, 3, 2)),
        (timm.layers.BlurPool2d, (4,)),
    ],
)
def test_a_subclass_is_seen_by_both_eyes_and_refused(base: Any, arguments: Any, derive: Any) -> None:  # noqa: ANN401
    kind = derive(base)
    site = surveyed(kind(*arguments), (4, 17, 16))
    assert "its own forward" in "; ".join(site.obstacles)
    assert site.constants == {}


def test_a_subclass_of_a_conditional_convolution() -> None:
    site = surveyed(own_forward(timm.layers.CondConv2d)(4, 6, 3, 2), (4, 17, 16), (4,))
    assert "its own forward" in "; ".join(site.obstacles)


def test_a_class_that_only_bears_the_name_is_not_taken_for_it() -> None:
    class Conv2dSame(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + 1)

    Conv2dSame.__module__ = "timm.layers.conv2d_same"
    assert adapter_of(Conv2dSame(3, 3, 3, 2)) is None
    assert "its own forward" in surveyed(Conv2dSame(4, 4, 3, 2), (4, 16, 16)).obstacles[0]


def test_classes_that_no_adapter_knows() -> None:
    assert adapter_of(nn.Conv2d(3, 3, 3)) is None
    assert adapter_of(Conv2dSameExport(3, 3, 3, 2)) is None
    assert constants_of(nn.Conv2d(3, 3, 3)) == {}
    assert module_operator(nn.ReLU()) is None


def test_every_adapter_is_for_a_class_that_timm_has() -> None:
    for name, adapter in TIMM.items():
        homes = [m for key, m in sys.modules.items() if key.startswith("timm.layers.") and hasattr(m, name)]
        kind = getattr(homes[0], name)
        module = kind.__new__(kind)
        nn.Module.__init__(module)
        assert adapter_of(module) is adapter


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: setattr(m, "eps", 1e-3), "eps 0.001, planned 1e-06"),
        (lambda m: setattr(m, "scale", 2.0), "gain_scale 2.0, planned"),
        (lambda m: setattr(m, "same_pad", False), "padding_mode zeros, planned same"),
    ],
)
def test_a_module_with_other_constants(change: Callable[[Any], None], words: str) -> None:
    module = timm.layers.ScaledStdConv2dSame(4, 6, 3, 2)
    site = surveyed(module, (4, 17, 16))
    assert unlike(module, site) == ""
    change(module)
    assert words in unlike(module, site)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((4, 5), "filt_size 5, planned 3"),
        ((4, 3, 4), "stride 4, planned 2"),
        ((4, 3, 2, "constant"), "padding_mode zeros, planned reflect"),
    ],
)
def test_a_blur_pool_with_another_filter(arguments: Any, words: str) -> None:  # noqa: ANN401 - its arguments
    site: Site = surveyed(timm.layers.BlurPool2d(4), (4, 17, 16))
    assert unlike(timm.layers.BlurPool2d(4), site) == ""
    assert words in unlike(timm.layers.BlurPool2d(*arguments), site)


@pytest.mark.parametrize(
    ("name", "size", "kinds"),
    [
        ("tf_efficientnet_cc_b0_4e", 64, {"Conv2dSame", "CondConv2d"}),
        ("resnetblur18", 64, {"Conv2d", "BlurPool2d"}),
        ("vit_tiny_r_s16_p8_224", 64, {"StdConv2dSame", "MaxPool2dSame", "Conv2d"}),
    ],
)
def test_whole_networks(name: str, size: int, kinds: set[str]) -> None:
    model = timm.create_model(name, num_classes=2, **({"img_size": size} if "vit" in name else {}))
    seen = survey(model, Inputs(args=(InputSpec(shape=(1, 3, size, size)),)))
    assert not seen.disagreements
    assert kinds <= {site.type_name for site in seen.sites}
    assert all(site.obstacles == () for site in seen.sites)
