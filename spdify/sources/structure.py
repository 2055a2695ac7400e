"""Structures without weights: built from a record, on the meta device where that is safe, and compared."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from spdify.errors import SourceError, UsageError
from spdify.sources.comparing import first_difference
from spdify.sources.options import RESERVED_KWARGS
from spdify.sources.reparameterizing import fold_branches
from spdify.sources.timm_source import timm_structure
from spdify.sources.torchvision_source import torchvision_structure
from spdify.sources.ultralytics_source import ultralytics_structure
from spdify.sources.weights import own_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spdify.records import Source

Device: TypeAlias = Literal["meta", "cpu"]

#: What puts random numbers into a tensor, as far as torch asks a mode about it.
_DRAWING = frozenset({Tensor.normal_, Tensor.uniform_, nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_})


#: What makes tensors, as constructors call it.
_MAKING = frozenset({
    torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.tensor, torch.arange,
    torch.linspace, torch.eye, torch.empty_like, torch.zeros_like, torch.ones_like,
})  # fmt: skip
#: Tensors of a network, and entries of each list and largest number among a constructor's arguments: far above what
#: any network of a registry has, and soon reached by a record that was made to fill the memory.
MAX_TENSORS, MAX_LIST, MAX_NUMBER = 2**14, 1024, 2**20


def build_structure(source: Source, *, device: Device, most: int | None = None) -> nn.Module:
    """Build a model's structure from its record, for weights that come from elsewhere.

    On the meta device nothing is allocated and nothing initialised. That is not possible where a constructor computes
    with real tensors, or leaves some that no state dict holds (non-persistent buffers, plain attributes): those
    would stay without values. Such models are built on the CPU instead.

    Args:
        source: Of a registry kind.
        device: Where the parameters should be.
        most: Elements that the constructor may make, for a record that nobody vouches for; None for any number.

    Returns:
        The model in eval mode, on `device` or on the CPU.

    Raises:
        SourceError: The source is the user's own code, or the installed libraries cannot build it, or it is larger than
            allowed.
    """
    if not source.is_registry:
        raise SourceError(
            f"Cannot build {source.spec}: it comes from code that spdify does not run by itself.",
            hint="Build the model and hand it over: spdify.load(folder, model=...).",
        )
    if switches := sorted(RESERVED_KWARGS & source.kwargs.keys() - {"model_name"}):
        raise SourceError(f"Cannot build {source.spec}: its record has {', '.join(switches)}, which fetches weights.")
    if most is None:
        return _built(source, device)
    _check_arguments(source)
    with _Bounded(source.spec, most):
        return _built(source, device)


def _built(source: Source, device: Device) -> nn.Module:
    if device == "meta":
        model = _on_meta(source)
        if model is not None:
            return model.eval()
    return _construct(source).eval()


class TooLargeError(SourceError):
    """A network that is larger than its weights."""


def _check_arguments(source: Source) -> None:
    """Refuse numbers and lists that keep a constructor busy before it has made anything."""
    for key, value in source.kwargs.items():
        entries = value if isinstance(value, list) else [value]
        large = any(isinstance(entry, (int, float)) and not abs(entry) <= MAX_NUMBER for entry in entries)
        if large or len(entries) > MAX_LIST:
            what = f"{len(entries)} entries" if len(entries) > MAX_LIST else str(value)[:80]
            raise TooLargeError(
                f"Cannot build {source.spec}: expected {key} of at most {MAX_NUMBER:,}, {MAX_LIST} entries, got {what}."
            )


class _Bounded(TorchFunctionMode):
    """Stops a constructor that makes more than it may: on the meta device before anything is allocated."""

    def __init__(self, spec: str, most: int) -> None:
        super().__init__()
        self._spec, self._most = spec, most
        self._tensors = self._elements = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401 - as torch calls it
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Call a function, and count what it has made."""
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            new = func in _MAKING
            self._tensors += new
            self._elements += made.numel() if new else 0
            if self._tensors > MAX_TENSORS or max(self._elements, made.numel()) > self._most:
                raise TooLargeError(
                    f"Cannot build {self._spec}: it would be larger than its weights are by far.",
                    hint="The record of the source is damaged, or made to do harm.",
                )
        return made


