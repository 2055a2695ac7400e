"""Blocks of random networks that are rare, and awkward: shared and tied modules, loops, views, modes that differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.blocks import free
from tests.faults.drafts import (
    PLANE,
    SMALLEST,
    ClassDraft,
    Draft,
    aligned,
    new_block,
    shape_after,
    sized,
    strides,
    width_of,
)
from tests.faults.windows import Op, conv, pool, subsample

if TYPE_CHECKING:
    from collections.abc import Sequence


def shared(draft: Draft, shape: Sequence[int]) -> ClassDraft:
    """One module that is called twice: a pool over two numbers of channels, or a convolution."""
    block, dims = new_block(draft, shape), len(shape) - 1
    if draft.choose((True, False)):
        op = pool(draft.choose, shape)
        if op.module and "BlurPool" not in op.module and block.apply(op):
            draft.features.add("shared pool")
            block.apply(conv(draft.choose, block.shape, stride=(1,) * dims))
            again = Op(op.call.replace("{m}", "self.pool0"))
            found = shape_after(Op(op.call, op.module), block.shape)
            if found is not None:
                block.body.append(f"x = {again.call.format(x='x')}")
                block.shape = found
        return block
    stride = strides(draft, shape)
    op = conv(draft.choose, shape, stride=stride, out=shape[0])
    if op.module and block.apply(op):
        draft.features.add("shared convolution")
        found = shape_after(op, block.shape)
        if found is not None:
            block.body += [block.body[-1]]
            block.shape = found
    return block


def looped(draft: Draft, shape: Sequence[int]) -> ClassDraft:
    """One functional call that runs again and again, in a loop, over several numbers of channels."""
    block, dims = new_block(draft, shape), len(shape) - 1
    op = pool(draft.choose, shape, stride=(2,) * dims)
    held, made, current = block.own("nn.ModuleList()", "convs"), [], tuple(shape)
    for _ in range(draft.choose((2, 1, 3))):
        layer = conv(draft.choose, current, stride=(1,) * dims)
        after = shape_after(layer, current) if "{m}({x})" in layer.call else None
        smaller = shape_after(op, after) if after is not None and min(after[1:]) >= SMALLEST else None
        if smaller is not None:
            made, current = [*made, layer.module], smaller
    if not made or (op.module and "BlurPool" in op.module):
        return free(draft, shape)
    draft.features.add("loop")
    block.init[-1] = f"self.convs0 = nn.ModuleList([{', '.join(made)}])"
    pooled = op.call.format(x="conv(x)", m=block.own(op.module, "pool") if op.module else "")
    if draft.choose((True, False)) and not op.module:
        draft.features.add("helper method")
        block.methods = f"\n    def shrink(self, x):\n        return {op.call.format(x='x', m='')}\n"
        pooled = "self.shrink(conv(x))"
    block.body += [f"for conv in {held}:", f"    x = {pooled}"]
    block.shape = current
    return block


def viewed(draft: Draft, shape: Sequence[int]) -> ClassDraft:
    """A slice is a view: what is done to it in place is done to the map as well."""
    block, stride = new_block(draft, shape), (2,) * (len(shape) - 1)
    if min(shape[1:]) < SMALLEST:
        return free(draft, shape)
    draft.features.add("in place on a view")
    block.apply(aligned(draft, shape, (1,) * len(stride), shape[0]))
    block.apply(subsample(draft.choose, stride=stride), "x", "y")
    block.body.append(draft.choose(("y.relu_()", "y += 1", "y = F.relu(y, inplace=True)", "y.mul_(2)", "y = y.relu()")))
    block.apply(aligned(draft, block.shape, stride, shape[0]))
    if not block.body[1].count("1::2"):
        block.body.append("x = x + y")
    return block


def tied(draft: Draft, shape: Sequence[int]) -> ClassDraft:
    """Two convolutions with one weight, or one module under two names."""
    block, stride = new_block(draft, shape), strides(draft, shape)
    op = conv(draft.choose, shape, stride=stride, out=shape[0])
    if "parametrizations" in op.module or not op.module.startswith("nn.Conv") or block.apply(op) is None:
        return free(draft, shape)
    first = block.init[0].split(" = ", 1)[0]
    found = shape_after(op, block.shape)
    if found is None:
        return block
    if draft.choose((True, False)):
        draft.features.add("tied weight")
        second = block.own(op.module, "conv")
        block.init.append(f"{second}.weight = {first}.weight")
    else:
        draft.features.add("a module under two names")
        second = block.own(first, "conv")
    block.body.append(f"x = {second}(x)")
    block.shape = found
    return block


def indexed(draft: Draft, shape: Sequence[int]) -> ClassDraft:
    """A max pool that gives indices, and its way back."""
    if len(shape) != PLANE + 1 or min(shape[1:]) < SMALLEST:
        return free(draft, shape)
    block = new_block(draft, shape)
    draft.features.add("indices of a pool")
    held = block.own("nn.MaxPool2d(2, return_indices=True)", "pool")
    call = draft.choose((f"{held}(x)", "F.max_pool2d(x, 2, return_indices=True)"))
    block.body += [f"y, i = {call}", "x = F.max_unpool2d(y.relu(), i, 2, output_size=x.shape[-2:])"]
    block.apply(aligned(draft, block.shape, (2, 2), width_of(draft, shape[0])))
    return block


def two_modes(draft: Draft, shape: Sequence[int]) -> ClassDraft:
    """Something that runs in one mode alone."""
    block, stride = new_block(draft, shape), strides(draft, shape)
    draft.features.add("modes differ")
    if draft.choose((True, False)):
        block.apply(aligned(draft, shape, stride, shape[0]), "x", "y", shape)
        block.apply(aligned(draft, shape, stride, shape[0]), "x", "z", shape)
        one, other = block.body
        block.body = ["if self.training:", f"    {one}", "else:", f"    {other.replace('z = ', 'y = ', 1)}", "x = y"]
        block.shape = sized(shape, stride, shape[0])
        return block
    block.apply(aligned(draft, shape, (1,) * len(stride), shape[0]), "x", "y", shape)
    block.body = ["if self.training:", f"    {block.body[0]}", "    x = x + y"]
    block.apply(aligned(draft, block.shape, stride, shape[0]))
    return block


def lossless(draft: Draft, shape: Sequence[int]) -> ClassDraft:
    """Space-to-depth by hand, and a resizing that is neither convolution nor pool."""
    block = new_block(draft, shape)
    if len(shape) != PLANE + 1 or shape[1] % 2 or shape[2] % 2:
        draft.features.add("interpolate")
        if min(shape[1:]) >= SMALLEST:
            block.apply(Op("F.interpolate({x}, scale_factor=0.5)"))
        return block
    draft.features.add("space-to-depth by hand")
    phases = ", ".join(f"x[..., {i}::2, {j}::2]" for j in (0, 1) for i in (0, 1))
    block.body.append(f"x = torch.cat([{phases}], 1)")
    block.shape = (4 * shape[0], shape[1] // 2, shape[2] // 2)
    block.apply(conv(draft.choose, block.shape, stride=(1, 1), out=width_of(draft, shape[0])))
    return block
