"""What each block must bear: tracing, export, copies, other dtypes, other devices, unusual batches."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch
from torch import fx, nn

from spdify.blocks import (
    AdaptedConv,
    AdaptedPool,
    AdaptiveScaleFusion,
    AtrousPyramid,
    BlurredActivation,
    BlurredAvgPool,
    BlurredConv,
    BlurredMaxPool,
    ConvolutionalBlockAttention,
    ConvSPD,
    DeformableConv2d,
    DynamicConv,
    DynamicPool,
    NonLocal,
    ReceptiveField,
    SpaceToDepth,
    SpatialTransformer,
    SPDAvgPool,
    SPDBatchNorm2d,
    SPDConv,
    SPDFunctionalConv,
    SPDGroupNorm,
    SPDMaxPool,
    SPDPerChannels,
    SPDPointwiseConv,
    SPDStdConv,
    SPDStdPointwiseConv,
    SPDSubsample,
    SqueezeExcitation,
    StdConvSPD,
    UnstridedConv,
)

if TYPE_CHECKING:
    from collections.abc import Callable


class Given(nn.Module):
    """Hands a weight to the block that stands for a functional convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.block = SPDFunctionalConv(4, 8, (3, 2), 2, (1, 0), groups=2)
        self.weight, self.bias = nn.Parameter(torch.empty(8, 2, 3, 2)), nn.Parameter(torch.empty(8))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        self.block.reset_parameters()
        nn.init.normal_(self.weight)
        nn.init.normal_(self.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x, self.weight, bias=self.bias)  # type: ignore[no-any-return]


class Fused(nn.Module):
    """Makes a pyramid for the block that fuses its levels, and gives the finest."""

    def __init__(self) -> None:
        super().__init__()
        self.block = AdaptiveScaleFusion((4, 4, 4), ((9, 11), (5, 6), (3, 3)), compress=2, own=0.6)

    def reset_parameters(self) -> None:
        self.block.reset_parameters()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        middle = nn.functional.avg_pool2d(x, 3, 2, 1)
        return self.block({"a": x, "b": middle, "c": nn.functional.avg_pool2d(middle, 3, 2, 1)})["a"]  # type: ignore[no-any-return]


