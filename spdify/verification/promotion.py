"""Running a model wholly in float64, also where its code asks for float32 by name."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Promote(TorchFunctionMode):
    """Turns each request for float32 (`.float()`, `.to(torch.float32)`, `dtype=torch.float32`) into one for float64."""

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Run the function."""
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        named = {key: _promoted(value) for key, value in (kwargs or {}).items()}
        return func(*map(_promoted, args), **named)


def _promoted(value: Any) -> Any:  # noqa: ANN401 - any argument
    return torch.float64 if value is torch.float32 else value


@contextmanager
def wholly_in_float64() -> Iterator[None]:
    """Run what is inside in float64: new tensors too, and those that are asked for in float32.

    For models that make float32 tensors of their own and then mix them with their float64 weights, which PyTorch
    refuses (RAFT's grids). What is compared is then the model with its float32 casts taken for float64 ones.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Promote():
            yield
    finally:
        torch.set_default_dtype(before)
