"""ONNX's own operators: DeformConv for the TorchScript exporter, and SpaceToDepth in the place of pixel_unshuffle.

The latter is for dense SPD-Convs. ONNX counts block by block (channel (dy·s + dx)·C + c), `torch.nn.PixelUnshuffle`
channel by channel: the weight's input channels are put in the other order once, here. Grouped convolutions need the
phases of a channel side by side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from onnxscript import opset18 as op
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses
from torch.onnx import register_custom_op_symbolic, symbolic_helper  # type: ignore[attr-defined]

from spdify.blocks import SPDConv
from spdify.blocks.phases import whole_blocks
from spdify.blocks.spd_conv import flat_padding

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGE_AXES = 2


@torch.library.custom_op("spdify::space_to_depth", mutates_args=())
def native_space_to_depth(x: Tensor, blocksize: int) -> Tensor:
    """Rearrange (N, C, H, W) into (N, s²·C, H/s, W/s) in the order of ONNX's SpaceToDepth."""
    n, c, h, w = x.shape
    s = blocksize
    split = x.reshape(n, c, h // s, s, w // s, s).permute(0, 3, 5, 1, 2, 4)
    return split.reshape(n, s * s * c, h // s, w // s).contiguous()


@native_space_to_depth.register_fake
def _(x: Tensor, blocksize: int) -> Tensor:
    n, c, h, w = x.shape
    return x.new_empty(n, blocksize * blocksize * c, h // blocksize, w // blocksize)


def _translated(x: Any, blocksize: int) -> Any:  # noqa: ANN401 - values of the graph
    return op.SpaceToDepth(x, blocksize=blocksize)


def _scripted(graph: Any, x: Any, blocksize: Any) -> Any:  # noqa: ANN401 - as above
    size = symbolic_helper._maybe_get_const(blocksize, "i")  # noqa: SLF001 - there is no other way
    return graph.op("SpaceToDepth", x, blocksize_i=size)


def _deform_conv(  # noqa: PLR0913 - the operator's arguments, by place
    graph: Any,  # noqa: ANN401 - values of the graph, as above
    x: Any,  # noqa: ANN401
    weight: Any,  # noqa: ANN401
    offset: Any,  # noqa: ANN401
    mask: Any,  # noqa: ANN401
    bias: Any,  # noqa: ANN401
    *numbers: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    values = [symbolic_helper._maybe_get_const(number, "i") for number in numbers]  # noqa: SLF001 - as above
    strides, pads, dilations, (groups, offset_groups, masked) = values[:2], values[2:4], values[4:6], values[6:]
    inputs = [x, weight, offset, bias, *([mask] if masked else [])]
    return graph.op(
        "DeformConv", *inputs, strides_i=strides, pads_i=pads * 2, dilations_i=dilations, group_i=groups,
        offset_group_i=offset_groups,
    )  # fmt: skip


#: For the TorchScript exporter, which keeps a table of its own, and lacks torchvision's operator.
register_custom_op_symbolic("spdify::space_to_depth", _scripted, 13)
register_custom_op_symbolic("torchvision::deform_conv2d", _deform_conv, 19)
#: For `torch.onnx.export`.
TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {torch.ops.spdify.space_to_depth.default: _translated}


class NativeSPDConv(nn.Module):
    """An `SPDConv` by ONNX's SpaceToDepth.

    Args:
        block: One that `can_be_native`.

    Shape:
        Input (N, C_in, H, W), output as the block's.
    """

    def __init__(self, block: SPDConv) -> None:
        """Copy the weights, input channels in ONNX's order."""
        super().__init__()
        (self.blocksize, _), self.padding, self.kernel = block.scale, block.padding, block.kernel_size
        phases = self.blocksize**2
        weight = block.weight.detach()
        channels = weight.shape[1] // phases
        order = weight.reshape(weight.shape[0], channels, phases, *self.kernel).transpose(1, 2)
        self.weight = nn.Parameter(order.reshape(weight.shape).contiguous())
        self.bias = None if block.bias is None else nn.Parameter(block.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, *out)."""
        s = self.blocksize
        out = [
            (n + low + high - k * s) // s + 1
            for n, k, (low, high) in zip(x.shape[2:], self.kernel, self.padding, strict=True)
        ]
        y = native_space_to_depth(whole_blocks(x, (s, s), "zeros"), s)
        pads = [
            (low // s, o + k - 1 - n - low // s)
            for n, o, k, (low, _) in zip(y.shape[2:], out, self.kernel, self.padding, strict=True)
        ]
        return F.conv2d(F.pad(y, flat_padding(pads)), self.weight, self.bias)

    def extra_repr(self) -> str:
        """Give the arguments for `repr`."""
        return f"blocksize={self.blocksize}, kernel_size={self.kernel}, padding={self.padding}"


def can_be_native(block: nn.Module) -> bool:
    """Whether a block is a dense SPD-Conv over images with square blocks: what SpaceToDepth is made for."""
    if type(block) is not SPDConv:
        return False
    square = len(block.scale) == IMAGE_AXES and len(set(block.scale)) == 1
    return square and block.groups == 1 and not block.margin


def use_native(model: nn.Module) -> dict[str, NativeSPDConv]:
    """Put native SPD-Convs into a converted network, in place, where they can be; give them by path."""
    made: dict[str, NativeSPDConv] = {}
    for path, block in list(model.named_modules()):
        if isinstance(block, SPDConv) and can_be_native(block):
            parent, _, name = path.rpartition(".")
            made[path] = NativeSPDConv(block)
            setattr(model.get_submodule(parent), name, made[path].train(block.training))
    return made
