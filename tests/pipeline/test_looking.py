from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import spdify
from spdify.errors import BundleError, UsageError
from spdify.reporting import Inspection

if TYPE_CHECKING:
    from torch import nn

    from tests.pipeline.conftest import Plain, TwoInputs

X = torch.randn(1, 3, 16, 16)


def flops(model: nn.Module, x: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(x)
    return counter.get_total_flops()


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "mobilenetv3_small_050"])
def test_figures_are_those_of_torch(name: str) -> None:
    conversion = spdify.convert(name, proof="site")
    x = torch.randn(*conversion.plan.inputs.args[0].shape)
    for model, cost in ((conversion.original, conversion.report.before), (conversion.model, conversion.report.after)):
        assert cost.params == sum(p.numel() for p in model.parameters())
        assert cost.flops == flops(model, x)
        assert cost.macs * 2 == cost.flops
        assert cost.weight_bytes == sum(t.numel() * t.element_size() for t in model.state_dict().values())
    changed = sum(s.after.params - s.before.params for s in conversion.report.sites)
    assert changed == conversion.report.after.params - conversion.report.before.params
    macs = sum(s.after.macs - s.before.macs for s in conversion.report.sites)
    assert macs == conversion.report.after.macs - conversion.report.before.macs


def test_report_without_proof_has_the_same_figures(plain: Plain) -> None:
    proved = spdify.convert(plain, example_input=X).report
    made = spdify.report(plain, example_input=X)
    assert made.checks == ()
    assert made.proof == "none"
    assert (made.before, made.after, made.sites, made.decisions) == (
        proved.before, proved.after, proved.sites, proved.decisions,
    )  # fmt: skip


def test_report_of_a_bundle(plain: Plain, tmp_path: Path) -> None:
    conversion = spdify.convert(plain, example_input=X)
    conversion.save(tmp_path / "out", onnx=False)
    assert spdify.report(tmp_path / "out") == conversion.report
    with pytest.raises(UsageError, match="a bundle gives the report it was saved with"):
        spdify.report(tmp_path / "out", example_input=X)


def test_report_of_two(plain: Plain) -> None:
    wide = type(plain)(width=8)
    made = spdify.report(plain, wide, example_input=X)
    assert made.model == "Plain → Plain"
    assert made.after.params > made.before.params
    assert made.decisions == made.sites == ()


def test_inspect(plain: Plain, two_inputs: TwoInputs) -> None:
    found = spdify.inspect(plain, example_input=X)
    assert Inspection.model_validate_json(found.model_dump_json()) == found
    assert [(s.path, s.operator) for s in found.sites] == [("stem", "conv"), ("pool", "max_pool"), ("last", "conv")]
    assert found.cost.params == sum(p.numel() for p in plain.parameters())
    assert found.disagreements == ()
    both = spdify.inspect(two_inputs, example_input=(X, X[:, :1]))
    assert [spec.shape for spec in both.inputs.args] == [(1, 3, 16, 16), (1, 1, 16, 16)]


def test_a_path_is_a_folder_and_never_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match="cannot open resnet18: it is no folder that spdify wrote"):
        spdify.inspect(Path("resnet18"))


def test_input_size_of_a_bundle_with_two_inputs(two_inputs: TwoInputs, tmp_path: Path) -> None:
    spdify.convert(two_inputs, example_input=(X, X[:, :1]), overrides=()).save(tmp_path / "out", onnx=False)
    code = tmp_path / "net.py"
    code.write_text(
        "from torch import nn\n"
        "class TwoInputs(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.image = nn.Conv2d(3, 4, 3, 2, 1)\n"
        "        self.mask = nn.Conv2d(1, 4, 2, 2)\n"
        "    def forward(self, image, mask):\n"
        "        return self.image(image) * self.mask(mask)\n",
        encoding="utf-8",
    )
    found = spdify.inspect(tmp_path / "out", code=f"{code}:TwoInputs")
    assert len(found.inputs.args) == 2
    with pytest.raises(UsageError, match="its network does not take one input"):
        spdify.inspect(tmp_path / "out", code=f"{code}:TwoInputs", input_size=(3, 32, 32))
