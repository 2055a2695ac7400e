"""What every rewrite answers to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Generic, Self, TypeVar

from pydantic_core import PydanticCustomError

from spdify.records import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from spdify.records import Claim, Layout, Operator, Shape, Site


def odd(value: int) -> int:
    """Refuse an even number of taps: the window has a centre."""
    if value % 2 == 0:
        raise PydanticCustomError("expected", "an odd number of taps, for a centred window")
    return value


class NoParams(Record):
    """A rewrite without parameters."""


ParamsT = TypeVar("ParamsT", bound=Record)


class Rewrite(ABC, Generic[ParamsT]):
    """Turns a matched site into a block. No method changes its arguments.

    Attributes:
        summary: One sentence of effect, with the source.
        operators: Operators it can replace.
        params_type: Schema of its parameters, as a rulebook or `--set` gives them.
        form_name: What its block is called where there is one form of it only.
    """

    summary: ClassVar[str]
    operators: ClassVar[frozenset[Operator]]
    params_type: ClassVar[type[Record]]
    form_name: ClassVar[str] = "spd"

    def __init__(self, params: ParamsT) -> None:
        """Take validated parameters."""
        self.params = params

    def keep(self, site: Site) -> str | None:  # noqa: ARG002 - for rewrites with such a parameter
        """Give the reason when the parameters say to leave this site as it is (a policy, not a fault)."""
        return None

    def check(self, site: Site) -> str | None:
        """Give the reason why this site cannot be rewritten; None when it can."""
        if site.operator not in self.operators:
            return f"it is for {' and '.join(sorted(self.operators))}, this is a {site.operator}"
        if not site.path and not site.operation:
            return "the model itself: put it into a module of your own, such as torch.nn.Sequential(model)"
        if site.obstacles:
            return "; ".join(site.obstacles)
        return None

    def leaves(self, site: Site) -> Layout | None:  # noqa: ARG002 - most keep the number of channels
        """Give the channels that leave the block, where they are more than those that leave the site."""
        return None

    def reduced(self) -> Self:
        """Give the same rewrite with as many channels leaving the block as leave the site, for where no more can go on.

        Only for rewrites whose `leaves` may give something.
        """
        raise NotImplementedError

    def resizes(self) -> bool:
        """Whether the block's output has another size than the site's, or may learn one: does the network run so?"""
        return False

    def forms(self, site: Site) -> dict[str, Self]:  # noqa: ARG002 - for rewrites with several
        """Give the forms that a budget may choose from, by name, from the plainest to the richest.

        Each is this rewrite with other parameters; not all need to be exact, or different at this site.
        """
        return {getattr(self.params, "form", self.form_name): self}

    def activation(self, site: Site) -> str:  # noqa: ARG002 - most leave it
        """Name what the activation behind the block becomes: `silu`, `relu`, or `held`; empty where it stays.

        What is `held` is part of what `around` makes of it.
        """
        return ""

    def around(self, site: Site, activation: nn.Module) -> nn.Module:
        """Make the module, without tensors of its own, that takes the place of a `held` activation and runs it."""
        raise NotImplementedError

    def without_activation(self) -> tuple[Self, str] | None:
        """Give the rewrite for where no activation of the block's own comes after it, and what that means in words.

        None where there is none: the site is refused.
        """
        return None

    def completed(self, site: Site, y: Tensor) -> Tensor:  # noqa: ARG002 - most blocks are all there is
        """Do to a block's output what else takes the site's place, but for the activation: as one site is proved."""
        return y

    def level(self, site: Site) -> str:  # noqa: ARG002 - most learn no sizes
        """Name the level of a network whose blocks learn one size together; empty where the block learns none."""
        return ""

    def follows_only(self, site: Site) -> str:  # noqa: ARG002 - most could lead
        """Say why its block cannot have the size's parameter, though it may follow another's; empty where it can."""
        return ""

    def led_by(self, path: str) -> Self:
        """Give the rewrite whose block reads the size of the block at `path`; of an empty one, it has its own."""
        raise NotImplementedError

    def leader(self) -> str:
        """Give the path of the block whose size this one's block reads; empty for none."""
        return ""

    def reads(self, site: Site) -> dict[str, Shape]:  # noqa: ARG002 - a pool has no tensors
        """Give name and shape of each tensor of the site's module that the new weights are made from."""
        return {}

    def input_shapes(self, site: Site, spatial: Shape, *, batch: int) -> tuple[tuple[Shape, ...], ...]:
        """Give shapes of inputs that the site's module must take, one tuple per trial, for a proof to run it on."""
        counts = site.channels or (site.geometry.in_channels,)
        return tuple(((batch, channels, *spatial),) for channels in counts)

    @abstractmethod
    def claim(self, site: Site) -> Claim:
        """Say what stays the same."""

    @abstractmethod
    def build(self, site: Site) -> nn.Module:
        """Make the block, in PyTorch's default dtype and on its default device; its weights are to be loaded."""

    @abstractmethod
    def weights(self, site: Site, old: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give the block's whole state dict from the site's; differentiable in `old`.

        What does not come from `old` is given in full precision; the caller casts it.
        """
