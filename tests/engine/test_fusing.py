"""A converted network in the form that is deployed."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

import spdify
from spdify.blocks import SPDConv
from spdify.blocks.padded_conv import PaddedConv2d
from spdify.engine import apply, fuse, fuse_blocks, plan_model
from spdify.engine.fusing import BLOCKS
from spdify.graph import survey
from spdify.records import Inputs, InputSpec
from spdify.rulebook import load_rules

SMALL = Inputs(args=(InputSpec(shape=(1, 3, 45, 38)),))


def converted(model: nn.Module, rules: str = "spd", inputs: Inputs = SMALL) -> nn.Module:
    model = model.double().eval()
    return apply(model, plan_model(model, survey(model.float(), inputs), load_rules((rules,)), inputs=inputs)).double()


def train(model: nn.Module) -> None:
    """Move every weight, also those that were zero."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * parameter.std(unbiased=False).clamp(min=0.05) * torch.randn_like(parameter))


def test_an_untouched_conversion_folds_back_to_the_original() -> None:
    original = timm.create_model("resnet18")
    folded = fuse(converted(original))
    theirs = dict(original.named_modules())
    for path, module in folded.named_modules():
        assert type(module) is type(theirs[path]), path
    assert folded.state_dict().keys() == original.state_dict().keys()
    assert all(torch.equal(value, original.state_dict()[name]) for name, value in folded.state_dict().items())


def test_trained_networks_compute_the_same() -> None:
    for name in ("mobilenetv3_small_050", "nf_regnet_b0", "resnetblur18"):
        model = converted(timm.create_model(name))
        train(model)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        folded = fuse(model)
        x = torch.randn(2, 3, 45, 38, dtype=torch.float64)
        with torch.no_grad():
            torch.testing.assert_close(folded(x), model(x), rtol=1e-9, atol=1e-9)
        left: list[Any] = [m for m in folded.modules() if type(m) in BLOCKS]
        assert all(m.form == "strided" for m in left)
        assert [m for m in model.modules() if type(m) in BLOCKS]
        assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())


def test_what_stays_is_named() -> None:
    model = converted(timm.create_model("resnet18"), rules="spd-released")
    train(model)
    sites = fuse_blocks(model)
    kept = {site.path: site.reason for site in sites if not site.form}
    assert {"layer2.0.conv1", "layer3.0.conv1", "layer4.0.conv1"} == kept.keys()
    assert all("all of them" in reason for reason in kept.values())
    assert {site.path for site in sites if site.form} == {"maxpool", "conv1"}


def test_a_block_at_several_paths_stays_one() -> None:
    conv = SPDConv(3, 3, 1)
    model = nn.ModuleDict({"one": conv, "two": conv})
    (site,) = fuse_blocks(model)
    assert site.path == "one"
    assert model["one"] is model["two"]
    assert type(model["one"]) is PaddedConv2d


def test_the_public_name() -> None:
    assert spdify.fuse is fuse
