"""Models that make float32 tensors of their own, run wholly in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from spdify.engine import apply
from spdify.verification import comparison, model_proof
from spdify.verification.promotion import wholly_in_float64

if TYPE_CHECKING:
    from collections.abc import Callable

    from spdify.records import Plan


class Gridded(nn.Module):
    """Samples its map at a grid that it makes in float32, which PyTorch refuses to mix with float64."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        line = torch.linspace(-0.9, 0.9, 5).to(torch.float32)
        grid = torch.stack(torch.meshgrid(line, line, indexing="ij"), dim=-1).float()
        return F.grid_sample(y, grid.expand(len(x), -1, -1, -1), align_corners=False)


def test_every_way_to_ask_for_float32_gives_float64() -> None:
    x = torch.ones(2, dtype=torch.float64)
    with wholly_in_float64():
        made = [
            x.float(), x.to(torch.float32), x.to(dtype=torch.float32), x.type(torch.float32), torch.ones(2),
            torch.zeros(2, dtype=torch.float32), torch.arange(2.0), x.half().float(),
        ]  # fmt: skip
        assert {t.dtype for t in made} == {torch.float64}
        assert x.half().dtype == torch.float16
        assert torch.arange(2).dtype == torch.int64
    assert x.float().dtype == torch.float32
    assert torch.get_default_dtype() == torch.float32


def test_the_default_comes_back_after_a_fault() -> None:
    with pytest.raises(ValueError, match="on purpose"), wholly_in_float64():
        raise ValueError("on purpose")
    assert torch.get_default_dtype() == torch.float32


def test_a_model_with_a_float32_grid_is_proved_in_float64(convert: Callable) -> None:
    checks = convert(Gridded()).prove()
    for mode in ("train", "eval"):
        check = checks[f"whole model, {mode}"]
        assert (check.outcome, check.tolerance) == ("passed", comparison.MODEL_TOLERANCE)
        assert check.detail == "the model's casts to float32 are made casts to float64"
    assert checks["live sites"].outcome == checks["gradients"].outcome == "passed"


def test_a_wrong_weight_is_seen_there_too(convert: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: nn.Module, plan: Plan) -> nn.Module:
        converted = apply(model, plan)
        with torch.no_grad():
            converted.get_submodule("conv").get_parameter("weight")[0, 0] += 1e-6
        return converted

    monkeypatch.setattr(model_proof, "apply_lazily", broken)
    assert convert(Gridded()).prove()["whole model, eval"].outcome == "failed"
