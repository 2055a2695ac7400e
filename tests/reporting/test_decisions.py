from __future__ import annotations

import torch
from torch import nn

import spdify
from spdify.reporting.decisions import compared_sites, decision_words


def test_words_name_the_rewrite_and_what_is_not_usual() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.MaxPool2d(2), nn.Conv2d(4, 4, 1))
    plain, other = (
        spdify.convert(net, example_input=torch.randn(1, 3, 16, 16), overrides=overrides, proof="site").plan
        for overrides in ((), ("strided-conv.kernel=odd", "max-pool.form=keep"))
    )
    assert [decision_words(d) for d in plain.decisions] == [
        "replace-strided-conv, exact", "replace-max-pool, exact",
    ]  # fmt: skip
    assert [decision_words(d) for d in other.decisions] == [
        "replace-strided-conv (kernel odd), exact", 'kept: max pools stay (form = "keep")',
    ]  # fmt: skip
    both = compared_sites((plain,), (other,))
    assert [(site.name, site.first, site.second) for site in both] == [
        ("0", "replace-strided-conv, exact", "replace-strided-conv (kernel odd), exact"),
        ("1", "replace-max-pool, exact", 'kept: max pools stay (form = "keep")'),
    ]
    assert compared_sites((), (plain,))[0].first == "as it is"
    assert compared_sites((), ()) == ()


def test_the_last_plan_has_the_last_word() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.MaxPool2d(2), nn.Conv2d(4, 4, 1))
    x = torch.randn(1, 3, 16, 16)
    first = spdify.convert(net, example_input=x, overrides=("max-pool.form=keep",), proof="site")
    second = spdify.convert(first.model, example_input=x, proof="site")
    words = {site.name: site.first for site in compared_sites((first.plan, second.plan), ())}
    assert words == {"0": "replace-strided-conv, exact", "1": "replace-max-pool, exact"}
