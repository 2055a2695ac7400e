"""A traced network as one Python file that needs PyTorch and safetensors, and nothing else.

`torch.export` gives the operators of a forward pass in order, with the path of the module that runs each. They are
written under the names of `torch.nn.functional` where it has them. A result takes the variable of an operand that
nobody reads any more, so that memory is freed as in the network itself.
"""

from __future__ import annotations

import keyword
import math
import operator
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from spdify.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor
    from torch.export import ExportedProgram
    from torch.fx import Node

MODULE, WEIGHTS = "model.py", "weights.safetensors"

HEAD = '''"""{title}

Inference only. Needs PyTorch and safetensors.

    from model import load

    network = load()                 # reads {weights}, which lies beside this file
    outputs = network({inputs})
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F


class Network(nn.Module):
    """The network, one operator after the other. `w` holds its tensors by the names that they had in its modules."""

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        super().__init__()
        for name, tensor in weights.items():
            *path, last = name.split(".")
            module: nn.Module = self
            for part in path:
                if part not in module._modules:
                    module.add_module(part, nn.Module())
                module = module._modules[part]
            if name in PARAMETERS:
                module.register_parameter(last, nn.Parameter(tensor, requires_grad=False))
            else:
                module.register_buffer(last, tensor)

'''

TAIL = '''

PARAMETERS = {parameters}


def load(folder: str | Path = Path(__file__).parent) -> Network:
    """Read the weights and give the network, in eval mode, on the CPU."""
    return Network(load_file(Path(folder) / "{weights}")).eval()
'''

#: aten operator → name to call, with the arguments in their order, and how many of them PyTorch's function takes.
CALLS: dict[str, tuple[str, int]] = {
    "adaptive_avg_pool2d.default": ("F.adaptive_avg_pool2d", 2),
    "avg_pool2d.default": ("F.avg_pool2d", 7),
    "cat.default": ("torch.cat", 2),
    "conv1d.default": ("F.conv1d", 7),
    "conv2d.default": ("F.conv2d", 7),
    "conv3d.default": ("F.conv3d", 7),
    "flatten.using_ints": ("torch.flatten", 3),
    "gelu.default": ("F.gelu", 1),
    "group_norm.default": ("F.group_norm", 5),
    "hardsigmoid.default": ("F.hardsigmoid", 1),
    "hardswish.default": ("F.hardswish", 1),
    "layer_norm.default": ("F.layer_norm", 5),
    "linear.default": ("F.linear", 3),
    "matmul.default": ("torch.matmul", 2),
    "max_pool2d.default": ("F.max_pool2d", 6),
    "mean.dim": ("torch.mean", 3),
    "pad.default": ("F.pad", 4),
    "permute.default": ("torch.permute", 2),
    "pixel_unshuffle.default": ("F.pixel_unshuffle", 2),
    "relu.default": ("F.relu", 1),
    "relu_.default": ("torch.relu_", 1),
    "reshape.default": ("torch.reshape", 2),
    "scaled_dot_product_attention.default": ("F.scaled_dot_product_attention", 6),
    "sigmoid.default": ("torch.sigmoid", 1),
    "silu.default": ("F.silu", 1),
    "softmax.int": ("torch.softmax", 2),
    "transpose.int": ("torch.transpose", 3),
    "unsqueeze.default": ("torch.unsqueeze", 2),
}
#: Their last argument chooses a library, not a result.
WITHOUT_LAST = {"layer_norm.default", "group_norm.default"}
INFIX = {"add.Tensor": "+", "sub.Tensor": "-", "mul.Tensor": "*", "div.Tensor": "/"}
IN_PLACE = {"add_.Tensor", "mul_.Tensor", "sub_.Tensor", "div_.Tensor"}
SYMBOLS: dict[Callable[..., Any], str] = {
    operator.add: "+", operator.sub: "-", operator.mul: "*", operator.floordiv: "//", operator.mod: "%",
    operator.truediv: "/",
}  # fmt: skip
#: Checks of the trace's own, which compute nothing; an output that nobody reads is left out anyway.
CHECKS = ("_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range", "_assert_async")
RESERVED = {*keyword.kwlist, "w", "self", "torch", "F", "nn", "device", "dict"}


def python_code(program: ExportedProgram, *, title: str) -> tuple[str, dict[str, Tensor]]:
    """Write a program as Python.

    Args:
        program: As `torch.export.export` gives it, of a network in eval mode.
        title: First line of the file.

    Returns:
        The file's text, and the tensors that it reads from `weights.safetensors`, by name.

    Raises:
        ExportError: The program holds something that cannot be written down.
    """
    return _Writer(program).write(title)


