"""Classes with functional calls replaced, and with blocks behind or before what they compute.

A block that comes behind a module (or before one) is a submodule of it, which a subclass with the class's name calls:
names, methods and isinstance stay. A container does not show it among what it holds.

The edit of a call is made on a subclass that bears the class's name: the method is compiled again from its own source
with `F.max_pool2d(x, 3, 2)` turned into `self.<block>(x)`, all else as it was, in the globals and with the line numbers
of the original.
"""

from __future__ import annotations

import ast
import copy
import inspect
from collections import OrderedDict
from functools import lru_cache, wraps
from itertools import count, islice
from types import CellType, FunctionType
from typing import TYPE_CHECKING, Any

from torch import nn

from spdify.errors import PlanError
from spdify.graph.calls import (
    AROUND,
    BASE,
    NoPlaceError,
    find_expression,
    inner_method,
    is_stepped,
    self_name,
    source_tree,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

#: Operators of what is no call: blocks behind a module's output, and before its input.
BEHIND = frozenset({"stage_end", "block_end", "pyramid"})
BEFORE = frozenset({"input"})
EDITS = "_spdify_edits"
#: Methods of a sequence that change what it holds.
CHANGING = ("__setitem__", "__delitem__", "append", "insert")
#: Arguments that stay in an edited call, in their order; the block knows the rest.
KEPT_ARGUMENTS = {"conv": ("input", "weight", "bias"), "max_pool": ("input",), "avg_pool": ("input",)}


def next_number(module: nn.Module, what: str, *, given: int = 0) -> int:
    """Give the number of a block of a kind (`end`, `forward:input`) that is to be put behind or before a module.

    Names that the module has already, for blocks or for anything of its own, are passed by.

    Args:
        module: Not changed.
        what: The operation, without its number.
        given: How many of the numbers that are free are given away.
    """
    numbers = (op.rpartition(":") for op, operator in getattr(type(module), EDITS, ()) if operator in BEHIND | BEFORE)
    kind = what.rpartition(":")[2]
    number = max((int(n) + 1 for name, _, n in numbers if name.rpartition(":")[2] == kind), default=0)
    free = (n for n in count(number) if not hasattr(module, block_name(f"{what}:{n}")))
    return next(islice(free, given, None))


def takes_blocks(module: nn.Module, method: str = "forward") -> bool:
    """Whether a subclass may call blocks around a method, and keep them.

    Not where the instance has a method of its own, nor around what is there to be taken off.
    """
    return method not in vars(module) and not isinstance(module, nn.DataParallel)


def block_name(operation: str) -> str:
    """Give the name of the submodule that takes the place of a functional call: `forward_max_pool2d_0`."""
    return operation.replace(":", "_")


def _arguments(node: ast.Call | ast.Subscript, operator: str) -> list[ast.expr | ast.keyword]:
    """Give the arguments of a call that its block takes as well."""
    if isinstance(node, ast.Subscript):
        return [node.value]
    names = KEPT_ARGUMENTS.get(operator, ("input",))
    positional = node.args[: len(names)]
    named = [keyword for keyword in node.keywords if keyword.arg in names]
    return [*positional, *named]


class _Replace(ast.NodeTransformer):
    """Turns chosen expressions into calls of submodules, and mangles private names as the class body would."""

    def __init__(self, chosen: dict[tuple[int, int], tuple[str, str]], owner: str, instance: str) -> None:
        self._chosen, self._owner, self._instance = chosen, owner.lstrip("_"), instance

    def visit(self, node: ast.AST) -> Any:  # noqa: ANN401 - as ast has it
        """Replace the node when it is one of those chosen; look inside first."""
        key = (getattr(node, "end_lineno", 0), getattr(node, "end_col_offset", 0))
        hit = self._chosen.get(key) if isinstance(node, ast.Call) or is_stepped(node) else None
        node = super().visit(node)
        if hit is None or not isinstance(node, (ast.Call, ast.Subscript)):
            return node
        name, operator = hit
        arguments = _arguments(node, operator)
        call = ast.Call(
            func=ast.Attribute(ast.Name(self._instance, ast.Load()), name, ast.Load()),
            args=[a for a in arguments if isinstance(a, ast.expr)],
            keywords=[a for a in arguments if isinstance(a, ast.keyword)],
        )
        return ast.fix_missing_locations(ast.copy_location(call, node))

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """Mangle `self.__name`."""
        self.generic_visit(node)
        if node.attr.startswith("__") and not node.attr.endswith("__") and self._owner:
            node.attr = f"_{self._owner}{node.attr}"
        return node


#: (operation, operator) of each call that is replaced, in the order of the operations.
Edits = tuple[tuple[str, str], ...]


def edit_module(module: nn.Module, edits: Edits) -> None:
    """Give a module a class whose methods call blocks in the place of functions; the blocks are put in separately.

    Args:
        module: Changed in place: its class. Earlier edits stay.
        edits: What to replace; the submodule `block_name(operation)` takes the call.

    Raises:
        PlanError: The class has no such call.
    """
    kind = type(module)
    base, earlier = getattr(kind, BASE, kind), getattr(kind, EDITS, ())
    try:
        chosen = tuple(sorted({*earlier, *edits}))
        module.__class__ = _edited_class(base, chosen)  # type: ignore[arg-type]  # mypy takes a class for a module
    except NoPlaceError as error:
        raise PlanError(
            f"cannot edit {base.__name__}: {error}", hint="The plan was made for other code of this class."
        ) from error


@lru_cache(maxsize=1024)
def _edited_class(base: type, edits: Edits) -> type:
    """Make the subclass; the same for all modules of a class with the same edits."""
    by_method: dict[str, dict[tuple[int, int], tuple[str, str]]] = {}
    for operation, operator in edits:
        if operator in BEHIND | BEFORE:
            continue
        node = find_expression(base, operation)
        place = (node.end_lineno or 0, node.end_col_offset or 0)
        by_method.setdefault(operation.split(":")[0], {})[place] = (block_name(operation), operator)
    names: dict[str, Any] = {method: _edited_method(base, method, chosen) for method, chosen in by_method.items()}
    names |= _with_blocks(base, edits, names)
    names |= {
        "__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__,
        "__reduce_ex__": _reduce, BASE: base, EDITS: edits,
    }  # fmt: skip
    return type(base)(base.__name__, (base,), names)


def _with_blocks(base: type, edits: Edits, methods: dict[str, Any]) -> dict[str, Any]:
    """Give the methods that call blocks behind or before what a class computes, and hide them in a container."""
    behind = [block_name(operation) for operation, operator in edits if operator in BEHIND]
    names: dict[str, Any] = {}
    if behind:
        names["forward"] = _followed(methods.get("forward") or getattr(base, "forward"), behind)  # noqa: B009 - any class
    for operation, operator in edits:
        if operator in BEFORE:
            method = operation.split(":")[0]
            names[method] = _preceded(names.get(method, methods.get(method, getattr(base, method))), operation)
    hidden = frozenset(block_name(operation) for operation, operator in edits if operator in BEHIND | BEFORE)
    if hidden and issubclass(base, nn.Sequential):
        names |= _quiet_sequence(base, hidden)
    elif hidden and issubclass(base, nn.ModuleDict):
        names |= _quiet_dictionary(hidden)
    return names


def _followed(method: Callable[..., Any], blocks: Sequence[str]) -> Callable[..., Any]:
    """Give a method whose result goes through blocks."""

    @wraps(method)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the module has it
        result = method(self, *args, **kwargs)
        for name in blocks:
            result = getattr(self, name)(result)
        return result

    setattr(forward, AROUND, method)
    return forward


def _preceded(method: Callable[..., Any], operation: str) -> Callable[..., Any]:
    """Give a method whose first argument goes through a block before."""
    name = block_name(operation)

    @wraps(method)
    def forward(self: nn.Module, x: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the module has it
        return method(self, getattr(self, name)(x), *args, **kwargs)

    setattr(forward, AROUND, method)
    return forward


def _shown(self: nn.Module, hidden: frozenset[str]) -> OrderedDict[str, nn.Module]:
    return OrderedDict((name, module) for name, module in self._modules.items() if name not in hidden)  # type: ignore[misc]


def _quiet_sequence(base: type[nn.Sequential], hidden: frozenset[str]) -> dict[str, Any]:
    """Give the methods of a sequence that does not show some of its modules."""

    def iterate(self: nn.Sequential) -> Iterator[nn.Module]:
        return iter(_shown(self, hidden).values())

    def length(self: nn.Sequential) -> int:
        return len(_shown(self, hidden))

    def item(self: nn.Sequential, index: int | slice) -> nn.Module:
        if isinstance(index, slice):
            return base(OrderedDict(list(_shown(self, hidden).items())[index]))
        return list(_shown(self, hidden).values())[index]

    changing = {name: _with_hidden_aside(getattr(base, name), hidden) for name in CHANGING}
    return {"__iter__": iterate, "__len__": length, "__getitem__": item, **changing}


def _with_hidden_aside(method: Callable[..., Any], hidden: frozenset[str]) -> Callable[..., Any]:
    """Give a method that numbers a sequence's modules anew as if it had but those it shows."""

    @wraps(method)
    def change(self: nn.Sequential, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the method has it
        kept = {name: self._modules.pop(name) for name in [*self._modules] if name in hidden}
        try:
            return method(self, *args, **kwargs)
        finally:
            self._modules.update(kept)

    return change


def _quiet_dictionary(hidden: frozenset[str]) -> dict[str, Any]:
    """Give the methods of a dictionary of modules that does not show some of them."""
    return {
        "__iter__": lambda self: iter(_shown(self, hidden)),
        "__len__": lambda self: len(_shown(self, hidden)),
        "keys": lambda self: _shown(self, hidden).keys(),
        "values": lambda self: _shown(self, hidden).values(),
        "items": lambda self: _shown(self, hidden).items(),
    }


def _reduce(self: nn.Module, _protocol: object) -> tuple[Any, ...]:
    """Pickle and copy by way of the original class: the edited one has no address of its own."""
    return _blank, (getattr(type(self), BASE), getattr(type(self), EDITS)), self.__getstate__()  # type: ignore[no-untyped-call]


def _blank(base: type, edits: Edits) -> nn.Module:
    made: nn.Module = object.__new__(_edited_class(base, edits))
    return made


def _edited_method(kind: type, method: str, chosen: dict[tuple[int, int], tuple[str, str]]) -> FunctionType:
    """Compile a method again with some expressions replaced."""
    function = inspect.getattr_static(kind, method)
    owner = next(base for base in kind.__mro__ if method in vars(base))
    # The tree is shared by all edits of this method; a copy is changed.
    tree: ast.FunctionDef = copy.deepcopy(source_tree(function))
    _strip(tree)
    tree = _Replace(chosen, owner.__name__, self_name(function)).visit(tree)
    made = _compile(tree, function, owner)
    made.__defaults__, made.__kwdefaults__ = function.__defaults__, function.__kwdefaults__
    made.__annotations__, made.__doc__ = function.__annotations__, function.__doc__
    made.__qualname__, made.__module__ = function.__qualname__, function.__module__
    setattr(made, BASE, function)
    return made


def _strip(tree: ast.FunctionDef) -> None:
    """Take off what is evaluated where a function is defined: it is carried over as values."""
    arguments = tree.args
    for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]:
        if argument is not None:
            argument.annotation = None
    tree.returns = None
    arguments.defaults = []
    arguments.kw_defaults = [None] * len(arguments.kwonlyargs)


def _compile(tree: ast.FunctionDef, function: FunctionType, owner: type) -> FunctionType:
    """Compile inside a function that has the names of the closure, and give the result the original's own cells."""
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    names = sorted({*cells, "__class__"})  # `super()` asks for the latter
    outer = ast.FunctionDef(
        name="spdify_factory",
        args=ast.arguments(
            posonlyargs=[], args=[ast.arg(name) for name in names], kwonlyargs=[], kw_defaults=[], defaults=[]
        ),
        body=[tree, ast.Return(ast.Name(tree.name, ast.Load()))],
        decorator_list=[],
        lineno=tree.lineno,
        end_lineno=tree.end_lineno,
        col_offset=0,
        end_col_offset=0,
    )
    module = ast.fix_missing_locations(ast.Module([outer], []))
    scope: dict[str, Any] = {}
    # The user's own code, which runs anyway; only the chosen calls differ.
    exec(compile(module, function.__code__.co_filename, "exec", dont_inherit=True), function.__globals__, scope)  # noqa: S102
    code = scope["spdify_factory"](*names).__code__
    closure = tuple(cells.get(name) or CellType(owner) for name in code.co_freevars)
    return FunctionType(code, function.__globals__, function.__name__, None, closure)


def expression_of(module: nn.Module, operation: str) -> str:
    """Give the source of a functional call.

    Raises:
        PlanError: The module's class has no such call.
    """
    kind = type(module)
    try:
        return ast.unparse(find_expression(getattr(kind, BASE, kind), operation))
    except NoPlaceError as error:
        raise PlanError(
            f"cannot find {operation}: {error}", hint="The plan was made for other code of this class."
        ) from error


class CalledExpression(nn.Module):
    """What a method's own expression computes of its tensors: the original side of a functional site's proof."""

    def __init__(self, owner: nn.Module, operation: str, operator: str) -> None:
        """Compile the expression with its tensors turned into arguments.

        Raises:
            NoPlaceError: The expression is not there.
        """
        super().__init__()
        self._owner = [owner]  # in a list: no submodule
        kind = type(owner)
        node = copy.deepcopy(find_expression(kind, operation))
        names = KEPT_ARGUMENTS.get(operator, ("input",))
        _name_tensors(node, names)
        function = inner_method(inspect.getattr_static(kind, operation.split(":", maxsplit=1)[0]))
        instance = self_name(function)
        arguments = ast.arguments(
            posonlyargs=[], args=[ast.arg(name) for name in (instance, *(f"spdify_{n}" for n in names))], kwonlyargs=[],
            kw_defaults=[], defaults=[],
        )  # fmt: skip
        tree = ast.fix_missing_locations(ast.Expression(ast.Lambda(arguments, node)))
        self._function = eval(compile(tree, "<expression>", "eval"), function.__globals__)  # noqa: S307 - the user's code
        self._count = len(names)

    def __deepcopy__(self, memo: object) -> CalledExpression:
        """Give the expression itself: it holds no tensor, and its owner is not to be copied."""
        return self

    def forward(self, *tensors: Tensor | None) -> Any:  # noqa: ANN401 - what the expression gives
        """Evaluate the expression on these tensors.

        Raises:
            NameError: It reads variables of its method.
        """
        return self._function(self._owner[0], *tensors, *[None] * (self._count - len(tensors)))


def _name_tensors(node: ast.Call | ast.Subscript, names: tuple[str, ...]) -> None:
    """Put variables in the place of the tensors."""
    if isinstance(node, ast.Subscript):
        node.value = ast.Name("spdify_input", ast.Load())
        return
    for index, name in enumerate(names[: len(node.args)]):
        node.args[index] = ast.Name(f"spdify_{name}", ast.Load())
    for keyword in node.keywords:
        if keyword.arg in names:
            keyword.value = ast.Name(f"spdify_{keyword.arg}", ast.Load())
