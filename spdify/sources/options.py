"""What a caller may ask of a model besides its name, and the reading of these wishes from the command line."""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, TypedDict

from spdify.errors import UsageError
from spdify.records import MAX_INPUT, ParamValue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

KwargValue: TypeAlias = ParamValue | list[ParamValue] | None

MAX_SIZE = 65536
"""Largest channels or positions along one axis that are taken for meant."""

_FEWEST_AXES, _MOST_AXES = 2, 4

# These fetch or read weights, or name the model a second time. Weights have options of their own, and a bundle must
# not be able to make `load` read files.
RESERVED_KWARGS = frozenset(
    {
        "cache_dir",
        "checkpoint_path",
        "model_name",
        "name",
        "pretrained",
        "pretrained_backbone",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "pretrained_model_args",
        "progress",
        "weights",
        "weights_backbone",
    }
)


class BuildArguments(TypedDict, total=False):
    """`BuildOptions` as keyword arguments, for functions that pass them on."""

    pretrained: bool
    checkpoint: str | Path | None
    num_classes: int | None
    in_chans: int | None
    model_kwargs: Mapping[str, KwargValue]
    input_size: tuple[int, ...] | None
    seed: int
    reparameterize: bool
    trust_checkpoint: bool


@dataclass(frozen=True)
class BuildOptions:
    """How to build a model.

    Attributes:
        pretrained: Fetch the weights that the registry has for the model.
        checkpoint: File with the model's weights.
        num_classes: Outputs of the classifier; None for the model's own.
        in_chans: Input channels; None for the model's own.
        model_kwargs: Further keyword arguments of the constructor.
        input_size: C,L or C,H,W or C,T,H,W without the batch; None for the model's own.
        seed: Seed of the random weights.
        reparameterize: Fold training-time branches into single convolutions (timm's `reparameterize_model`), after the
            weights were loaded.
        trust_checkpoint: Read a file of Ultralytics although that runs code from it.
    """

    pretrained: bool = False
    checkpoint: str | Path | None = None
    num_classes: int | None = None
    in_chans: int | None = None
    model_kwargs: Mapping[str, KwargValue] = field(default_factory=dict)
    input_size: tuple[int, ...] | None = None
    seed: int = 0
    reparameterize: bool = False
    trust_checkpoint: bool = False

    def __post_init__(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            UsageError: Two options say different things, or a number is not positive.
        """
        if self.pretrained and self.checkpoint is not None:
            raise UsageError(
                "Cannot take weights from both --pretrained and --checkpoint.", hint="Leave out one of the two."
            )
        self._check_numbers()
        if self.in_chans and self.input_size and self.in_chans != self.input_size[0]:
            raise UsageError(
                f"Cannot build for {self.in_chans} input channels and inputs with {self.input_size[0]}.",
                hint="Make --in-chans and the first number of --input-size agree, or leave out --in-chans.",
            )

    def _check_numbers(self) -> None:
        for option, value, least in (("--num-classes", self.num_classes, 0), ("--in-chans", self.in_chans, 1)):
            if value is not None and value < least:
                raise UsageError(f"Cannot use {option} {value}: expected at least {least}.")
        if self.input_size is not None:
            check_input_size(self.input_size)

    def constructor_kwargs(self, *, strict: bool = True) -> dict[str, KwargValue]:
        """Give the keyword arguments that were asked for, without defaults.

        Args:
            strict: Refuse the switches for weights; a factory of the caller's own may have any argument.

        Returns:
            `model_kwargs` with `num_classes` and `in_chans` where these were given.

        Raises:
            UsageError: An argument is given twice, or switches weights.
        """
        given = {"num_classes": self.num_classes, "in_chans": self.in_chans}
        kwargs: dict[str, KwargValue] = dict(self.model_kwargs)
        for key, value in given.items():
            if value is None:
                continue
            if kwargs.get(key, value) != value:
                option = "--" + key.replace("_", "-")
                raise UsageError(f"Cannot use {key}={kwargs[key]} and {option} {value}: they differ.")
            kwargs[key] = value
        if strict and (reserved := sorted(RESERVED_KWARGS & kwargs.keys())):
            raise UsageError(
                f"Cannot pass {', '.join(reserved)} with --model-kwargs: spdify sets it.",
                hint="Use --pretrained, or --checkpoint FILE.",
            )
        return kwargs


def parse_model_kwargs(items: Sequence[str]) -> dict[str, KwargValue]:
    """Read `key=value` items; values are Python literals, anything else is text.

    Args:
        items: For example `["drop_rate=0.1", "act_layer=silu", "layers=[2,2,2,2]"]`.

    Returns:
        The values by key; tuples become lists, as JSON has them.

    Raises:
        UsageError: An item is not of that form, comes twice, or its value is neither a scalar nor a list of scalars.
    """
    kwargs: dict[str, KwargValue] = {}
    for item in items:
        key, equals, text = item.partition("=")
        key = key.strip()
        if not equals or not key.isidentifier():
            raise UsageError(f"Cannot read --model-kwargs '{item}': expected key=value, for example drop_rate=0.1.")
        if key in kwargs:
            raise UsageError(f"Cannot read --model-kwargs '{item}': {key} is given twice.")
        kwargs[key] = _value(item, text.strip())
    return kwargs


def parse_input_size(text: str) -> tuple[int, ...]:
    """Read the size of one input without the batch, `3,224,224`.

    Args:
        text: C,L or C,H,W or C,T,H,W.

    Returns:
        The sizes.

    Raises:
        UsageError: Not whole numbers, too few or too many, or out of range.
    """
    try:
        size = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"Cannot read the input size '{text}': expected whole numbers C,H,W, for example 3,224,224."
        ) from None
    check_input_size(size)
    return size


def check_input_size(size: tuple[int, ...]) -> None:
    """Refuse a size that no input can have.

    Args:
        size: Channels, then positions along each axis.

    Raises:
        UsageError: Wrong number of axes, or a size that is not positive or absurdly large.
    """
    text = ",".join(map(str, size))
    if not _FEWEST_AXES <= len(size) <= _MOST_AXES:
        raise UsageError(
            f"Cannot use the input size {text}: expected C,H,W (or C,L, or C,T,H,W for video), got {len(size)} numbers."
        )
    if bad := [value for value in size if not 1 <= value <= MAX_SIZE]:
        raise UsageError(f"Cannot use the input size {text}: expected 1 to {MAX_SIZE} each, got {bad[0]}.")
    if math.prod(size) > MAX_INPUT:
        raise UsageError(f"Cannot use the input size {text}: expected at most {MAX_INPUT:,} elements in all.")


def _value(item: str, text: str) -> KwargValue:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    if value is None or _is_scalar(value):
        return value  # type: ignore[no-any-return]
    if isinstance(value, (list, tuple)) and all(map(_is_scalar, value)):
        return list(value)
    raise UsageError(
        f"Cannot read --model-kwargs '{item}': expected a number, text, True, False, None or a list of these, "
        f"got {type(value).__name__}.",
        hint="Write a factory that sets it, and convert path/to/file.py:FACTORY.",
    )


def _is_scalar(value: object) -> bool:
    # Records are JSON, which has neither nan nor infinity.
    return isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))
