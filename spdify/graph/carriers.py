"""What a module does with channels that became more: it carries them on, takes them in, or cannot have them.

A carrier works on each channel by itself; its tensors are repeated for every copy. A consumer sums over channels; its
weights for the copies that are not the old channel are zero. All else mixes copies, or is not known, and stops the
change. `spdify.records.Layout` says what the copies of a channel hold: where the old channel is the mean of its copies,
only what is linear, in training too, may carry it.

Facts about classes are by their very class, as in `spdify.graph.adapters`: a subclass may compute anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias

from torch import nn
from torch.nn.modules import activation, dropout

from spdify.graph.adapters import adapter_of, module_operator
from spdify.graph.obstacles import RETURNS_INDICES
from spdify.records import Layout, TensorChange

if TYPE_CHECKING:
    from collections.abc import Callable

Role: TypeAlias = Literal["carrier", "consumer", "follower"]

#: Numbers that count channels, which a change may set.
CHANNEL_NUMBERS = (
    "in_channels", "out_channels", "groups", "num_features", "num_parameters", "in_features", "out_features",
    "num_channels", "channels",
)  # fmt: skip

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
DROPOUTS = (dropout.Dropout, dropout.Dropout1d, dropout.Dropout2d, dropout.Dropout3d)
LINEAR_SPATIAL = (
    nn.Identity, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d, nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.ReflectionPad1d, nn.ReflectionPad2d,
    nn.ReplicationPad1d, nn.ReplicationPad2d, nn.Upsample, nn.UpsamplingBilinear2d, nn.UpsamplingNearest2d,
)  # fmt: skip
OTHER_SPATIAL = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d,
)  # fmt: skip
#: Those of torch.nn's activations that mix channels, hold weights for each, or draw random numbers for each.
MIXING_ACTIVATIONS = (
    activation.Softmax, activation.Softmax2d, activation.Softmin, activation.LogSoftmax, activation.GLU,
    activation.MultiheadAttention, activation.PReLU, activation.RReLU,
)  # fmt: skip

#: Names of classes outside torch.nn, with the package that must have made them.
TIMM_BATCH_NORMS = ("BatchNormAct2d", "SyncBatchNormAct", "FrozenBatchNormAct2d")
STOCHASTIC_DEPTH = (("timm.layers", "DropPath"), ("torchvision.ops", "StochasticDepth"))


class StopError(Exception):
    """A change of channels cannot go on here; the message says why."""


@dataclass(frozen=True)
class Step:
    """What becomes of a module that the change reaches.

    Attributes:
        role: What it does with the change.
        out: The channels that leave it, where they are more than before.
        tensors: What becomes of its tensors.
        numbers: Its attributes that count channels.
        block: Class of the block that takes its place; empty where numbers are enough.
        taken: The channels that come in, where they are more than before.
    """

    role: Role
    out: Layout | None
    tensors: tuple[TensorChange, ...] = ()
    numbers: dict[str, int] = field(default_factory=dict)
    block: str = ""
    taken: Layout | None = None


def step_through(module: nn.Module, taken: Layout) -> Step:
    """Say what a module does with an input whose channels became more.

    Args:
        module: A leaf of the trace; its tensors may be fake.
        taken: The channels that come in.

    Raises:
        StopError: The change cannot go through or end here.
    """
    step = next((step for holds, step in _STEPS if holds(module)), None)
    if step is None:
        _stop(f"{type(module).__name__} is not known to work on each channel by itself")
    return step(module, taken)


def follow_through(module: nn.Module, wanted: Layout) -> Step:
    """Say how a convolution or linear layer has its output repeated as `wanted` says; a carrier is no matter of this.

    Raises:
        StopError: It cannot.
    """
    if type(module) is nn.Linear:
        changes, numbers = _repeated(module, ("weight", "bias"), wanted), {"out_features": wanted.new}
        return Step("follower", wanted, changes, numbers)
    _require_plain_conv(module)
    convolution: Any = module
    if convolution.groups > 1 and wanted.copies is None:
        _stop("its groups would get unequal shares")
    numbers = {"out_channels": wanted.new}
    return Step("follower", wanted, _repeated(module, ("weight", "bias"), wanted), numbers)


def require_untouched(module: nn.Module) -> None:
    """Refuse what may compute anything, whatever its class.

    Raises:
        StopError: It has hooks, or a forward of its own.
    """
    if module._forward_pre_hooks or module._forward_hooks:  # noqa: SLF001 - torch has no public list of hooks
        _stop("it has forward hooks (old weight norm, pruning, or your own)")
    if "forward" in vars(module):
        _stop("its forward was replaced")


def is_depthwise(module: nn.Module) -> bool:
    """Whether a module is a convolution of each channel by itself, one filter each."""
    if not isinstance(module, nn.modules.conv._ConvNd):  # noqa: SLF001 - torch gives it no public name
        return False
    return module.groups > 1 and module.groups == module.in_channels == module.out_channels


def _stop(reason: str) -> NoReturn:
    raise StopError(reason)


def _made_by(module: nn.Module, package: str, *names: str) -> bool:
    kind = type(module)
    return kind.__name__ in names and kind.__module__.startswith(package)


def _repeated(module: nn.Module, names: tuple[str, ...], layout: Layout) -> tuple[TensorChange, ...]:
    """Repeat those of the named tensors that a module has, along their first axis."""
    held = [name for name in names if getattr(module, name, None) is not None]
    return tuple(TensorChange(name=name, axis=0, change="repeat", layout=layout) for name in held)


def _require_selecting(taken: Layout, what: str) -> None:
    if taken.how != "select":
        _stop(f"{what} is not linear, and the old channel is the mean of the new ones")


def _carry(_module: nn.Module, taken: Layout) -> Step:
    return Step("carrier", taken)


def _carry_spatial(module: nn.Module, taken: Layout) -> Step:
    if getattr(module, "return_indices", False):
        _stop(RETURNS_INDICES)
    if taken.inner != 1:
        _stop("it reads positions of a flattened map")
    return Step("carrier", taken)


def _carry_unlinear(module: nn.Module, taken: Layout) -> Step:
    _require_selecting(taken, type(module).__name__)
    return _carry_spatial(module, taken)


def _carry_activation(module: nn.Module, taken: Layout) -> Step:
    _require_selecting(taken, type(module).__name__)
    return Step("carrier", taken)


def _carry_dropout(module: Any, taken: Layout) -> Step:  # noqa: ANN401 - attributes of several classes
    if module.p > 0:
        _require_selecting(taken, "dropout")
    return Step("carrier", taken)


def _carry_prelu(module: Any, taken: Layout) -> Step:  # noqa: ANN401 - as above
    _require_selecting(taken, "PReLU")
    if module.weight.numel() == 1:
        return Step("carrier", taken)
    return Step("carrier", taken, _repeated(module, ("weight",), taken), {"num_parameters": taken.new})


def _carry_batch_norm(module: nn.Module, taken: Layout) -> Step:
    _require_selecting(taken, "a batch norm in training")
    for name in ("drop", "act"):  # timm's norms run these as well
        inner = getattr(module, name, None)
        if isinstance(inner, nn.Module) and not (is_activation(inner) or type(inner) is nn.Identity):
            _stop(f"its {name} is a {type(inner).__name__}")
    if taken.norms == "shared":
        return _share_batch_norm(module, taken)
    tensors = _repeated(module, ("weight", "bias", "running_mean", "running_var"), taken)
    numbers = {"num_features": taken.new} if hasattr(module, "num_features") else {}
    return Step("carrier", taken, tensors, numbers)


def _share_batch_norm(module: nn.Module, taken: Layout) -> Step:
    if type(module) is not nn.BatchNorm2d or taken.inner != 1 or taken.copies is None:
        _stop("only a torch.nn.BatchNorm2d over as many copies of every channel can be shared by them")
    if module.running_mean is None:
        _stop("a batch norm without running statistics sees all copies, which would change the first ones")
    return Step("carrier", taken, block="SPDBatchNorm2d")


def _carry_group_norm(module: Any, taken: Layout) -> Step:  # noqa: ANN401 - as above
    _require_selecting(taken, "a group norm")
    if taken.inner != 1 or taken.copies is None:
        _stop("a group norm takes the same number of copies of every channel")
    numbers = {"num_channels": taken.new}
    return Step("carrier", taken, _repeated(module, ("weight", "bias"), taken), numbers, block="SPDGroupNorm")


def _carry_blur(module: Any, taken: Layout) -> Step:  # noqa: ANN401 - timm's class
    if taken.inner != 1:
        _stop("it reads positions of a flattened map")
    if module.channels is None:
        return Step("carrier", taken)
    return Step("carrier", taken, _repeated(module, ("filt",), taken), {"channels": taken.new})


def _require_plain_conv(module: nn.Module) -> None:
    adapter = adapter_of(module)
    if type(module) not in CONVOLUTIONS and (adapter is None or adapter.operator != "conv"):
        _stop(f"{type(module).__name__} is not known to be a plain convolution")
    if adapter is not None and adapter.constants:
        _stop(f"{type(module).__name__} computes its weight from all entries, which zeros would change")


def _through_convolution(module: Any, taken: Layout) -> Step:  # noqa: ANN401 - attributes of several classes
    _require_plain_conv(module)
    if taken.inner != 1:
        _stop("a convolution cannot read a flattened map")
    if is_depthwise(module):
        numbers = dict.fromkeys(("in_channels", "out_channels", "groups"), taken.new)
        return Step("carrier", taken, _repeated(module, ("weight", "bias"), taken), numbers)
    runs = taken.runs
    if module.groups > 1:
        if taken.copies is None:
            _stop("its groups would get unequal shares")
        runs = ((module.in_channels // module.groups, taken.copies),)
    per_group = taken.model_copy(update={"runs": runs})
    change = TensorChange(name="weight", axis=1, change="read", layout=per_group)
    return Step("consumer", None, (change,), {"in_channels": taken.new})


def _into_linear(_module: nn.Module, taken: Layout) -> Step:
    change = TensorChange(name="weight", axis=1, change="read", layout=taken)
    return Step("consumer", None, (change,), {"in_features": taken.new})


def is_activation(module: nn.Module) -> bool:
    """Whether a module computes each number by itself, without weights."""
    kind = type(module)
    if any(True for _ in module.parameters()):
        return False
    if kind.__module__ == activation.__name__:
        return kind not in MIXING_ACTIVATIONS
    return kind.__module__.startswith("timm.layers.activations") and not issubclass(kind, MIXING_ACTIVATIONS)


def _is_linear_spatial(module: nn.Module) -> bool:
    adapter = adapter_of(module)
    return type(module) in LINEAR_SPATIAL or (adapter is not None and adapter.operator == "avg_pool")


def _is_other_spatial(module: nn.Module) -> bool:
    adapter = adapter_of(module)
    return type(module) in OTHER_SPATIAL or (adapter is not None and adapter.operator == "max_pool")


def is_batch_norm(module: nn.Module) -> bool:
    """Whether a module is a norm of each channel by itself, over positions."""
    return (
        type(module) in (*BATCH_NORMS, *INSTANCE_NORMS)
        or _made_by(module, "timm.layers", *TIMM_BATCH_NORMS)
        or _made_by(module, "torchvision.ops", "FrozenBatchNorm2d")
    )


def _is_stochastic_depth(module: nn.Module) -> bool:
    return any(_made_by(module, package, name) for package, name in STOCHASTIC_DEPTH)


def _is_blur(module: nn.Module) -> bool:
    adapter = adapter_of(module)
    return adapter is not None and adapter.operator == "blur_pool"


#: In the order in which they are tried.
_STEPS: tuple[tuple[Callable[[nn.Module], bool], Callable[[Any, Layout], Step]], ...] = (
    (lambda module: type(module) is nn.Linear, _into_linear),
    (lambda module: module_operator(module) == "conv", _through_convolution),
    (is_batch_norm, _carry_batch_norm),
    (lambda module: type(module) is nn.GroupNorm, _carry_group_norm),
    (_is_blur, _carry_blur),
    (_is_linear_spatial, _carry_spatial),
    (_is_other_spatial, _carry_unlinear),
    (is_activation, _carry_activation),
    (lambda module: type(module) is nn.PReLU, _carry_prelu),
    (lambda module: type(module) in DROPOUTS, _carry_dropout),
    (_is_stochastic_depth, _carry),
)
