"""Converted networks in the hands of Ultralytics' package, which builds and fuses networks by itself.

Its trainer builds a network anew from the configuration that a model has (`yaml`), then loads the weights that fit: of
a converted network it would build the original. And its `fuse()` multiplies convolutions by their norms. So a converted
model's configuration remembers the plans, and two functions of the package are wrapped, once, where such a model is
made or read: `parse_model` carries out the plans of a configuration that has some, `BaseModel.fuse` puts the deployed
form of each block into the model first. Networks without plans and blocks are built and fused as ever.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

from torch import nn

from spdify.blocks import SPDBatchNorm2d
from spdify.engine.fusing import BLOCKS, fuse_blocks
from spdify.records import Plan
from spdify.sources.ultralytics_package import ultralytics

if TYPE_CHECKING:
    from collections.abc import Callable

TASKS = "ultralytics.nn.tasks"
_MARK = "wrapped_by_spdify"


class ConvertedConfig(dict[str, Any]):
    """A configuration of Ultralytics' package with the plans by which the network was converted.

    Attributes:
        plans: Each as JSON, in order.
    """

    def __init__(self, config: dict[str, Any], plans: tuple[str, ...] = ()) -> None:
        """Take both."""
        super().__init__(config)
        self.plans = plans

    def copy(self) -> ConvertedConfig:
        """Copy with the plans, where a plain dict would lose them."""
        return ConvertedConfig(self, self.plans)

    def __or__(self, other: Any) -> ConvertedConfig:  # type: ignore[override]  # noqa: ANN401 - as dict has it
        """Change entries, and keep the plans."""
        return ConvertedConfig({**self, **other}, self.plans)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make ready for the package to build from this, which was copied or read from a file."""
        self.__dict__.update(state)
        register()


def is_ultralytics(model: nn.Module) -> bool:
    """Whether a model is one of Ultralytics' package, whole."""
    tasks = sys.modules.get(TASKS)
    return tasks is not None and isinstance(model, tasks.BaseModel)


def remember(model: nn.Module, plan: Plan) -> None:
    """Have a model of Ultralytics' package, and what is built from its configuration, know the plan; in place."""
    if not is_ultralytics(model):
        return
    register()
    config: Any = model.yaml
    model.yaml = ConvertedConfig(config, (*getattr(config, "plans", ()), plan.model_dump_json()))  # type: ignore[assignment]


def register() -> None:
    """Wrap the two functions of the package, unless they are."""
    tasks: Any = ultralytics("nn.tasks")
    if not hasattr(tasks.parse_model, _MARK):
        tasks.parse_model = _marked(tasks.parse_model, _parse)
        tasks.BaseModel.fuse = _marked(tasks.BaseModel.fuse, _fuse)


def _marked(original: Callable[..., Any], replacement: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function, so that a class binds the wrapper to its instances as it did the function."""

    @functools.wraps(original)
    def call(*args: object, **kwargs: object) -> object:
        return replacement(original, *args, **kwargs)

    setattr(call, _MARK, True)
    return call


def _parse(original: Callable[..., Any], d: dict[str, Any], *args: object, **kwargs: object) -> Any:  # noqa: ANN401
    """Build the layers of a configuration, then carry out its plans."""
    from spdify.engine.applying import apply_structure  # noqa: PLC0415 - which itself has models remember plans

    layers, save = original(d, *args, **kwargs)
    holder = nn.Module()
    holder.model = layers
    if getattr(d, "plans", ()) and ultralytics("nn.tasks").guess_model_task(d) != "classify":
        # All but classifiers give their norms the package's own constants later; blocks take them over here.
        ultralytics("utils.torch_utils").initialize_weights(layers)
    for plan in getattr(d, "plans", ()):
        holder = apply_structure(holder, Plan.model_validate_json(plan))
    return holder.model, save


def _fuse(original: Callable[..., Any], model: nn.Module, *args: object, **kwargs: object) -> Any:  # noqa: ANN401
    """Put the deployed form of each block into a model, then fuse it; a norm behind another form stays beside it."""
    units = [
        unit
        for unit in model.modules()
        if hasattr(unit, "bn") and (type(getattr(unit, "conv", None)) in BLOCKS or isinstance(unit.bn, SPDBatchNorm2d))
    ]
    fuse_blocks(model)
    for unit in units:
        # A norm that phases share has one scale for several filters.
        if not isinstance(unit.conv, nn.Conv2d) or isinstance(unit.bn, SPDBatchNorm2d):
            unit.conv = nn.Sequential(unit.conv, unit.bn)  # type: ignore[arg-type]
            del unit.bn
            unit.forward = unit.forward_fuse  # type: ignore[assignment]
    return original(model, *args, **kwargs)
