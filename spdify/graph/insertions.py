"""Sites of other kinds than downsampling: where a block may be put beside what is there, and plain convolutions.

They come from the same forward pass as all others: what each module was called with and what it gave (`Census.calls`),
by the tree of modules. A stage is all that runs at one resolution; its end is the last module of several layers, as the
network's blocks are drawn (`spdify.graph.parts`), that gives a map of it. Nothing goes by a model's name.
"""

from __future__ import annotations

import ast
import inspect
import math
import textwrap
from collections import Counter
from typing import TYPE_CHECKING

from torch import nn

from spdify.graph.adapters import module_geometry, module_operator
from spdify.graph.detectors import detector_of
from spdify.graph.edits import next_number, takes_blocks
from spdify.graph.parts import opened_paths, parts_of
from spdify.graph.tracer import BLOCKS_PACKAGE
from spdify.records import Call, Geometry, Site

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from spdify.graph.census import Census
    from spdify.graph.obstacles import ModuleFacts
    from spdify.graph.owners import ModuleCall
    from spdify.records import Inputs, Kind, Operator, Shape

MAP_AXES = 4  # batch, channels, height, width
LEVELS = 2  # that make a pyramid
LOOSE = 0.2  # by which the ratio of a map's sides may differ from that of the image: sizes are rounded, and padded


