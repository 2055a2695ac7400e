"""What is decided about each site."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from spdify import convert
from spdify.records import Plan
from spdify.rulebook import join_rulebooks, load_rulebook, parse_rulebook, with_overrides
from spdify.verification.compare import relative_error
from tests.engine.networks import Net, Shared

if TYPE_CHECKING:
    from collections.abc import Callable

RULES = """
schema = 1
summary = "First match wins."

[[rule]]
name = "leave-the-stem"
rewrite = "keep"
reason = "the stem is small"
match = { path = "stem.*" }

[[rule]]
name = "odd"
rewrite = "replace-strided-conv"
match = { operator = "conv", kernel = 3 }
params = { kernel = "odd" }

[[rule]]
name = "wrong-operator"
rewrite = "replace-strided-conv"
match = { operator = "max_pool" }

[[rule]]
name = "any-conv"
rewrite = "replace-strided-conv"
match = { operator = "conv" }

[[rule]]
name = "again"
rewrite = "replace-strided-conv"
match = { operator = "conv" }
params = { pointwise = "dense" }
"""


def test_the_first_rule_that_matches_decides(plan_for: Callable[..., Plan]) -> None:
    rulebook = parse_rulebook(RULES.encode(), name="mine", file="mine.toml")
    plan = plan_for(Net(), 1, 3, 33, 35, rulebook=rulebook)
    found = {d.site.path: d for d in plan.decisions}
    assert list(found) == ["stem.0", "pool", "stage.conv", "stage.shortcut", "down"], "in order of execution"

    stem = found["stem.0"]
    assert (stem.action, stem.rule, stem.reason) == ("kept", "leave-the-stem", "the stem is small")
    assert (stem.rewrite, stem.params, stem.claim) == (None, {}, None)
    assert stem.also_matched == ("any-conv", "again")

    conv = found["stage.conv"]
    assert (conv.action, conv.rule, conv.rewrite) == ("applied", "odd", "replace-strided-conv")
    defaults = {"pointwise": "separable", "mixed": 8, "standardisation": "keep"}
    assert conv.params == {"kernel": "odd"} | defaults, "with defaults: a plan must not depend on them"
    assert conv.also_matched == ("any-conv", "again")
    assert conv.claim is not None
    assert conv.claim.value == "exact"

    pool = found["pool"]
    assert (pool.action, pool.rule) == ("refused", "wrong-operator")
    assert "this is a max_pool" in pool.reason

    assert found["stage.shortcut"].rule == "any-conv"
    down = found["down"]
    assert (down.action, down.rule, down.reason) == ("kept", None, "no rule matches")
    assert [d.site.path for d in plan.applied] == ["stage.conv", "stage.shortcut"]


def test_of_several_books_the_first_with_a_rule_decides(plan_for: Callable[..., Plan]) -> None:
    mine = parse_rulebook(RULES.encode(), name="mine", file="mine.toml")
    plan = plan_for(Net(), 1, 3, 33, 35, rulebook=join_rulebooks([mine, load_rulebook("spd")]))
    found = {d.site.path: d for d in plan.decisions}
    assert (plan.rulebook, plan.rulebook_source) == ("mine+spd", "arXiv:2208.03641, section 3")
    assert (found["stem.0"].action, found["stem.0"].rule) == ("kept", "mine/leave-the-stem")
    assert found["stem.0"].also_matched == ("mine/any-conv", "mine/again", "spd/strided-conv")
    assert (found["stage.conv"].rule, found["stage.conv"].params["kernel"]) == ("mine/odd", "odd")
    assert (found["down"].action, found["down"].rule, found["down"].also_matched) == ("applied", "spd/average-pool", ())

    other = plan_for(Net(), 1, 3, 33, 35, rulebook=join_rulebooks([load_rulebook("spd"), mine]))
    assert {d.rule for d in other.applied} == {"spd/strided-conv", "spd/max-pool", "spd/average-pool"}
    assert other.rulebook == "spd+mine"


def test_a_rewrite_may_keep_by_its_parameters(plan_for: Callable[..., Plan]) -> None:
    rulebook = with_overrides(load_rulebook("spd"), ["max-pool.form=keep"])
    plan = plan_for(Net(), 1, 3, 33, 35, rulebook=rulebook)
    (pool,) = (d for d in plan.decisions if d.site.path == "pool")
    assert (pool.action, pool.rewrite, pool.params) == ("kept", "replace-max-pool", {"form": "keep"})
    assert pool.reason


def test_obstacles_are_refused_with_their_reason(plan_for: Callable[..., Plan]) -> None:
    model = Net()
    model.stage.conv.register_forward_hook(lambda *_: None)
    model.down = nn.utils.parametrizations.weight_norm(nn.Conv2d(12, 12, 3, 2))
    found = {d.site.path: d for d in plan_for(model, 1, 3, 65, 67).decisions}
    assert (found["stage.conv"].action, found["down"].action) == ("refused", "refused")
    assert "hooks" in found["stage.conv"].reason
    assert "parametrized" in found["down"].reason
    assert found["stage.shortcut"].action == "applied"


class Unpooled(nn.Module):
    """Its first pool gives equal neighbours, and its second says which of them is the first."""

    def __init__(self, *, indices: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2)
        self.first, self.second = nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2, return_indices=indices)
        self.indices = indices

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.conv(x))
        if not self.indices:
            return self.second(x)
        y, where = self.second(x)
        return functional.max_unpool2d(y, where, 2, output_size=x.shape[-2:])


def test_max_pools_stay_where_a_pool_gives_positions(plan_for: Callable[..., Plan]) -> None:
    def actions(rules: str, *, indices: bool) -> dict[str, str]:
        plan = plan_for(Unpooled(indices=indices), 1, 3, 33, 35, rulebook=load_rulebook(rules))
        return {d.site.path: d.action + (d.reason or "").partition(", and ")[2] for d in plan.decisions}

    told = "refusedsecond says which is the first of them"
    assert actions("spd", indices=True) == {"conv": "applied", "first": told, "second": "refused"}
    assert actions("spd", indices=False) == {"conv": "applied", "first": "applied", "second": "applied"}
    assert actions("spd-paper", indices=True)["first"] == "applied", "a mean is no claim to be the same"


def test_a_network_that_unpools_keeps_its_function() -> None:
    network = Unpooled(indices=True)
    conversion = convert(network, example_input=torch.zeros(1, 3, 33, 35))
    x = torch.randn(2, 3, 65, 67)
    assert relative_error(network.eval()(x), conversion.model(x)) < 1e-5


def test_the_model_itself_is_refused_as_a_site(plan_for: Callable[..., Plan]) -> None:
    (decision,) = plan_for(nn.Conv2d(3, 4, 3, 2), 1, 3, 16, 16).decisions
    assert decision.action == "refused"
    assert "Sequential" in decision.reason


def test_a_shared_module_is_one_site_with_all_its_calls(plan_for: Callable[..., Plan]) -> None:
    plan = plan_for(Shared(), 1, 4, 64, 64)
    assert [(d.site.path, d.site.aliases, len(d.site.calls)) for d in plan.applied] == [
        ("a", ("b",), 2),
        ("inner.0", ("again",), 2),
    ]


def test_a_plan_is_plain_data(plan_for: Callable[..., Plan]) -> None:
    plan = plan_for(Net(), 1, 3, 33, 35)
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    assert plan.inputs.args[0].shape == (1, 3, 33, 35)
    assert (plan.rulebook, plan.rulebook_source) == ("spd", "arXiv:2208.03641, section 3")