class _Writer:
    """Writes one program."""

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        signature = program.graph_signature
        self.tensor_names: dict[str, str] = {
            **signature.inputs_to_parameters, **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }  # fmt: skip
        self.inputs = [str(name) for name in signature.user_inputs]
        self.nodes = [node for node in program.graph.nodes if not _is_check(node)]
        self.roots = self._find_roots()
        self.last_read = {
            self.roots[arg]: i
            for i, node in enumerate(self.nodes)
            for arg in node.all_input_nodes
            if not _is_nothing(node)
        }
        self.variables: dict[Node, str] = {}
        self.free: list[str] = []
        self.count = 0
        self.used: set[str] = set()
        self.needs_device = False

    def _find_roots(self) -> dict[Node, Node]:
        """Give, for each node, the one whose value it has: its own, or what a dropout in eval mode gives back."""
        roots: dict[Node, Node] = {}
        for node in self.nodes:
            roots[node] = roots[node.all_input_nodes[0]] if _is_nothing(node) else node
        return roots

    def write(self, title: str) -> tuple[str, dict[str, Tensor]]:
        """Give text and tensors."""
        lines = self._body()
        names = self._arguments()
        head = HEAD.format(title=_plain(title), weights=WEIGHTS, inputs=", ".join(names))
        tensors = self._tensors()
        text = head + f"    def forward(self, {', '.join(names)}):\n"
        text += "        w = {**dict(self.named_parameters()), **dict(self.named_buffers())}\n"
        if self.needs_device:
            text += f"        device = {names[0]}.device\n"
        text += "".join(f"        {line}\n" for line in lines)
        parameters = set(self.program.graph_signature.inputs_to_parameters.values()) & tensors.keys()
        listed = "".join(f"    {name!r},\n" for name in sorted(parameters))
        return text + TAIL.format(parameters=f"{{\n{listed}}}" if listed else "set()", weights=WEIGHTS), tensors

    def _arguments(self) -> list[str]:
        return [self._argument(name) for name in self.inputs]

    def _argument(self, name: str) -> str:
        if name not in RESERVED:
            return name
        while (name := f"{name}_") in self.inputs:
            pass
        return name

    def _tensors(self) -> dict[str, Tensor]:
        """Give the tensors that the text reads."""
        own: dict[str, Any] = {**self.program.state_dict, **self.program.constants}
        return {name: own[name].detach().contiguous().clone() for name in sorted(self.used)}

    def _body(self) -> list[str]:
        lines: list[str] = []
        where = ""
        for i, node in enumerate(self.nodes):
            if node.op == "placeholder":
                if node.name in self.inputs:
                    self.variables[node] = self._argument(node.name)
            elif node.op == "output":
                lines.append(f"return {self._result(node)}")
            elif node.op != "call_function":
                raise ExportError(f"a `{node.op}` of the trace has no words in Python")
            elif not _is_nothing(node):
                if (path := _module_of(node)) not in {"", where}:
                    where = path
                    lines.append(f"# {path}")
                lines.append(self._statement(i, node))
        return lines

    def _statement(self, i: int, node: Node) -> str:
        """Write one operator."""
        expression = self._expression(node)
        if node not in self.last_read:  # run for what it does to its operand
            return expression
        roots = dict.fromkeys(self.roots[arg] for arg in node.all_input_nodes)
        done = [self.variables[root] for root in roots if root in self.variables and self.last_read[root] == i]
        self.free = [*done, *self.free]
        self.variables[node] = self.free.pop(0) if self.free else self._new_variable()
        return f"{self.variables[node]} = {expression}"

    def _new_variable(self) -> str:
        """Give a name that nothing has had yet."""
        self.count += 1
        name = f"x{self.count}"
        return self._new_variable() if name in self._arguments() else name

    def _expression(self, node: Node) -> str:
        target: Any = node.target
        if target is operator.getitem:
            return f"{self._value(node.args[0])}[{self._value(node.args[1])}]"
        if target in SYMBOLS:
            return f"{self._value(node.args[0])} {SYMBOLS[target]} {self._value(node.args[1])}"
        if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":  # noqa: SLF001 - its only home
            raise ExportError(f"the operator {target} has no words in Python")
        return self._call(str(target).removeprefix("aten."), node)

    def _call(self, name: str, node: Node) -> str:
        args = [self._value(arg) for arg in node.args]
        kwargs = {key: self._value(value) for key, value in node.kwargs.items()}
        if name == "sym_size.int":
            return f"{args[0]}.shape[{args[1]}]"
        if name in INFIX and len(args) == 2 and not kwargs:  # noqa: PLR2004 - the two operands
            return f"{args[0]} {INFIX[name]} {args[1]}"
        if name in IN_PLACE and not kwargs:
            return f"{args[0]}.{name.partition('.')[0]}({', '.join(args[1:])})"
        if name == "batch_norm.default":
            x, weight, bias, mean, variance, training, momentum, eps, *_ = args
            return f"F.batch_norm({x}, {mean}, {variance}, {weight}, {bias}, {training}, {momentum}, {eps})"
        call, most = CALLS.get(name, (f"torch.ops.aten.{name}", len(args)))
        if len(args) > most and name not in WITHOUT_LAST:  # what the usual function would not take
            call, most = f"torch.ops.aten.{name}", len(args)
        words = [*args[:most], *(f"{key}={value}" for key, value in kwargs.items())]
        return f"{call}({', '.join(words)})"

    def _value(self, value: Any) -> str:  # noqa: ANN401 - whatever an operator takes
        """Write one argument."""
        if isinstance(value, torch.fx.Node):
            return self._node(value)
        if isinstance(value, (list, tuple)):
            inner = ", ".join(self._value(item) for item in value)
            return f"[{inner}]"
        if isinstance(value, torch.device):
            self.needs_device = True
            return "device"
        if isinstance(value, float) and not math.isfinite(value):
            return f"torch.{'nan' if math.isnan(value) else 'inf'}" if not value < 0 else "-torch.inf"
        if value is None or isinstance(value, (bool, int, float, str)):
            return repr(value)
        if isinstance(value, (torch.dtype, torch.memory_format, torch.layout)):
            return str(value)
        raise ExportError(f"an argument of type {type(value).__name__} has no words in Python")

    def _node(self, node: Node) -> str:
        if node.name in self.tensor_names:
            name = self.tensor_names[node.name]
            self.used.add(name)
            return f"w[{name!r}]"
        return self.variables[self.roots[node]]

    def _result(self, node: Node) -> str:
        """Write what the network gives, in the shape in which it gives it."""
        signature = self.program.graph_signature
        user = [value for value, spec in zip(node.args[0], signature.output_specs, strict=True) if _is_user(spec)]  # type: ignore[arg-type]  # a tuple
        spec = self.program.call_spec.out_spec
        if spec is None:
            raise ExportError("the trace does not say what the network gives")
        return _nested(pytree.tree_unflatten([_Word(self._value(value)) for value in user], spec))


