"""Forms of one network, timed in turns; the clock is told what to say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import spdify
from spdify.benchmarking.released import SlicedConv
from spdify.blocks.padded_conv import PaddedConv2d
from spdify.errors import NothingToConvertError, UsageError
from spdify.pipeline import benchmarking
from spdify.pipeline.benchmarking import BenchSettings, bench
from spdify.reporting.pictures import ratio_bars
from tests.pipeline.training_networks import tiny

SIZE = (3, 32, 32)
CODE = f"{Path(__file__).with_name('training_networks.py')}:tiny"


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> dict[str, nn.Module]:
    """Have each contestant called once; give the networks that were called, and times of one to n seconds."""
    seen: dict[str, nn.Module] = {}
    real = benchmarking.forward_of

    def forward_of(network: nn.Module, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the real one
        seen[f"{len(seen)}"] = network
        return real(network, *args, **kwargs)

    def clock(calls: dict[str, Any], *, rounds: int) -> dict[str, tuple[float, ...]]:
        for call in calls.values():
            call()
        return {name: tuple(float(i + 1) for _ in range(rounds)) for i, name in enumerate(calls)}

    monkeypatch.setattr(benchmarking, "forward_of", forward_of)
    monkeypatch.setattr(benchmarking, "paired_seconds", clock)
    return seen


def kinds(network: nn.Module) -> set[str]:
    return {type(module).__name__ for module in network.modules()}


def test_a_model_in_all_forms(networks: dict[str, nn.Module]) -> None:
    model = tiny()
    record = bench(model, settings=BenchSettings(threads=1, rounds=3, batch=2), input_size=SIZE)
    original, converted, fused, released = networks.values()
    assert "SPDConv" not in kinds(original)
    assert {"SPDConv", "SPDMaxPool"} <= kinds(converted)
    assert any(isinstance(module, PaddedConv2d) for module in fused.modules())  # moved weights: nothing folds back
    assert any(isinstance(module, SlicedConv) for module in released.modules())
    assert "MaxPool2d" in kinds(released)
    assert [row.form for row in record.timings] == ["original", "converted", "fused", "released"]
    assert [row.milliseconds for row in record.timings] == [1000, 2000, 3000, 4000]
    assert record.timings[0].ratio is None
    assert record.timings[3].ratio is not None
    assert record.timings[3].ratio.median == 4
    assert (record.threads, record.batch, record.rounds, record.device) == (1, 2, 3, "cpu")
    picture = ratio_bars(record)
    assert "fused" in picture
    assert "4.000, 4000.00 ms" in picture


def test_weights_as_they_are_fold_back(networks: dict[str, nn.Module]) -> None:
    bench(tiny(), settings=BenchSettings(forms=("original", "fused"), as_is=True, rounds=3), input_size=SIZE)
    original, fused = networks.values()
    assert kinds(original) == kinds(fused)


@pytest.mark.slow
def test_a_bundle_by_onnx_runtime(networks: dict[str, nn.Module], tmp_path: Path) -> None:
    spdify.convert(CODE, input_size=SIZE, proof="site").save(tmp_path / "bundle", onnx=False)
    settings = BenchSettings(forms=benchmarking.CONTESTANTS, backend="ort", rounds=3)
    record = bench(tmp_path / "bundle", settings=settings, code=CODE)
    assert not networks
    assert [row.form for row in record.timings] == list(benchmarking.CONTESTANTS)
    assert all(row.milliseconds for row in record.timings)


@pytest.mark.usefixtures("networks")
def test_a_form_that_cannot_be_made_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(_: object, form: str) -> nn.Module:
        if form == "released":
            raise UsageError("cannot make it")
        return nn.Conv2d(3, 4, 1)

    monkeypatch.setattr(benchmarking._Makers, "make", make)
    record = bench(tiny(), settings=BenchSettings(forms=("original", "released"), rounds=3), input_size=SIZE)
    assert record.timings[1].milliseconds is None
    assert record.timings[1].note == "not timed: cannot make it"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"forms": ("original", "folded")}, "expected original, converted"),
        ({"forms": ("fused", "fused")}, "each once"),
        ({"backend": "tensorrt"}, "expected torch, ort"),
        ({"backend": "ort", "compiled": True}, "PyTorch's"),
        ({"forms": ("space-to-depth",)}, "operator of ONNX"),
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        BenchSettings(**settings)


def test_nothing_to_convert() -> None:
    with pytest.raises(NothingToConvertError, match="nothing to convert"):
        bench(nn.Sequential(nn.Conv2d(3, 4, 3)), settings=BenchSettings(rounds=3), input_size=SIZE)


@pytest.mark.usefixtures("networks")
def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    bench(tiny(), settings=BenchSettings(forms=("original",), threads=before + 1, rounds=3), input_size=SIZE)
    assert torch.get_num_threads() == before


def test_channels_last_where_a_pool_was_converted(networks: dict[str, nn.Module]) -> None:
    settings = BenchSettings(forms=("converted", "fused"), channels_last=True, rounds=3)
    bench(tiny(), settings=settings, input_size=SIZE)
    assert len(networks) == 2


@pytest.mark.usefixtures("networks")
def test_a_network_of_pools_has_no_released_form() -> None:
    pools = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2))
    record = bench(pools, settings=BenchSettings(rounds=3), input_size=SIZE)
    assert [row.milliseconds is None for row in record.timings] == [False, False, False, True]
    assert "no strided convolution" in record.timings[3].note


def test_rules_for_what_is_converted_are_refused(tmp_path: Path) -> None:
    spdify.convert(CODE, input_size=SIZE, proof="site").save(tmp_path / "bundle", onnx=False)
    with pytest.raises(UsageError, match="converted already"):
        bench(tmp_path / "bundle", settings=BenchSettings(overrides=("max-pool.form=keep",)), code=CODE)
