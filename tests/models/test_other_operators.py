"""The rulebooks of other operators on whole networks: converted, proved, exported, loaded again, trained. Slow.

A rulebook is one line of `BOOKS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import torch

import spdify
from spdify.errors import NothingToConvertError
from spdify.sources import example_inputs

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

SIZE = (3, 96, 96)
NETWORKS = ("resnet18", "resnet50", "mobilenetv2_100", "densenet121", "efficientnet_b0", "convnext_tiny")
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
        blocks: On how many places of each network: one for each `stage`, `one`, or `some`.
        value: Of all claims.
        nothing: Networks that it finds nothing in.
        overrides: As `--set` takes them.
    """

    blocks: str = "some"
    value: str = "exact"
    nothing: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()


BOOKS: dict[str, Expected] = {
    "se": Expected("stage"),
    "cbam": Expected("stage"),
    "non-local": Expected("one"),
    "aspp": Expected("one"),
    "rfb": Expected("one"),
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
        optimizer.step()
    assert still == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("book", BOOKS)
def test_it_converts_is_proved_exported_loaded_and_trained(book: str, name: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    expected = BOOKS[book]
    options = {"rules": book, "overrides": list(expected.overrides), "input_size": SIZE}
    if name in expected.nothing:
        with pytest.raises(NothingToConvertError):
            spdify.convert(name, **options)
        return
    conversion = spdify.convert(name, **options)
    applied = conversion.plan.applied
    assert not conversion.plan.with_action("refused")
    assert {d.claim.value for d in applied if d.claim is not None} == {expected.value}
    assert len(applied) in {"stage": {STAGES[name]}, "one": {1}, "some": range(1, 1000)}[expected.blocks]
    check_proof(conversion)
    check_learns(conversion, check_saved(conversion, tmp_path / "bundle"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
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
@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
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
