"""What torch.fx can follow, what it says where it cannot, and that nothing of it stays in the caller's model."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import timm
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from spdify.errors import TraceError
from spdify.graph import survey, trace_model
from spdify.graph.trace import _Reader
from spdify.records import Inputs, InputSpec

if TYPE_CHECKING:
    from collections.abc import Callable


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_what_cannot_be_followed_is_named_and_the_rest_is_traced(inputs_of: Callable[..., Inputs]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.Sequential(nn.ReLU(), Branching()), nn.MaxPool2d(2))
    trace = trace_model(model, inputs_of(3, 16, 16), mode="eval")
    assert list(trace.unopened) == ["1.1"]
    assert "control flow" in trace.unopened["1.1"]
    assert [op.owner for op in trace.operations] == ["0", "2"]


def test_a_wrong_size_is_said(inputs_of: Callable[..., Inputs]) -> None:
    with pytest.raises(TraceError, match="cannot run the trace of Sequential, at"):
        trace_model(nn.Sequential(nn.Flatten(), nn.Linear(3, 4)), inputs_of(3, 16, 16), mode="eval")


def test_the_callers_model_is_not_changed(inputs_of: Callable[..., Inputs]) -> None:
    model = timm.create_model("levit_128s", num_classes=3).train()
    model.stem.eval()
    state = copy.deepcopy(model.state_dict())
    modes = {path: m.training for path, m in model.named_modules()}
    random_state = torch.get_rng_state()
    survey(model, inputs_of(3, 224, 224))
    assert {path: m.training for path, m in model.named_modules()} == modes
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        for value in getattr(module, "attention_bias_cache", {}).values():
            assert not isinstance(value, fx.Proxy)
        assert not getattr(module, "attention_bias_cache", {})


def test_dropout_at_trace_time_does_not_draw_from_the_callers_seed(inputs_of: Callable[..., Inputs]) -> None:
    class Drawing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.max_pool2d(x, 2) * torch.rand(1)

    random_state = torch.get_rng_state()
    survey(Drawing(), inputs_of(3, 16, 16))
    assert torch.equal(torch.get_rng_state(), random_state)


def test_two_inputs_one_of_them_whole_numbers() -> None:
    class Guided(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.embed = nn.Conv2d(3, 4, 3, 2), nn.Embedding(10, 4)

        def forward(
            self, image: Tensor, *, label: Tensor, scale: float = 1.0, mask: Tensor | None = None
        ) -> dict[str, Tensor]:
            x = self.conv(image) * scale + self.embed(label)[:, :, None, None]
            return {"x": x if mask is None else x * mask}

    spec = Inputs(args=(InputSpec(shape=(1, 3, 16, 16)),), kwargs={"label": InputSpec(shape=(1,), dtype="int64")})
    seen = survey(Guided(), spec)
    assert [site.path for site in seen.sites] == ["conv"]
    assert not seen.disagreements


def test_a_composite_that_cannot_be_opened_is_seen_by_the_census(
    inputs_of: Callable[..., Inputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, 2, padding=1, padding_mode="reflect")

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) if len(x.shape) == x.dim() and int(x.shape[0]) > 0 else x

    monkeypatch.setattr("spdify.graph.tracer._library_leaves", lambda: ((Closed,), (), ()))
    monkeypatch.setattr("spdify.graph.trace._trace_into", _refuse_inside())
    monkeypatch.setattr("spdify.graph.trace.record_calls", _refuse_calls)
    seen = survey(nn.Sequential(Closed()), inputs_of(3, 16, 16))
    assert not seen.disagreements
    (site,) = seen.sites
    assert (site.path, site.inside) == ("0.conv", "0")
    assert (site.geometry.padding, site.geometry.padding_mode) == ((1, 1), "reflect")
    assert seen.one_eye == ("0",)


def _refuse_calls(*_: object, **__: object) -> None:
    msg = "does not run"
    raise TraceError(msg)


def _refuse_inside() -> Callable[..., object]:
    from spdify.graph import trace

    real = trace._trace_into

    def refuse(*args: object, inside: str = "", **kwargs: object) -> object:
        if inside:
            raise TraceError("closed")
        return real(*args, inside=inside, **kwargs)  # type: ignore[arg-type]

    return refuse


class Pyramid(nn.Module):
    """Loops over what it finds, calls one head on maps of several sizes, and pools once by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.head = nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.stem(x)]
        while maps[-1].shape[-1] > 4:
            maps.append(F.avg_pool2d(maps[-1], 2))
        total = sum(self.head(m).mean() for m in maps)
        return total if total.item() > 0 else -total


