"""Networks whose weights are integers already cannot be rewritten: their kernels are packed, their scales are set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spdify.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

_PACKAGES = ("torch.ao.nn.quantized.", "torch.ao.nn.intrinsic.quantized.", "torch.ao.nn.sparse.quantized.")
#: Live in the same package and compute in floating point: places that a later quantization fills. By name, since
#: newer releases of PyTorch may come without the package.
_FLOATING = ("FloatFunctional", "FXFloatFunctional")


def require_floats(model: nn.Module, name: str) -> None:
    """Refuse a network that holds quantized modules or parameters.

    Args:
        model: As it was built or handed over.
        name: Of the model, for the message.

    Raises:
        RefusedError: It holds one.
    """
    found = list(_quantized(model))
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""  # noqa: PLR2004 - a few show what is meant
        raise RefusedError(
            f"Cannot convert {name}: it is quantized already ({', '.join(found[:3])}{more}); expected floating point.",
            hint="Convert the floating-point network (for torchvision, without quantize=True) and quantize the result.",
        )


def _quantized(model: nn.Module) -> Iterator[str]:
    """Yield what is quantized, with its place."""
    for path, module in model.named_modules():
        kind = type(module)
        if kind.__module__.startswith(_PACKAGES) and kind.__name__ not in _FLOATING:
            yield f"{path or 'the model'}: {kind.__name__}"
        elif any(t.is_quantized for t in (*module.parameters(recurse=False), *module.buffers(recurse=False))):
            yield f"{path or 'the model'}: a quantized tensor"
