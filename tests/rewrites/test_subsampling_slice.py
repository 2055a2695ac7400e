"""A subsampling slice becomes SPD and a depthwise convolution that picks its phase."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from spdify.records import Call, Geometry, Site
from spdify.rewrites import ReplaceSubsamplingSlice
from spdify.rewrites.base import NoParams
from tests.rewrites.sites import check_refused, site_of

REWRITE = ReplaceSubsamplingSlice(NoParams())


def slice_site(**fields: Any) -> Site:  # noqa: ANN401 - fields of Site
    geometry = Geometry(
        in_channels=4, out_channels=4, kernel=(1, 1), stride=(2, 2), padding=(0, 0), dilation=(1, 1)
    )  # fmt: skip
    call = Call(input=(1, 4, 9, 9), output=(1, 4, 5, 5))
    found: dict[str, Any] = {
        "path": "stem", "operation": "forward:slice:0", "operator": "slice", "type_name": "slice", "geometry": geometry,
        "calls": (call,), "axes": (2, 3), "starts": (0, 1), "rank": 4,
    }  # fmt: skip
    return Site(**(found | fields))


@pytest.mark.parametrize(
    ("site", "reason"),
    [
        (site_of(nn.MaxPool2d(2), channels=4), "this is a max_pool"),
        (slice_site(rank=5), "2 of 5 axes"),
        (slice_site(rank=3), "2 of 3 axes"),
        (slice_site(starts=(0, 2)), "beyond the first block"),
        (slice_site(obstacles=("several expressions step over the same tensor in turn",)), "in turn"),
    ],
)
def test_refused(site: Site, reason: str) -> None:
    check_refused(REWRITE, site, reason)


@pytest.mark.parametrize(("axes", "shape"), [((2, 3), (2, 4, 9, 10)), ((1, 2), (2, 9, 10, 4)), ((1, 3), (2, 9, 4, 10))])
def test_transformed(axes: tuple[int, int], shape: tuple[int, ...]) -> None:
    site = slice_site(axes=axes)
    assert REWRITE.check(site) is None
    assert REWRITE.claim(site).value == "exact"
    block, new = REWRITE.build(site), REWRITE.weights(site, {})
    assert {name: t.shape for name, t in new.items()} == {name: t.shape for name, t in block.state_dict().items()}
    block.load_state_dict(new)
    x = torch.randn(shape)
    index = [slice(None)] * 4
    index[axes[0]], index[axes[1]] = slice(0, None, 2), slice(1, None, 2)
    assert torch.equal(block(x), x[tuple(index)])
    assert REWRITE.input_shapes(site, (9, 10), batch=2) == ((shape,),)


def test_a_wrong_phase_is_seen() -> None:
    site = slice_site()
    block = REWRITE.build(site)
    block.load_state_dict({"weight": REWRITE.weights(site, {})["weight"].flip(1)})
    x = torch.randn(2, 4, 9, 9)
    assert not torch.equal(block(x), x[:, :, ::2, 1::2])
