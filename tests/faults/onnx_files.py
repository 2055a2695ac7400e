"""ONNX files of somebody else's, given to `evaluate`: damaged, with data elsewhere, without end, of another form."""

from __future__ import annotations

import os
import shutil
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.faults import templates
from tests.faults.commands import ESCAPE, MARKUP, judged, place, run_spdify
from tests.faults.mutations import damaged, shuffled
from tests.faults.trials import Case, Part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from tests.faults.trials import Outcome

FILE = "model.onnx"
COMMAND = ("evaluate", FILE, "--data", "imagefolder:photos", "--batch-size", "8")
_SHAPE = ("N", 3, 32, 32)


def _model(
    nodes: list[Any] | None = None, *, shape: Any = _SHAPE, kind: int = TensorProto.FLOAT, inputs: int = 1,
    initializers: tuple[Any, ...] = (), domains: tuple[str, ...] = (), out: Any = ("N", 2),
    texts: dict[str, str] | None = None, out_kind: int = TensorProto.FLOAT,
) -> bytes:  # fmt: skip
    """Give a file: by default the means of two of the colours."""
    if nodes is None:
        nodes = [helper.make_node("ReduceMean", ["x0", "axes"], ["m"], keepdims=0),
                 helper.make_node("Slice", ["m", "from", "to", "along"], ["y"])]  # fmt: skip
        initializers = tuple(
            numpy_helper.from_array(np.array(values, dtype=np.int64), name)
            for name, values in {"axes": [2, 3], "from": [0], "to": [2], "along": [1]}.items()
        )
    given = [helper.make_tensor_value_info(f"x{i}", kind, shape) for i in range(inputs)]
    graph = helper.make_graph(
        nodes, "g", given, [helper.make_tensor_value_info("y", out_kind, out)], list(initializers)
    )
    opsets = [helper.make_opsetid("", 18), *(helper.make_opsetid(domain, 1) for domain in domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    helper.set_model_props(model, texts or {})
    return bytes(model.SerializeToString())


def _external(location: str, *, length: int = 24, offset: int = 0) -> bytes:
    """Give a file whose weights lie somewhere else."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3, 2], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": str(offset), "length": str(length)}.items():
        weight.external_data.add(key=key, value=value)
    nodes = [
        helper.make_node("ReduceMean", ["x0", "axes"], ["m"], keepdims=0),
        helper.make_node("MatMul", ["m", "w"], ["y"]),
    ]
    return _model(nodes, initializers=(weight, numpy_helper.from_array(np.array([2, 3]), "axes")))


def _large(dims: list[int]) -> bytes:
    """Give a file that declares a tensor of this size, with four bytes in it."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, raw_data=b"\0" * 4)
    return _model([helper.make_node("Identity", ["w"], ["y"])], initializers=(weight,))


def _filled(size: int) -> bytes:
    """Give a file that makes a tensor of this size while it runs."""
    shape = numpy_helper.from_array(np.array([size], dtype=np.int64), "s")
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["c"]), helper.make_node("ReduceSum", ["c"], ["r"]),
             helper.make_node("Identity", ["r"], ["y"])]  # fmt: skip
    return _model(nodes, initializers=(shape,))


def _loop(times: int) -> bytes:
    """Give a file that goes round."""
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["a", "a"], ["b"])],
        "body",
        [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, []), info("a", TensorProto.FLOAT, [])],
        [info("on", TensorProto.BOOL, []), info("b", TensorProto.FLOAT, [])],
    )
    values = {"times": np.array(times), "yes": np.array(True), "one": np.array(1, dtype=np.float32)}
    start = tuple(numpy_helper.from_array(value, name) for name, value in values.items())
    return _model([helper.make_node("Loop", ["times", "yes", "one"], ["y"], body=body)], initializers=start)


