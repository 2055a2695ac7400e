"""What stands behind a module in the data flow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import fx, nn

from spdify.graph.carriers import is_activation, is_batch_norm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spdify.graph.trace import Flow


def activation_after(flows: Sequence[Flow], path: str) -> str | None:
    """Give the path of the activation that alone reads what a module puts out, behind its norm if there is one.

    Modules that do nothing are passed over.

    Args:
        flows: Of both modes.
        path: Of the module, which is called once.

    Returns:
        None where something else reads it first, the activation also runs elsewhere, or the modes differ.
    """
    found = {_in_flow(flow, path) for flow in flows if _calls(flow, path)}
    return found.pop() if len(found) == 1 else None


def _calls(flow: Flow, path: str) -> list[fx.Node]:
    return [n for n in flow.graph.nodes if n.op == "call_module" and flow.full_path(str(n.target)) == path]


def _in_flow(flow: Flow, path: str) -> str | None:
    node, *others = _calls(flow, path)
    while not others and len(node.users) == 1:
        node = next(iter(node.users))
        if node.op != "call_module":
            return None
        module, here = flow.module(str(node.target)), flow.full_path(str(node.target))
        inner = getattr(module, "act", None)
        if is_activation(module):
            return here if len(_calls(flow, here)) == 1 else None
        if type(module) is nn.Identity:
            continue
        if not is_batch_norm(module):
            return None
        if isinstance(inner, nn.Module) and is_activation(inner):  # timm's norms run one
            return f"{here}.act"
    return None
