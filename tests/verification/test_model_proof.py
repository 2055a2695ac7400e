"""Whole-model proofs of networks of all kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest
import timm.layers
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from spdify.engine import apply, make_plan
from spdify.graph import fingerprint, survey
from spdify.records import Inputs, InputSpec
from spdify.rulebook import load_rulebook
from spdify.verification import failed, islands, model_proof, prove

if TYPE_CHECKING:
    from collections.abc import Callable

    from spdify.records import Plan


class Outputs(NamedTuple):
    main: Tensor
    aux: Tensor


class Base(nn.Module):
    """One strided convolution, and what a subclass makes of its output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)


class Island(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).float().softmax(1).to(x.dtype)


class Strict(Base):
    strict = False

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.strict:
            msg = "one image at a time"
            raise ValueError(msg)
        return self.conv(x)


class Float32Only(Base):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float32:
            raise RuntimeError("only float32 is supported")
        return self.head(self.conv(x).mean((2, 3)))


class Returning(Base):
    def __init__(self, pack: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.pack = pack

    def forward(self, x: Tensor) -> object:
        return self.pack(self.conv(x))


def test_a_float32_island_is_named_and_widens_the_tolerance(convert: Callable) -> None:
    checks = convert(Island()).prove()
    assert not failed(tuple(checks.values()))
    for name in ("whole model, train", "whole model, eval"):
        if checks[name].tolerance == 1e-5:
            assert "float32 at the top" in checks[name].detail
    assert islands.find_islands(Island().double(), ((torch.randn(1, 3, 9, 9).double(),), {})) == ("the top",)


def perturbed(size: float) -> Callable[[nn.Module, Plan], nn.Module]:
    def change(model: nn.Module, plan: Plan) -> nn.Module:
        converted = apply(model, plan)
        with torch.no_grad():
            converted.conv.weight.mul_(1 + size)  # type: ignore[operator, union-attr]
        return converted

    return change


@pytest.mark.parametrize(("kind", "size", "outcome"), [(Island, 1e-6, "passed"), (Island, 1e-3, "failed")])
def test_an_island_excuses_rounding_and_no_more(
    kind: type[nn.Module], size: float, outcome: str, convert: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_proof, "apply_lazily", perturbed(size))
    check = convert(kind()).prove()["whole model, eval"]
    assert check.outcome == outcome
    assert (check.tolerance == 1e-5) == (outcome == "passed")


def test_without_an_island_the_same_error_fails(convert: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_proof, "apply_lazily", perturbed(1e-6))
    assert convert(Returning(lambda x: x)).prove()["whole model, eval"].outcome == "failed"


def test_an_approximate_site_is_measured_and_the_rest_is_proved(net: nn.Module, convert: Callable) -> None:
    checks = convert(net, max_pool="conv").prove()
    assert checks["site pool"].outcome == "measured"
    assert checks["distance to the original"].outcome == "measured"
    assert checks["distance to the original"].value > 1e-3
    assert checks["own weights, float32"].outcome == "measured"
    assert checks["whole model, eval"].outcome == "passed"
    assert checks["live sites"].outcome == "passed"


def test_beside_an_approximate_site_a_wrong_exact_one_still_fails(
    net: nn.Module, convert: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: nn.Module, plan: Plan) -> nn.Module:
        converted = apply(model, plan)
        if len(plan.applied) > 1:
            with torch.no_grad():
                converted.get_submodule("branch.0").weight.mul_(1.1)  # type: ignore[operator, union-attr]
                converted.get_submodule("branch.0").weight[0] += 0.1  # type: ignore[operator, union-attr, index]
        return converted

    monkeypatch.setattr(model_proof, "apply_lazily", broken)
    assert convert(net, max_pool="conv").prove()["whole model, eval"].outcome == "failed"


@pytest.mark.parametrize(
    "pack",
    [
        lambda x: {"out": x, "features": [x, x * 2]},
        lambda x: (x, None),
        lambda x: Outputs(x, x.mean()),
        lambda x: (x, x.argmax(1)),
        torch.fft.rfft2,
        lambda x: x.masked_fill(x > 1e9, 0),
    ],
)
def test_outputs_of_any_form(pack: Callable[[Tensor], object], convert: Callable) -> None:
    checks = convert(Returning(pack)).prove()
    assert {c.outcome for name, c in checks.items() if name != "statistics, train"} == {"passed"}


def test_a_constant_output_is_compared_inside(convert: Callable) -> None:
    checks = convert(Returning(lambda x: x * 0)).prove()
    assert checks["whole model, eval"].outcome == "passed"
    assert "compared are the outputs of conv" in checks["whole model, eval"].detail
    assert checks["live sites"].outcome == "passed"


def test_a_network_that_lets_nothing_through_proves_nothing(convert: Callable) -> None:
    class Blocked(Base):
        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x * 0) * 0

    checks = convert(Blocked()).prove()
    assert checks["live sites"].outcome == "not run"


