"""The faster of the forms that compute the same, for each block: measured, on this machine."""

from __future__ import annotations

import copy
import statistics
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor, nn

from spdify.benchmarking.timing import paired_seconds
from spdify.blocks.spd_conv import Form
from spdify.engine.fusing import BLOCKS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ROUNDS, LEAST_SECONDS = 7, 0.05
FORMS: tuple[Form, ...] = get_args(Form)


def tune(
    model: nn.Module,
    *inputs: Tensor,
    train: bool = True,
    clock: Callable[..., Mapping[str, Sequence[float]]] = paired_seconds,
) -> dict[str, Form]:
    """Set each block of a converted network, in place, to the form that is faster here; both compute the same.

    Args:
        model: A converted network, where and in the memory format in which it is to run. Its mode, weights and buffers
            stay as they are.
        *inputs: What it takes, as it will be run: batch size and memory format matter.
        train: Time a forward and a backward pass; else a forward pass.
        clock: What times the calls, for tests.

    Returns:
        The form of each block that was called, by path.
    """
    chosen: dict[str, Form] = {}
    for path, args in _recorded(model, inputs).items():
        block: Any = model.get_submodule(path)
        calls = {form: _run(block, form, args, train=train) for form in FORMS}
        times = clock(calls, rounds=ROUNDS, least_seconds=LEAST_SECONDS)
        block.form = chosen[path] = min(FORMS, key=lambda form: statistics.median(times[form]))
    return chosen


def _recorded(model: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, tuple[Any, ...]]:
    """Run a forward pass in eval mode, and note with what each block is called; the last call counts."""
    found: dict[str, tuple[Any, ...]] = {}

    def watch(path: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def note(_: nn.Module, args: tuple[Any, ...]) -> None:
            found[path] = args

        return note

    handles = [
        module.register_forward_pre_hook(watch(path))
        for path, module in model.named_modules()
        if isinstance(module, BLOCKS) and hasattr(module, "form")
    ]
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            model.eval()(*inputs)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return found


def _run(block: nn.Module, form: Form, args: tuple[Any, ...], *, train: bool) -> Callable[[], object]:
    """Give a call of a copy of the block in one form."""
    twin: Any = copy.deepcopy(block)
    twin.form = form
    own = [a.detach().requires_grad_(train and a.is_floating_point()) if isinstance(a, Tensor) else a for a in args]
    wanted = [t for t in (*own, *twin.parameters()) if isinstance(t, Tensor) and t.requires_grad]
    device = next(t.device for t in own if isinstance(t, Tensor))

    def call() -> object:
        with torch.set_grad_enabled(train):
            y: Tensor = twin(*own)
            result: object = torch.autograd.grad(y.sum(), wanted, allow_unused=True) if train and wanted else y
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return result

    return call
