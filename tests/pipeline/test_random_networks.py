"""Random small networks, compared without `spdify.verification`: float64, another size, both modes, gradients."""

from __future__ import annotations

import copy
import random
from typing import TYPE_CHECKING

import pytest
import timm.layers
import torch
from timm.layers.pool2d_same import MaxPool2dSame
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

import spdify
from spdify.engine.carrying import before_changes
from spdify.errors import NothingToConvertError

if TYPE_CHECKING:
    from collections.abc import Callable

    from spdify.pipeline.conversion import Conversion

torch.set_num_threads(1)  # tiny networks: threads only get into each other's way

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
MAX_POOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
AVG_POOL = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
SETTINGS = (
    [],
    [],
    ["strided-conv.kernel=odd"],
    ["strided-conv.pointwise=dense"],
    ["strided-conv.standardisation=bake"],
    ["max-pool.form=keep"],
)
TOLERANCE = 1e-9  # of the largest value or gradient; float64


class Join(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([x, F.interpolate(y, size=x.shape[2:])], 1)


class Either(nn.Module):
    def __init__(self, train: Callable[[Tensor], Tensor], evaluate: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.one, self.other = train, evaluate

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) if self.training else self.other(x)


class Called(nn.Module):
    """One of several functional calls, written in a method: they are edited there."""

    def __init__(self, kind: int, channels: int) -> None:
        super().__init__()
        self.kind, self.weight = kind, nn.Parameter(torch.randn(channels, channels, 3, 2))

    def forward(self, x: Tensor) -> Tensor:
        calls = (self.highest, self.mean, self.rows, self.last, self.weighted)
        return calls[self.kind](x)

    def highest(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, stride=(2, 1), padding=1) if self.training else F.max_pool2d(x, (3, 2), (2, 1), 1)

    def mean(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 3, 2, padding=1, count_include_pad=False)

    def rows(self, x: Tensor) -> Tensor:
        return x[:, :, 1::2, ::3]

    def last(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)[:, ::2, ::2].permute(0, 3, 1, 2)

    def weighted(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, bias=None, stride=2, padding=(1, 0))


class Net(nn.Module):
    """A graph of modules; each reads what earlier ones gave, and all that they (or `readers`) give comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.ModuleList()
        self.inputs: list[tuple[int, ...]] = []
        self.readers = nn.ModuleDict()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        values = [x]
        for step, inputs in zip(self.steps, self.inputs, strict=True):
            values.append(step(*[values[i] for i in inputs]))
        if self.readers:
            return {str(i): self.readers[str(i)](value) for i, value in enumerate(values) if str(i) in self.readers}
        return {str(i): value for i, value in enumerate(values[1:])}

    def read_ends(self, x: Tensor) -> None:
        """Have a convolution read each value that no step reads, and nothing else come out."""
        read = {i for inputs in self.inputs for i in inputs}
        kind = CONV[x.dim() - 2]
        given = enumerate(self(x).values(), start=1)  # the input is value 0
        self.readers = nn.ModuleDict({str(i): kind(y.shape[1], 2, 1) for i, y in given if i not in read})


def numbers(rng: random.Random, dims: int, low: int, high: int) -> int | tuple[int, ...]:
    return rng.randint(low, high) if rng.random() < 0.5 else tuple(rng.randint(low, high) for _ in range(dims))


def make_conv(rng: random.Random, dims: int, channels: int) -> nn.Module:
    groups, mode = rng.choice([1, 1, channels]), rng.choice(["zeros", "zeros", "replicate", "circular"])
    window = [numbers(rng, dims, *limits) for limits in ((1, 4), (1, 3), (0, 2), (1, 2))]
    return CONV[dims](channels, groups * rng.randint(1, 3), *window, groups=groups, padding_mode=mode)


def make_pool(rng: random.Random, dims: int) -> nn.Module:
    kernel = tuple(rng.randint(1, 4) for _ in range(dims))
    stride, padding = tuple(rng.randint(1, 3) for _ in kernel), tuple(rng.randint(0, k // 2) for k in kernel)
    ceil, more = rng.random() < 0.4, [rng.random() < 0.5] + [rng.choice([None, None, 3])] * (dims > 1)
    if rng.random() < 0.5:
        return MAX_POOL[dims](kernel, stride, padding, rng.choice([1, 1, 2]), ceil_mode=ceil)
    return AVG_POOL[dims](kernel, stride, padding, ceil, *more)


def make_adapted(rng: random.Random, channels: int) -> nn.Module:
    """Give a module of timm with a forward of its own."""
    kernel, stride = rng.randint(1, 4), rng.randint(2, 3)
    window = {
        "kernel_size": kernel,
        "stride": stride,
        "dilation": rng.randint(1, 2),
        "groups": rng.choice([1, channels]),
    }
    convs = ["Conv2dSame", "StdConv2d", "StdConv2dSame", "ScaledStdConv2d", "ScaledStdConv2dSame"]
    makers: list[Callable[[], nn.Module]] = [
        lambda: getattr(timm.layers, rng.choice(convs))(channels, channels * rng.randint(1, 3), **window),
        lambda: timm.layers.AvgPool2dSame(kernel, stride, ceil_mode=rng.random() < 0.5),
        lambda: MaxPool2dSame(kernel, stride, dilation=rng.randint(1, 2), ceil_mode=rng.random() < 0.5),
        lambda: timm.layers.BlurPool2d(
            rng.choice([None, channels]), kernel + 1, stride, rng.choice(["reflect", "constant"])
        ),
    ]
    return rng.choice(makers)()


def make_step(rng: random.Random, dims: int, channels: int, known: nn.ModuleList) -> nn.Module:
    functions = [F.silu, lambda x: F.max_pool2d(x, 2), lambda x: x[:, :, ::2, ::2], lambda x: F.avg_pool2d(x, 3, 2, 1)]
    makers: list[Callable[[], nn.Module]] = [
        *[lambda: make_conv(rng, dims, channels), lambda: make_pool(rng, dims)] * 3,
        lambda: nn.Sequential(NORM[dims](channels), nn.Dropout(0.1), nn.ReLU(inplace=True)),
        lambda: Either(make_pool(rng, dims), make_pool(rng, dims)),
        lambda: rng.choice([m for m in known if isinstance(m, CONV[dims])] or [nn.Tanh()]),  # called once more
        lambda: rng.choice([m for m in known if isinstance(m, (MAX_POOL[dims], AVG_POOL[dims]))] or [nn.Tanh()]),
        *[lambda: make_adapted(rng, channels) if dims == 2 else nn.Tanh()] * 3,
        lambda: nn.utils.parametrizations.weight_norm(make_conv(rng, dims, channels)),
        lambda: Either(*rng.choices(functions if dims == 2 else functions[:1], k=2)),
        *[lambda: Called(rng.randrange(5), channels) if dims == 2 else nn.Tanh()] * 2,
        Join,
    ]
    return rng.choice(makers)()


def make_network(rng: random.Random) -> tuple[Net, Tensor, Tensor]:
    """Give a network, an example, and a float64 batch of another size."""
    dims, channels = rng.choice([1, 2, 2, 2, 3]), rng.randint(2, 4)
    sizes = [rng.randint(9, 16 if dims < 3 else 10) for _ in range(dims)]
    net, values = Net(), [torch.randn(3, channels, *sizes)]
    steps = [CONV[dims](channels, 4, 3, 2, 1)] + [None] * rng.randint(3, 9)
    for step in steps:
        i, j = rng.randrange(len(values)), rng.randrange(len(values))
        module = step or make_step(rng, dims, values[i].shape[1], net.steps)
        inputs = (i, j) if isinstance(module, Join) else (i,)
        try:
            module.eval()(*[values[k] for k in inputs])
            value = module.train()(*[values[k] for k in inputs])
        except (RuntimeError, ValueError):  # it does not fit here
            continue
        # A dilated max pool may have windows over nothing but padding, which give -inf.
        if value.dim() == dims + 2 and min(value.shape[2:]) > 1 and value.isfinite().all():
            net.steps.append(module)
            net.inputs.append(inputs)
            values.append(value)
    return net, torch.randn(1, channels, *[n + rng.randint(1, 3) for n in sizes]), values[0].double()


def runs(net: Net, example: Tensor, x: Tensor) -> bool:
    """Whether a network takes both sizes in both modes: what one mode leaves may be too small for the other's steps."""
    twin = copy.deepcopy(net)
    try:
        for training in (False, True):
            twin.train(training)(example.expand(2, *example.shape[1:]))
            twin(x.float())
    except (RuntimeError, ValueError):
        return False
    return True


def results(model: nn.Module, x: Tensor, seed: int) -> dict[str, Tensor]:
    """Run forward and backward; give outputs, buffers and gradients of what the conversion does not touch."""
    x = x.clone().requires_grad_()
    torch.manual_seed(seed)
    found = dict(model(x))
    sum(y.square().sum() for y in found.values()).backward()
    vectors = {name: p.grad for name, p in model.named_parameters() if p.dim() == 1 and p.grad is not None}
    buffers = {name: b for name, b in model.named_buffers() if not name.endswith("filt")}  # a blur pool's own
    return found | vectors | {"gradient": x.grad} | buffers


def compare(net: Net, conversion: Conversion, x: Tensor, seed: int, *, training: bool) -> None:
    original, converted = copy.deepcopy(net).double(), copy.deepcopy(conversion.model).double()
    state = original.state_dict()
    for name, tensor in state.items():
        if "running" in name:
            tensor.uniform_(0.5, 1.5)
    converted.load_state_dict(spdify.map_weights(state, conversion.plan))
    expected, actual = (results(m.train(training), x, seed) for m in (original, converted))
    actual = before_changes(actual, conversion.plan)
    for name, value in expected.items():
        scale = value.abs().max().clamp(min=1)
        torch.testing.assert_close(actual[name] / scale, value / scale, rtol=0, atol=TOLERANCE, msg=name)


@pytest.mark.parametrize("seed", range(80))
def test_random_network(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - no secret
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net, example, x = next(made for made in iter(lambda: make_network(rng), None) if runs(*made))
        before = copy.deepcopy(net.state_dict())
        setting = rng.choice(SETTINGS)
        level = "site" if seed % 3 else "model"
        conversion = spdify.convert(net, example_input=example, overrides=setting, proof=level)
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
        for training in (False, True):
            compare(net, conversion, x, seed, training=training)


@pytest.mark.parametrize("seed", range(1000, 1060))
def test_random_network_whose_channels_change(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - no secret
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net, example, x = next(made for made in iter(lambda: make_network(rng), None) if runs(*made))
        net.train().read_ends(example.expand(2, *example.shape[1:]))
        rules = ("spd-released", "spd-fold", ("spd-fold", "spd-released"))[seed % 3]
        overrides = [] if rules == "spd-released" else ["pool.max_pool=keep"]
        try:
            conversion = spdify.convert(net, example_input=example, rules=rules, overrides=overrides, proof="model")
        except NothingToConvertError:
            pytest.skip("nothing in it becomes SPD-Conv by these rules")
        if any(decision.claim.value != "exact" for decision in conversion.plan.applied):
            pytest.skip("average pools whose divisor changes from place to place")
        # Dropout over more channels draws other random numbers.
        drops = any(a.type_name == "Dropout" for a in conversion.plan.adjustments)
        for training in (False,) if drops else (False, True):
            compare(net, conversion, x, seed, training=training)