_INF = '{"input_size":[3,32,32],"mean":[1e999],"std":[0]}'
FILES: dict[str, Callable[[], bytes]] = {
    "as it is": _model,
    "nothing": lambda: b"",
    "text": lambda: b"{}",
    "a pickle": lambda: b"\x80\x04N.",
    "another domain": lambda: _model([helper.make_node("Evil", ["x0"], ["y"], domain="evil")], domains=("evil",)),
    "no such operator": lambda: _model([helper.make_node("Evil", ["x0"], ["y"])]),
    "a Python operator": lambda: _model(
        [helper.make_node("PyOp", ["x0"], ["y"], domain="com.microsoft")], domains=("com.microsoft",)
    ),
    "a cycle": lambda: _model([helper.make_node("Add", ["x0", "y"], ["z"]), helper.make_node("Relu", ["z"], ["y"])]),
    "two inputs": lambda: _model(inputs=2),
    "no inputs": lambda: _model(inputs=0),
    "three axes": lambda: _model(shape=("N", 3, 32)),
    "no axes": lambda: _model(shape=None),
    "axes unknown": lambda: _model(shape=(None, None, None, None)),
    "no channels": lambda: _model(shape=("N", 0, 32, 32)),
    "seven channels": lambda: _model(shape=("N", 7, 32, 32)),
    "axes below 0": lambda: _model(shape=("N", 3, -32, -32)),
    "axes of 2**40": lambda: _model(shape=("N", 3, 2**40, 2**40)),
    "axes of 2**16": lambda: _model(shape=("N", 3, 2**16, 2**16)),
    "a batch of 0": lambda: _model(shape=(0, 3, 32, 32)),
    "a batch of 2**40": lambda: _model(shape=(2**40, 3, 32, 32)),
    "a batch of 2**24": lambda: _model(shape=(2**24, 3, 32, 32)),
    "integers in": lambda: _model(kind=TensorProto.INT64),
    "texts in": lambda: _model(
        [helper.make_node("Identity", ["x0"], ["y"])], kind=TensorProto.STRING, out_kind=TensorProto.STRING
    ),
    "bfloat16 in": lambda: _model(
        [helper.make_node("Identity", ["x0"], ["y"])], kind=TensorProto.BFLOAT16, out_kind=TensorProto.BFLOAT16
    ),
    "an image out": lambda: _model([helper.make_node("Identity", ["x0"], ["y"])], out=_SHAPE),
    "a number out": lambda: _model([helper.make_node("ReduceMean", ["x0"], ["y"], keepdims=0)], out=()),
    "integers out": lambda: _model([helper.make_node("Shape", ["x0"], ["y"])], out=(4,), out_kind=TensorProto.INT64),
    "a list out": lambda: _model([helper.make_node("SequenceConstruct", ["x0"], ["y"])]),
    "other rows out": lambda: _model(
        [helper.make_node("Reshape", ["x0", "s"], ["y"])],
        initializers=(numpy_helper.from_array(np.array([-1, 2]), "s"),),
    ),
    "a fault while it runs": lambda: _model(
        [helper.make_node("Reshape", ["x0", "s"], ["y"])],
        initializers=(numpy_helper.from_array(np.array([7, 11]), "s"),),
    ),
    "declares 2**40": lambda: _large([2**40]),
    "declares 2**62": lambda: _large([2**31, 2**31]),
    "declares -1": lambda: _large([-1]),
    "makes 2**40": lambda: _filled(2**40),
    "makes 2**62": lambda: _filled(2**62),
    "makes -1": lambda: _filled(-1),
    "goes round 10**4 times": lambda: _loop(10**4),
    "weights in /etc/passwd": lambda: _external("/etc/passwd"),
    "weights outside": lambda: _external("../outside/sentinel", length=9),
    "weights deep outside": lambda: _external("photos/../../outside/sentinel", length=9),
    "weights in /dev/zero": lambda: _external("/dev/zero"),
    "weights in a pipe": lambda: _external("pipe"),
    "weights behind a link": lambda: _external("link", length=9),
    "weights nowhere": lambda: _external("nothing"),
    "weights in the file itself": lambda: _external(FILE),
    "weights of 2**60": lambda: _external("photos/cat/0.png", length=2**60),
    "weights from 2**60 on": lambda: _external("photos/cat/0.png", offset=2**60),
    "weights below 0": lambda: _external("photos/cat/0.png", offset=-8, length=-8),
    "texts of no form": lambda: _model(texts={"spdify.preprocessing": "{", "spdify.classes": "7"}),
    "texts deep": lambda: _model(texts={"spdify.preprocessing": "[" * 10**5, "spdify.classes": "[" * 10**5}),
    "texts of digits": lambda: _model(texts={"spdify.classes": "9" * 5000}),
    "texts that are hostile": lambda: _model(
        texts={"spdify.classes": f'["{MARKUP}", "{ESCAPE.encode("unicode_escape").decode()}"]'.replace("\\x", "\\u00")}
    ),
    "a mean of infinity": lambda: _model(texts={"spdify.preprocessing": _INF}),
    "a size of 2**31": lambda: _model(
        texts={"spdify.preprocessing": '{"input_size":[3,2147483648,2147483648],"mean":[0,0,0],"std":[1,1,1]}'},
        shape=("N", 3, "H", "W"),
    ),
    "a size of two numbers": lambda: _model(
        texts={"spdify.preprocessing": '{"input_size":[3,32],"mean":[0,0,0],"std":[1,1,1]}'}
    ),
    "a size of nothing": lambda: _model(
        texts={"spdify.preprocessing": '{"input_size":[3,0,0],"mean":[0,0,0],"std":[1,1,1]}'}, shape=("N", 3, "H", "W")
    ),
    "a crop of 1e-9": lambda: _model(
        texts={"spdify.preprocessing": '{"input_size":[3,32,32],"mean":[0,0,0],"std":[1,1,1],"crop_pct":1e-9}'}
    ),
    "texts without UTF-8": lambda: _model(texts={"spdify.classes": "abcdefgh"}).replace(
        b"abcdefgh", b"\xff\xfe\xff\xfe\xff\xfe\xff\xfe"
    ),
    "names without UTF-8": lambda: _model().replace(b"x0", b"\xff\xfe"),
    "names that are hostile": lambda: _model([helper.make_node(MARKUP, ["x0"], [ESCAPE])]),
}
PLACES: dict[str, Callable[[Path], object]] = {
    "a folder": lambda file: file.mkdir(),
    "a pipe": os.mkfifo,
    "a link to /dev/zero": lambda file: file.symlink_to("/dev/zero"),
    "a link to itself": lambda file: file.symlink_to(FILE),
}