class Insertions:
    """Finds sites of other kinds in one model.

    Attributes:
        stages: Sizes (H, W) of the stages' maps, from the largest; empty where no stage is seen.
    """

    def __init__(
        self, model: nn.Module, inputs: Inputs, census: Census, facts: ModuleFacts, larger: Mapping[str, ModuleCall]
    ) -> None:
        """Look at a model.

        Args:
            model: Not changed.
            inputs: Of the census.
            census: Of one forward pass at batch 1 in eval mode.
            facts: About the model's modules.
            larger: The calls of another pass on an image of twice the size; empty where there is none.
        """
        self._model, self._inputs, self._facts, self._larger = model, inputs, facts, larger
        self._calls = census.calls
        #: When each module ended: when the last one in it was called.
        self._finished: dict[str, int] = {}
        for number, path in enumerate(census.calls):
            self._finished |= dict.fromkeys((*_paths_around(path), path), number)
        self._given: Counter[str] = Counter()
        opened = opened_paths(model, census)
        paths = [self._held(part.path) for part in parts_of(model, census, opened) if part.path]
        self._blocks = [path for path in paths if self._is_block(path)]
        around = {name for path in paths for name in _paths_around(path)}
        self._ends = self._last_at_each_size([*self._blocks, *(name for name in around if self._is_block(name))])
        self.stages = tuple(self._size(path) for path in self._ends)

    def find(self, kinds: Collection[Kind]) -> tuple[Site, ...]:
        """Give the sites of some kinds, each kind in the order in which its modules are called."""
        found: list[Site] = []
        self._given.clear()
        if "convolution" in kinds:
            found += self._convolutions()
        if "stage_end" in kinds:
            found += [self._end(path, "stage_end") for path in self._ends]
        if "block_end" in kinds:
            found += [self._end(path, "block_end") for path in sorted(self._blocks, key=self._finished.__getitem__)]
        if "input" in kinds:
            found += self._input()
        if "pyramid" in kinds:
            found += self._pyramids()
        return tuple(self.staged(site) for site in found)

    def staged(self, site: Site) -> Site:
        """Give a site with the stage that its (first) output belongs to."""
        output = site.calls[0].output
        if len(output) != MAP_AXES or site.operator in {"input", "pyramid"}:
            return site
        stage = self.stages.index(output[-2:]) if output[-2:] in self.stages else None
        return site.model_copy(update={"stage": stage, "stages": len(self.stages)})

    # What is a block, and what a stage.

    def _held(self, path: str) -> str:
        """Give the path of what a module is there to run in parallel; its own where it is none of these."""
        while isinstance(self._facts.module(path), nn.DataParallel):
            path = f"{path}.module"
        return path

    def _is_block(self, path: str) -> bool:
        """Whether a module of several layers, a convolution among them, gives one map with the channels first."""
        call, module = self._calls.get(path), self._facts.module(path)
        if call is None or not call.single or type(module).__module__.startswith(BLOCKS_PACKAGE):
            return False
        if not takes_blocks(module):
            return False
        parts = list(module.modules())
        held = len(parts) > 1 and any(module_operator(part) == "conv" for part in parts)
        return held and self._is_map(path, call.outputs[0])

    def _is_map(self, path: str, shape: Shape) -> bool:
        """Whether a tensor is a map whose second axis holds the channels: that one does not grow with the image."""
        if len(shape) != MAP_AXES or min(shape[2:]) < 2:  # noqa: PLR2004 - one position is no map
            return False
        other = self._larger.get(path)
        if other is not None and other.output is not None and other.output != shape:
            channels, *spatial = other.output[1:]
            return channels == shape[1] and all(a > b for a, b in zip(spatial, shape[2:], strict=True))
        height, width = self._image[-2:] if self._image else (1, 1)
        away = [abs(a / b * width / height - 1) for a, b in (shape[2:], shape[1:3])]
        return away[0] <= LOOSE and away[0] < away[1]

    def _are_levels(self, path: str) -> bool:
        """Whether the second axis of all maps that a module gives holds the channels.

        Where they do not grow with the image, as in a detector that resizes it, the largest map stands for all: of the
        smallest, which may be one position, nothing can be said.
        """
        here, other = self._calls[path].outputs, self._larger.get(path)
        if other is None or len(other.outputs) != len(here) or other.outputs == here:
            return self._is_map(path, max(here, key=lambda shape: math.prod(shape[2:])))
        pairs = list(zip(here, other.outputs, strict=True))
        grown = all(a >= b for small, large in pairs for a, b in zip(large[2:], small[2:], strict=True))
        return grown and all(small[1] == large[1] for small, large in pairs)

    @property
    def _image(self) -> Shape:
        """Shape of the image that goes in, where there is only one."""
        shapes = [spec.shape for spec in (*self._inputs.args, *self._inputs.kwargs.values())]
        return shapes[0] if shapes and len(shapes[0]) == MAP_AXES else ()

    def _size(self, path: str) -> Shape:
        output = self._calls[path].output or ()
        return tuple(output[-2:])

    def _last_at_each_size(self, paths: Iterable[str]) -> list[str]:
        """Give, for each size from the largest, the module that gives the last map of it.

        Of several that end together it is the outermost that is one stage and not a row of them, which code may go
        through itself.
        """
        last: dict[Shape, str] = {}
        for path in sorted(paths, key=lambda p: (self._finished[p], self._is_one_stage(p), -p.count("."))):
            last[self._size(path)] = path
        return [last[size] for size in sorted(last, key=math.prod, reverse=True)]

    def _is_one_stage(self, path: str) -> bool:
        """Whether a module halves its map at most once."""
        taken, given = self._calls[path].input, self._size(path)
        return taken is not None and len(taken) == MAP_AXES and taken[-1] <= 2 * given[-1] + 1

    # Sites.

    def _end(self, path: str, operator: Operator) -> Site:
        return self._inserted(path, operator, self._operation(path, "end"), [self._calls[path].outputs[0]])

    def _operation(self, path: str, what: str) -> str:
        """Name a block at a module, beside those that are there already and those that were named before."""
        number = next_number(self._facts.module(path), what, given=self._given[f"{path}:{what}"])
        self._given[f"{path}:{what}"] += 1
        return f"{what}:{number}"

    def _inserted(self, path: str, operator: Operator, operation: str, shapes: list[Shape]) -> Site:
        """Describe a place where a block is put."""
        channels, module = shapes[0][1], self._facts.module(path)
        return Site(
            path=path,
            operation=operation,
            operator=operator,
            type_name=type(module).__name__,
            parent=self._facts.parent(path) if path else "",
            geometry=Geometry(
                in_channels=channels, out_channels=channels, kernel=(1, 1), stride=(1, 1), padding=(0, 0),
                dilation=(1, 1),
            ),
            calls=tuple(Call(input=shape, output=shape) for shape in shapes),
            aliases=self._facts.aliases(path),
        )  # fmt: skip

    def _convolutions(self) -> list[Site]:
        """Find the called convolutions over more than one position that do not downsample."""
        found = []
        for path, call in self._calls.items():
            module = self._facts.module(path)
            if module_operator(module) != "conv" or call.input is None or call.output is None:
                continue
            geometry = module_geometry(module, "conv", call.input, call.output)
            if any(step > 1 for step in geometry.stride) or all(k == 1 for k in geometry.kernel):
                continue
            if self._within_block(path):
                continue
            found.append(
                Site(
                    path=path,
                    operator="conv",
                    type_name=type(module).__name__,
                    parent=self._facts.parent(path),
                    geometry=geometry,
                    calls=(Call(input=call.input, output=call.output),),
                    aliases=self._facts.aliases(path),
                    constants=self._facts.constants(path),
                    obstacles=self._facts.obstacles(path),
                    macs=geometry.macs(call.output),
                )
            )
        return found

    def _within_block(self, path: str) -> bool:
        """Whether a module lies in one of spdify's own blocks."""
        around = (path, *_paths_around(path))
        return any(type(self._facts.module(name)).__module__.startswith(BLOCKS_PACKAGE) for name in around)

    def _input(self) -> list[Site]:
        """Find where the image goes in: the model itself; of a detector, whose images are still apart, its backbone.

        Of several images that belong together (two frames, say), none is to be seen otherwise than the rest.
        """
        path = "backbone" if detector_of(self._model) is not None else ""
        call, several = self._calls.get(path), len(self._inputs.args) + len(self._inputs.kwargs) > 1
        if several or call is None or call.input is None or len(call.input) != MAP_AXES:
            return []
        method = entry_method(self._facts.module(path))
        if not takes_blocks(self._facts.module(path), method):
            return []
        operation = self._operation(path, f"{method}:input")
        return [self._inserted(path, "input", operation, [call.input])]

    def _pyramids(self) -> list[Site]:
        """Find the outermost modules that give maps of several sizes, from the one that ends first."""
        found = []
        for path, call in self._calls.items():
            sizes = [shape[2:] for shape in call.outputs if len(shape) == MAP_AXES]
            several = len(sizes) == len(call.outputs) >= LEVELS and len(set(sizes)) == len(sizes)
            if several and self._are_levels(path) and takes_blocks(self._facts.module(path)):
                found.append(path)
        outermost = [path for path in found if not any(_is_inside(path, other) for other in found)]
        return [
            self._inserted(path, "pyramid", self._operation(path, "end"), [*self._calls[path].outputs])
            for path in sorted(outermost, key=self._finished.__getitem__)
        ]


