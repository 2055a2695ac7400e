"""Both eyes put together: they agree on all kinds of networks, and one eye that is blinded is noticed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from spdify.blocks import SPDConv, SPDMaxPool
from spdify.errors import TraceError
from spdify.graph import survey
from spdify.graph.census import CensusMode
from spdify.graph.slices import SliceBook
from spdify.graph.trace import _Reader
from spdify.records import Inputs, InputSpec

if TYPE_CHECKING:
    from collections.abc import Callable


class Functional(nn.Module):
    """Functional calls with arguments in all places."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.weight, None, 2, padding=1)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        x = F.avg_pool2d(input=x, kernel_size=2, ceil_mode=True, count_include_pad=False)
        return F.adaptive_avg_pool2d(x, 1)


def test_functional_calls(inputs_of: Callable[..., Inputs]) -> None:
    seen = survey(nn.Sequential(Functional()), inputs_of(3, 30, 30))
    assert not seen.disagreements
    assert {site.name: str(site.geometry) for site in seen.sites} == {
        "0#forward:conv2d:0": "3x3 s2 p1",
        "0#forward:max_pool2d:0": "3x3 s2 p1",
        "0#forward:avg_pool2d:0": "2x2 s2 ceil",
    }
    assert not seen.sites[2].geometry.count_include_pad
    assert [left.reason for left in seen.left_alone] == ["global: pools the whole map"]


def test_resnet18(inputs_of: Callable[..., Inputs]) -> None:
    seen = survey(torchvision.models.resnet18(), inputs_of(3, 64, 64))
    assert not seen.disagreements
    assert [site.path for site in seen.sites] == [
        "conv1", "maxpool", "layer2.0.conv1", "layer2.0.downsample.0", "layer3.0.conv1", "layer3.0.downsample.0",
        "layer4.0.conv1", "layer4.0.downsample.0",
    ]  # fmt: skip
    stem = seen.sites[0]
    assert (stem.calls[0].input, stem.calls[0].output) == ((1, 3, 64, 64), (1, 64, 32, 32))
    assert stem.macs == 3 * 64 * 49 * 32 * 32
    assert stem.modes == ("eval", "train")


@pytest.mark.parametrize(
    ("model", "shape", "sites"),
    [
        (nn.Sequential(nn.Conv1d(2, 4, 5, 2), nn.MaxPool1d(2), nn.AvgPool1d(3, 2, 1)), (2, 64), 3),
        (nn.Sequential(nn.Conv3d(2, 4, 3, 2), nn.MaxPool3d(2), nn.AvgPool3d((1, 2, 2))), (2, 17, 17, 17), 3),
        (nn.Sequential(nn.AvgPool1d(2), nn.AdaptiveMaxPool1d(1)), (2, 64), 1),
        (nn.Sequential(nn.ConvTranspose2d(2, 4, 2, 2), nn.MaxPool2d(3, 1)), (2, 8, 8), 0),
        (nn.Sequential(nn.Conv2d(2, 4, 3, 2, "valid"), nn.Conv2d(4, 4, 3, padding="same")), (2, 9, 9), 1),
        (nn.Sequential(nn.LPPool2d(2, 2)), (2, 8, 8), 1),
    ],
)
def test_eyes_agree_in_every_dimension(
    model: nn.Module, shape: tuple[int, ...], sites: int, inputs_of: Callable[..., Inputs]
) -> None:
    seen = survey(model, inputs_of(*shape))
    assert len(seen.sites) == sites
    assert not seen.disagreements


@pytest.mark.parametrize(
    ("name", "size", "sites", "inside"),
    [("nf_resnet26", 64, 8, "stages.1.0"), ("levit_128s", 224, 6, "")],
)
def test_timm_models_with_composite_leaves_and_slices(
    name: str, size: int, sites: int, inside: str, inputs_of: Callable[..., Inputs]
) -> None:
    seen = survey(timm.create_model(name, num_classes=2), inputs_of(3, size, size))
    assert len(seen.sites) == sites
    assert not seen.disagreements
    assert inside in {site.inside for site in seen.sites}


def test_one_module_called_twice_is_one_site(inputs_of: Callable[..., Inputs]) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.inner = nn.Conv2d(3, 3, 3, 2, 1), Functional()

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.conv(x)).sum() + self.inner(x) + self.inner(x[:, :, 2:, 2:])

    seen = survey(Twice(), inputs_of(3, 32, 32))
    assert not seen.disagreements
    assert [call.input for call in seen.sites[0].calls] == [(1, 3, 32, 32), (1, 3, 16, 16)]
    assert len(seen.sites) == 1 + 3
    assert [len(site.calls) for site in seen.sites[1:]] == [2, 2, 2]


def test_a_shared_module_has_aliases(inputs_of: Callable[..., Inputs]) -> None:
    pool = nn.MaxPool2d(2)
    seen = survey(nn.Sequential(pool, nn.Conv2d(3, 3, 1), nn.Sequential(pool)), inputs_of(3, 16, 16))
    assert not seen.disagreements
    (site,) = seen.sites
    assert (site.path, site.aliases, len(site.calls)) == ("0", ("2.0",), 2)


class Auxiliary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.aux, self.main = nn.Conv2d(3, 2, 3, 2), nn.Conv2d(3, 2, 3, 1)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return (self.main(x), self.aux(x)) if self.training else self.main(x)


def test_a_site_of_train_mode_only(inputs_of: Callable[..., Inputs]) -> None:
    seen = survey(Auxiliary().eval(), inputs_of(3, 16, 16))
    assert not seen.disagreements
    (site,) = seen.sites
    assert (site.path, site.modes) == ("aux", ("train",))
    assert site.calls[0].input == (1, 3, 16, 16)


