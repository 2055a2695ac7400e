"""Functional calls found in a class's own code, and the class with them replaced."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

import spdify
from spdify.errors import PlanError
from spdify.graph.calls import CallPlace
from spdify.graph.census import take_census
from spdify.graph.edits import CalledExpression, edit_module, expression_of
from spdify.records import Inputs, InputSpec

if TYPE_CHECKING:
    from collections.abc import Callable


def helper(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2)


class Base(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return self.two_lines(F.max_pool2d(x, 2) + F.max_pool2d(F.max_pool2d(x, 1, 1), 2))

    def two_lines(self, x: Tensor) -> Tensor:
        return (
            F.avg_pool2d(
                x,
                2,
            )
            .relu()
            .sum()
        )


class Overriding(Base):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class Other(nn.Module):
    def __init__(self, how: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        return self.how(self, x)

    def by_helper(self, x: Tensor) -> Tensor:
        return helper(x)

    def nested(self, x: Tensor) -> Tensor:
        return sum(F.max_pool2d(x, 2) for _ in range(2))


class Chain(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(super().forward(x), 2)


class Powers(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.lp_pool2d(x, 2.0, 2)


def places(module: nn.Module) -> list[CallPlace | str]:
    census = take_census(module, Inputs(args=(InputSpec(shape=(1, 1, 8, 8)),)), mode="eval")
    return [op.place or op.obstacle for op in census.operations]


def test_each_expression_is_told_from_its_neighbours() -> None:
    found = places(Base())
    assert [place.operation for place in found if isinstance(place, CallPlace)] == [
        "forward:max_pool2d:0", "forward:max_pool2d:1", "forward:max_pool2d:2", "two_lines:avg_pool2d:0",
    ]  # fmt: skip
    assert [place.expression for place in found if isinstance(place, CallPlace)] == [
        "F.max_pool2d(x, 2)", "F.max_pool2d(x, 1, 1)", "F.max_pool2d(F.max_pool2d(x, 1, 1), 2)", "F.avg_pool2d(x, 2)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Overriding(), "Overriding overrides the method forward that makes it"),
        (Other(Other.by_helper), "made by the function helper, not directly in a method of Other"),
        (Other(lambda _, x: F.max_pool2d(x, 2)), "made by the function <lambda>, not directly"),
        (Powers(), "made by F.lp_pool2d, not directly"),
        (Chain(nn.ReLU()), "Chain is a container"),
    ],
)
def test_what_cannot_be_edited_says_why(module: nn.Module, reason: str) -> None:
    found = places(module)
    assert isinstance(found[0], str)
    assert reason in found[0]


def test_a_call_in_a_nested_function_is_found() -> None:
    assert {getattr(place, "operation", place) for place in places(Other(Other.nested))} == {"nested:max_pool2d:0"}


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)


FACTOR = 2.0


class Rich(nn.Module):
    """Everything that compiling a method anew could lose."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.__hidden = shift

    def forward(self, x: Tensor, factor: float = FACTOR, *, plus: Tensor | None = None) -> Tensor:
        """Run."""
        text = """kept
    as it is"""
        y = F.max_pool2d(x, 2) * factor + self.__hidden + len(text)
        return y if plus is None else y + plus

    def extra_repr(self) -> str:
        return super().extra_repr() + "rich"


class Child(Rich):
    def __init__(self) -> None:
        super().__init__(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, :, ::2, ::2]) + F.avg_pool2d(x, 4)


def test_an_edited_method_keeps_defaults_closures_names_and_docs() -> None:
    module = Rich(0.25)
    module.add_module("forward_max_pool2d_0", Mean())
    edit_module(module, (("forward:max_pool2d:0", "max_pool"),))
    x = torch.randn(2, 3, 4, 4)
    expected = x.mean((2, 3), keepdim=True) * 2 + 0.25 + len("kept\n    as it is")
    torch.testing.assert_close(module(x), expected)
    torch.testing.assert_close(module(x, 1.0, plus=x), expected - x.mean((2, 3), keepdim=True) + x)
    assert isinstance(module, Rich)
    assert type(module).__name__ == "Rich"
    assert type(module).__qualname__ == "Rich"
    assert module.forward.__doc__ == "Run."
    assert module.extra_repr() == "rich"
    assert Rich(0.25)(x).shape == (2, 3, 2, 2)  # the class itself is as it was


def closing_over(factor: float) -> tuple[type[nn.Module], Callable[[float], None]]:
    class Closing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.max_pool2d(x, 2) * factor

    def change(value: float) -> None:
        nonlocal factor
        factor = value

    return Closing, change


def test_an_edited_method_shares_its_closure() -> None:
    kind, change = closing_over(2.0)
    module, x = kind(), torch.randn(1, 2, 4, 4)
    module.add_module("forward_max_pool2d_0", Mean())
    edit_module(module, (("forward:max_pool2d:0", "max_pool"),))
    torch.testing.assert_close(module(x), 2 * x.mean((2, 3), keepdim=True))
    change(3.0)
    torch.testing.assert_close(module(x), 3 * x.mean((2, 3), keepdim=True))