def entry_method(module: nn.Module) -> str:
    """Name the method through which an image goes in: `forward`, or the `forward_features` that it begins with.

    timm's networks are also asked for features alone, by the latter.
    """
    kind = type(module)
    if not callable(getattr(kind, "forward_features", None)):
        return "forward"
    try:
        function = inspect.unwrap(kind.forward)
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    except (OSError, TypeError, ValueError, SyntaxError):
        return "forward"
    if not isinstance(tree, ast.FunctionDef) or len(tree.args.args) < 2:  # noqa: PLR2004 - self and the image
        return "forward"
    image = tree.args.args[1].arg
    statements = [s for s in tree.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
    calls = [node for node in ast.walk(statements[0]) if isinstance(node, ast.Call)] if statements else []
    begins = any(ast.unparse(c.func) == "self.forward_features" and _first(c) == image for c in calls)
    return "forward_features" if begins else "forward"


def _first(call: ast.Call) -> str:
    return call.args[0].id if call.args and isinstance(call.args[0], ast.Name) else ""


def _paths_around(path: str) -> list[str]:
    """Give the paths of the modules around one, without the model's own."""
    names = path.split(".")
    return [".".join(names[:end]) for end in range(1, len(names))]


def _is_inside(path: str, other: str) -> bool:
    """Whether a module lies in another."""
    return path != other and (not other or path.startswith(f"{other}."))