def test_frames_folded_into_the_batch_stay_in_the_shapes(inputs_of: Callable[..., Inputs]) -> None:
    class Frames(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x.flatten(0, 1))

    (site,) = survey(Frames(), inputs_of(5, 3, 16, 16)).sites
    assert site.calls[0].input == (5, 3, 16, 16)


def test_blocks_of_spdify_are_leaves_that_do_not_downsample(inputs_of: Callable[..., Inputs]) -> None:
    model = nn.Sequential(SPDConv(3, 4, 3, 2), SPDMaxPool(4, [3, 3], [2, 2], [1, 1], [1, 1]))
    seen = survey(model, inputs_of(3, 32, 32))
    assert (seen.sites, seen.disagreements) == ((), ())


def test_a_block_in_strided_form_is_noticed(inputs_of: Callable[..., Inputs]) -> None:
    assert survey(nn.Sequential(SPDConv(3, 4, 3, 2, form="strided")), inputs_of(3, 32, 32)).disagreements


NETWORKS: dict[str, nn.Module] = {
    "conv": nn.Sequential(nn.Conv2d(3, 3, 3, 2)),
    "pool": nn.Sequential(nn.MaxPool2d(2)),
    "function": Functional(),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_a_blind_trace_is_noticed(
    network: str, inputs_of: Callable[..., Inputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Reader, "_note", lambda *_: None)
    seen = survey(NETWORKS[network], inputs_of(3, 30, 30))
    assert "the trace does not show it" in seen.disagreements[0]
    assert {text.split(":")[0] for text in seen.disagreements} == {"eval", "train"}


@pytest.mark.parametrize("network", NETWORKS)
def test_a_blind_census_is_noticed(
    network: str, inputs_of: Callable[..., Inputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CensusMode, "_note", lambda *_: None)
    seen = survey(NETWORKS[network], inputs_of(3, 30, 30))
    assert "the forward pass does not run it" in seen.disagreements[0]


@pytest.mark.parametrize("blind", [CensusMode, _Reader])
def test_a_slice_that_one_eye_misses_is_noticed(
    blind: type, inputs_of: Callable[..., Inputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slicing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :, ::2, ::2]

    monkeypatch.setattr(blind, "_note_slice", lambda *_: None)
    assert len(survey(Slicing(), inputs_of(3, 16, 16)).disagreements) == 2
    assert SliceBook().operations() == []


class Pools(nn.Module):
    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.conv, self.pool = nn.Conv2d(3, 4, 1), pool


class OverTransposed(Pools):
    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.conv(x).permute(0, 2, 3, 1))


class GlobalToo(Pools):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.pool(x), self.pool(nn.functional.adaptive_avg_pool2d(self.conv(x), 4))


class OverBoth(Pools):
    """Channels of 4 and, transposed, of the height; at twice the size the height is a count that is known already."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        wide = torch.cat([x] * 11, 1)[:, :32]
        return self.pool(x.permute(0, 2, 3, 1)), self.pool(wide)


class MoreInTraining(Pools):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.pool(x), self.pool(self.conv(x))) if self.training else (self.pool(x),)


@pytest.mark.parametrize("kind", [OverTransposed, OverBoth])
def test_a_pool_whose_channels_depend_on_the_input_size_has_an_obstacle(kind: type[Pools]) -> None:
    found = survey(kind(nn.AvgPool2d((1, 2))), Inputs(args=(InputSpec(shape=(1, 3, 16, 16)),)))
    (site,) = found.sites
    assert "its number of channels depends on the input size" in " ".join(site.obstacles)


@pytest.mark.parametrize("model", [GlobalToo(nn.MaxPool2d(4, 3)), MoreInTraining(nn.AvgPool2d(2))])
def test_a_pool_over_several_channel_counts_has_them_all(model: nn.Module) -> None:
    (site,) = survey(model, Inputs(args=(InputSpec(shape=(1, 3, 16, 16)),))).sites
    assert (site.channels, site.obstacles) == ((3, 4), ())


def test_a_pool_over_one_channel_count_lists_none() -> None:
    model = nn.Sequential(nn.MaxPool2d(2), nn.MaxPool2d(2))
    assert [s.channels for s in survey(model, Inputs(args=(InputSpec(shape=(1, 3, 16, 16)),))).sites] == [(), ()]


def test_a_weight_that_is_a_buffer_is_an_obstacle() -> None:
    conv = nn.Conv2d(3, 4, 3, 2)
    weight = conv.weight.detach()
    del conv.weight
    conv.register_buffer("weight", weight)
    (site,) = survey(nn.Sequential(conv), Inputs(args=(InputSpec(shape=(1, 3, 9, 9)),))).sites
    assert "it holds more than a weight and a bias parameter: weight" in site.obstacles


class NeedsTargets(nn.Module):
    def __init__(self, *, fails_in: bool) -> None:
        super().__init__()
        self.conv, self.fails_in = nn.Conv2d(3, 4, 3, 2), fails_in

    def forward(self, x: Tensor) -> Tensor:
        if self.training is self.fails_in:
            msg = "targets should not be none"
            raise ValueError(msg)
        return self.conv(x)


def test_a_model_that_does_not_train_on_these_inputs_is_surveyed_in_eval_mode(inputs_of: Callable[..., Inputs]) -> None:
    seen = survey(NeedsTargets(fails_in=True), inputs_of(3, 16, 16))
    (site,) = seen.sites
    assert site.modes == ("eval",)
    assert seen.eval_only.endswith("targets should not be none")
    assert not seen.disagreements


def test_a_model_that_does_not_run_in_eval_mode_is_an_error(inputs_of: Callable[..., Inputs]) -> None:
    with pytest.raises(TraceError, match="in eval mode"):
        survey(NeedsTargets(fails_in=False), inputs_of(3, 16, 16))
