"""Blocks of random networks as they are in everybody's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.drafts import (
    PLANE,
    SMALLEST,
    ClassDraft,
    Draft,
    aligned,
    dress,
    new_block,
    pointwise,
    sized,
    strides,
    width_of,
)
from tests.faults.windows import Op, activation, aside, conv, norm, pool

if TYPE_CHECKING:
    from collections.abc import Sequence

#: A class that a rulebook knows by its name: that of YOLOv5's convolutions.
UNIT = """
class Conv(nn.Module):
    def __init__(self, c1, c2, k=1, s=1, g=1):
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, s, k // 2, groups=g, bias=False)
        self.bn = nn.BatchNorm2d(c2)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x):
        return self.act(self.bn(self.conv(x)))
"""


def free(draft: Draft, shape: Sequence[int]) -> ClassDraft:
    """Operators one after the other, with any window."""
    block = new_block(draft, shape)
    for _ in range(draft.choose((1, 2, 3))):
        if draft.choose((True, False)):
            block.apply(conv(draft.choose, block.shape))
            dress(block)
        elif min(block.shape[1:]) >= SMALLEST:
            block.apply(pool(draft.choose, block.shape))
        if draft.chance(3):
            block.apply(aside(draft.choose, block.shape))
    return block


def residual(draft: Draft, shape: Sequence[int]) -> ClassDraft:
    """A basic block with a shortcut of its own."""
    block, stride, out = new_block(draft, shape), strides(draft, shape), width_of(draft, shape[0])
    draft.features.add("residual")
    block.body.append("y = x")
    after = sized(shape, stride, out)
    if after == tuple(shape):
        draft.features.add("identity shortcut")
    elif draft.chance(3):
        draft.features.add("pooled shortcut")
        found = block.apply(aligned(draft, shape, stride, shape[0]), "y", "y", shape)
        assert found is not None
        block.apply(pointwise(found, (1,) * len(stride), out), "y", "y", found)
    else:
        block.apply(aligned(draft, shape, stride, out), "y", "y", shape)
    block.apply(aligned(draft, shape, stride, out))
    dress(block)
    block.apply(aligned(draft, block.shape, (1,) * len(stride), out))
    block.apply(norm(draft.choose, block.shape))
    _gate(block)
    if draft.chance(6):
        block.apply(Op("{m}({x})", "layers.DropPath(0.3)", "drop_path", ("drop path",)))
    block.body.append(draft.choose(("x = x + y", "x = y + x", "x += y", "x = torch.add(x, y)")))
    block.apply(activation(draft.choose, block.shape))
    return block


def _gate(block: ClassDraft) -> None:
    """Add a gate by channel, seldom."""
    channels = block.shape[0]
    if len(block.shape) != PLANE + 1 or not block.draft.chance(5):
        return
    made = block.draft.choose(
        (f"layers.SqueezeExcite({channels})", f"layers.EcaModule({channels})", f"layers.EffectiveSEModule({channels})")
    )
    block.apply(Op("{m}({x})", made, "gate", ("gate",)))


def branches(draft: Draft, shape: Sequence[int]) -> ClassDraft:
    """Branches side by side, put together along the channels, or added."""
    block, stride = new_block(draft, shape), strides(draft, shape)
    added, out, names, channels = draft.chance(4), width_of(draft, shape[0]), [], 0
    draft.features.add("added branches" if added else "concat")
    for number in range(draft.choose((2, 2, 3))):
        own = out if added else draft.choose((shape[0], out))
        name = f"y{number}"
        found = block.apply(aligned(draft, shape, stride, own), "x", name, shape)
        assert found is not None
        if draft.chance(3):
            block.apply(norm(draft.choose, found), name, name, found)
        names, channels = [*names, name], channels + own
    block.body.append(f"x = {' + '.join(names)}" if added else f"x = torch.cat([{', '.join(names)}], 1)")
    block.shape = sized(shape, stride, out if added else channels)
    block.apply(activation(draft.choose, block.shape))
    return block


def dense(draft: Draft, shape: Sequence[int]) -> ClassDraft:
    """A map and what a convolution makes of it, together, then made smaller."""
    block, grown = new_block(draft, shape), draft.choose((4, 6))
    draft.features.add("dense block")
    found = block.apply(aligned(draft, shape, (1,) * (len(shape) - 1), grown), "x", "y")
    assert found is not None
    block.body.append("x = torch.cat((x, y), dim=1)")
    block.shape = (shape[0] + grown, *shape[1:])
    dress(block)
    block.apply(aligned(draft, block.shape, strides(draft, block.shape), block.shape[0]))
    return block


def shuffled(draft: Draft, shape: Sequence[int]) -> ClassDraft:
    """Grouped convolutions with their channels shuffled, or a half of the channels that goes by itself."""
    block, channels = new_block(draft, shape), shape[0]
    stride = strides(draft, shape)
    if channels % 2:
        return free(draft, shape)
    made = f"nn.Conv{len(shape) - 1}d({channels}, {channels}, 3, stride={stride}, padding=1, groups=2)"
    if len(shape) == PLANE + 1 and draft.choose((True, False)):
        draft.features.add("channel shuffle")
        block.apply(Op("{m}({x})", made, "conv", ("conv", "groups")))
        dress(block)
        written = ["b, c, h, w = x.shape", "x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)"]
        block.body += draft.choose((written, [f"x = {block.own('nn.ChannelShuffle(2)', 'shuffle')}(x)"]))
        return block
    draft.features.add("channel split")
    half = (channels // 2, *shape[1:])
    block.body.append("y, x = x.chunk(2, dim=1)")
    block.shape = half
    block.apply(aligned(draft, half, stride, half[0]))
    found = block.apply(aligned(draft, half, stride, half[0]), "y", "y", half)
    assert found is not None
    block.body.append("x = torch.cat([x, y], dim=1)")
    block.shape = (channels, *found[1:])
    dress(block)
    return block


def unit(draft: Draft, shape: Sequence[int]) -> ClassDraft:
    """YOLOv5's convolution, twice."""
    block = new_block(draft, shape)
    if len(shape) != PLANE + 1:
        return free(draft, shape)
    draft.features.add("unit Conv")
    if UNIT not in draft.classes:
        draft.classes.insert(0, UNIT)
    stride, out = draft.choose((2, 1)) if min(shape[1:]) >= SMALLEST else 1, width_of(draft, shape[0])
    first, second = f"Conv({shape[0]}, {out}, 3, {stride})", f"Conv({out}, {out}, {draft.choose((1, 3))})"
    block.body += [f"x = {block.own(first, 'cv')}(x)", f"x = {block.own(second, 'cv')}(x)"]
    block.shape = sized(shape, (stride, stride), out)
    return block
