"""Functional calls: where in a class's own code one is made.

A call is found by the frame that makes it: the innermost method of the running module, and in it, by the position that
CPython keeps for every instruction, the very expression.
"""

from __future__ import annotations

import ast
import inspect
import sys
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType, FrameType, FunctionType
from typing import TYPE_CHECKING, Any

from torch import fx, nn

from spdify.graph.obstacles import RETURNS_INDICES

if TYPE_CHECKING:
    from collections.abc import Iterator


#: Frames of PyTorch that may lie between a call and its operator; any other does more than the operator.
TRANSPARENT = ("max_pool", "_max_pool", "adaptive_", "_adaptive_", "conv", "avg_pool")
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
RETURN_INDICES = 6  # position of that argument of F.max_pool*d
#: Attribute of an edited class and of its edited methods: the original.
BASE = "_spdify_base"
#: Attribute of a method that calls blocks around another one: that one.
AROUND = "_spdify_around"


@dataclass(frozen=True)
class CallPlace:
    """A place in the code of a class: method and expression.

    Attributes:
        method: Name of the method.
        callee: Name of what is called there as the code has it, `slice` for a subscript.
        number: Which of the expressions with that callee in the method, in the order of the source.
        expression: The source of the expression.
    """

    method: str
    callee: str
    number: int
    expression: str

    @property
    def operation(self) -> str:
        """Short form, `forward:max_pool2d:0`."""
        return f"{self.method}:{self.callee}:{self.number}"


class NoPlaceError(Exception):
    """An operator whose call cannot be found or edited; the message says why."""


def find_place(module: nn.Module) -> CallPlace:
    """Find the expression, in a method of `module`, that has led to the operator that is running now.

    Raises:
        NoPlaceError: It is not in the module's own code, or that code is not at hand.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the documented way to look at the stack
    codes = _codes(type(module))  # type: ignore[arg-type]  # mypy takes a class of modules for a module
    between: str = ""
    while frame is not None:
        code = frame.f_code
        if code in codes:
            if frame.f_locals.get(self_name(codes[code]), module) is not module:
                raise NoPlaceError("it is made by a method of another module")
            if between:
                raise NoPlaceError(f"it is made by {between}, not directly in a method of {type(module).__name__}")
            return _place(type(module), codes[code], code, frame.f_lasti)
        between = between or _foreign(frame)
        frame = frame.f_back
    raise NoPlaceError(f"it is not made in a method of {type(module).__name__}")


def _foreign(frame: FrameType) -> str:
    """Name a frame that is neither PyTorch's way to an operator nor ours."""
    name, home = frame.f_code.co_name, frame.f_globals.get("__name__", "")
    if home.startswith("torch.nn.functional"):
        return "" if name.startswith(TRANSPARENT) else f"F.{name}"
    return "" if home.startswith(("torch.", "spdify.graph.")) or home == "torch" else f"the function {name}"


def self_name(function: FunctionType) -> str:
    """Give the name that a method has for its instance; empty for a function without arguments."""
    names = function.__code__.co_varnames
    return names[0] if function.__code__.co_argcount else ""


@lru_cache(maxsize=1024)
def _codes(kind: type) -> dict[CodeType, FunctionType]:
    """Give the code objects of a class's methods, nested functions included, with their methods."""
    found: dict[CodeType, FunctionType] = {}
    for base in kind.__mro__[: kind.__mro__.index(nn.Module)] if issubclass(kind, nn.Module) else ():
        for value in vars(base).values():
            if isinstance(value, FunctionType):
                function = inner_method(value)
                for code in _nested(function.__code__):
                    found.setdefault(code, function)
    return found


