"""A spatial transformer before the network, which starts as the identity."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import pytest
import timm
import torch
from pydantic import ValidationError
from torch import nn

from spdify.blocks import SpatialTransformer
from spdify.engine import apply, make_plan
from spdify.graph import fingerprint, survey
from spdify.records import Inputs, InputSpec
from spdify.rewrites import InsertSpatialTransformer
from spdify.rewrites.stn import SpatialTransformerParams
from spdify.rulebook import load_rules
from tests.rewrites.sites import check_refused, site_of

if TYPE_CHECKING:
    from spdify.records import Plan, Site

INPUTS = Inputs(args=(InputSpec(shape=(1, 3, 32, 32)),))


def rewrite(**params: Any) -> InsertSpatialTransformer:  # noqa: ANN401 - parameters of the rewrite
    return InsertSpatialTransformer(SpatialTransformerParams(**params))


def planned(model: nn.Module) -> Plan:
    book = load_rules(("stn",))
    return make_plan(survey(model, INPUTS, book.kinds), book, fingerprint=fingerprint(model), inputs=INPUTS)


def input_of(model: nn.Module) -> Site:
    (site,) = (s for s in survey(model, INPUTS, {"input"}).sites if s.kind == "input")
    return site


def test_refused() -> None:
    check_refused(rewrite(), site_of(nn.Conv2d(3, 4, 3, 2)), "is for input, this is a conv")


@pytest.mark.parametrize("params", [{"width": 0}, {"width": 2000}, {"width": "16"}, {"depth": 2}])
def test_parameters_that_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        rewrite(**params)


def test_weights_are_those_of_a_fresh_block_and_the_same_each_time() -> None:
    site = input_of(nn.Sequential(nn.Conv2d(3, 4, 3, 2)))
    first, second = (rewrite(width=4).weights(site, {}) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert {name: t.shape for name, t in first.items()} == {
        name: t.shape for name, t in SpatialTransformer(3, width=4).state_dict().items()
    }
    assert first["conv1.weight"].any()
    assert not first["fc2.weight"].any()
    assert rewrite().claim(site).value == "exact"


def test_features_and_scores_are_seen_through_it() -> None:
    model = timm.create_model("resnet10t").eval()
    converted = apply(model, planned(model))
    assert isinstance(converted.get_submodule("forward_features_input_0"), SpatialTransformer)
    x = torch.randn(2, 3, 33, 47)
    torch.testing.assert_close(converted(x), model(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(converted.forward_features(x), model.forward_features(x), rtol=1e-4, atol=1e-4)
    nn.init.constant_(converted.get_parameter("forward_features_input_0.fc2.bias"), 0.5)
    assert (converted.forward_features(x) - model.forward_features(x)).abs().max() > 0.1
    for twin in (copy.deepcopy(converted), pickle.loads(pickle.dumps(converted))):  # noqa: S301 - made here
        assert torch.equal(twin(x), converted(x))
    assert converted.train()(x).shape == (2, 1000)


def test_a_dictionary_of_layers_is_entered_by_its_forward_pass() -> None:
    model = timm.create_model("resnet10t", features_only=True).eval()
    converted = apply(model, planned(model))
    x = torch.randn(2, 3, 32, 32)
    for actual, expected in zip(converted(x), model(x), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    assert list(converted) == list(model)