MAKERS: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: SPDConv(4, 8),
    "conv, strided": lambda: SPDConv(4, 8, groups=2, form="strided"),
    "conv, reflect": lambda: SPDConv(4, 8, 2, 2, [(0, 1), (0, 1)], margin=(1, 1), padding_mode="reflect"),
    "conv, unequal": lambda: SPDConv(4, 8, 3, (2, 3)),
    "conv, same": lambda: SPDConv(4, 8, 2, 2, [(0, 2), (0, 2)], margin=(3, 3), padding_mode="same"),
    "conv, ceil": lambda: SPDConv(4, 8, 1, 2, margin=(2, 2), padding_mode="ceil"),
    "released": lambda: ConvSPD(4, 8, 3, 2, 1, groups=2),
    "released, reduced": lambda: ConvSPD(4, 8, 3, (2, 3), 1, reduce=True, groups=2),
    "released, same": lambda: ConvSPD(4, 8, 3, padding_mode="same"),
    "released, reflect": lambda: ConvSPD(4, 8, 3, 2, 1, padding_mode="reflect"),
    "released, standardised": lambda: StdConvSPD(4, 8, 3, 2, 1, gain_scale=0.3, reduce=True),
    "depth, crop": lambda: SpaceToDepth(2),
    "depth, replicate": lambda: SpaceToDepth((2, 3), edge="replicate"),
    "depth, zeros": lambda: SpaceToDepth(2, edge="zeros"),
    "pointwise": lambda: SPDPointwiseConv(4, 8),
    "pointwise, mixed": lambda: SPDPointwiseConv(4, 8, mixed=2),
    "average": lambda: SPDAvgPool(4, 3, 2, 1, count_include_pad=False, ceil_mode=True),
    "average, same": lambda: SPDAvgPool(4, 3, 2, same=True),
    "max": lambda: SPDMaxPool(4, 3, 2, 1),
    "max, same": lambda: SPDMaxPool(4, 3, 2, same=True),
    "max, dilated": lambda: SPDMaxPool(4, 3, 2, 1, 2),
    "standardised": lambda: SPDStdConv(4, 8, 3, 2, 1),
    "standardised, gain, same": lambda: SPDStdConv(4, 8, 3, 2, gain_scale=0.3, same=True, dilation=2),
    "standardised pointwise": lambda: SPDStdPointwiseConv(4, 8, gain_scale=0.3),
    "slice": lambda: SPDSubsample(4, (2, 3), (1, 0), (2, 3)),
    "functional": Given,
    "group norm": lambda: SPDGroupNorm(1, 4, 2),
    "batch norm": lambda: SPDBatchNorm2d(2, 2),
    "unstrided": lambda: UnstridedConv(4, 8, 3, 2, 1, groups=2),
    "unstrided, same": lambda: UnstridedConv(4, 8, 3, padding_mode="same"),
    "blurred conv": lambda: BlurredConv(4, 8, 3, (2, 3), 1, taps=5),
    "blurred conv, pointwise": lambda: BlurredConv(4, 8, 1, blur_padding="reflect"),
    "blurred max": lambda: BlurredMaxPool(3, 2, 1, ceil_mode=True),
    "blurred max, same": lambda: BlurredMaxPool(3, 2, same=True, blur_padding="zeros"),
    "blurred average": lambda: BlurredAvgPool(2, 2),
    "blurred activation": lambda: BlurredActivation(nn.SiLU()),
    "dynamic pool": DynamicPool,
    "dynamic pool, follows": lambda: DynamicPool(up=True, leads=False),
    "dynamic conv": lambda: DynamicConv(4, 8, 3, 2, 1, groups=2),
    "dynamic conv, pointwise": lambda: DynamicConv(4, 8, 1),
    "deformable": lambda: DeformableConv2d(4, 8, (3, 3), (2, 1), (1, 1), offset_groups=2),
    "deformable, no masks": lambda: DeformableConv2d(4, 8, (3, 2), groups=2, modulated=False),
    "spatial transformer": lambda: SpatialTransformer(4, width=4),
    "adapted pool": lambda: AdaptedPool(nn.MaxPool2d(2), start=-1.0),
    "adapted conv": lambda: AdaptedConv(4, 8, 3, 2, 1, groups=2, start=-1.0),
    "adapted conv, follows": lambda: AdaptedConv(4, 8, 1, leads=False),
    "scale fusion": Fused,
    "per channels": lambda: SPDPerChannels({4: SPDMaxPool(4, 3, 2, 1), 8: SPDAvgPool(8, 2)}),
    "gate by channel": lambda: SqueezeExcitation(4),
    "gates by channel and position": lambda: ConvolutionalBlockAttention(4, kernel_size=3),
    "non-local": lambda: NonLocal(4),
    "dilated side by side": lambda: AtrousPyramid(4, width=2),
    "receptive field": lambda: ReceptiveField(4, activation="relu"),
}
#: Made of layers of timm and torchvision, whose ways they have: methods of tensors, batches of at least one image.
OF_LAYERS = (AtrousPyramid, ConvolutionalBlockAttention, NonLocal, ReceptiveField, SqueezeExcitation)