def check_rebuilds(model: nn.Module, source: Source) -> None:
    """Make sure that the record of a model builds the same structure again.

    Args:
        model: As it was built.
        source: Its record.

    Raises:
        SourceError: It does not.
    """
    difference = first_difference(model, build_structure(source, device="meta"))
    if difference is not None:
        raise SourceError(
            f"Cannot use {source.spec}: its constructor builds another structure together with its weights than it "
            f"does without them; the first difference is at {difference}.",
            hint="Build it without --pretrained and pass --checkpoint FILE, or convert a factory of your own: "
            "path/to/file.py:FACTORY.",
        )


_STRUCTURES: dict[str, Callable[[Source], nn.Module]] = {
    "torchvision": torchvision_structure,
    "ultralytics": ultralytics_structure,
}


def _construct(source: Source) -> nn.Module:
    model = _STRUCTURES.get(source.kind, timm_structure)(source)
    return fold_branches(model, name=source.spec) if source.reparameterized else model


def _on_meta(source: Source) -> nn.Module | None:
    try:
        with on_meta():
            model = _construct(source)
    except (UsageError, TooLargeError):
        raise
    except SourceError:
        # The attempt on the CPU tells whether it was the device or the arguments.
        return None
    return None if has_unsaved_tensors(model) else model


@contextmanager
def on_meta() -> Iterator[None]:
    """Have models built on the meta device, and no numbers drawn: PyTorch takes milliseconds for each tensor there."""
    with torch.device("meta"), _NothingDrawn():
        yield


class _NothingDrawn(TorchFunctionMode):
    """Leaves tensors on the meta device as they are where random numbers would be put into them."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401 - as torch calls it
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Call a function, unless it is one of those."""
        kwargs = kwargs or {}
        if func in _DRAWING and (tensor := args[0] if args else kwargs["tensor"]).is_meta:
            return tensor
        return func(*args, **kwargs)


def has_unsaved_tensors(model: nn.Module) -> bool:
    """Whether a model has tensors that no state dict holds."""
    saved = model.state_dict(keep_vars=True)
    return any(name not in saved for name, _ in model.named_buffers()) or _has_plain_tensors(model)


def hollow_out(model: nn.Module) -> None:
    """Move all that a model's state dict holds to the meta device, in place, unless attributes may hold it, too."""
    if _has_plain_tensors(model):
        return
    saved = {id(tensor) for tensor in model.state_dict(keep_vars=True).values()}
    moved: dict[int, Tensor] = {}  # by what was there: tied parameters stay tied
    for module in model.modules():
        for name, tensor in own_tensors(module):
            if id(tensor) in saved:
                setattr(module, name, moved.setdefault(id(tensor), _hollow(tensor)))


def _hollow(tensor: Tensor) -> Tensor:
    """Give a tensor like another on the meta device, a parameter for a parameter."""
    empty = tensor.detach().to("meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def is_hollow(model: nn.Module) -> bool:
    """Whether what a model's state dict holds is on the meta device."""
    return any(isinstance(value, Tensor) and value.is_meta for value in model.state_dict().values())


def _has_plain_tensors(model: nn.Module) -> bool:
    return any(_holds_tensor(value) for module in model.modules() for value in _plain_attributes(module))


def _plain_attributes(module: nn.Module) -> list[object]:
    own = ("_parameters", "_buffers", "_modules")
    return [value for name, value in vars(module).items() if name not in own]


def _holds_tensor(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_holds_tensor, value))
    if isinstance(value, dict):
        return any(map(_holds_tensor, value.values()))
    return isinstance(value, Tensor)
