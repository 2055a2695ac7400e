"""A strided convolution becomes an SPD-Conv with the same function."""

from __future__ import annotations

from typing import Any

import pytest
import timm.layers
import torch
from pydantic import ValidationError
from torch import nn

from spdify.blocks import SPDCondConv, SPDConv, SPDPointwiseConv, SPDStdConv, SPDStdPointwiseConv
from spdify.blocks.spd_std_conv import standardised
from spdify.rewrites import ReplaceStridedConv
from spdify.rewrites.strided_conv import StridedConvParams
from tests.rewrites.sites import check_refused, check_transformed, site_of, surveyed

SIZES = {1: [(17,), (20,)], 2: [(15, 17), (16, 13), (18, 20)], 3: [(9, 11, 12), (10, 9, 11)]}


def rewrite(**params: Any) -> ReplaceStridedConv:  # noqa: ANN401 - parameters of the rewrite
    return ReplaceStridedConv(StridedConvParams(**params))


@pytest.mark.parametrize(
    ("module", "fields", "reason"),
    [
        (nn.MaxPool2d(2), {}, "is for conv, this is a max_pool"),
        (nn.AvgPool2d(2), {}, "is for conv, this is a avg_pool"),
        (nn.Conv2d(4, 8, 3, 2), {"operator": "slice"}, "this is a slice"),
        (nn.Conv2d(4, 8, 3, 2), {"path": ""}, "torch.nn.Sequential(model)"),
        (nn.Conv2d(4, 8, 3, 2), {"obstacles": ("it has forward hooks",)}, "it has forward hooks"),
        (nn.Conv2d(4, 8, 3, 2), {"obstacles": ("its weight is shared with b", "c")}, "shared with b; c"),
    ],
)
def test_refused(module: nn.Module, fields: dict[str, Any], reason: str) -> None:
    check_refused(rewrite(), site_of(module, channels=4, **fields), reason)


@pytest.mark.parametrize("pointwise", ["separable", "grouped", "dense"])
@pytest.mark.parametrize("kernel", ["minimal", "odd"])
@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(4, 6, 3, 2, 1),
        nn.Conv2d(4, 6, 3, 2, 1, bias=False),
        nn.Conv2d(4, 8, 3, 2, 1, groups=2),
        nn.Conv2d(6, 6, 3, 2, 1, groups=6),
        nn.Conv2d(3, 6, 5, 2, 2, groups=3),
        nn.Conv2d(4, 6, 3, 2, 2, dilation=2),
        nn.Conv2d(4, 6, 3, 3, 4, dilation=3, groups=2),
        nn.Conv2d(4, 6, 7, 4, 3),
        nn.Conv2d(4, 6, 3, 4, 1),
        nn.Conv2d(4, 6, 4, 4),
        nn.Conv2d(4, 6, 2, 3, 5),
        nn.Conv2d(4, 6, 1, 2),
        nn.Conv2d(4, 6, 1, 3, 1, groups=2),
        nn.Conv2d(6, 6, 1, 2, groups=6),
        nn.Conv2d(1, 5, 1, 2),
        nn.Conv2d(4, 6, (3, 1), (1, 2), (1, 0)),
        nn.Conv2d(4, 6, (1, 5), (3, 2), (0, 2)),
        nn.Conv2d(4, 6, 3, 2, 1, padding_mode="reflect"),
        nn.Conv2d(4, 6, 3, 2, 2, padding_mode="replicate", groups=2),
        nn.Conv2d(4, 6, 5, 2, (2, 1), padding_mode="circular"),
        nn.Conv2d(4, 6, 3, 2, 0, padding_mode="reflect"),
        nn.Conv2d(4, 6, 1, 2, 1, padding_mode="reflect"),
        nn.Conv1d(4, 6, 3, 2, 1),
        nn.Conv1d(4, 6, 1, 4),
        nn.Conv1d(4, 4, 4, 3, 2, groups=4, padding_mode="circular"),
        nn.Conv3d(4, 6, 3, 2, 1),
        nn.Conv3d(4, 6, (1, 3, 3), (1, 2, 2), (0, 1, 1), groups=2),
        nn.Conv3d(4, 6, 1, (1, 2, 2)),
        nn.Conv3d(4, 4, 3, (2, 1, 3), 1, groups=4, padding_mode="replicate"),
    ],
    ids=str,
)
def test_transformed(module: nn.Conv1d | nn.Conv2d | nn.Conv3d, kernel: str, pointwise: str) -> None:
    torch.manual_seed(0)
    change = rewrite(kernel=kernel, pointwise=pointwise)
    block = check_transformed(change, module, SIZES[len(module.kernel_size)])
    assert (block.in_channels, block.out_channels) == (module.in_channels, module.out_channels)


