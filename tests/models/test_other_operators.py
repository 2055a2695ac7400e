"""The rulebooks of other operators on whole networks: converted, proved, exported, loaded again, trained. Slow.

A rulebook is one line of `BOOKS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import torch

import spdify
from spdify.sources import example_inputs

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

SIZE = (3, 96, 96)
#: The first one is converted by every rulebook in CI, the others in a sweep.
NETWORKS = (
    "resnet18",
    *(
        pytest.param(name, marks=pytest.mark.zoo)
        for name in ("resnet50", "mobilenetv2_100", "densenet121", "efficientnet_b0", "convnext_tiny")
    ),
)
#: Number of stages of each network.
STAGES = {
    "resnet18": 4,
    "resnet50": 4,
    "mobilenetv2_100": 5,
    "densenet121": 4,
    "efficientnet_b0": 5,
    "convnext_tiny": 4,
}


@dataclass(frozen=True)
class Expected:
    """What is expected of a rulebook beyond passed checks.

    Attributes:
        rules: Its name.
        blocks: On how many places of each network: one for each `stage`, `one`, or `some`.
        values: Of the claims.
        overrides: As `--set` takes them.
        refused: By network, on how many places it is refused.
    """

    rules: str
    blocks: str = "some"
    values: tuple[str, ...] = ("exact",)
    overrides: tuple[str, ...] = ()
    refused: tuple[tuple[str, int], ...] = ()


BOOKS: dict[str, Expected] = {
    "blurpool": Expected("blurpool", values=("approximate",)),
    "dynopool": Expected("dynopool", values=("approximate", "exact")),
    # Mixing the average of a pair with a resized map that is the same leaves nothing to learn.
    "shape-adaptor": Expected("shape-adaptor", values=("approximate",), refused=(("densenet121", 3),)),
    "se": Expected("se", "stage"),
    "cbam": Expected("cbam", "stage"),
    "non-local": Expected("non-local", "one"),
    "aspp": Expected("aspp", "one"),
    "rfb": Expected("rfb", "one"),
    "dcn": Expected("dcn"),
    "dcn v1": Expected("dcn", overrides=("conv.modulated=false", "strided-conv.modulated=false")),
    "stn": Expected("stn", "one"),
}
#: Checks that exact claims make of the whole model.
EXACT = ("whole model, train", "statistics, train", "whole model, eval", "live sites", "gradients")


def check_proof(conversion: spdify.Conversion) -> None:
    """Hold that every check passed, or, where a claim is not exact, that what could be said was."""
    values = {d.claim.value for d in conversion.plan.applied if d.claim is not None}
    allowed = {"passed"} if values == {"exact"} else {"passed", "measured", "not run"}
    outcomes = {check.name: check.outcome for check in conversion.checks}
    if not any("running_mean" in name for name in conversion.original.state_dict()):  # it keeps no statistics
        assert outcomes.pop("statistics, train", "") in {"not run", "passed"}
    assert all(outcome in allowed for outcome in outcomes.values()), outcomes
    assert outcomes["gradients"] == outcomes["live sites"] == "passed"
    if values == {"exact"}:
        assert set(EXACT) - {"statistics, train"} <= set(outcomes)


def check_saved(conversion: spdify.Conversion, folder: Path) -> nn.Module:
    """Hold that the export passed its checks, and that what is loaded again is the same bit for bit; give it."""
    record = conversion.save(folder)
    assert record.onnx is not None
    assert {check.outcome for check in record.onnx.checks} == {"passed"}
    named = {check.name for check in record.onnx.checks}
    assert {"onnx batch 1", "onnx batch 3", "onnx perturbed weights"} <= named
    loaded = spdify.load(folder)
    state, saved = loaded.state_dict(), conversion.model.state_dict()
    assert list(state) == list(saved)
    assert all(torch.equal(state[name], saved[name]) for name in saved)
    return loaded


def new_parameters(conversion: spdify.Conversion, model: nn.Module) -> dict[str, nn.Parameter]:
    """Give the parameters of all blocks."""
    return {
        f"{decision.site.block_path}.{name}": parameter
        for decision in conversion.plan.applied
        for name, parameter in model.get_submodule(decision.site.block_path).named_parameters()
    }


def check_learns(conversion: spdify.Conversion, model: nn.Module) -> None:
    """Hold that after one step of SGD each new weight has a gradient that is not zero everywhere."""
    args, kwargs = example_inputs(conversion.plan.inputs, batch=4, seed=1)
    torch.manual_seed(0)
    model.train()
    own = new_parameters(conversion, model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        output = model(*args, **kwargs)
        (output * torch.randn(output.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
        # A bias before a batch norm has none.
        still = [n for n, p in own.items() if not n.endswith("bias") and (p.grad is None or not p.grad.any())]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # as recipes do: the loss is as large as the output
        optimizer.step()
    assert still == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("book", BOOKS)
def test_it_converts_is_proved_exported_loaded_and_trained(book: str, name: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    expected = BOOKS[book]
    conversion = spdify.convert(name, rules=expected.rules, overrides=expected.overrides, input_size=SIZE)
    applied = conversion.plan.applied
    assert len(conversion.plan.with_action("refused")) == dict(expected.refused).get(name, 0)
    assert {d.claim.value for d in applied if d.claim is not None} <= set(expected.values)
    assert len(applied) in {"stage": {STAGES[name]}, "one": {1}, "some": range(1, 1000)}[expected.blocks]
    check_proof(conversion)
    check_learns(conversion, check_saved(conversion, tmp_path / "bundle"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", pytest.param("efficientnet_b0", marks=pytest.mark.zoo)])
def test_two_rulebooks_in_one_plan(name: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    conversion = spdify.convert(name, rules=("spd", "cbam"), input_size=SIZE)
    kinds = [decision.site.kind for decision in conversion.plan.applied]
    assert kinds.count("stage_end") == STAGES[name]
    assert kinds.count("downsampling") == {"resnet18": 8, "efficientnet_b0": 5}[name]
    assert {d.claim.value for d in conversion.plan.applied if d.claim is not None} == {"exact"}
    check_proof(conversion)
    check_learns(conversion, check_saved(conversion, tmp_path / "bundle"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", pytest.param("efficientnet_b0", marks=pytest.mark.zoo)])
@pytest.mark.parametrize("book", ["spd", "se"])
def test_one_rulebook_after_the_other(book: str, name: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    first = spdify.convert(name, rules=book, input_size=SIZE)
    first.save(tmp_path / "first")
    second = spdify.convert(str(tmp_path / "first"), rules="cbam")
    wanted = "end:1" if book == "se" else "end:0"
    assert {decision.site.operation for decision in second.plan.applied} == {wanted}
    assert len(second.plan.applied) == STAGES[name]
    check_proof(second)
    loaded = check_saved(second, tmp_path / "second")
    if book == "se":
        names = [name for name, _ in loaded.named_modules() if name.rpartition(".")[2] in {"end_0", "end_1"}]
        assert len(names) == 2 * STAGES[name]
    check_learns(second, loaded)
    args, _ = example_inputs(first.plan.inputs, batch=2, seed=3)
    original = first.original.eval()
    with torch.no_grad():
        expected, actual = original(*args), spdify.load(tmp_path / "second").eval()(*args)
    assert (actual - expected).abs().max() <= 1e-4 * expected.abs().max()


SIDE = 128


@pytest.mark.slow
@pytest.mark.zoo
@pytest.mark.parametrize(
    ("name", "unseen"),
    # The anchors of the coarsest levels are larger than so small an image: no loss comes from there, before neither.
    [("retinanet_resnet50_fpn", ()), ("fasterrcnn_resnet50_fpn", (".levels.3.", ".levels.4."))],
)
def test_the_levels_of_a_detectors_pyramid_are_fused(name: str, unseen: tuple[str, ...], tmp_path: Path) -> None:
    torch.set_num_threads(1)
    conversion = spdify.convert(f"tv:{name}", rules="asff", input_size=(3, SIDE, SIDE), model_kwargs={"min_size": SIDE})
    (decision,) = conversion.plan.applied
    assert decision.site.path == "backbone"
    assert len(decision.site.calls) == 5
    outcomes = {check.name: check for check in conversion.checks}
    assert "failed" not in {check.outcome for check in outcomes.values()}
    assert 0 < (outcomes["site backbone#end:0"].value or 0) < 0.05
    assert outcomes["losses, train"].outcome == outcomes["live sites"].outcome == "passed"
    record = conversion.save(tmp_path / "bundle")
    assert record.onnx is not None
    compared = {check.name: check.outcome for check in record.onnx.checks}
    assert compared["onnx batch 1"] == compared["onnx perturbed weights"] == "passed"
    model = spdify.load(tmp_path / "bundle").train()
    assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in conversion.model.state_dict().items())
    torch.manual_seed(0)
    boxes = torch.tensor([[8.0, 8.0, 24.0, 20.0], [30.0, 40.0, 100.0, 110.0]])
    target = {"boxes": boxes, "labels": torch.tensor([1, 2])}
    own, image = new_parameters(conversion, model), torch.rand(3, SIDE, SIDE)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(2):  # the weights of the levels start in a last layer of zero
        optimizer.zero_grad()
        losses = model([image], [target])
        sum(losses.values()).backward()
        still = [key for key, p in own.items() if p.grad is None or not p.grad.any()]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert [key for key in still if not any(level in key for level in unseen)] == []