def test_an_edited_module_is_copied_and_pickled() -> None:
    module = Rich(0.25)
    module.add_module("forward_max_pool2d_0", Mean())
    edit_module(module, (("forward:max_pool2d:0", "max_pool"),))
    x = torch.randn(2, 3, 4, 4)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):  # noqa: S301 - its own
        assert type(twin) is type(module)
        torch.testing.assert_close(twin(x), module(x))


def test_edits_add_up() -> None:
    module = Child()
    module.add_module("forward_slice_0", nn.AvgPool2d(2))
    edit_module(module, (("forward:slice:0", "slice"),))
    module.add_module("forward_avg_pool2d_0", nn.MaxPool2d(4))
    edit_module(module, (("forward:avg_pool2d:0", "avg_pool"),))
    x = torch.randn(2, 3, 8, 8)
    inner = Rich(0.5)(F.avg_pool2d(x, 2))
    torch.testing.assert_close(module(x), inner + F.max_pool2d(x, 4))


def test_other_code_is_no_match() -> None:
    with pytest.raises(PlanError, match="no expression max_pool2d:7"):
        edit_module(Rich(0.0), (("forward:max_pool2d:7", "max_pool"),))
    with pytest.raises(PlanError, match="has no method backward_pass"):
        expression_of(Rich(0.0), "backward_pass:max_pool2d:0")
    assert expression_of(Rich(0.0), "forward:max_pool2d:0") == "F.max_pool2d(x, 2)"


def test_an_expression_runs_alone() -> None:
    x = torch.randn(1, 2, 6, 6)
    torch.testing.assert_close(CalledExpression(Rich(0.0), "forward:max_pool2d:0", "max_pool")(x), F.max_pool2d(x, 2))


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(4, 3, 3, 3)), nn.Parameter(torch.randn(4))
        self.step = 2

    def forward(self, x: Tensor) -> Tensor:
        size = 3
        y = F.conv2d(x, self.weight, bias=self.bias, stride=self.step, padding=1)
        y = y + F.conv2d(x, self.weight, None, self.step, padding=1)
        y = F.max_pool2d(y, size, stride=2, padding=1) if self.training else F.avg_pool2d(y, 2, ceil_mode=True)
        z = y.permute(0, 2, 3, 1)[:, 1::2, ::3]
        return z.permute(0, 3, 1, 2) + y[:, :, ::2, ::3].mean()


def test_functional_calls_convert_exactly_in_both_modes() -> None:
    found = spdify.convert(Functional(), example_input=torch.randn(1, 3, 31, 33))
    assert {d.site.name: d.action for d in found.plan.decisions} == {
        "#forward:conv2d:0": "applied", "#forward:conv2d:1": "applied", "#forward:avg_pool2d:0": "applied",
        "#forward:max_pool2d:0": "applied", "#forward:slice:0": "applied", "#forward:slice:1": "applied",
    }  # fmt: skip
    assert {d.site.name: d.site.modes for d in found.plan.decisions}["#forward:max_pool2d:0"] == ("train",)
    outcomes = {check.name: check.outcome for check in found.checks}
    assert outcomes.pop("statistics, train") == "not run"
    assert set(outcomes.values()) == {"passed"}, [c for c in found.checks if c.outcome != "passed"]
    assert "forward_conv2d_0.phase_weight" in found.model.state_dict()


