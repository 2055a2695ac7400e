"""Comparing two models inside, where their own outputs show little: detectors, argmax, outputs of data-dependent size.

A detector with random weights finds nothing, and what it finds hangs on choices (the best thousand, all above a
threshold) that rounding may tip. So the outputs of called modules are compared, the largest in whose course nothing is
chosen, and the numbers that every choice is made from. A choice is an operator that makes whole numbers or truth values
from floating-point numbers. Up to the first choice that the models make differently, everything must agree, the numbers
behind that choice too; what follows it, the models' own output included, cannot be compared.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from spdify.verification.compare import carries_signal, relative_error, tensors_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

aten = torch.ops.aten
#: Give whole numbers or truth values beside their result, which hardly anything looks at.
_NO_CHOICES = frozenset({
    aten.max_pool2d_with_indices, aten.max_pool3d_with_indices, aten.adaptive_max_pool2d, aten.adaptive_max_pool3d,
    aten.native_dropout,
})  # fmt: skip


@dataclass(eq=False)
class Seen:
    """One event of a forward pass: an output of a watched module, or a choice.

    Attributes:
        where: Path of the module.
        operator: Name of the choosing operator; empty for an output.
        values: The output, or the numbers that were chosen from.
        chosen: What was chosen.
    """

    where: str
    operator: str
    values: object
    chosen: list[Tensor] = field(default_factory=list)


@dataclass
class _Call:
    """One call of a module, with all that it calls."""

    path: str
    children: list[_Call] = field(default_factory=list)
    chooses: bool = False
    comparable: bool = False


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types there
    """Notes calls, outputs of `watched` modules and choices; what happens inside `sites` is theirs."""

    def __init__(self, model: nn.Module, watched: Collection[str], sites: Collection[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[Seen] = []
        self.whole = _Call("")
        self._running = [self.whole]
        self._watched, self._sites = frozenset(watched), frozenset(sites)
        self._own = False  # while operators are run that are not the model's
        self._handles = []
        for path, module in model.named_modules():
            if path:
                self._handles.append(module.register_forward_pre_hook(self._enter(path)))
                self._handles.append(module.register_forward_hook(self._leave, always_call=True))

    def _enter(self, path: str) -> Any:  # noqa: ANN401 - a forward hook
        def hook(_module: nn.Module, _args: object) -> None:
            call = _Call(path)
            self._running[-1].children.append(call)
            self._running.append(call)

        return hook

    def _leave(self, _module: nn.Module, _args: object, output: object) -> None:
        call = self._running.pop()
        self._own = True
        call.comparable = not call.chooses and carries_signal(output)
        self._own = False
        if call.path in self._watched:
            self.seen.append(Seen(call.path, "", _kept(output)))

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Run the operator and note a choice."""
        if self._own:
            return func(*args, **(kwargs or {}))
        packet = func._overloadpacket  # noqa: SLF001 - as torch.utils.flop_counter does
        inputs = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and t.is_floating_point()]
        before = [] if not inputs or packet in _NO_CHOICES else inputs
        out = func(*args, **(kwargs or {}))
        chosen = [t for t in tree_leaves(out) if _is_discrete(t)] if before else []
        if chosen and not any(call.path in self._sites for call in self._running):
            for call in self._running:
                call.chooses = True
            where = self._running[-1].path
            name = str(packet).removeprefix("aten.")
            self.seen.append(Seen(where, name, _kept(before), _kept(chosen)))
        return out

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()


def _is_discrete(value: object) -> bool:
    return isinstance(value, Tensor) and not (value.is_floating_point() or value.is_complex())


def _kept(values: Any) -> Any:  # noqa: ANN401 - outputs of any kind
    """Copy the tensors of an output: what comes later may change them in place."""
    return tree_map_only(Tensor, lambda t: t.detach().clone(), values)


