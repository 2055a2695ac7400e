"""Random small networks, as the source that a user might have written, from a choice at each turn.

`make_network` asks for one of several options again and again: hypothesis answers in tests (and shrinks towards the
first ones), a seeded generator in the campaign. What comes out is text, so that whatever fails can be built by hand.
"""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from tests.faults.blocks import branches, dense, free, residual, shuffled, unit
from tests.faults.drafts import PLANE, ClassDraft, Draft, aligned, dress, strides
from tests.faults.odd_blocks import indexed, looped, lossless, shared, tied, two_modes, viewed
from tests.faults.windows import pool

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    from tests.faults.windows import Choose

HEAD = """import torch
import torch.nn.functional as F
from timm import layers
from timm.layers import pool2d_same
from torch import nn

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


BLOCKS = (
    free, free, residual, residual, residual, branches, branches, dense, shuffled, shared, two_modes, unit,
    lossless, looped, viewed, tied, indexed,
)  # fmt: skip


def _layers(block: ClassDraft) -> str | None:
    """Give a block as a sequence of layers, where it is nothing else."""
    held = [line.split(" = ", 1) for line in block.init]
    if (
        not held
        or any(pair[-1].startswith("self.") for pair in held)
        or block.body != [f"x = {name}(x)" for name, _ in held]
    ):
        return None
    return f"nn.Sequential({', '.join(made for _, made in held)})"


def _derived(draft: Draft, name: str) -> str:
    """Write a class that has its forward from another one; gives an expression that makes an instance."""
    draft.features.add("subclass")
    own = f"Block{len(draft.classes)}"
    draft.classes.append(
        f"\nclass {own}({name}):\n    def forward(self, x):\n        return 0.5 * super().forward(x)\n"
        if draft.chance(2)
        else f"\nclass {own}({name}):\n    pass\n"
    )
    return f"{own}()"


def _stage(draft: Draft, net: ClassDraft, name: str) -> None:
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


def _head(draft: Draft, net: ClassDraft, maps: list[tuple[str, tuple[int, ...]]]) -> str:
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


def _pyramid(draft: Draft, net: ClassDraft, maps: list[tuple[str, tuple[int, ...]]]) -> str:
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
    draft = Draft(choose)
    dims = choose((2,) * 14 + (1, 3))
    sizes = {1: range(20, 60), 2: range(13, 41), 3: range(9, 14)}[dims]
    shape = (choose((3, 1, 4)), *(choose(sizes) for _ in range(dims)))
    net = ClassDraft(draft, "Net", shape)
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


def _stem(draft: Draft, net: ClassDraft) -> None:
    """Write a stem: convolution, norm, activation and pool, each perhaps."""
    if draft.chance(5):
        return
    draft.features.add("stem")
    stride = strides(draft, net.shape)
    net.apply(aligned(draft, net.shape, stride, draft.choose((8, 4, 6))))
    dress(net)
    if draft.chance(3):
        net.apply(pool(draft.choose, net.shape))