def inner_method(function: Any) -> Any:  # noqa: ANN401 - whatever a class holds
    """Give the method that blocks were put around; any other as it is."""
    while hasattr(function, AROUND):
        function = getattr(function, AROUND)
    return function


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _place(kind: type, function: FunctionType, code: CodeType, instruction: int) -> CallPlace:
    """Name the expression that an instruction belongs to."""
    _, line, _, column = list(code.co_positions())[instruction // 2]
    method = _require_editable(kind, function)
    for callee, number, node in _expressions(method):
        if (node.end_lineno, node.end_col_offset) == (line, column):
            _require_replaceable(node)
            return CallPlace(function.__name__, callee, number, ast.unparse(node))
    raise NoPlaceError("its expression is not a plain call or subscript")


def _require_editable(kind: type, function: FunctionType) -> ast.FunctionDef:
    """Give a method's syntax tree, or say why a subclass cannot replace it."""
    if issubclass(kind, fx.GraphModule):
        raise NoPlaceError("its module is generated by torch.fx, and its code with it")
    if issubclass(kind, CONTAINERS):
        raise NoPlaceError(
            f"{kind.__name__} is a container: a block put into it would be run as one more of its modules"
        )
    if inner_method(inspect.getattr_static(kind, function.__name__, None)) is not function:
        raise NoPlaceError(f"{kind.__name__} overrides the method {function.__name__} that makes it, and calls that")
    return source_tree(function)


@lru_cache(maxsize=1024)
def source_tree(function: FunctionType) -> ast.FunctionDef:
    """Parse the source of a method; lines and columns are those of its file.

    Raises:
        NoPlaceError: There is no source, or it is not a plain function.
    """
    function = inspect.unwrap(function)
    try:
        lines, first = inspect.getsourcelines(function.__code__)
    except (OSError, TypeError) as error:
        raise NoPlaceError(f"the source of its method {function.__name__} is not at hand") from error
    source = "".join(lines)
    indented = source[:1].isspace()
    try:
        module = ast.parse(f"if 1:\n{source}" if indented else source)
    except SyntaxError as error:
        raise NoPlaceError(f"the source of its method {function.__name__} cannot be read by itself") from error
    ast.increment_lineno(module, first - 1 - indented)
    statement = module.body[0].body[0] if isinstance(module.body[0], ast.If) else module.body[0]
    if not isinstance(statement, ast.FunctionDef) or statement.decorator_list:
        raise NoPlaceError(f"its method {function.__name__} is decorated, or no plain function")
    return statement


def _expressions(method: ast.FunctionDef) -> list[tuple[str, int, ast.Call | ast.Subscript]]:
    """Give the calls and stepped subscripts of a method in the order of the source, numbered by callee."""
    nodes = [node for node in ast.walk(method) if isinstance(node, ast.Call) or is_stepped(node)]
    nodes.sort(key=lambda node: (node.end_lineno, node.end_col_offset))  # type: ignore[attr-defined]
    numbers: dict[str, int] = {}
    found = []
    for node in nodes:
        callee = _callee(node)
        if callee:
            found.append((callee, numbers.setdefault(callee, 0), node))
            numbers[callee] += 1
    return found  # type: ignore[return-value]  # both kinds, by the filter above


def is_stepped(node: ast.AST) -> bool:
    """Whether a piece of code reads a subscript with a step in it."""
    return (
        isinstance(node, ast.Subscript)
        and isinstance(node.ctx, ast.Load)
        and any(isinstance(part, ast.Slice) and part.step is not None for part in ast.walk(node.slice))
    )


def _require_replaceable(node: ast.Call | ast.Subscript) -> None:
    """Raise `NoPlaceError` where a block would not do all that the expression does."""
    text = ast.unparse(node)
    if isinstance(node, ast.Subscript):
        if not _only_steps(node):
            raise NoPlaceError(f"{text} does more than step: it picks, crops or adds axes")
        return
    if any(isinstance(a, ast.Starred) for a in node.args) or any(k.arg is None for k in node.keywords):
        raise NoPlaceError(f"its arguments are hidden: {text}")
    flags = [k.value for k in node.keywords if k.arg == "return_indices"]
    flags += node.args[RETURN_INDICES : RETURN_INDICES + 1]
    if any(not (isinstance(flag, ast.Constant) and not flag.value) for flag in flags):
        raise NoPlaceError(f"{RETURNS_INDICES}: {text}")


def _only_steps(node: ast.Subscript) -> bool:
    """Whether a subscript has nothing but whole axes and steps that go on to the end."""
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    return all(
        (isinstance(part, ast.Slice) and part.upper is None and (part.lower is None or part.step is not None))
        or (isinstance(part, ast.Constant) and part.value is Ellipsis)
        for part in parts
    )


def _callee(node: ast.AST) -> str:
    if isinstance(node, ast.Subscript):
        return "slice"
    function = node.func if isinstance(node, ast.Call) else node
    return (
        function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    )


def find_expression(kind: type, operation: str) -> ast.Call | ast.Subscript:
    """Find an expression again.

    Raises:
        NoPlaceError: It is not there.
    """
    method, callee, number = operation.split(":")
    function = inner_method(inspect.getattr_static(kind, method, None))
    if not isinstance(function, FunctionType):
        raise NoPlaceError(f"{kind.__name__} has no method {method}")
    for name, index, node in _expressions(source_tree(getattr(function, BASE, function))):
        if (name, index) == (callee, int(number)):
            return node
    raise NoPlaceError(f"{kind.__name__}.{method} has no expression {callee}:{number}")