def test_a_model_that_cannot_train_on_two_is_proved_in_eval_mode(convert: Callable) -> None:
    conversion = convert(Strict())
    conversion.model.strict = True
    checks = conversion.prove()
    assert checks["whole model, train"].outcome == "not run"
    assert checks["whole model, train"].detail.endswith("one image at a time")
    assert checks["whole model, eval"].outcome == "passed"
    assert not failed(tuple(checks.values()))


def test_a_model_that_cannot_run_in_float64_says_so(convert: Callable) -> None:
    checks = convert(Float32Only()).prove()
    assert checks["whole model, eval"].outcome == "not run"
    assert "does not run in float64" in checks["whole model, eval"].detail
    assert checks["own weights, float32"].outcome == "passed"


def norms() -> list[nn.Module]:
    return [
        nn.InstanceNorm2d(4, track_running_stats=True),
        nn.SyncBatchNorm(4),
        nn.BatchNorm2d(4, momentum=None),
        torchvision.ops.FrozenBatchNorm2d(4),
        timm.layers.BatchNormAct2d(4),
        nn.GroupNorm(2, 4),
    ]


@pytest.mark.parametrize("norm", norms(), ids=lambda norm: type(norm).__name__)
def test_every_norm(norm: nn.Module, convert: Callable) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, bias=False), norm, nn.Conv2d(4, 4, 3, 2))
    checks = convert(model).prove()
    assert not failed(tuple(checks.values()))
    assert checks["live sites"].outcome == "passed"
    keeps = not isinstance(norm, (nn.GroupNorm, torchvision.ops.FrozenBatchNorm2d))
    assert checks["statistics, train"].outcome == ("passed" if keeps else "not run")


def test_dropout_and_drop_path_draw_the_same_for_both(convert: Callable) -> None:
    class Dropping(Base):
        def __init__(self) -> None:
            super().__init__()
            self.path = timm.layers.DropPath(0.5)

        def forward(self, x: Tensor) -> Tensor:
            x = F.dropout(self.conv(x), 0.5, self.training)
            return x + self.path(x)

    assert convert(Dropping()).prove()["whole model, train"].outcome == "passed"


@pytest.mark.parametrize(
    "make", [lambda: nn.Sequential(nn.MaxPool2d(2)), lambda: Returning(lambda x: x).requires_grad_(False)]
)
def test_models_without_anything_to_train(make: Callable[[], nn.Module], convert: Callable) -> None:
    checks = convert(make()).prove()
    assert not failed(tuple(checks.values()))
    assert checks["live sites"].outcome == "passed"


def test_buffers_that_are_complex_infinite_or_whole(convert: Callable) -> None:
    class Buffers(Base):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(4)
            self.register_buffer("wave", torch.polar(torch.ones(3), torch.ones(3)))
            self.register_buffer("mask", torch.tensor([-torch.inf, 0.0]))

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.conv(x)) * self.wave.abs().sum()

    checks = convert(Buffers()).prove()
    assert not failed(tuple(checks.values()))
    assert checks["statistics, train"].outcome == "passed"


def test_a_site_of_eval_mode_only_is_live(convert: Callable) -> None:
    class EvalOnly(Base):
        def __init__(self) -> None:
            super().__init__()
            self.other = nn.Conv2d(3, 4, 3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) if self.training else self.conv(x) + self.other(x)

    assert convert(EvalOnly()).prove()["live sites"].outcome == "passed"


def test_two_inputs_by_name() -> None:
    class Guided(Base):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(10, 4)

        def forward(self, image: Tensor, label: Tensor) -> Tensor:
            return self.conv(image) + self.embed(label)[:, :, None, None]

    model = Guided()
    inputs = Inputs(
        kwargs={"image": InputSpec(shape=(1, 3, 16, 16)), "label": InputSpec(shape=(1,), dtype="int64")},
    )
    before = survey(model, inputs)
    plan = make_plan(before, load_rulebook("spd"), fingerprint=fingerprint(model), inputs=inputs)

    def make(dtype: torch.dtype) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        generator = torch.Generator().manual_seed(0)
        image = torch.randn(2, 3, 16, 16, generator=generator).to(dtype)
        return (), {"image": image, "label": torch.tensor([1, 7])}

    proof = prove(model, apply(model, plan), plan, before, make, level="model", seed=0)
    assert not failed(proof.checks)
    assert proof.state["conv.weight"].dtype == torch.float64


def test_a_network_that_keeps_what_it_computed(convert: Callable) -> None:
    class Caching(Base):
        def __init__(self) -> None:
            super().__init__()
            self.cache: dict[str, Tensor] = {}

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            if not self.training:
                self.cache["seen"] = y
            return y

    conversion = convert(Caching())
    conversion.model.eval()(torch.randn(1, 3, 19, 18))
    kept = conversion.model.cache["seen"]
    assert not failed(tuple(conversion.prove().values()))
    assert conversion.model.cache["seen"] is kept