def onnx_cases(count: int, seed: int) -> Iterable[Case]:
    """Give the files that were thought out, then damaged ones."""
    templates.warm()
    templates.photos()
    onnx_file = (templates.bundle() / FILE).read_bytes()
    made = [
        Case(name, "a file that was thought out", partial(_try, partial(_write, data=data)))
        for name, data in FILES.items()
    ]
    made += [Case(f"the file is {name}", "links, pipes, folders", partial(_try, make)) for name, make in PLACES.items()]
    made = shuffled(made, seed)
    for number in range(count):
        data = partial(_damaged, onnx_file if number % 2 else _model(), f"{seed}/{number}")
        made.append(Case(f"random {number}", "damaged bytes", partial(_try, partial(_write, data=data))))
    return made[:count]


def _damaged(data: bytes, seed: str) -> bytes:
    random = Random(f"damage {seed}")
    for _ in range(random.choice((1, 1, 4))):
        data, _ = damaged(data, random)
    return data


def _write(file: Path, *, data: Callable[[], bytes]) -> None:
    file.write_bytes(data())


def _try(make: Callable[[Path], object]) -> tuple[Outcome, str]:
    with place(templates.root()) as where:
        shutil.copytree(templates.photos(), where.cwd / "photos")
        os.mkfifo(where.cwd / "pipe")
        (where.cwd / "link").symlink_to("../outside/sentinel")
        make(where.cwd / FILE)
        return judged(where, run_spdify(where, COMMAND))


ONNX = Part("onnx", onnx_cases, full=300, short=12, timeout_s=120)