class Network(nn.Module):
    """Holds a block among other layers."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block, self.act = block, nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.block(x))  # type: ignore[no-any-return]


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Callable[[], nn.Module]:
    return MAKERS[request.param]


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 4, 9, 11)


def with_weights(block: nn.Module) -> nn.Module:
    """Skip a test of weights for a block that has none."""
    if not list(block.parameters()):
        pytest.skip("it has no weights")
    return block


def test_the_default_tracer_sees_functions_and_no_sizes(make: Callable[[], nn.Module], x: torch.Tensor) -> None:
    network = Network(make())
    traced = fx.symbolic_trace(network)
    traced.graph.lint()
    if not isinstance(network.block, OF_LAYERS):
        assert not [node for node in traced.graph.nodes if node.op == "call_method"]
    for other in (x, torch.cat([x, x[:1]])[..., :7, :6]):  # nothing of the first size was frozen in
        torch.testing.assert_close(traced(other), network(other))
    torch.testing.assert_close(copy.deepcopy(traced)(x), network(x))


def test_export_leaves_the_batch_open(make: Callable[[], nn.Module], x: torch.Tensor) -> None:
    network = Network(make()).eval()
    program = torch.export.export(network, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    many = torch.randn(5, 4, 9, 11)
    torch.testing.assert_close(program.module()(many), network(many))


def test_a_copy_is_independent(make: Callable[[], nn.Module], x: torch.Tensor) -> None:
    block = with_weights(make())
    before = block(x)
    copied = copy.deepcopy(block)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.add_(1)
    assert torch.equal(block(x), before)
    assert not torch.equal(copied(x), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(make: Callable[[], nn.Module], x: torch.Tensor, dtype: torch.dtype) -> None:
    block = make()
    y = copy.deepcopy(block).to(dtype)(x.to(dtype))
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), block(x), rtol=0, atol=40 * torch.finfo(dtype).eps)


def test_autocast(make: Callable[[], nn.Module], x: torch.Tensor) -> None:
    block = with_weights(make())
    if isinstance(block, (SPDGroupNorm, SPDBatchNorm2d)):
        pytest.skip("autocast leaves norms in the dtype of their input")
    if type(block) in (AdaptedPool, DynamicPool):
        pytest.skip("autocast leaves pools in the dtype of their input")
    if isinstance(block, SpatialTransformer):
        pytest.skip("what is sampled stays in its dtype")
    with torch.autocast("cpu", torch.bfloat16):
        y = block(x)
    # What is added to the map, or multiplied by it, keeps the map's.
    assert y.dtype == (x.dtype if isinstance(block, OF_LAYERS) else torch.bfloat16)
    torch.testing.assert_close(y.float(), block(x), rtol=0, atol=40 * torch.finfo(torch.bfloat16).eps)


def test_an_input_without_batch(make: Callable[[], nn.Module], x: torch.Tensor) -> None:
    block = make()
    if isinstance(block, SPDSubsample):
        pytest.skip("a slice names its axes by number: without a batch it is another slice")
    if isinstance(block, (SPDGroupNorm, SPDBatchNorm2d, *OF_LAYERS)):
        pytest.skip("the norms of torch.nn take no input without a batch either")
    torch.testing.assert_close(block(x[0]), block(x)[0])


def test_an_empty_batch(make: Callable[[], nn.Module], x: torch.Tensor) -> None:
    block = make()
    if isinstance(block, NonLocal):
        pytest.skip("timm's attention cannot tell the positions of no image")
    assert block(x[:0]).shape == (0, *block(x).shape[1:])


def test_made_on_the_meta_device_and_filled_later(make: Callable[[], nn.Module], x: torch.Tensor) -> None:
    with torch.device("meta"):
        block = with_weights(make())
    assert {p.device.type for p in block.parameters()} == {"meta"}
    assert block(x.to("meta")).shape == make()(x).shape
    torch.manual_seed(1)
    block.to_empty(device="cpu").reset_parameters()  # type: ignore[operator]
    torch.manual_seed(1)
    torch.testing.assert_close(block(x), make()(x))


def test_a_device_context_at_run_time_does_no_harm(make: Callable[[], nn.Module], x: torch.Tensor) -> None:
    block = make()
    with torch.device("meta"):
        y = block(x)
    assert torch.equal(y, block(x))


def test_state_goes_through_a_file(make: Callable[[], nn.Module], x: torch.Tensor) -> None:
    torch.manual_seed(0)
    block = make()
    state = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    other = make()
    other.load_state_dict(state)
    assert torch.equal(other(x), block(x))
