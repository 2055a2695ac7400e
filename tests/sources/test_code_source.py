from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from spdify.errors import SourceError, UsageError
from spdify.records import Inputs, InputSpec
from spdify.sources import BuildOptions, build, from_module

if TYPE_CHECKING:
    from pathlib import Path

CODE = """
from dataclasses import dataclass
import torch
from torch import nn
import {neighbour}

@dataclass
class Settings:
    width: int = {neighbour}.WIDTH

class Net(nn.Module):
    def __init__(self, num_classes: int = 4, in_chans: int = 3, width: int = Settings().width):
        super().__init__()
        self.num_classes = num_classes
        self.conv = nn.Conv2d(in_chans, width, 3, stride=2)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))

def factory(num_classes: int = 4, in_chans: int = 3):
    return Net(num_classes, in_chans)

def plain():
    net = Net()
    net.default_cfg = {{"input_size": (3, 32, 48)}}
    return net

def broken():
    raise ValueError("no such luck")

def not_a_model():
    return 3

constant = 3
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    neighbour = f"neighbour_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{neighbour}.py").write_text("WIDTH = 6", encoding="utf-8")
    path = tmp_path / "nets.py"
    path.write_text(CODE.format(neighbour=neighbour), encoding="utf-8")
    return path


SIZE = {"input_size": (3, 32, 32)}


def test_a_factory_in_a_file_is_called(code: Path) -> None:
    before = list(sys.path)

    loaded = build(f"{code}:factory", BuildOptions(**SIZE))

    assert loaded.model.conv.out_channels == 6
    assert not loaded.model.training
    assert loaded.inputs.args[0].shape == (1, 3, 32, 32)
    source = loaded.source
    assert (source.spec, source.kind, source.name) == (f"{code}:factory", "code", "factory")
    assert (source.num_classes, source.kwargs, source.preprocessing) == (4, {}, None)
    assert sys.path == before


def test_a_class_is_a_factory_and_gets_all_arguments(code: Path) -> None:
    wishes = BuildOptions(num_classes=7, in_chans=1, model_kwargs={"width": 9}, input_size=(1, 32, 32))

    loaded = build(f"{code}:Net", wishes)

    assert (loaded.model.conv.in_channels, loaded.model.conv.out_channels) == (1, 9)
    assert loaded.source.kwargs == {"num_classes": 7, "in_chans": 1, "width": 9}
    assert loaded.source.num_classes == 7


def test_a_factory_in_a_module_is_called(monkeypatch: pytest.MonkeyPatch, code: Path) -> None:
    package = code.parent / f"package_{code.parent.name}".replace("-", "_")
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "sub.py").write_text(
        "from torch import nn\n\ndef make():\n    return nn.Conv2d(3, 4, 3)\n", encoding="utf-8"
    )
    monkeypatch.chdir(code.parent)

    loaded = build(f"{package.name}.sub:make", BuildOptions(**SIZE))

    assert isinstance(loaded.model, nn.Conv2d)
    assert loaded.source.spec == f"{package.name}.sub:make"


def test_files_of_one_name_do_not_stand_for_each_other(code: Path) -> None:
    other = code.parent / "other" / "nets.py"
    other.parent.mkdir()
    other.write_text("from torch import nn\n\ndef factory():\n    return nn.Identity()\n", encoding="utf-8")

    first = build(f"{code}:factory", BuildOptions(**SIZE)).model
    second = build(f"{other}:factory", BuildOptions(**SIZE)).model

    assert type(first).__name__ == "Net"
    assert type(second) is nn.Identity
    assert type(first).__module__ != "nets"
    assert type(first) is sys.modules[type(first).__module__].Net


def test_the_input_size_comes_from_the_module_or_from_the_user(code: Path) -> None:
    assert build(f"{code}:plain").inputs.args[0].shape == (1, 3, 32, 48)
    assert build(f"{code}:plain", BuildOptions(**SIZE)).inputs.args[0].shape == (1, 3, 32, 32)

    with pytest.raises(UsageError, match=r"Cannot know the input size of .*nets\.py:factory") as caught:
        build(f"{code}:factory")
    assert "--input-size C,H,W" in caught.value.hint


def test_an_option_that_the_factory_does_not_take_is_named(code: Path) -> None:
    with pytest.raises(SourceError, match=r"Cannot call .*nets\.py:plain\(\): got an unexpected") as caught:
        build(f"{code}:plain", BuildOptions(num_classes=7))

    assert "Leave out --num-classes" in caught.value.hint


@pytest.mark.parametrize(
    ("factory", "said", "hint"),
    [
        ("factori", "Cannot find 'factori'", "Did you mean factory?"),
        ("zzz", "Cannot find 'zzz'", "It has Settings, Net, factory, plain, broken."),
        ("constant", "expected a function or class, got int", "function that returns"),
        ("broken", "ValueError: no such luck", ""),
        ("not_a_model", "expected a torch.nn.Module, got int", ""),
    ],
)
def test_a_factory_that_gives_no_model_is_told(code: Path, factory: str, said: str, hint: str) -> None:
    with pytest.raises(SourceError, match=said) as caught:
        build(f"{code}:{factory}", BuildOptions(**SIZE))

    assert hint in caught.value.hint


def test_missing_files_and_modules_are_told(code: Path) -> None:
    with pytest.raises(SourceError, match="Cannot find the file") as caught:
        build(f"{code.parent}/netz.py:factory")
    assert f"{code.parent.as_posix()}/nets.py" in caught.value.hint

    with pytest.raises(SourceError, match=r"Cannot import no_such\.module.*ModuleNotFoundError"):
        build("no_such.module:factory")


def test_a_file_that_cannot_be_imported_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("def (", encoding="utf-8")
    before = set(sys.modules)

    with pytest.raises(SourceError, match=r"Cannot import .*bad\.py.*SyntaxError"):
        build(f"{path}:factory")

    assert not {name for name in set(sys.modules) - before if "bad" in name}


def test_pretrained_weights_of_code_are_unknown(code: Path) -> None:
    with pytest.raises(UsageError, match="Cannot fetch pretrained weights"):
        build(f"{code}:factory", BuildOptions(pretrained=True, **SIZE))


def test_a_module_is_copied() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    inputs = Inputs(args=(InputSpec(shape=(1, 3, 8, 8)),))

    loaded = from_module(module, name="my net", inputs=inputs)

    assert loaded.model is not module
    assert not loaded.model.training
    assert module.training
    assert torch.equal(loaded.model[0].weight, module[0].weight)
    assert (loaded.source.kind, loaded.source.name) == ("object", "my_net")
    assert loaded.source.spec == "object:torch.nn.modules.container.Sequential"
    assert loaded.inputs == inputs


def test_a_module_without_inputs_must_know_its_size() -> None:
    module = nn.Conv2d(3, 4, 3)
    with pytest.raises(UsageError, match="Cannot know the input size of Conv2d"):
        from_module(module)

    module.input_size = (3, 24, 24)
    assert from_module(module).inputs.args[0].shape == (1, 3, 24, 24)


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(SourceError, match=r"expected a torch\.nn\.Module, got dict"):
        from_module({})
