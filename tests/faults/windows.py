"""Operators of random networks, as the source of a class has them: convolutions and pools of all kinds, and slices."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")


class Choose(Protocol):
    """Takes one of several: hypothesis' draw, which shrinks towards the first, or a random number generator's."""

    def __call__(self, options: Sequence[T], /) -> T: ...


@dataclass(frozen=True)
class Op:
    """An operator: a call of `{m}` on `{x}`, and what `self` holds for it, if anything."""

    call: str
    module: str = ""
    name: str = "op"
    features: tuple[str, ...] = ()


def _text(values: Sequence[int]) -> str:
    return str(values[0]) if len(set(values)) == 1 else str(tuple(values))


def _axes(choose: Choose, options: Sequence[int], dims: int) -> tuple[int, ...]:
    """Give a number for all axes, seldom one for each."""
    first = choose(options)
    return tuple(choose(options) for _ in range(dims)) if choose((False,) * 5 + (True,)) else (first,) * dims


def _window_features(kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> list[str]:
    found = []
    if len(set(stride)) > 1:
        found.append("asymmetric stride")
    if max(stride) == 1:
        found.append("stride 1")
    if max(dilation) > 1:
        found.append("dilation")
    if any(k < s for k, s in zip(kernel, stride, strict=True)):
        found.append("kernel below stride")
    if any(k == s > 1 for k, s in zip(kernel, stride, strict=True)):
        found.append("kernel is stride")
    return found


def conv(choose: Choose, shape: Sequence[int], *, stride: Sequence[int] | None = None, out: int = 0) -> Op:
    """Make a convolution; with a `stride`, one whose maps are those of any other made so: ceil(n / s)."""
    dims, channels = len(shape) - 1, shape[0]
    out = out or choose((4, 6, 8, 12, channels, 2 * channels))
    if stride is None:
        kernel, steps = _axes(choose, (3, 1, 2, 4, 5), dims), _axes(choose, (1, 2, 2, 3), dims)
        dilation = _axes(choose, (1, 1, 1, 2, 3), dims)
        padding = tuple(choose(range(d * (k - 1) + 1)) for k, d in zip(kernel, dilation, strict=True))
    else:
        kernel, steps, dilation = _axes(choose, (3, 1, 5), dims), tuple(stride), _axes(choose, (1, 1, 1, 2), dims)
        padding = tuple(d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True))
    groups = choose((1, 1, 1, math.gcd(channels, out), channels if out % channels == 0 else 1))
    bias = choose((False, True))
    features = _window_features(kernel, steps, dilation)
    features += ["depthwise" if groups == channels else "groups"] if groups > 1 else []
    if dims == 2 and choose((False,) * 6 + (True,)):
        return _functional_conv(choose, (channels, out), (kernel, steps, padding, dilation), groups, features)
    mode = choose(("zeros",) * 6 + ("reflect", "replicate", "circular")) if any(padding) else "zeros"
    same = max(steps) == 1 and choose((False,) * 3 + (True,))
    features += [f"padding {mode}"] if mode != "zeros" else []
    features += ["padding='same'"] if same else []
    options = [f"{channels}, {out}, {_text(kernel)}, stride={_text(steps)}"]
    options += ["padding='same'" if same else f"padding={_text(padding)}", f"dilation={_text(dilation)}"]
    options += [f"groups={groups}, bias={bias}, padding_mode={mode!r}"]
    made = f"nn.Conv{dims}d({', '.join(options)})"
    if choose((False,) * 59 + (True,)):
        norm = choose(("weight_norm", "spectral_norm"))
        made, features = f"nn.utils.parametrizations.{norm}({made})", [*features, "parametrization"]
    return Op("{m}({x})", made, "conv", ("conv", *features))


def _functional_conv(
    choose: Choose, channels: tuple[int, int], window: tuple[tuple[int, ...], ...], groups: int, features: list[str]
) -> Op:
    stride, padding, dilation = map(_text, window[1:])
    size = ", ".join(map(str, window[0]))
    weight = f"nn.Parameter(0.2 * torch.randn({channels[1]}, {channels[0] // groups}, {size}))"
    call = f"F.conv2d({{x}}, {{m}}, stride={stride}, padding={padding}, dilation={dilation}, groups={groups})"
    if choose((False, True)):
        call = f"F.conv2d({{x}}, {{m}}, None, {stride}, {padding}, {dilation}, {groups})"
    return Op(call, weight, "weight", ("functional conv", *features))


def timm_conv(choose: Choose, shape: Sequence[int], *, stride: Sequence[int], out: int) -> Op:
    """Make one of timm's convolutions with a forward of their own; of the same size as `conv` makes."""
    kind = choose(("StdConv2d", "Conv2dSame", "ScaledStdConv2d", "StdConv2dSame"))
    kernel = choose((3, 1, 5))
    padding = "" if kind.endswith("Same") else f", padding={kernel // 2}"
    bias = choose((True, False))
    made = f"layers.{kind}({shape[0]}, {out}, {kernel}, stride={_text(stride)}{padding}, bias={bias})"
    return Op("{m}({x})", made, "conv", (f"timm {kind}",))


