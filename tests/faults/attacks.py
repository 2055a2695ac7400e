"""Attacks on a bundle that were thought out: code to be run, sizes to be allocated, names to be followed."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.faults.commands import ESCAPE, MARKUP, TOUCH
from tests.faults.mutations import spots, written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LOOKED = ("load", "page", "evaluate")
WAYS_OF_FILES = {
    "spdify.json": LOOKED,
    "report.json": ("page",),
    "model.safetensors": ("load", "evaluate"),
    "config.json": ("inspect local-dir:bundle",),
}
EVIL = (
    "evil.py",
    "hubconf.py",
    "sitecustomize.py",
    "usercustomize.py",
    "conftest.py",
    "torch.py",
    "timm.py",
    "model.py",
)
HUGE = 2**40


@dataclass(frozen=True)
class Attack:
    """A change to a bundle's folder.

    Attributes:
        name: Of the attack.
        fault: Row of the table.
        change: What it does.
        ways: How the bundle is then read.
        refused: Whether all of them must end with a fault.
        gated: Whether it is for the bundle with blocks behind modules.
    """

    name: str
    fault: str
    change: Callable[[Path], object]
    ways: tuple[str, ...] = LOOKED
    refused: bool = False
    gated: bool = False


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (TOUCH,)


def evil_pickle() -> bytes:
    """Give a pickle that runs code where it is read."""
    return pickle.dumps({"state_dict": _Evil()})


def evil_archive() -> bytes:
    """Give the same in the form of `torch.save`."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", evil_pickle())
        archive.writestr("archive/version", "3\n")
    return stream.getvalue()


def plant(folder: Path) -> None:
    """Put code and pickles beside a bundle's files, and into the working directory."""
    for place in (folder, folder.parent):
        for name in EVIL:
            (place / name).write_text(f"{TOUCH}\ndef factory(**kwargs):\n    {TOUCH}\n", encoding="utf-8")
        (place / "package").mkdir(exist_ok=True)
        (place / "package" / "__init__.py").write_text(TOUCH, encoding="utf-8")
        for name in ("pytorch_model.bin", "model.pt", "model.pth", "weights.pkl"):
            (place / name).write_bytes(evil_archive())


def with_record(change: Callable[[dict[str, Any]], None], *, file: str = "spdify.json") -> Callable[[Path], object]:
    """Give an attack that changes a record."""

    def apply(folder: Path) -> None:
        document = json.loads((folder / file).read_text("utf-8"))
        change(document)
        (folder / file).write_text(written(document), encoding="utf-8")

    return apply


