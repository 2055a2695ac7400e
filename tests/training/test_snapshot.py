from __future__ import annotations

import pytest
import torch
from torch import nn

from spdify.training import pack, unpack


def test_a_nested_state_comes_back() -> None:
    shared = torch.arange(6.0).reshape(2, 3)
    state = {
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}, 1: {}}, "param_groups": [{"betas": (0.9, 0.999)}]},
        "a": shared, "b": shared, "t": shared.t(), "none": None, "flag": True, "epoch": 3, "text": "x", "inf": 1e400,
        "half": torch.ones(2, dtype=torch.bfloat16), "empty": [torch.empty(0), torch.empty(0, 2)],
    }  # fmt: skip
    tensors, text = pack(state)
    assert all(t.is_contiguous() for t in tensors.values())
    assert len({t.data_ptr() for t in tensors.values() if t.numel()}) == sum(t.numel() > 0 for t in tensors.values())
    back = unpack(tensors, text)
    assert back["optimizer"]["param_groups"] == [{"betas": (0.9, 0.999)}]
    assert list(back["optimizer"]["state"]) == [0, 1]
    assert torch.equal(back["optimizer"]["state"][0]["step"], torch.tensor(3.0))
    assert back["a"] is back["b"]
    assert torch.equal(back["t"], shared.t())
    assert back["half"].dtype == torch.bfloat16
    assert [tuple(t.shape) for t in back["empty"]] == [(0,), (0, 2)]
    assert {key: back[key] for key in ("none", "flag", "epoch", "text", "inf")} == {
        key: state[key] for key in ("none", "flag", "epoch", "text", "inf")
    }


@pytest.mark.parametrize("name", ["SGD", "AdamW", "Adagrad", "RMSprop"])
def test_an_optimizer_goes_on_alike(name: str) -> None:
    def stepped(layer: nn.Linear, optimizer: torch.optim.Optimizer) -> None:
        layer(torch.ones(2, 3)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    def made() -> tuple[nn.Linear, torch.optim.Optimizer]:
        layer = nn.Linear(3, 2)
        options = {"momentum": 0.9} if name == "SGD" else {}
        return layer, getattr(torch.optim, name)(layer.parameters(), lr=0.1, **options)

    layer, optimizer = made()
    stepped(layer, optimizer)
    tensors, text = pack({"layer": dict(layer.state_dict()), "optimizer": optimizer.state_dict()})
    stepped(layer, optimizer)
    other, resumed = made()
    state = unpack(tensors, text)
    other.load_state_dict(state["layer"])
    resumed.load_state_dict(state["optimizer"])
    stepped(other, resumed)
    assert torch.equal(other.weight, layer.weight)


def test_memory_formats_and_dtypes_come_back() -> None:
    image = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    volume = torch.randn(2, 3, 4, 5, 6).contiguous(memory_format=torch.channels_last_3d)
    back = unpack(*pack({"image": image, "volume": volume, "dtype": torch.bfloat16}))
    assert torch.equal(back["image"], image)
    assert back["image"].stride() == image.stride()
    assert back["volume"].stride() == volume.stride()
    assert back["dtype"] is torch.bfloat16


def test_what_cannot_be_saved() -> None:
    with pytest.raises(TypeError, match="cannot save set"):
        pack({"a": {1, 2}})