def pool(choose: Choose, shape: Sequence[int], *, stride: Sequence[int] | None = None) -> Op:
    """Make a pool, called or functional; with a `stride`, one whose maps are those of `conv` with it."""
    dims = len(shape) - 1
    kind = choose(("max", "avg", "max", "avg", "lp", "blur", "same"))
    if kind in {"blur", "same"} and (dims != 2 or (stride is not None and set(stride) != {2})):
        kind = "max"
    if kind == "blur":
        size = choose((3, 5))
        pad_mode = choose(("reflect", "replicate", "constant", "circular"))
        made = f"layers.BlurPool2d({shape[0]}, {size}, 2, pad_mode={pad_mode!r})"
        return Op("{m}({x})", made, "blur", ("timm BlurPool2d",))
    if kind == "same":
        name = choose(("MaxPool2dSame", "AvgPool2dSame"))
        return Op("{m}({x})", f"pool2d_same.{name}({choose((3, 2))}, 2)", "pool", (f"timm {name}",))
    if kind == "lp":
        steps = tuple(stride) if stride is not None else (2,) * dims
        made = f"nn.LPPool{dims}d(2, {_text(steps)}, ceil_mode=True)"
        return Op("{m}({x})", made, "pool", ("LPPool",))
    return _plain_pool(choose, kind, dims, stride)


