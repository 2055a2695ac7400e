"""How an ONNX file is written and compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from spdify.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

# PyTorch's translations start at opset 18 (a lower request is met with opset 18 and a log line); beyond 25 it has no
# adapters of its own and goes through the converter of the onnx package.
OLDEST_OPSET = 18
NEWEST_OPSET = 25
HALF_TOLERANCE = 2e-2


@dataclass(frozen=True)
class OnnxOptions:
    """How an ONNX file is written and compared.

    Attributes:
        opset: Version of the operator set, 18 to 25. 20 is what `torch.onnx.export` itself writes by default; every
            ONNX Runtime since 1.17 reads it. Detectors: 20 at most, which is what the TorchScript exporter has.
        tolerance: Largest difference between an output of PyTorch and the same output of ONNX Runtime that is taken
            for rounding, relative to the largest magnitude in that output. Both compute in float32 (one rounding is
            6e-8), but in other orders and with batch norm folded into the convolutions: 20 networks of timm and
            torchvision came to 1e-7 to 4e-6 in this measure. The taps of one ResNet-50 layer reversed, or two of its
            channels swapped, gave 1.5e-2 to 4.6e-2 (on perturbed weights; on fresh ones, nothing). 1e-4 leaves room for
            deeper networks; the price is that one wrong filter of 64 in an early layer, 9.9e-5, just passes.
        seed: Seed of the example inputs.
        half: Whether the file computes in float16, inputs and outputs too. It is compared with the float32 network;
            `HALF_TOLERANCE` is meant for it: 11 bits of mantissa are off by up to 5e-4 at each rounding.
        dynamic_size: Whether height and width are to stay open, where the network lets them.
        metadata: Texts by key that the file carries (`metadata_props`), for example how images become its inputs.

    Raises:
        UsageError: The opset is one that cannot be written, or the tolerance is not a positive number.
    """

    opset: int = 20
    tolerance: float = 1e-4
    seed: int = 0
    half: bool = False
    dynamic_size: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what could only fail later."""
        if not OLDEST_OPSET <= self.opset <= NEWEST_OPSET:
            raise UsageError(
                f"cannot write ONNX opset {self.opset}: expected {OLDEST_OPSET} to {NEWEST_OPSET}.",
                hint="Leave `--opset` out for 20.",
            )
        if not 0 < self.tolerance < 1:
            raise UsageError(f"cannot compare with tolerance {self.tolerance}: expected a number between 0 and 1.")