def test_all_calls_of_a_shared_head_are_traced_where_the_whole_is_not(inputs_of: Callable[..., Inputs]) -> None:
    seen = survey(Pyramid(), inputs_of(3, 32, 32))
    assert not seen.disagreements
    by_name = {site.name: site for site in seen.sites}
    assert list(by_name) == ["stem", "head.0", "#forward:avg_pool2d:0"]
    assert len(by_name["#forward:avg_pool2d:0"].calls) == 2
    assert [call.input[-1] for call in by_name["head.0"].calls] == [16, 8, 4]
    assert seen.one_eye == ("",)
    (alone,) = [item for item in seen.left_alone if item.operator == "its own code"]
    assert "only the census looks here" in alone.reason


def test_what_is_traced_on_its_own_keeps_both_eyes(
    inputs_of: Callable[..., Inputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Reader, "_note", lambda *_: None)
    words = survey(Pyramid(), inputs_of(3, 32, 32)).disagreements
    assert any("in stem (Conv2d), the trace does not show it" in text for text in words)
    assert any("in head.0 (Conv2d), the trace does not show it" in text for text in words)


def test_a_failed_trace_leaves_nothing_for_the_next(inputs_of: Callable[..., Inputs]) -> None:
    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.kept = nn.Conv2d(3, 4, 3, 2, 1), {}

        def forward(self, x: Tensor) -> Tensor:
            self.kept.setdefault("x", self.conv(x))
            return self.conv(x) + self.kept["x"]

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.caching, self.branching = Caching(), Branching()

        def forward(self, x: Tensor) -> Tensor:
            return self.branching(self.caching(x))

    seen = survey(Outer(), inputs_of(3, 16, 16))
    assert seen.one_eye == ("", "branching")
    assert not seen.disagreements


@fx.wrap
def halved(x: Tensor, sizes: list[int]) -> Tensor:
    """Change the list that it is given, as torchvision's shifted windows do."""
    sizes[0] //= 2
    return x[:, :, : sizes[0]]


def test_wrapped_functions_may_change_their_lists(inputs_of: Callable[..., Inputs]) -> None:
    class Windowed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.MaxPool2d(2)

        def forward(self, x: Tensor) -> Tensor:
            return self.pool(halved(x, [8, 8]))

    seen = survey(Windowed(), inputs_of(3, 16, 16))
    assert not seen.one_eye
    assert [site.calls[0].input for site in seen.sites] == [(1, 3, 4, 16)]


class Head(nn.Module):
    """A head whose own code hangs on numbers, between layers that do not."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.branching = nn.Conv2d(4, 4, 3, 2), Branching()

    def forward(self, xs: list[Tensor]) -> Tensor:
        return self.branching(self.down(xs[0])) if xs[1].sum() > 0 else self.down(xs[0])


class Around(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.head, self.last = nn.Conv2d(3, 4, 3, 2), Head(), nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.last(self.head([y, x]))


def test_what_cannot_be_followed_is_closed_and_the_flow_around_it_known(inputs_of: Callable[..., Inputs]) -> None:
    trace = trace_model(Around(), inputs_of(3, 32, 32), mode="eval")
    assert list(trace.unopened) == ["head"]
    assert "cannot trace head, near" in trace.unopened["head"]
    assert [op.owner for op in trace.operations] == ["first", "head.down", "last"]
    whole = next(flow for flow in trace.flows if not flow.path)
    assert [n.target for n in whole.graph.nodes if n.op == "call_module"] == [
        "model.first", "model.head", "model.last"
    ]  # fmt: skip
    assert trace.closed_scope("head") == "head"
    assert trace.closed_scope("last") is None


@pytest.mark.parametrize(
    "part",
    [
        lambda x: list(x.chunk(2, 1)),
        lambda x: list(torch.chunk(x, 2, 1)),
        lambda x: list(x.split((1, 3), 1)),
        lambda x: [*torch.split(x, [2, 2], 1)],
    ],
)
def test_parts_whose_number_the_code_says_can_be_listed(
    part: Callable[[Tensor], list[Tensor]], inputs_of: Callable[..., Inputs]
) -> None:
    class Parting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 4, 3, 2), nn.MaxPool2d(2)

        def forward(self, x: Tensor) -> Tensor:
            parts = part(self.first(x))
            parts.extend(p.relu() for p in parts[:1])
            return self.last(torch.cat(parts, 1))

    trace = trace_model(Parting(), inputs_of(3, 16, 16), mode="eval")
    assert not trace.unopened
    assert len(trace.flows) == 1


def test_fewer_parts_than_the_code_says_are_found_out(inputs_of: Callable[..., Inputs]) -> None:
    class Parting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 5, 3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat(list(self.first(x).chunk(4, 1)), 1)  # three: of 2, 2 and 1

    trace = trace_model(Parting(), inputs_of(3, 16, 16), mode="eval")
    assert list(trace.unopened) == [""]
    assert [op.owner for op in trace.operations] == ["first"]