def _plain_pool(choose: Choose, kind: str, dims: int, stride: Sequence[int] | None) -> Op:
    dilation: tuple[int, ...] = (1,) * dims
    if stride is not None:
        odd = choose((True, False))
        steps = tuple(stride)
        kernel = (3,) * dims if odd else steps
        padding, ceil = ((1,) * dims, False) if odd else ((0,) * dims, True)
    else:
        kernel, steps = _axes(choose, (2, 3, 1, 4, 5), dims), _axes(choose, (2, 1, 3, 2), dims)
        padding = tuple(choose((0, *range(k // 2 + 1))) for k in kernel)
        ceil = choose((False, True))
        dilation = _axes(choose, (1, 1, 1, 2), dims) if kind == "max" else dilation
    options = [_text(kernel), _text(steps), _text(padding)]
    features = [f"{kind} pool", *_window_features(kernel, steps, dilation)]
    named = [f"ceil_mode={ceil}"] if ceil else []
    features += ["ceil_mode"] if ceil else []
    features += ["padded pool"] if any(padding) else []
    if kind == "max":
        named += [f"dilation={_text(dilation)}"] if max(dilation) > 1 else []
    else:
        count, divisor = choose((True, False)), choose((None,) * 5 + (3, 7)) if dims > 1 else None
        named += [] if count else ["count_include_pad=False"]
        named += [f"divisor_override={divisor}"] if divisor else []
        features += (["count_include_pad=False"] if not count else []) + (["divisor_override"] if divisor else [])
    arguments = ", ".join([*options, *named])
    if choose((False, False, True)):
        return Op(f"F.{kind}_pool{dims}d({{x}}, {arguments})", features=(*features, f"functional {kind} pool"))
    name = "MaxPool" if kind == "max" else "AvgPool"
    return Op("{m}({x})", f"nn.{name}{dims}d({arguments})", "pool", tuple(features))


def subsample(choose: Choose, *, stride: Sequence[int]) -> Op:
    """Make a slice that keeps every s-th position."""
    first = choose(("", "", "1"))
    steps = ", ".join(f"{first}::{s}" for s in stride)
    start = choose((f":, :, {steps}", f"..., {steps}"))
    return Op(f"{{x}}[{start}]", features=("slice",) if not first else ("slice", "slice from 1"))


def aside(choose: Choose, shape: Sequence[int]) -> Op:
    """Make something between layers: what channels or maps go through that is neither window nor norm."""
    channels, dims = shape[0], len(shape) - 1
    options = ["F.pad({x}, (0, 1))", "F.pad({x}, (1, -1), value=0.5)", "2 * {x}", "{x}.flip(-1)", "{x}.clamp(-1, 1)"]
    options += ["{x}.transpose(2, -1)", "{x} - {x}.mean(1, keepdim=True)", "torch.roll({x}, 1, 1)", "{x}.softmax(1)"]
    options += ["{x}[:, ::2]", "{x}[..., 1:]", "torch.cat([{x}, -{x}], 1)", "F.normalize({x}, dim=1)", "{x}.abs()"]
    options += ["{x} + {x}.amax(-1, keepdim=True)", "{x}.flatten(2).unsqueeze(-1)", "{x}.flatten(2).unflatten(2, {s})"]
    options += ["{x}.permute(0, 1, *range(2, {x}.dim())).contiguous()", "torch.stack([{x}, {x}]).sum(0)", "-{x}"]
    options += ["torch.where({x} > 0, {x}, 0.1 * {x})", "torch.maximum({x}, -0.5 * {x})", "{x} * {x}.sigmoid()"]
    call = choose(options)
    modules = [f"nn.ConvTranspose{dims}d({channels}, {choose((4, 6, channels))}, 2, stride=2)", "nn.Identity()"]
    modules += [
        f"nn.AdaptiveAvgPool{dims}d({choose((3, 5))})",
        f"nn.AdaptiveMaxPool{dims}d(4)",
        "nn.Upsample(scale_factor=2)",
    ]
    modules += ["nn.LocalResponseNorm(3)", "nn.GLU(1)", "nn.Upsample(scale_factor=2)"]
    modules += [f"nn.Softmax{dims}d()" if dims == 2 else "nn.Softplus()"]
    if choose((False, False, True)):
        made = choose(modules)
        return Op("{m}({x})", made, "aside", ("aside", f"aside {made[3:].split('(', maxsplit=1)[0]}"))
    return Op(call.replace("{s}", str(list(shape[1:]))), features=("aside", f"aside {call}"))


def norm(choose: Choose, shape: Sequence[int]) -> Op | None:
    """Make a norm, seldom none."""
    channels, dims = shape[0], len(shape) - 1
    options: list[str] = [f"nn.BatchNorm{dims}d({channels})"] * 5
    options += [f"nn.BatchNorm{dims}d({channels}, momentum=None)", f"nn.BatchNorm{dims}d({channels}, affine=False)"]
    options += [f"nn.BatchNorm{dims}d({channels}, track_running_stats=False)", f"nn.GroupNorm(2, {channels})"]
    options += [f"nn.InstanceNorm{dims}d({channels}, affine=True)", f"nn.GroupNorm(1, {channels})"]
    options += [f"nn.InstanceNorm{dims}d({channels}, track_running_stats=True)", ""]
    if dims == 2:
        options += [f"layers.LayerNorm2d({channels})", f"layers.BatchNormAct2d({channels})"]
        options += [f"nn.LayerNorm({list(shape)})"]
    made = choose(options)
    if not made or ("GroupNorm(2" in made and channels % 2):
        return None
    kind = made[made.index(".") + 1 : made.index("(")].rstrip("123d")
    return Op("{m}({x})", made, "norm", (f"norm {kind}",))


def activation(choose: Choose, shape: Sequence[int]) -> Op | None:
    """Make an activation, called or functional, seldom none."""
    options = ["nn.ReLU()", "nn.ReLU(inplace=True)", "nn.ReLU(inplace=True)", "nn.SiLU()", "nn.SiLU(inplace=True)"]
    options += [f"nn.PReLU({shape[0]})", "nn.PReLU()", "nn.LeakyReLU(0.1)", "nn.GELU()", "nn.Hardswish()", "nn.ReLU6()"]
    options += ["nn.Dropout(0.2)", "nn.Dropout2d(0.3)" if len(shape) == 3 else "nn.Tanh()"]
    options += ["F.relu({x})", "F.relu({x}, inplace=True)", "torch.relu({x})", "F.silu({x})", "{x}.sigmoid()"]
    options += ["F.dropout({x}, 0.2, self.training)", ""]
    made = choose(options)
    if not made:
        return None
    kind = made.split("(", maxsplit=1)[0].rpartition(".")[2]
    features = [f"activation {kind}", *(["inplace"] if "inplace" in made else [])]
    if made.startswith("nn."):
        return Op("{m}({x})", made, "act", tuple(features))
    return Op(made, features=(*features, "functional activation"))
