from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.utils.model import reparameterize_model
from torch import nn

import spdify
from spdify.errors import BundleError, PlanError, RefusedError
from spdify.pipeline import loading

if TYPE_CHECKING:
    from pathlib import Path

    from tests.pipeline.conftest import Plain

X = torch.randn(1, 3, 16, 16)


@pytest.fixture
def no_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a pickle was opened")

    for module, name in ((torch, "load"), (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")):
        monkeypatch.setattr(module, name, refuse)


def same_state(one: nn.Module, two: nn.Module) -> bool:
    a, b = one.state_dict(), two.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


# The second keeps index tables as buffers that no state dict holds.
@pytest.mark.parametrize("name", ["test_resnet", "test_vit_relpos", "tv:shufflenet_v2_x0_5"])
@pytest.mark.usefixtures("no_pickle")
def test_registry_model(name: str, tmp_path: Path) -> None:
    conversion = spdify.convert(name, proof="site", num_classes=7)
    conversion.save(tmp_path / "out", onnx=False)
    loaded = spdify.load(tmp_path / "out")
    assert same_state(loaded, conversion.model)
    assert type(loaded) is type(conversion.model)
    assert not any(module.training for module in loaded.modules())
    assert not any(t.is_meta for t in (*loaded.parameters(), *loaded.buffers()))
    (spec,) = conversion.plan.inputs.args
    x = torch.randn(2, *spec.shape[1:])
    assert torch.equal(loaded(x), conversion.model(x))
    assert all(p.requires_grad for p in loaded.parameters())


@pytest.mark.usefixtures("no_pickle")
def test_own_code(plain: Plain, tmp_path: Path) -> None:
    conversion = spdify.convert(plain, example_input=X)
    conversion.save(tmp_path / "out", onnx=False)
    fresh = type(plain)()
    before = {k: v.clone() for k, v in fresh.state_dict().items()}
    loaded = spdify.load(tmp_path / "out", model=fresh)
    assert same_state(loaded, conversion.model)
    assert torch.equal(loaded(X), conversion.model(X))
    assert torch.equal(loaded.get_buffer("gain"), plain.gain)
    assert fresh.training
    assert all(torch.equal(fresh.state_dict()[k], v) for k, v in before.items())


def test_own_code_is_asked_for(plain: Plain, tmp_path: Path) -> None:
    spdify.convert(plain, example_input=X).save(tmp_path / "out", onnx=False)
    with pytest.raises(BundleError, match="code of your own, which a bundle does not hold"):
        spdify.load(tmp_path / "out")
    with pytest.raises(PlanError, match="expected structure"):
        spdify.load(tmp_path / "out", model=type(plain)(width=5))


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"spdify\.json: No such file"):
        spdify.load(tmp_path / "nowhere")


def test_device(plain: Plain, tmp_path: Path) -> None:
    spdify.convert(plain, example_input=X).save(tmp_path / "out", onnx=False)
    loaded = spdify.load(tmp_path / "out", model=plain, device="meta")
    assert all(t.is_meta for t in (*loaded.parameters(), *loaded.buffers()))


def test_half_precision_comes_back_as_such(plain: Plain, tmp_path: Path) -> None:
    conversion = spdify.convert(plain.bfloat16(), example_input=X.bfloat16())
    conversion.save(tmp_path / "out", onnx=False)
    loaded = spdify.load(tmp_path / "out", model=type(plain)())
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}
    assert same_state(loaded, conversion.model)


def test_training_goes_on_after_loading(plain: Plain, tmp_path: Path) -> None:
    spdify.convert(plain, example_input=X).save(tmp_path / "out", onnx=False)
    loaded = spdify.load(tmp_path / "out", model=plain).train()
    loaded(torch.randn(4, 3, 16, 16)).square().mean().backward()
    assert all(p.grad is not None for p in loaded.parameters())


def test_a_network_that_asks_for_the_version_of_its_state_dict(tmp_path: Path) -> None:
    conversion = spdify.convert("tv:mnasnet0_5", proof="site", input_size=(3, 64, 64))
    conversion.save(tmp_path / "out", onnx=False)
    state = spdify.load(tmp_path / "out").state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in conversion.model.state_dict().items())


def test_another_network_is_told_apart_by_a_shape(tmp_path: Path) -> None:
    def build(classes: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.Flatten(), nn.Linear(64, classes))

    spdify.convert(build(10), input_size=(3, 9, 9)).save(tmp_path / "out", onnx=False)
    with pytest.raises(PlanError, match=r"2.bias: expected \(10,\), got \(7,\)"):
        spdify.load(tmp_path / "out", model=build(7))


def test_a_folded_network_is_folded_again(tmp_path: Path) -> None:
    conversion = spdify.convert("mobileone_s0", proof="site", input_size=(3, 32, 32), reparameterize=True)
    conversion.save(tmp_path / "out", onnx=False)
    loaded = spdify.load(tmp_path / "out")
    assert same_state(loaded, conversion.model)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(x), conversion.model(x))
    with pytest.raises(RefusedError, match="replaced by spdify"):
        reparameterize_model(loaded)


def test_a_folded_module_is_folded_again_from_the_original(tmp_path: Path) -> None:
    original = timm.create_model("mobileone_s0").eval()
    conversion = spdify.convert(original, proof="site", input_size=(3, 32, 32), reparameterize=True)
    conversion.save(tmp_path / "out", onnx=False)
    assert same_state(spdify.load(tmp_path / "out", model=original), conversion.model)


def test_weights_of_another_network_are_not_read(plain: Plain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spdify.convert(plain, example_input=X).save(tmp_path / "out", onnx=False)
    file = tmp_path / "out" / "model.safetensors"
    save_file(load_file(file) | {f"more.{i}": torch.zeros(0) for i in range(20_000)}, file)
    monkeypatch.setattr(loading, "read_weights", None)
    with pytest.raises(BundleError, match=r"more\.0: expected no such tensor, got \(0,\)"):
        spdify.load(tmp_path / "out", model=plain)