def with_header(file: Path, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """Give the bytes of a safetensors file with another header."""
    data = file.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = written(change(json.loads(data[8 : 8 + length]))).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def _put(document: Any, way: str, value: Any) -> None:
    """Put a value where `plans.0.decisions.0.site` says; into every entry where it says `*`."""
    key, _, rest = way.partition(".")
    keys = range(len(document)) if key == "*" else [int(key) if isinstance(document, list) else key]
    for each in keys:
        if rest:
            _put(document[each], rest, value)
        else:
            document[each] = value


def _set(**values: Any) -> Callable[[Path], object]:
    """Give an attack that sets values of spdify.json; `__` in a name stands for a dot."""

    def change(document: dict[str, Any]) -> None:
        for way, value in values.items():
            _put(document, way.replace("__", "."), value)

    return with_record(change)


def _both(*changes: Callable[[Path], object]) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        for change in changes:
            change(folder)

    return apply


def _texts(text: str, file: str) -> Callable[[Path], object]:
    """Give an attack that puts a text into every field of a record that holds any text."""

    def change(document: dict[str, Any]) -> None:
        for *way, last in [where for where in spots(document) if where]:
            holder: Any = document
            for key in way:
                holder = holder[key]
            if isinstance(holder[last], str) and last in _FREE:
                holder[last] = text

    return with_record(change, file=file)


_FREE = {
    "name",
    "path",
    "reason",
    "training",
    "detail",
    "model",
    "rulebook",
    "rulebook_source",
    "type_name",
    "parent",
    "rule",
    "expression",
    "spec",
    "weights",
    "command",
    "operator",
    "proof",
    "site",
    "note",
    "text",
    "stage",
    "torch",
    "spdify",
}


def _code_sources() -> Iterator[Attack]:
    for spec in ("evil.py:factory", "evil:factory", "package.module:factory", "bundle/evil.py:factory", "os:system"):
        for kind in ("code", "timm", "torchvision", "local-dir", "hf-hub", "ultralytics", "object"):
            change = _both(plant, _set(source__spec=spec, source__kind=kind))
            yield Attack(
                f"source {spec} as {kind}", "code named by the source", change, ("load", "convert"), refused=True
            )
    for name in ("local-dir:../outside", "hf-hub:evil/evil", "evil.py:factory", "resnet50d/../../x"):
        change = _both(plant, _set(source__kind="hf-hub", source__kwargs={"model_name": name}))
        yield Attack(f"model_name {name}", "code named by the source", change, ("load",), refused=True)
    for key in ("checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "weights"):
        change = _both(plant, _set(source__kwargs={"num_classes": 2, key: "pytorch_model.bin"}))
        yield Attack(f"argument {key}", "code named by the source", change, ("load",), refused=True)
    yield Attack("code beside it", "code beside the files", plant, ("load", "page", "evaluate", "finetune", "python"))
    for name, data in (("pickle", evil_pickle()), ("archive", evil_archive())):
        change = partial(_write, name="model.safetensors", data=data)
        yield Attack(f"weights are a {name}", "a pickle for weights", change, ("load", "evaluate"), refused=True)
        for file in ("spdify.json", "config.json", "report.json"):
            change = partial(_write, name=file, data=data)
            yield Attack(f"{file} is a {name}", "a pickle for a record", change, ("page", "inspect local-dir:bundle"))
    overrides = {"checkpoint_path": "bundle/pytorch_model.bin", "pretrained_cfg": {"file": "bundle/pytorch_model.bin"}}
    for key, value in overrides.items():
        change = _both(plant, with_record(partial(_put, way=f"model_args.{key}", value=value), file="config.json"))
        yield Attack(f"config.json says {key}", "code named by config.json", change, ("inspect local-dir:bundle",))
    config = {"file": "bundle/pytorch_model.bin", "custom_load": True, "input_size": [3, 32, 32], "source": "file"}
    change = _both(plant, with_record(partial(_put, way="pretrained_cfg", value=config), file="config.json"))
    yield Attack("config.json names weights", "code named by config.json", change, (
        "inspect local-dir:bundle", "inspect local-dir:bundle --pretrained",
    ))  # fmt: skip


def _write(folder: Path, *, name: str, data: bytes) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).write_bytes(data)


def _sizes() -> Iterator[Attack]:
    conv, pool = "plans__0__decisions__0__site__", "plans__0__decisions__1__site__"
    settings: dict[str, dict[str, Any]] = {
        "2**40 channels": {f"{conv}geometry__in_channels": HUGE, f"{conv}geometry__out_channels": HUGE},
        "2**24 channels": {f"{conv}geometry__in_channels": 2**24, f"{conv}geometry__out_channels": 2**24},
        "2**31 channels of a pool": {f"{pool}geometry__in_channels": 2**31, f"{pool}geometry__out_channels": 2**31},
        "2**24 channels of a pool": {f"{pool}geometry__in_channels": 2**24, f"{pool}geometry__out_channels": 2**24},
        "kernel 10**9": {f"{conv}geometry__kernel": [10**9, 10**9]},
        "kernel 10**4": {f"{conv}geometry__kernel": [10**4, 10**4]},
        "kernel of a pool 10**4": {f"{pool}geometry__kernel": [10**4, 10**4]},
        "stride 10**9": {f"{conv}geometry__stride": [10**9, 10**9]},
        "stride 10**4": {f"{conv}geometry__stride": [10**4, 10**4], f"{pool}geometry__stride": [10**4, 10**4]},
        "padding 2**31": {f"{conv}geometry__padding": [2**31, 2**31]},
        "dilation 2**31": {f"{conv}geometry__dilation": [2**31, 2**31]},
        "calls of 2**31": {f"{conv}calls__0__input": [2**31] * 4, f"{conv}calls__0__output": [2**31] * 4},
        "10**5 channel counts": {f"{pool}channels": list(range(1, 10**5))},
        "inputs 2**31": {"plans__0__inputs__args__0__shape": [1, 3, 2**31, 2**31]},
        "inputs 2**14": {"plans__0__inputs__args__0__shape": [1, 3, 2**14, 2**14]},
        "inputs of batch 2**24": {"plans__0__inputs__args__0__shape": [2**24, 3, 32, 32]},
        "10**4 inputs": {"plans__0__inputs__args": [{"shape": [1, 3, 32, 32], "dtype": "float32"}] * 10**4},
        "no inputs": {"plans__0__inputs__args": []},
        "inputs without axes": {"plans__0__inputs__args__0__shape": []},
        "inputs of nothing": {"plans__0__inputs__args__0__shape": [0, 0, 0, 0]},
        "inputs of 64 axes": {"plans__0__inputs__args__0__shape": [1] * 64},
        "images 2**31": {"source__preprocessing__input_size": [3, 2**31, 2**31]},
        "crop 1e-9": {"source__preprocessing__crop_pct": 1e-9},
        "crop 0": {"source__preprocessing__crop_pct": 0},
        "crop -1": {"source__preprocessing__crop_pct": -1},
        "2**40 classes": {"source__kwargs__num_classes": HUGE},
        "2**30 classes": {"source__kwargs__num_classes": 2**30},
        "2**40 input channels": {"source__kwargs__in_chans": HUGE},
        "10**9 blocks": {
            "source__kwargs": {"num_classes": 2, "layers": [10**9, 1, 1, 1]},
            "source__spec": "timm:resnet18",
        },
        "10**6 blocks": {"source__kwargs": {"depths": [10**6, 1, 1, 1]}, "source__spec": "timm:convnext_atto"},
        "10**4 blocks": {"source__kwargs": {"depths": [10**4, 1, 1, 1]}, "source__spec": "timm:convnext_atto"},
        "width 2**40": {"source__kwargs": {"dims": [HUGE] * 4}, "source__spec": "timm:convnext_atto"},
        "width 2**20": {"source__kwargs": {"dims": [2**20] * 4}, "source__spec": "timm:convnext_atto"},
        "a vision transformer of 10**7 positions": {
            "source__kwargs": {"img_size": [2**16, 2**16]},
            "source__spec": "timm:vit_tiny_patch16_224",
        },
        "a swin of 10**5 windows": {
            "source__kwargs": {"img_size": [2**16, 2**16]},
            "source__spec": "timm:swin_tiny_patch4_window7_224",
        },
        "a vgg of 2**20": {
            "source__kwargs": {"num_classes": 2**30},
            "source__spec": "torchvision:vgg11",
            "source__kind": "torchvision",
        },
        "a detector of 2**30": {
            "source__kwargs": {"num_classes": 2**30},
            "source__kind": "torchvision",
            "source__spec": "torchvision:ssdlite320_mobilenet_v3_large",
        },
        "10**7 ultralytics": {
            "source__kwargs": {"config": "[" * 10**5},
            "source__kind": "ultralytics",
            "source__spec": "ultralytics:yolov5n",
        },
    }
    for name, values in settings.items():
        refused = name.startswith(("2**40", "10**9", "width", "kernel 10**9", "stride 10**9"))
        yield Attack(
            name, "sizes without end", _set(**values), ("load", "evaluate", "bench", "inspect"), refused=refused
        )
    plan = "plans__0__"
    more: dict[str, dict[str, Any]] = {
        "4096 blocks more": {
            f"{plan}repeats": [{"path": f"layer{i}", "before": 1, "after": 4096} for i in (1, 2, 3, 4)]
        },
        "2**24 outputs": {f"{plan}heads": [{"path": "fc", "before": 2, "after": 2**24}]},
        "a layout of 2**24": {f"{plan}adjustments": [_adjustment(2**24)]},
        "an axis of 10**9": {f"{plan}adjustments": [_adjustment(4, axis=10**9)]},
        "10**9 runs": {f"{plan}adjustments": [_adjustment(2**62)]},
        "other modules' names": {f"{plan}adjustments": [{"path": "__class__", "type_name": "type", "role": "carrier"}]},
    }
    for name, values in more.items():
        yield Attack(name, "sizes without end", _set(**values), ("load", "evaluate"))
    many: dict[str, Callable[[dict[str, Any]], None]] = {
        "10**4 decisions": lambda d: _repeat(d["plans"][0], "decisions", 1500),
        "10**5 plans": lambda d: d.update(plans=d["plans"] + 10**5 * [_empty(d["plans"][0])]),
        "3000 plans": lambda d: d.update(plans=3000 * [_empty(d["plans"][0])]),
        "10**6 checks": lambda d: d.update(checks=[{"name": "a", "outcome": "passed"}] * 10**6),
        "10**5 calls": lambda d: _repeat(d["plans"][0]["decisions"][0]["site"], "calls", 10**5),
        "10**5 left alone": lambda d: _repeat(d["plans"][0], "left_alone", 10**5),
    }
    for name, change in many.items():
        yield Attack(name, "lists without end", with_record(change), ("load", "page"))


def _adjustment(channels: int, *, axis: int = 0) -> dict[str, Any]:
    layout = {"runs": [[channels, 4]], "how": "select"}
    tensor = {"name": "weight", "axis": axis, "change": "repeat", "layout": layout}
    return {"path": "bn1", "type_name": "BatchNormAct2d", "role": "carrier", "tensors": [tensor]}


def _repeat(holder: dict[str, Any], key: str, times: int) -> None:
    holder[key] = holder[key] * times


def _empty(plan: dict[str, Any]) -> dict[str, Any]:
    return {key: plan[key] for key in ("rulebook", "fingerprint", "inputs")} | {"decisions": []}


def _names() -> Iterator[Attack]:
    conv = "plans__0__decisions__0__site__"
    for text in (
        "__class__", "forward", "forward.__globals__", "conv1.__dict__", "../../outside/sentinel", "", "a\nb",
        "fc.weight",
        "global_pool", "_modules", "layer1.0.act1.__init__",
    ):  # fmt: skip
        yield Attack(f"path {text!a}", "names of a plan", _set(**{f"{conv}path": text}), ("load",), refused=True)
        yield Attack(f"alias {text!a}", "names of a plan", _set(**{f"{conv}aliases": [text]}), ("load", "convert"))
    operations = (
        "__class__", "__init__:0", "forward:conv:0", "__getattr__:max_pool2d:0", "forward:__import__:0", "to:0",
        "end:0.x",
        "end:0\n", "load_state_dict", "register_forward_hook:0", "__del__:input:0", "forward:0:0", "::", "__dict__",
    )  # fmt: skip
    for text in operations:
        change = _set(**{f"{conv}operation": text, f"{conv}operator": "conv"})
        yield Attack(f"operation {text!a}", "names of a plan", change, ("load",), refused=True)
        yield Attack(
            f"block {text!a}", "names of a plan", _renamed(text), ("load", "evaluate"), refused=True, gated=True
        )
    # What a comment of an exported file could end with, a line break; a dot and a colon would not get so far.
    code = "end:0\n        " + f"exec(bytes({list(TOUCH.encode())}))" + "\n        #"
    yield Attack("code in a name", "names of a plan", _renamed(code), ("load", "python", "onnx"), gated=True)
    for rewrite in ("os.system", "__import__", "replace-strided-conv ", "Rewrite", "../x", "keep"):
        change = _set(plans__0__decisions__0__rewrite=rewrite)
        yield Attack(f"rewrite {rewrite}", "names of a plan", change, ("load",), refused=True)
    for dtype in (
        "float128",
        "Tensor",
        "load",
        "os",
        "__class__",
        "int64",
        "complex64",
        "qint8",
        "float8_e4m3fn",
        "bits8",
    ):
        change = _set(plans__0__inputs__args__0__dtype=dtype)
        yield Attack(f"dtype {dtype}", "names of a plan", change, ("inspect", "bench", "evaluate"))


def _renamed(operation: str) -> Callable[[Path], object]:
    """Give the attack that calls the first block behind a module something else, in plan and weights."""

    def apply(folder: Path) -> None:
        record = json.loads((folder / "spdify.json").read_text("utf-8"))
        site = record["plans"][0]["decisions"][0]["site"]
        old, new = (f"{site['path']}.{name.replace(':', '_')}." for name in (site["operation"], operation))
        site["operation"] = operation
        (folder / "spdify.json").write_text(json.dumps(record), encoding="utf-8")
        file = folder / "model.safetensors"
        file.write_bytes(
            with_header(file, lambda header: {key.replace(old, new): value for key, value in header.items()})
        )

    return apply


def _links() -> Iterator[Attack]:
    kinds: dict[str, Callable[[Path], object]] = {
        "a link out": lambda path: path.symlink_to("../../outside/sentinel"),
        "a link to itself": lambda path: path.symlink_to(path.name),
        "a link to nothing": lambda path: path.symlink_to("../nothing"),
        "a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
        "a pipe": os.mkfifo,
        "a folder": lambda path: path.mkdir(),
        "empty": lambda path: path.write_bytes(b""),
        "not readable": lambda path: path.symlink_to("/proc/self/mem"),
    }
    for file in ("spdify.json", "report.json", "model.safetensors", "config.json"):
        for name, make in kinds.items():
            ways = WAYS_OF_FILES[file]
            change = partial(_instead, file=file, make=make)
            yield Attack(f"{file} is {name}", "links, pipes, folders", change, ways, refused=True)
    yield Attack(
        "the folder is a link",
        "links, pipes, folders",
        _linked,
        (*LOOKED, "convert bundle --rules cbam --no-onnx -o bundle --overwrite"),
    )


def _instead(folder: Path, *, file: str, make: Callable[[Path], object]) -> None:
    (folder / file).unlink()
    make(folder / file)


def _linked(folder: Path) -> None:
    folder.rename(folder.parent / "real")
    folder.symlink_to("real")


def _weights() -> Iterator[Attack]:
    for name, length in (("2**63", 2**63), ("2**40", 2**40), ("100 MB", 10**8), ("0", 0), ("1", 1)):
        yield Attack(
            f"header of {name}", "headers of weights", partial(_length, length=length), ("load",), refused=True
        )
    changes: dict[str, Callable[[dict[str, Any]], Any]] = {
        "dtype unknown": lambda h: {k: v | {"dtype": "OS"} if "dtype" in v else v for k, v in h.items()},
        "dtype F64": lambda h: {k: v | {"dtype": "F64"} if "dtype" in v else v for k, v in h.items()},
        "shapes 2**60": lambda h: {k: v | {"shape": [2**60]} if "shape" in v else v for k, v in h.items()},
        "offsets alike": lambda h: {k: v | {"data_offsets": [0, 64]} if "shape" in v else v for k, v in h.items()},
        "offsets negative": lambda h: {k: v | {"data_offsets": [-8, 8]} if "shape" in v else v for k, v in h.items()},
        "offsets 2**63": lambda h: {k: v | {"data_offsets": [0, 2**63]} if "shape" in v else v for k, v in h.items()},
        "a list": lambda h: [h],
        "deep": lambda _: "@deep",
        "no tensors": lambda h: {"__metadata__": h.get("__metadata__", {})},
        "another name": lambda h: {f"x{k}" if k == "fc.weight" else k: v for k, v in h.items()},
        "names like code": lambda h: {"__class__.__init__" if k == "fc.weight" else k: v for k, v in h.items()},
        "shared deep": lambda h: h | {"__metadata__": {"shared": "[" * 10**5}},
        "shared number": lambda h: h | {"__metadata__": {"shared": "7"}},
        "shared list": lambda h: h | {"__metadata__": {"shared": '["fc.weight"]'}},
        "shared digits": lambda h: h | {"__metadata__": {"shared": "9" * 5000}},
        "shared nothing": lambda h: h | {"__metadata__": {"shared": '{"fc.weight": "nothing"}'}},
        "shared lists": lambda h: h | {"__metadata__": {"shared": '{"fc.weight": ["x"]}'}},
        "shared more": lambda h: h | {"__metadata__": {"shared": '{"__class__": "fc.weight"}'}},
        "10**5 names": lambda h: (
            h | {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(10**5)}
        ),
    }
    for name, change in changes.items():
        yield Attack(f"header: {name}", "headers of weights", partial(_header, change=change), ("load",), True)
    yield Attack("names twice", "headers of weights", _twice, ("load",))


def _length(folder: Path, *, length: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(struct.pack("<Q", length) + file.read_bytes()[8:])


def _header(folder: Path, *, change: Callable[[dict[str, Any]], Any]) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(with_header(file, change))


def _twice(folder: Path) -> None:
    file = folder / "model.safetensors"
    data = file.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = data[8 : 8 + length].rstrip()
    again = header[:-1] + b"," + header[1:]
    file.write_bytes(struct.pack("<Q", len(again)) + again + data[8 + length :])


def _words() -> Iterator[Attack]:
    shown = ("page", "report", "report bundle --markdown", "two", "inspect", "evaluate", "python")
    for name, text in (("markup", f'">{MARKUP}'), ("escapes", ESCAPE), ("a closing tag", f"</style></svg>{MARKUP}")):
        for file in ("report.json", "spdify.json"):
            yield Attack(f"{name} in {file}", "markup in names", _texts(text, file), shown)
    yield Attack(
        "markup in the model's name", "markup in names",
        _both(_set(source__name=f'x"""\n{TOUCH}\n"""', command=f"```\n{MARKUP}"), plant),
        ("python", "page", "convert", "finetune", "onnx"),
    )  # fmt: skip
    deep = {
        "@deep": "deep",
        "@deep-objects": "deep objects",
        "@digits": "5000 digits",
        "@nan": "NaN",
        "@exponent": "1e999",
    }
    for text, name in deep.items():
        for file in ("spdify.json", "report.json", "config.json"):
            ways = ("inspect local-dir:bundle",) if file == "config.json" else ("page",)
            where = "pretrained_cfg" if file == "config.json" else "schema_version"
            yield Attack(
                f"{name} in {file}",
                "JSON without end",
                with_record(partial(_put, way=where, value=text), file=file),
                ways,
            )


ATTACKS: tuple[Attack, ...] = (
    *_code_sources(), *_names(), *_words(), *_links(), *_weights(), *_sizes(),
)  # fmt: skip
