"""Small networks of a user's own."""

from __future__ import annotations

import timm.layers
import torch
from timm.layers.pool2d_same import MaxPool2dSame
from torch import nn


class Stage(nn.Module):
    """A strided convolution and a strided 1×1 shortcut."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(out)
        self.shortcut = nn.Conv2d(channels, out, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(self.conv(x)) + self.shortcut(x))


class Net(nn.Module):
    """Every kind of site, and a method that a conversion must keep."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 7, 2, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.stage = Stage(8, 12)
        self.down = nn.AvgPool2d(2, ceil_mode=True)
        self.head = nn.Linear(12, 5)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.stage(self.pool(self.stem(x))))  # type: ignore[no-any-return]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.forward_features(x).mean((2, 3)))  # type: ignore[no-any-return]


class Shared(nn.Module):
    """A convolution under two names, called once under each; a pool called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(4, 4, 3, 2, 1)
        self.b = self.a
        self.inner = nn.Sequential(nn.AvgPool2d(2))
        self.again = self.inner[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.again(self.inner(self.b(self.a(x))))  # type: ignore[no-any-return]


class Holder(nn.Conv2d):
    """A convolution with a buffer that it has no use for, and a child that somebody else calls."""

    def __init__(self, child: nn.Module) -> None:
        super().__init__(3, 4, 3, 2, 1)
        self.child = child
        self.register_buffer("unused", torch.zeros(2))


class Entangled(nn.Module):
    """A pool that is also registered inside a convolution that is replaced itself."""

    def __init__(self, *, pool_first: bool) -> None:
        super().__init__()
        pool = nn.MaxPool2d(2)
        if pool_first:
            self.pool = pool
        self.conv = Holder(pool)
        if not pool_first:
            self.pool = pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(self.conv(x))  # type: ignore[no-any-return]


class Adapted(nn.Module):
    """Classes of timm with a forward of their own, and a pool without weights over two channel counts."""

    def __init__(self) -> None:
        super().__init__()
        self.same = timm.layers.Conv2dSame(3, 6, 3, 2)
        self.std = timm.layers.ScaledStdConv2d(3, 6, 3, 2)
        self.short = timm.layers.StdConv2d(3, 6, 1, 2)
        self.blur = timm.layers.BlurPool2d(6)
        self.pool = MaxPool2dSame(3, 2)
        self.routing = nn.Linear(6, 4)
        self.cond = timm.layers.CondConv2d(6, 8, 3, 2, "same", bias=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        thumb = self.pool(x).mean((1, 2, 3))
        x = self.same(x) + self.std(x) + self.short(x)
        x = self.blur(x) + self.pool(x)
        y: torch.Tensor = self.cond(x, self.routing(x.mean((2, 3))).sigmoid())
        return y + thumb[:, None, None, None]


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter and every statistic of a norm a random value, in place: zeros and ones hide faults."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator, dtype=torch.float64) * 0.4 + 0.1)
                if "var" not in name:
                    tensor.mul_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64).sign())
    return model
