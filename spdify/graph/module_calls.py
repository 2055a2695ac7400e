"""Which modules a forward pass calls, with what, and inside which others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spdify.errors import TraceError
from spdify.graph.structure import NEEDS_DATA

if TYPE_CHECKING:
    from torch import nn


@dataclass
class SeenCall:
    """One call of a module in a forward pass.

    Attributes:
        path: Of the module in the user's model; the first of several.
        module: That module.
        inputs: Positional and named arguments, as they were given.
        children: Calls that its forward made, in order; those that a child made are in the child.
    """

    path: str
    module: nn.Module
    inputs: tuple[tuple[Any, ...], dict[str, Any]]
    children: list[SeenCall] = field(default_factory=list)


def record_calls(module: nn.Module, inputs: tuple[Any, Any], *, path: str = "") -> SeenCall:
    """Run a module and note every call that is made inside it.

    Args:
        module: Run in the mode that it is in; may be changed by its own forward.
        inputs: Positional and named arguments.
        path: Of the module in the user's model.

    Returns:
        The module's own call, with all others in it.

    Raises:
        TraceError: The module does not run.
    """
    args, kwargs = inputs
    whole = SeenCall(path, module, (tuple(args), dict(kwargs)))
    running = [whole]
    handles = []

    def enter(where: str) -> Any:  # noqa: ANN401 - a forward hook
        def hook(called: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            call = SeenCall(where, called, (given, named))
            running[-1].children.append(call)
            running.append(call)

        return hook

    def leave(called: nn.Module, _given: object, _output: object) -> None:
        if len(running) > 1 and running[-1].module is called:
            running.pop()

    try:
        for own, called in module.named_modules():
            if own:
                full = f"{path}.{own}" if path else own
                handles.append(called.register_forward_pre_hook(enter(full), with_kwargs=True))
                handles.append(called.register_forward_hook(leave, always_call=True))
        module(*args, **kwargs)
    except NEEDS_DATA:
        raise
    except Exception as error:
        raise TraceError(f"cannot run {path or type(module).__name__}: {error}") from error
    finally:
        for handle in handles:
            handle.remove()
    return whole