def test_a_shuffled_weight_is_seen() -> None:
    class Wrong(ReplaceStridedConv):
        def weights(self, site: Any, old: Any) -> dict[str, torch.Tensor]:  # noqa: ANN401 - not looked at
            new = super().weights(site, old)
            return new | {"weight": new["weight"].roll(1, dims=1)}

    with pytest.raises(AssertionError, match="not close"):
        check_transformed(Wrong(StridedConvParams()), nn.Conv2d(4, 6, 3, 2, 1), SIZES[2])


@pytest.mark.parametrize(
    ("module", "params", "kind", "kernel"),
    [
        (nn.Conv2d(4, 6, 3, 2, 1), {}, SPDConv, (2, 2)),
        (nn.Conv2d(4, 6, 3, 2, 1), {"kernel": "odd"}, SPDConv, (3, 3)),
        (nn.Conv2d(4, 6, 16, 16), {}, SPDConv, (1, 1)),
        (nn.Conv3d(4, 6, (1, 3, 3), (1, 2, 2), (0, 1, 1)), {"kernel": "odd"}, SPDConv, (1, 3, 3)),
        (nn.Conv2d(4, 6, 1, 2), {}, SPDPointwiseConv, None),
        (nn.Conv2d(4, 6, 1, 2), {"kernel": "odd"}, SPDPointwiseConv, None),
        (nn.Conv2d(4, 6, 1, 2), {"pointwise": "grouped"}, SPDPointwiseConv, None),
        (nn.Conv2d(4, 6, 1, 2), {"pointwise": "dense"}, SPDConv, (1, 1)),
        (nn.Conv2d(4, 6, 1, 2), {"pointwise": "dense", "kernel": "odd"}, SPDConv, (1, 1)),
        (nn.Conv2d(4, 4, 1, 2, groups=4), {}, SPDConv, (1, 1)),
        (nn.Conv2d(4, 6, 1, 2, 1, padding_mode="reflect"), {}, SPDConv, (1, 1)),
    ],
)
def test_which_block(
    module: nn.Module, params: dict[str, str], kind: type[nn.Module], kernel: tuple[int, ...] | None
) -> None:
    block = rewrite(**params).build(site_of(module))
    assert type(block) is kind
    assert kernel is None or block.kernel_size == kernel


def test_the_old_weight_of_a_separable_one_is_passed_on() -> None:
    conv = nn.Conv2d(4, 6, 1, 2)
    new = rewrite().weights(site_of(conv), conv.state_dict())
    assert torch.equal(new["weight"], conv.weight)
    assert new["phase_weight"].sum() == 4
    assert torch.equal(new["phase_weight"][:, 0].flatten(), torch.ones(4))


@pytest.mark.parametrize(("channels", "mixed"), [(32, 8), (12, 4), (3, 1)])
def test_a_grouped_one_mixes_a_few_channels(channels: int, mixed: int) -> None:
    conv = nn.Conv2d(channels, 6, 1, 2)
    new = rewrite(pointwise="grouped").weights(site_of(conv), conv.state_dict())
    assert new["phase_weight"].shape == (channels, 4 * mixed, 1, 1)
    assert new["phase_weight"].sum() == channels
    assert torch.equal(new["weight"], conv.weight)
    other = rewrite(pointwise="grouped", mixed=2).build(site_of(nn.Conv2d(6, 4, 1, 2)))
    assert other.get_parameter("phase_weight").shape == (6, 8, 1, 1)


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (nn.Conv2d(4, 6, 3, 2, 1), ["minimal", "odd"]),
        (nn.Conv2d(4, 6, 1, 2), ["separable", "grouped", "dense"]),
        (nn.Conv2d(4, 4, 1, 2, groups=4), ["minimal", "odd"]),
        (nn.Conv2d(4, 6, 1, 2, 1, padding_mode="reflect"), ["minimal", "odd"]),
    ],
)
def test_forms_from_the_plainest_to_the_richest(module: nn.Module, names: list[str]) -> None:
    forms = rewrite(standardisation="bake").forms(site_of(module))
    assert list(forms) == names
    assert all(form.params.standardisation == "bake" for form in forms.values())