def _watch(
    model: nn.Module, run: Callable[[nn.Module], object], watched: Collection[str], sites: Collection[str]
) -> _Watch:
    watch = _Watch(model, watched, sites)
    try:
        with torch.no_grad(), watch:
            output = run(model)
    finally:
        watch.remove()
    watch.seen.append(Seen("", "", _kept(output)))
    return watch


def find_watched(
    model: nn.Module, run: Callable[[nn.Module], object], sites: Collection[str]
) -> tuple[tuple[str, ...], bool]:
    """Find what can be compared inside a model.

    Args:
        model: Run as `run` does.
        run: Runs a model.
        sites: Paths of the modules that were replaced; whatever is chosen in there is not looked at.

    Returns:
        Paths of the outermost called modules below the model itself whose outputs differ from place to place and in
        whose course nothing is chosen; and whether anything is chosen in the model at all.
    """
    whole = _watch(model, run, (), sites).whole
    return tuple(dict.fromkeys(_outermost(whole))), whole.chooses


def _outermost(call: _Call) -> Iterator[str]:
    for child in call.children:
        if child.comparable:
            yield child.path
        else:
            yield from _outermost(child)


@dataclass
class Agreement:
    """How far two models agree inside.

    Attributes:
        error: Largest relative error of all that can be compared.
        watched: The modules whose outputs were compared.
        complete: Whether every site lies in one of them, where the models choose differently later on.
        parted: The first choice that the models make differently, in words; empty where there is none.
    """

    error: float
    watched: tuple[str, ...]
    complete: bool
    parted: str = ""

    @property
    def detail(self) -> str:
        """What was compared, for a check."""
        names = ", ".join(self.watched[:5]) + (f" and {len(self.watched) - 5} more" if len(self.watched) > 5 else "")  # noqa: PLR2004
        text = f"the model's own output shows too little or hangs on choices: compared are the outputs of {names}"
        if self.parted:
            return f"{text}; rounding tips {self.parted}, what follows is not compared"
        return f"{text}, all that is chosen, and the model's own output"


def compare_inside(
    models: tuple[nn.Module, nn.Module],
    run: Callable[[nn.Module], object],
    watched: tuple[str, ...],
    sites: Collection[str],
    covering: Collection[str] = (),
) -> Agreement:
    """Compare what two models compute inside, up to the first choice that they make differently.

    Args:
        models: The original and its conversion.
        run: Runs either, with the same inputs and seed.
        watched: As `find_watched` gives them for the original.
        sites: Paths of the modules that were replaced.
        covering: Paths of all sites, functional calls too: each must lie in something that could be compared.
    """
    first, second = (_watch(model, run, watched, sites).seen for model in models)
    error, met = 0.0, set()
    for index, (a, b) in enumerate(zip_longest(first, second)):
        if a is None or b is None or (a.where, a.operator) != (b.where, b.operator):
            return Agreement(float("inf"), watched, complete=False)
        if a.operator or tensors_of(a.values):
            error = max(error, relative_error(a.values, b.values))
        if not a.operator:
            met.add(a.where)
        if a.operator and not _same(a.chosen, b.chosen):
            compared = tuple(
                path for path in watched if path in met - {e.where for e in first[index:] if not e.operator}
            )
            complete = all(any(f"{site}.".startswith(f"{path}.") for path in compared) for site in covering)
            return Agreement(error, compared, complete, f"{a.operator} in {a.where or 'the model itself'}")
    return Agreement(error, watched, complete=True)


def _same(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def outputs_of(model: nn.Module, run: Callable[[nn.Module], object], watched: Collection[str]) -> dict[str, list[Any]]:
    """Run a model and give the outputs of watched modules, call by call, with their gradient history."""
    found: dict[str, list[Any]] = {path: [] for path in watched}
    handles = [
        model.get_submodule(path).register_forward_hook(lambda _m, _args, out, path=path: found[path].append(out))
        for path in watched
    ]
    try:
        run(model)
    finally:
        for handle in handles:
            handle.remove()
    return found