class OnlyRun(nn.Module):
    """Pools along one axis in code that torch.fx cannot follow: they are seen where they run, along two."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 1, *range(2, x.dim()))
        return F.avg_pool1d(F.max_pool1d(x, 3, 2, 1), 2)


def test_pools_along_one_axis_that_the_census_alone_sees() -> None:
    conversion = spdify.convert(OnlyRun(), example_input=torch.randn(1, 3, 33))
    assert [decision.site.geometry.kernel for decision in conversion.plan.applied] == [(3,), (2,)]
    x = torch.randn(2, 3, 40)
    torch.testing.assert_close(conversion.model(x), OnlyRun()(x))


class Refused(nn.Module):
    """Calls that must not be replaced, each for its own reason; one, in `plain`, that may."""

    def forward(self, x: Tensor) -> Tensor:
        steps = [F.avg_pool2d(x, 2, stride) for stride in (1, 2)]  # the same expression, also without stride
        y = steps[1] + x[:, :, ::2][:, :, :, ::2]  # two expressions
        y = y + x[:, :, :-1:2, ::2]  # a crop too
        pooled, _ = F.max_pool2d(x, 2, return_indices=True)
        arguments = (x, 2)
        return y + pooled + F.max_pool2d(*arguments) + self.plain(x)

    def plain(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2)


def test_refusals_have_reasons() -> None:
    found = spdify.convert(Refused(), example_input=torch.randn(1, 3, 16, 16))
    reasons = {d.site.name: d.reason for d in found.plan.decisions if d.action == "refused"}
    words = ["also runs as something", "in turn", "does more than step", "indices", "hidden"]
    assert len(reasons) == len(words)
    assert all(any(word in reason for reason in reasons.values()) for word in words), reasons
    assert [d.site.name for d in found.plan.applied] == ["#plain:avg_pool2d:0"]


class Half(nn.Module):
    """Stands for a block behind or before another."""

    def forward(self, x: Tensor) -> Tensor:
        return x / 2


def with_block(module: nn.Module, operation: str, operator: str) -> nn.Module:
    module.add_module(operation.replace(":", "_"), Half())
    edit_module(module, ((operation, operator),))
    return module


def test_a_sequence_does_not_show_the_block_behind_it() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3))
    followed = with_block(copy.deepcopy(plain), "end:0", "stage_end")
    x = torch.randn(2, 3, 9, 8)
    assert torch.equal(followed(x), plain(x) / 2)
    assert isinstance(followed, nn.Sequential)
    assert len(followed) == 3
    assert followed[-1] is followed[2]
    assert [type(m).__name__ for m in followed] == ["Conv2d", "ReLU", "Conv2d"]
    assert type(followed[:2]) is nn.Sequential
    assert torch.equal(followed[:2](x), plain[:2](x))
    assert set(followed.state_dict()) == set(plain.state_dict())


def test_a_sequence_is_changed_as_if_the_block_were_not_in_it() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3))
    followed, last = with_block(copy.deepcopy(plain), "end:0", "stage_end"), nn.Sigmoid()
    for sequence in (plain, followed):
        sequence.insert(0, nn.Tanh())
        del sequence[-1]
        sequence[-1] = nn.SiLU()
        sequence.append(last)
    x = torch.randn(2, 3, 9, 8)
    assert [type(m).__name__ for m in followed] == ["Tanh", "Conv2d", "SiLU", "Sigmoid"]
    assert list(followed._modules) == ["0", "1", "2", "3", "end_0"]
    assert torch.equal(followed(x), plain(x) / 2)


def test_a_dictionary_does_not_show_the_block_behind_it() -> None:
    class Sum(nn.ModuleDict):
        def forward(self, x: Tensor) -> Tensor:
            return sum((layer(x) for _, layer in self.items()), torch.zeros(()))

    plain = Sum({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    followed = with_block(copy.deepcopy(plain), "end:0", "block_end")
    x = torch.randn(2, 3)
    assert torch.equal(followed(x), plain(x) / 2)
    assert (len(followed), list(followed), list(followed.keys())) == (2, ["a", "b"], ["a", "b"])
    assert len(list(followed.values())) == 2


def test_blocks_behind_and_before_one_module() -> None:
    module: nn.Module = nn.Sequential(nn.Linear(4, 4))
    x = torch.randn(2, 4)
    expected = module(x / 2) / 4
    for operation, operator in (("end:0", "stage_end"), ("forward:input:0", "input"), ("end:1", "stage_end")):
        with_block(module, operation, operator)
    torch.testing.assert_close(module(x), expected)
    torch.testing.assert_close(pickle.loads(pickle.dumps(copy.deepcopy(module)))(x), expected)  # noqa: S301 - our own
    traced = torch.fx.symbolic_trace(module)
    torch.testing.assert_close(traced(x), expected)


def test_an_edited_call_and_a_block_behind_go_together() -> None:
    class Pooled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.max_pool2d(x, 2) + 1

    module: nn.Module = Pooled()
    module.add_module("forward_max_pool2d_0", nn.AvgPool2d(2))
    edit_module(module, (("forward:max_pool2d:0", "max_pool"),))
    with_block(module, "end:0", "block_end")
    x = torch.randn(1, 2, 6, 6)
    torch.testing.assert_close(module(x), (F.avg_pool2d(x, 2) + 1) / 2)
    assert list(inspect.signature(module.forward).parameters) == ["x"]


class Pooled(nn.Module):
    """A functional pool in a module that blocks are put behind; its instance is not called self."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(this, x: Tensor) -> Tensor:  # noqa: N805 - some do
        return F.max_pool2d(torch.relu(this.norm(this.conv(x))), 2)


def test_a_call_in_a_module_with_a_block_behind_is_found() -> None:
    model, x = nn.Sequential(Pooled(3), Pooled(4)), torch.randn(2, 3, 16, 16)
    names = ["0#forward:max_pool2d:0", "1#forward:max_pool2d:0"]
    gated = spdify.convert(model, example_input=x[:1], rules="se", proof="site")
    assert [d.site.name for d in gated.plan.applied] == ["0#end:0", "1#end:0"]
    both = spdify.convert(gated.model, example_input=x[:1], rules="spd", proof="site")
    assert [d.site.name for d in both.plan.applied] == names
    # Once more behind what was edited: nothing is left to convert, and all is where it was.
    again = spdify.convert(both.model, example_input=x[:1], rules="se", proof="site")
    assert [d.site.name for d in again.plan.applied] == ["0#end:1", "1#end:1"]
    torch.testing.assert_close(again.model(x), model.eval()(x))