def test_the_claim_says_what_learns() -> None:
    assert "one-hot" in rewrite().claim(site_of(nn.Conv2d(4, 6, 1, 2))).training
    assert "zero taps" in rewrite().claim(site_of(nn.Conv2d(4, 6, 3, 2))).training


@pytest.mark.parametrize(
    "params",
    [{"kernel": "even"}, {"kernel": 3}, {"pointwise": True}, {"standardisation": "drop"}, {"mixed": 0}, {"mixed": 2.5}],
)
def test_params_that_it_does_not_take(params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        StridedConvParams(**params)


SAME = [
    timm.layers.Conv2dSame(4, 6, 3, 2),
    timm.layers.Conv2dSame(4, 4, 5, 2, groups=4, bias=False),
    timm.layers.Conv2dSame(4, 6, 3, 3, dilation=2),
    timm.layers.Conv2dSame(4, 6, (1, 4), (2, 3)),
    timm.layers.Conv2dSame(4, 6, 1, 2),
]
STANDARDISED = [
    timm.layers.StdConv2d(4, 6, 3, 2),
    timm.layers.StdConv2d(4, 6, 3, 2, 0, eps=1e-3, bias=True),
    timm.layers.StdConv2d(4, 6, 1, 2),
    timm.layers.StdConv2dSame(4, 6, 3, 2, groups=2),
    timm.layers.StdConv2dSame(4, 6, 1, 2),
    timm.layers.StdConv2dSame(4, 6, 3, 2, padding=""),
    timm.layers.ScaledStdConv2d(4, 6, 3, 2, gamma=1.7),
    timm.layers.ScaledStdConv2d(4, 6, 1, 2, bias=False),
    timm.layers.ScaledStdConv2d(4, 4, 3, 2, groups=2, dilation=2),
    timm.layers.ScaledStdConv2dSame(4, 6, 4, 3, gamma=0.5),
]
CONDITIONAL = [
    timm.layers.CondConv2d(4, 6, 3, 2),
    timm.layers.CondConv2d(4, 6, 3, 2, padding="same", groups=2, bias=True),
    timm.layers.CondConv2d(4, 4, 5, 2, padding="same", groups=4, num_experts=8),
    timm.layers.CondConv2d(4, 6, 1, 2, dilation=1),
]


@pytest.mark.parametrize("pointwise", ["separable", "grouped", "dense"])
@pytest.mark.parametrize("kernel", ["minimal", "odd"])
@pytest.mark.parametrize("module", SAME, ids=str)
def test_same_padding(module: nn.Module, kernel: str, pointwise: str) -> None:
    site = surveyed(module, (4, 17, 16))
    assert site.geometry.padding_mode == "same"
    block = check_transformed(rewrite(kernel=kernel, pointwise=pointwise), module, SIZES[2], site=site)
    separable = pointwise != "dense" and site.geometry.kernel == (1, 1)
    assert type(block) is (SPDPointwiseConv if separable else SPDConv)


@pytest.mark.parametrize("standardisation", ["keep", "bake"])
@pytest.mark.parametrize("pointwise", ["separable", "grouped", "dense"])
@pytest.mark.parametrize("kernel", ["minimal", "odd"])
@pytest.mark.parametrize("module", STANDARDISED, ids=str)
def test_standardised(module: nn.Module, kernel: str, pointwise: str, standardisation: str) -> None:
    torch.manual_seed(0)
    site = surveyed(module, (4, 17, 16))
    change = rewrite(kernel=kernel, pointwise=pointwise, standardisation=standardisation)
    block = check_transformed(change, module, SIZES[2], site=site)
    separable = pointwise != "dense" and site.geometry.kernel == (1, 1)
    kinds = (SPDStdPointwiseConv, SPDStdConv) if standardisation == "keep" else (SPDPointwiseConv, SPDConv)
    assert type(block) is kinds[0 if separable else 1]
    assert ("learn without standardisation" in change.claim(site).training) == (standardisation == "bake")
    kept = {name for name, _ in module.named_parameters()} - (set() if standardisation == "keep" else {"gain"})
    assert kept <= set(block.state_dict()), "what is kept keeps its name"


@pytest.mark.parametrize("pointwise", ["separable", "grouped", "dense"])
@pytest.mark.parametrize("kernel", ["minimal", "odd"])
@pytest.mark.parametrize("module", CONDITIONAL, ids=lambda m: f"{m.weight_shape} {m.dynamic_padding}")
def test_conditional(module: Any, kernel: str, pointwise: str) -> None:  # noqa: ANN401 - timm's class
    torch.manual_seed(0)
    site = surveyed(module, (4, 17, 16), (module.num_experts,))
    assert (site.operator, site.constants) == ("conv", {"experts": module.num_experts})
    block = check_transformed(rewrite(kernel=kernel, pointwise=pointwise), module, SIZES[2], site=site)
    assert type(block) is SPDCondConv


def test_another_gain_is_seen() -> None:
    class Wrong(ReplaceStridedConv):
        def weights(self, site: Any, old: Any) -> dict[str, torch.Tensor]:  # noqa: ANN401 - not looked at
            new = super().weights(site, old)
            return new | {"gain": new["gain"] * 1.01}

    conv = timm.layers.ScaledStdConv2d(4, 6, 3, 2)
    with pytest.raises(AssertionError, match="not close"):
        check_transformed(Wrong(StridedConvParams()), conv, SIZES[2], site=surveyed(conv, (4, 17, 16)))


@pytest.mark.parametrize("constants", [{"eps": 1e-2}, {"gain_scale": 3.0}])
def test_another_constant_is_seen(constants: dict[str, float]) -> None:
    conv = timm.layers.ScaledStdConv2d(4, 6, 3, 2)
    site = surveyed(conv, (4, 17, 16))
    other = site.model_copy(update={"constants": site.constants | constants})
    with pytest.raises(AssertionError, match="not close"):
        check_transformed(rewrite(), conv, SIZES[2], site=other)


def test_standardising_what_was_scattered_is_seen() -> None:
    class Wrong(ReplaceStridedConv):
        def weights(self, site: Any, old: Any) -> dict[str, torch.Tensor]:  # noqa: ANN401 - not looked at
            plain = ReplaceStridedConv(StridedConvParams())
            bare = site.model_copy(update={"constants": {}})
            weight = plain.weights(bare, old)["weight"]
            return {"weight": standardised(weight, None, 1.0, site.constants["eps"])}

    conv = timm.layers.StdConv2d(4, 6, 3, 2)
    with pytest.raises(AssertionError, match="not close"):
        check_transformed(
            Wrong(StridedConvParams(standardisation="bake")), conv, SIZES[2], site=surveyed(conv, (4, 17, 16))
        )


def test_experts_in_another_order_are_seen() -> None:
    class Wrong(ReplaceStridedConv):
        def weights(self, site: Any, old: Any) -> dict[str, torch.Tensor]:  # noqa: ANN401 - not looked at
            return {name: tensor.roll(1, 0) for name, tensor in super().weights(site, old).items()}

    conv = timm.layers.CondConv2d(4, 6, 3, 2)
    with pytest.raises(AssertionError, match="not close"):
        check_transformed(Wrong(StridedConvParams()), conv, SIZES[2], site=surveyed(conv, (4, 17, 16), (4,)))


def test_the_new_weights_beside_the_standardised_ones_are_zero() -> None:
    conv = timm.layers.StdConv2d(4, 6, 3, 2)
    new = rewrite().weights(surveyed(conv, (4, 17, 16)), conv.state_dict())
    assert not new["phase_weight"].any()
    assert torch.equal(new["weight"], conv.weight)
    assert conv.weight.any()