def _plain(text: str) -> str:
    """Give a text that cannot end the string or comment it stands in: names come from files of somebody else's."""
    return "".join(char for char in text if char.isprintable() and char not in "\\\"'")


class _Word(str):
    """A piece of Python, as against a text that is to be quoted."""

    __slots__ = ()


def _nested(value: Any) -> str:  # noqa: ANN401 - whatever a network gives
    """Write nested results."""
    if isinstance(value, _Word):
        return str(value)
    if type(value) is tuple:
        return f"({''.join(f'{_nested(item)}, ' for item in value)})"
    if type(value) is list:
        return f"[{', '.join(map(_nested, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {_nested(item)}' for key, item in value.items())}}}"
    raise ExportError(f"a result of type {type(value).__name__} has no words in Python")


def _is_user(spec: Any) -> bool:  # noqa: ANN401 - torch.export's own record
    return spec.kind is torch.export.graph_signature.OutputKind.USER_OUTPUT


def _is_check(node: Node) -> bool:
    """Whether a node only checks something, or computes what nobody reads."""
    name = getattr(node.target, "__name__", str(node.target))
    return node.op == "call_function" and any(name.startswith(check) for check in CHECKS)


def _is_nothing(node: Node) -> bool:
    """Whether a node gives its operand back: dropout that is switched off."""
    return str(node.target).startswith(("aten.dropout.", "aten.dropout_.")) and node.args[2] is False


def _module_of(node: Node) -> str:
    """Say which module runs an operator."""
    stack: Iterable[Any] = (node.meta.get("nn_module_stack") or {}).values()
    path, kind = (list(stack) or [("", "")])[-1]
    name = str(getattr(kind, "__name__", kind)).rpartition(".")[2]
    if name.startswith("_"):  # a hook of the trace's own
        return ""
    return _plain(f"{path}: {name}" if path else name)
