"""Random small networks, as the source that a user might have written, from a choice at each turn.

`make_network` asks for one of several options again and again: hypothesis answers in tests (and shrinks towards the
first ones), a seeded generator in the campaign. What comes out is text, so that whatever fails can be built by hand.
"""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import timm.layers
import torch
from hypothesis import strategies as st
from timm.layers import pool2d_same
from torch import nn

from tests.faults.windows import Op, activation, aside, conv, norm, pool, subsample, timm_conv

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.faults.windows import Choose

PLANE = 2  # axes of an image
SMALLEST = 4  # positions along an axis that are still shrunk
HEAD = """import torch
import torch.nn.functional as F
from timm import layers
from timm.layers import pool2d_same
from torch import nn

"""
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


@dataclass(frozen=True)
class Network:
    """A network that can be printed.

    Attributes:
        source: Of a module with the class `Net`.
        shape: Of one input, without the batch.
        features: What is in it.
    """

    source: str
    shape: tuple[int, ...]
    features: tuple[str, ...]


def build(network: Network, folder: Path) -> nn.Module:
    """Make the network from a file in `folder`, which must stay there: functional calls are edited in their source."""
    file = folder / "net.py"
    file.write_text(network.source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("net", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: nn.Module = module.Net()
    return made


@st.composite
def networks(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Network:
    return make_network(lambda options: draw(st.sampled_from(tuple(options))))


@dataclass
class _Draft:
    """A module of source code that is being written."""

    choose: Choose
    classes: list[str] = field(default_factory=list)
    features: set[str] = field(default_factory=set)

    def chance(self, times: int) -> bool:
        """Say yes once in so many times."""
        return self.choose((False,) * (times - 1) + (True,))


class _Class:
    """A class that is being written: what its instance holds, and what its forward does to `x`."""

    def __init__(self, draft: _Draft, name: str, shape: Sequence[int]) -> None:
        self.draft, self.name, self.shape = draft, name, tuple(shape)
        self.init: list[str] = []
        self.body: list[str] = []
        self.methods = ""

    def own(self, expression: str, name: str) -> str:
        """Hold a module or parameter; gives how to read it."""
        name = f"{name}{len(self.init)}"
        self.init.append(f"self.{name} = {expression}")
        return f"self.{name}"

    def apply(self, op: Op | None, x: str = "x", to: str = "x", shape: Sequence[int] = ()) -> tuple[int, ...] | None:
        """Write a call, if it can be made on a map of that shape; gives the shape of what comes out."""
        found = shape_after(op, shape or self.shape) if op is not None else None
        if op is None or found is None:
            return None
        held = self.own(op.module, op.name) if op.module else ""
        self.body.append(f"{to} = {op.call.format(x=x, m=held)}")
        self.draft.features |= set(op.features)
        if to == "x":
            self.shape = found
        return found

    def finish(self, result: str = "x") -> str:
        """Write the class into the module; gives an expression that makes an instance."""
        lines = [f"class {self.name}(nn.Module):", "    def __init__(self):", "        super().__init__()"]
        lines += [f"        {line}" for line in self.init]
        lines += [
            "",
            "    def forward(self, x):",
            *(f"        {line}" for line in self.body),
            f"        return {result}",
        ]
        self.draft.classes.append("\n" + "\n".join(lines) + "\n" + self.methods)
        return f"{self.name}()"


def shape_after(op: Op, shape: Sequence[int]) -> tuple[int, ...] | None:
    """Give the shape that an operator gives, without the batch; None where it cannot run."""
    names = {"torch": torch, "nn": nn, "F": nn.functional, "layers": timm.layers, "pool2d_same": pool2d_same}
    with torch.device("meta"):
        try:
            x = torch.empty(2, *shape)
            names |= {"x": x, "self": SimpleNamespace(training=True)}
            names["m"] = eval(op.module, names) if op.module else None  # noqa: S307 - source of our own
            found = eval(op.call.format(x="x", m="m"), names)  # noqa: S307 - likewise
        except (RuntimeError, ValueError, AssertionError):
            return None
    return tuple(found.shape[1:]) if min(found.shape[1:]) > 0 else None


def _block(draft: _Draft, shape: Sequence[int]) -> _Class:
    return _Class(draft, f"Block{len(draft.classes)}", shape)


def _strides(draft: _Draft, shape: Sequence[int]) -> tuple[int, ...]:
    """Choose a stride that the map is large enough for."""
    dims = len(shape) - 1
    if min(shape[1:]) < SMALLEST:
        return (1,) * dims
    if dims == PLANE and draft.chance(10):
        draft.features.add("asymmetric stride")
        return draft.choose(((1, 2), (2, 1)))
    return (draft.choose((2, 2, 2, 1, 3)),) * dims


def _aligned(draft: _Draft, shape: Sequence[int], stride: Sequence[int], out: int) -> Op:
    """Make any operator with maps of ceil(n / s) and `out` channels, if it keeps to its promise."""
    kinds = ["conv", "conv", "conv"] + ["timm"] * (len(shape) == PLANE + 1)
    if out == shape[0] and max(stride) > 1:
        kinds += ["pool", "pool", "slice"]
    kind = draft.choose(kinds)
    if kind == "conv":
        op = conv(draft.choose, shape, stride=stride, out=out)
    elif kind == "timm":
        op = timm_conv(draft.choose, shape, stride=stride, out=out)
    elif kind == "pool":
        op = pool(draft.choose, shape, stride=stride)
    else:
        op = subsample(draft.choose, stride=stride)
    return op if shape_after(op, shape) == _sized(shape, stride, out) else _pointwise(shape, stride, out)


def _sized(shape: Sequence[int], stride: Sequence[int], out: int) -> tuple[int, ...]:
    return (out, *(math.ceil(n / s) for n, s in zip(shape[1:], stride, strict=True)))


def _pointwise(shape: Sequence[int], stride: Sequence[int], out: int) -> Op:
    made = f"nn.Conv{len(shape) - 1}d({shape[0]}, {out}, 1, stride={tuple(stride)}, bias=False)"
    return Op("{m}({x})", made, "conv", ("conv",))


def _dressed(block: _Class) -> None:
    """Add a norm and an activation, each with a chance of none."""
    block.apply(norm(block.draft.choose, block.shape))
    block.apply(activation(block.draft.choose, block.shape))


def _out(draft: _Draft, channels: int) -> int:
    return draft.choose((8, 4, 6, 12, channels))


def _free(draft: _Draft, shape: Sequence[int]) -> _Class:
    """Operators one after the other, with any window."""
    block = _block(draft, shape)
    for _ in range(draft.choose((1, 2, 3))):
        if draft.choose((True, False)):
            block.apply(conv(draft.choose, block.shape))
            _dressed(block)
        elif min(block.shape[1:]) >= SMALLEST:
            block.apply(pool(draft.choose, block.shape))
        if draft.chance(3):
            block.apply(aside(draft.choose, block.shape))
    return block


def _residual(draft: _Draft, shape: Sequence[int]) -> _Class:
    """A basic block with a shortcut of its own."""
    block, stride, out = _block(draft, shape), _strides(draft, shape), _out(draft, shape[0])
    draft.features.add("residual")
    block.body.append("y = x")
    after = _sized(shape, stride, out)
    if after == tuple(shape):
        draft.features.add("identity shortcut")
    elif draft.chance(3):
        draft.features.add("pooled shortcut")
        found = block.apply(_aligned(draft, shape, stride, shape[0]), "y", "y", shape)
        assert found is not None
        block.apply(_pointwise(found, (1,) * len(stride), out), "y", "y", found)
    else:
        block.apply(_aligned(draft, shape, stride, out), "y", "y", shape)
    block.apply(_aligned(draft, shape, stride, out))
    _dressed(block)
    block.apply(_aligned(draft, block.shape, (1,) * len(stride), out))
    block.apply(norm(draft.choose, block.shape))
    _gate(block)
    if draft.chance(6):
        block.apply(Op("{m}({x})", "layers.DropPath(0.3)", "drop_path", ("drop path",)))
    block.body.append(draft.choose(("x = x + y", "x = y + x", "x += y", "x = torch.add(x, y)")))
    block.apply(activation(draft.choose, block.shape))
    return block


def _gate(block: _Class) -> None:
    """Add a gate by channel, seldom."""
    channels = block.shape[0]
    if len(block.shape) != PLANE + 1 or not block.draft.chance(5):
        return
    made = block.draft.choose(
        (f"layers.SqueezeExcite({channels})", f"layers.EcaModule({channels})", f"layers.EffectiveSEModule({channels})")
    )
    block.apply(Op("{m}({x})", made, "gate", ("gate",)))


def _branches(draft: _Draft, shape: Sequence[int]) -> _Class:
    """Branches side by side, put together along the channels, or added."""
    block, stride = _block(draft, shape), _strides(draft, shape)
    added, out, names, channels = draft.chance(4), _out(draft, shape[0]), [], 0
    draft.features.add("added branches" if added else "concat")
    for number in range(draft.choose((2, 2, 3))):
        own = out if added else draft.choose((shape[0], out))
        name = f"y{number}"
        found = block.apply(_aligned(draft, shape, stride, own), "x", name, shape)
        assert found is not None
        if draft.chance(3):
            block.apply(norm(draft.choose, found), name, name, found)
        names, channels = [*names, name], channels + own
    block.body.append(f"x = {' + '.join(names)}" if added else f"x = torch.cat([{', '.join(names)}], 1)")
    block.shape = _sized(shape, stride, out if added else channels)
    block.apply(activation(draft.choose, block.shape))
    return block


def _dense(draft: _Draft, shape: Sequence[int]) -> _Class:
    """A map and what a convolution makes of it, together, then made smaller."""
    block, grown = _block(draft, shape), draft.choose((4, 6))
    draft.features.add("dense block")
    found = block.apply(_aligned(draft, shape, (1,) * (len(shape) - 1), grown), "x", "y")
    assert found is not None
    block.body.append("x = torch.cat((x, y), dim=1)")
    block.shape = (shape[0] + grown, *shape[1:])
    _dressed(block)
    block.apply(_aligned(draft, block.shape, _strides(draft, block.shape), block.shape[0]))
    return block


def _shuffled(draft: _Draft, shape: Sequence[int]) -> _Class:
    """Grouped convolutions with their channels shuffled, or a half of the channels that goes by itself."""
    block, channels = _block(draft, shape), shape[0]
    stride = _strides(draft, shape)
    if channels % 2:
        return _free(draft, shape)
    made = f"nn.Conv{len(shape) - 1}d({channels}, {channels}, 3, stride={stride}, padding=1, groups=2)"
    if len(shape) == PLANE + 1 and draft.choose((True, False)):
        draft.features.add("channel shuffle")
        block.apply(Op("{m}({x})", made, "conv", ("conv", "groups")))
        _dressed(block)
        written = ["b, c, h, w = x.shape", "x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)"]
        block.body += draft.choose((written, [f"x = {block.own('nn.ChannelShuffle(2)', 'shuffle')}(x)"]))
        return block
    draft.features.add("channel split")
    half = (channels // 2, *shape[1:])
    block.body.append("y, x = x.chunk(2, dim=1)")
    block.shape = half
    block.apply(_aligned(draft, half, stride, half[0]))
    found = block.apply(_aligned(draft, half, stride, half[0]), "y", "y", half)
    assert found is not None
    block.body.append("x = torch.cat([x, y], dim=1)")
    block.shape = (channels, *found[1:])
    _dressed(block)
    return block


def _shared(draft: _Draft, shape: Sequence[int]) -> _Class:
    """One module that is called twice: a pool over two numbers of channels, or a convolution."""
    block, dims = _block(draft, shape), len(shape) - 1
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
    stride = _strides(draft, shape)
    op = conv(draft.choose, shape, stride=stride, out=shape[0])
    if op.module and block.apply(op):
        draft.features.add("shared convolution")
        found = shape_after(op, block.shape)
        if found is not None:
            block.body += [block.body[-1]]
            block.shape = found
    return block


def _looped(draft: _Draft, shape: Sequence[int]) -> _Class:
    """One functional call that runs again and again, in a loop, over several numbers of channels."""
    block, dims = _block(draft, shape), len(shape) - 1
    op = pool(draft.choose, shape, stride=(2,) * dims)
    held, made, current = block.own("nn.ModuleList()", "convs"), [], tuple(shape)
    for _ in range(draft.choose((2, 1, 3))):
        layer = conv(draft.choose, current, stride=(1,) * dims)
        after = shape_after(layer, current) if "{m}({x})" in layer.call else None
        smaller = shape_after(op, after) if after is not None and min(after[1:]) >= SMALLEST else None
        if smaller is not None:
            made, current = [*made, layer.module], smaller
    if not made or (op.module and "BlurPool" in op.module):
        return _free(draft, shape)
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


def _viewed(draft: _Draft, shape: Sequence[int]) -> _Class:
    """A slice is a view: what is done to it in place is done to the map as well."""
    block, stride = _block(draft, shape), (2,) * (len(shape) - 1)
    if min(shape[1:]) < SMALLEST:
        return _free(draft, shape)
    draft.features.add("in place on a view")
    block.apply(_aligned(draft, shape, (1,) * len(stride), shape[0]))
    block.apply(subsample(draft.choose, stride=stride), "x", "y")
    block.body.append(draft.choose(("y.relu_()", "y += 1", "y = F.relu(y, inplace=True)", "y.mul_(2)", "y = y.relu()")))
    block.apply(_aligned(draft, block.shape, stride, shape[0]))
    if not block.body[1].count("1::2"):
        block.body.append("x = x + y")
    return block


def _tied(draft: _Draft, shape: Sequence[int]) -> _Class:
    """Two convolutions with one weight, or one module under two names."""
    block, stride = _block(draft, shape), _strides(draft, shape)
    op = conv(draft.choose, shape, stride=stride, out=shape[0])
    if "parametrizations" in op.module or not op.module.startswith("nn.Conv") or block.apply(op) is None:
        return _free(draft, shape)
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


def _indexed(draft: _Draft, shape: Sequence[int]) -> _Class:
    """A max pool that gives indices, and its way back."""
    if len(shape) != PLANE + 1 or min(shape[1:]) < SMALLEST:
        return _free(draft, shape)
    block = _block(draft, shape)
    draft.features.add("indices of a pool")
    held = block.own("nn.MaxPool2d(2, return_indices=True)", "pool")
    call = draft.choose((f"{held}(x)", "F.max_pool2d(x, 2, return_indices=True)"))
    block.body += [f"y, i = {call}", "x = F.max_unpool2d(y.relu(), i, 2, output_size=x.shape[-2:])"]
    block.apply(_aligned(draft, block.shape, (2, 2), _out(draft, shape[0])))
    return block


def _two_modes(draft: _Draft, shape: Sequence[int]) -> _Class:
    """Something that runs in one mode alone."""
    block, stride = _block(draft, shape), _strides(draft, shape)
    draft.features.add("modes differ")
    if draft.choose((True, False)):
        block.apply(_aligned(draft, shape, stride, shape[0]), "x", "y", shape)
        block.apply(_aligned(draft, shape, stride, shape[0]), "x", "z", shape)
        one, other = block.body
        block.body = ["if self.training:", f"    {one}", "else:", f"    {other.replace('z = ', 'y = ', 1)}", "x = y"]
        block.shape = _sized(shape, stride, shape[0])
        return block
    block.apply(_aligned(draft, shape, (1,) * len(stride), shape[0]), "x", "y", shape)
    block.body = ["if self.training:", f"    {block.body[0]}", "    x = x + y"]
    block.apply(_aligned(draft, block.shape, stride, shape[0]))
    return block


def _unit(draft: _Draft, shape: Sequence[int]) -> _Class:
    """YOLOv5's convolution, twice."""
    block = _block(draft, shape)
    if len(shape) != PLANE + 1:
        return _free(draft, shape)
    draft.features.add("unit Conv")
    if UNIT not in draft.classes:
        draft.classes.insert(0, UNIT)
    stride, out = draft.choose((2, 1)) if min(shape[1:]) >= SMALLEST else 1, _out(draft, shape[0])
    first, second = f"Conv({shape[0]}, {out}, 3, {stride})", f"Conv({out}, {out}, {draft.choose((1, 3))})"
    block.body += [f"x = {block.own(first, 'cv')}(x)", f"x = {block.own(second, 'cv')}(x)"]
    block.shape = _sized(shape, (stride, stride), out)
    return block


def _lossless(draft: _Draft, shape: Sequence[int]) -> _Class:
    """Space-to-depth by hand, and a resizing that is neither convolution nor pool."""
    block = _block(draft, shape)
    if len(shape) != PLANE + 1 or shape[1] % 2 or shape[2] % 2:
        draft.features.add("interpolate")
        if min(shape[1:]) >= SMALLEST:
            block.apply(Op("F.interpolate({x}, scale_factor=0.5)"))
        return block
    draft.features.add("space-to-depth by hand")
    phases = ", ".join(f"x[..., {i}::2, {j}::2]" for j in (0, 1) for i in (0, 1))
    block.body.append(f"x = torch.cat([{phases}], 1)")
    block.shape = (4 * shape[0], shape[1] // 2, shape[2] // 2)
    block.apply(conv(draft.choose, block.shape, stride=(1, 1), out=_out(draft, shape[0])))
    return block


BLOCKS = (
    _free, _free, _residual, _residual, _residual, _branches, _branches, _dense, _shuffled, _shared, _two_modes, _unit,
    _lossless, _looped, _viewed, _tied, _indexed,
)  # fmt: skip


def _layers(block: _Class) -> str | None:
    """Give a block as a sequence of layers, where it is nothing else."""
    held = [line.split(" = ", 1) for line in block.init]
    if (
        not held
        or any(pair[-1].startswith("self.") for pair in held)
        or block.body != [f"x = {name}(x)" for name, _ in held]
    ):
        return None
    return f"nn.Sequential({', '.join(made for _, made in held)})"


def _derived(draft: _Draft, name: str) -> str:
    """Write a class that has its forward from another one; gives an expression that makes an instance."""
    draft.features.add("subclass")
    own = f"Block{len(draft.classes)}"
    draft.classes.append(
        f"\nclass {own}({name}):\n    def forward(self, x):\n        return 0.5 * super().forward(x)\n"
        if draft.chance(2)
        else f"\nclass {own}({name}):\n    pass\n"
    )
    return f"{own}()"


def _stage(draft: _Draft, net: _Class, name: str) -> None:
    """Give a network one more stage: a block, or a sequence of some."""
    made = []
    for _ in range(draft.choose((1, 1, 2))):
        block = draft.choose(BLOCKS)(draft, net.shape)
        plain = _layers(block)
        if plain is not None and draft.choose((False, True)):
            made.append(plain)
            draft.features.add("sequential")
        else:
            made.append(block.finish())
        if block.shape == net.shape and draft.chance(4) and not plain:
            draft.features.add("a class twice")
            made.append(_derived(draft, block.name) if draft.chance(2) else made[-1])
        net.shape = block.shape
    expression = made[0] if len(made) == 1 and draft.choose((True, False)) else f"nn.Sequential({', '.join(made)})"
    net.init.append(f"self.{name} = {expression}")


def _head(draft: _Draft, net: _Class, maps: list[tuple[str, tuple[int, ...]]]) -> str:
    """Write what comes behind the last stage; gives what is returned."""
    dims, channels = len(net.shape) - 1, net.shape[0]
    kind = draft.choose(("linear", "linear", "mean", "flatten", "map", "maps", "maps", "pyramid", "auxiliary"))
    draft.features.add(f"head {kind}")
    if kind == "maps" and len(maps) > 1:
        names = [name for name, _ in maps]
        listed = ", ".join(f"{name!r}: {name}" for name in names)
        return draft.choose((f"[{', '.join(names)}]", f"{{{listed}}}", f"({', '.join(names)})"))
    if kind == "pyramid" and len(maps) > 1 and dims == PLANE:
        return _pyramid(draft, net, maps)
    if kind in {"map", "maps", "pyramid"}:
        return "x"
    if kind == "flatten":
        return f"{net.own(f'nn.Linear({math.prod(net.shape)}, 5)', 'fc')}(x.flatten(1))"
    axes = ", ".join(str(axis) for axis in range(2, 2 + dims))
    pooled = [f"x.mean(({axes},))", f"F.adaptive_avg_pool{dims}d(x, 1).flatten(1)"]
    pooled += [f"F.avg_pool{dims}d(x, x.shape[2:]).flatten(1)", f"torch.flatten(F.adaptive_max_pool{dims}d(x, 1), 1)"]
    pool_to = net.own(f"nn.Adaptive{draft.choose(('Avg', 'Max'))}Pool{dims}d(1)", "avgpool")
    pooled += [f"{pool_to}(x).flatten(1)"] * 2
    linear = f"{net.own(f'nn.Linear({channels}, 5)', 'fc')}({draft.choose(pooled)})"
    if kind == "auxiliary":
        name, shape = draft.choose(maps)
        extra = f"{net.own(f'nn.Linear({shape[0]}, 3)', 'aux')}({name}.mean(({axes},)))"
        net.body += ["if self.training:", f"    return {linear}, {extra}"]
        draft.features.add("modes differ")
    return linear


def _pyramid(draft: _Draft, net: _Class, maps: list[tuple[str, tuple[int, ...]]]) -> str:
    """Write a feature pyramid from the top down."""
    width, names = draft.choose((8, 6)), []
    for number, (name, shape) in reversed(list(enumerate(maps))):
        held = net.own(f"nn.Conv2d({shape[0]}, {width}, 1)", "lateral")
        net.body.append(f"p{number} = {held}({name})")
        if names:
            net.body.append(f"p{number} = p{number} + F.interpolate({names[0]}, size=p{number}.shape[-2:])")
        names.insert(0, f"p{number}")
    return f"[{', '.join(names)}]"


def make_network(choose: Choose) -> Network:
    """Make a network by choices alone: the same ones give the same network."""
    draft = _Draft(choose)
    dims = choose((2,) * 14 + (1, 3))
    sizes = {1: range(20, 60), 2: range(13, 41), 3: range(9, 14)}[dims]
    shape = (choose((3, 1, 4)), *(choose(sizes) for _ in range(dims)))
    net = _Class(draft, "Net", shape)
    draft.features |= {f"{dims}d", *(["odd size"] if any(n % 2 for n in shape[1:]) else [])}
    _stem(draft, net)
    style = choose(("layer{}", "stage{}", "block{}", "features_{}"))
    maps: list[tuple[str, tuple[int, ...]]] = []
    for number in range(1, 1 + choose((2, 1, 3))):
        name = style.format(number)
        _stage(draft, net, name)
        net.body += [f"x = self.{name}(x)", f"c{number} = x"]
        maps.append((f"c{number}", net.shape))
    result = _head(draft, net, maps)
    if draft.chance(12):
        draft.features.add("frozen")
        net.init.append("for p in list(self.parameters())[:2]: p.requires_grad = False")
    net.finish(result)
    return Network(HEAD + "\n".join(draft.classes), shape, tuple(sorted(draft.features)))


def _stem(draft: _Draft, net: _Class) -> None:
    """Write a stem: convolution, norm, activation and pool, each perhaps."""
    if draft.chance(5):
        return
    draft.features.add("stem")
    stride = _strides(draft, net.shape)
    net.apply(_aligned(draft, net.shape, stride, draft.choose((8, 4, 6))))
    _dressed(net)
    if draft.chance(3):
        net.apply(pool(draft.choose, net.shape))
