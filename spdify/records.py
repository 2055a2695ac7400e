"""What spdify knows, as plain frozen data: sites, decisions, plans, claims, checks, measures.

No record holds a weight. All of them read and write JSON; `BundleRecord` is the content of `spdify.json`, and its
JSON Schema is what `spdify schema` prints. Shapes are in PyTorch's order, batch first.
"""

from __future__ import annotations

import math
import re
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal, Self, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from spdify.errors import encodable

if TYPE_CHECKING:
    from collections.abc import Callable

#: Entries are bounded, so that a damaged or hostile record costs no memory before anybody has looked at it.
Shape: TypeAlias = tuple[Annotated[int, Field(ge=0, le=2**31)], ...]
Count: TypeAlias = Annotated[int, Field(ge=0, le=2**63)]
#: May hold a path, whose bytes may be no UTF-8: what cannot be written is replaced.
Words: TypeAlias = Annotated[str, AfterValidator(encodable)]
#: More or less of what a budget counts.
Amount: TypeAlias = Annotated[int | float, Field(ge=-1e30, le=1e30)]
ParamValue: TypeAlias = str | int | float | bool
Operator: TypeAlias = Literal[
    "conv", "max_pool", "avg_pool", "blur_pool", "slice", "stage_end", "block_end", "input", "pyramid"
]
#: What a site is to the network: `downsampling` is the rule, and what all others are beside.
Kind: TypeAlias = Literal["downsampling", "convolution", "stage_end", "block_end", "input", "pyramid"]
Mode: TypeAlias = Literal["eval", "train"]
Quantity: TypeAlias = Literal["macs", "params", "latency"]
#: Of a tensor that a network may take.
Dtype: TypeAlias = Literal[
    "float64", "float32", "float16", "bfloat16", "complex64", "complex128",
    "int64", "int32", "int16", "int8", "uint8", "bool",
]  # fmt: skip

#: Entries along one axis of any tensor: the widest layers there are have some hundred thousand.
MAX_ENTRIES = 2**24
#: Taps along an axis times windows over four times what they reach over: what `Geometry.positions_read` goes through.
MAX_WINDOW = 2**30
#: Places of a kernel that is recorded tap by tap.
MAX_TAPS = 2**16
#: Elements of one input: 1 GiB in float32, an image of 9,459 by 9,459 pixels.
MAX_INPUT = 2**28
MAX_INPUTS = 64
#: Plans of one network: each conversion, scaling or new classifier adds one, and each is checked and carried out.
MAX_PLANS = 64
#: Channel counts of one module: it has a block for each.
MAX_COUNTS = 256
#: Parts of a network that are shown, side by side with another's; of 16 large ones, DenseNet-264 has most: 151.
MAX_PARTS = 2**11
#: Names that are put into a model, or looked up in its code: nothing but what Python calls a name.
_OPERATION = re.compile(r"((?!\d)\w+:){1,2}\d{1,9}")


class Record(BaseModel):
    """Base of all records: frozen, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Geometry(Record):
    """Geometry of a sliding-window operator, one entry per spatial axis where it has several.

    For pools `in_channels == out_channels`; `groups`, `bias` and `padding_mode` are those of a convolution,
    `ceil_mode`, `count_include_pad` and `divisor_override` those of a pool (as in `torch.nn`). The padding mode `same`
    is TensorFlow's: zeros (for a max pool, -inf) by the size of each input, with a `padding` of 0.
    """

    in_channels: int = Field(ge=1)
    out_channels: int = Field(ge=1)
    kernel: Shape
    stride: Shape
    padding: Shape
    dilation: Shape
    groups: int = 1
    bias: bool = False
    padding_mode: str = "zeros"
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor_override: int | None = None

    @model_validator(mode="after")
    def _has_axes(self) -> Self:
        """Refuse a window that is none."""
        lengths = {len(entries) for entries in (self.kernel, self.stride, self.padding, self.dilation)}
        if len(lengths) != 1 or not lengths <= {1, 2, 3} or min(*self.stride, *self.kernel, *self.dilation) < 1:
            msg = "a window has 1 to 3 axes, and at least one tap, stride and distance along each"
            raise ValueError(msg)
        if any(taps * self.cycle(axis)[0] // self.stride[axis] > MAX_WINDOW for axis, taps in enumerate(self.kernel)):
            msg = "a window has too many taps over too many positions"
            raise ValueError(msg)
        return self

    @property
    def dims(self) -> int:
        """Number of spatial axes: 1, 2 or 3."""
        return len(self.stride)

    @property
    def depthwise(self) -> bool:
        """Whether each channel is convolved on its own."""
        return self.groups > 1 and self.groups == self.in_channels

    def output_size(self, size: int, axis: int) -> int:
        """Positions along `axis` that come out for `size` positions that go in (the formula of `torch.nn`)."""
        k, s, p, d = self.kernel[axis], self.stride[axis], self.padding[axis], self.dilation[axis]
        size += self._same_padding(size, axis)
        room = size + 2 * p - d * (k - 1) - 1
        if not self.ceil_mode:
            return room // s + 1
        n_out = -(-room // s) + 1
        # A window must start inside the input or the low padding.
        return n_out - 1 if (n_out - 1) * s >= size + p else n_out

    def _same_padding(self, size: int, axis: int) -> int:
        """Positions, low and high together, that same padding adds along `axis`: it makes ceil(n / s) windows."""
        if self.padding_mode != "same":
            return 0
        k, s, d = self.kernel[axis], self.stride[axis], self.dilation[axis]
        return max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)

    def macs(self, output: Shape) -> int:
        """Give the multiply-accumulates of a convolution with this window, for the shape that it puts out."""
        return math.prod(output) * math.prod(self.kernel) * self.in_channels // self.groups

    def positions_read(self, spatial: Shape, starts: Shape = ()) -> float:
        """Share of the input's spatial positions that at least one window reads, from 0 to 1.

        Args:
            spatial: Sizes of the input.
            starts: Of a slice, the first position along each axis.
        """
        share = 1.0
        for axis, size in enumerate(spatial):
            if size:
                start = starts[axis] if starts else 0
                share *= repeated(partial(self._read, axis=axis, start=start), size, self.cycle(axis, start)) / size
        return share

    def cycle(self, axis: int, start: int = 0) -> tuple[int, int]:
        """Give a size that holds what is particular at both ends of an axis, and the period of all between."""
        k, s, p, d = self.kernel[axis], self.stride[axis], self.padding[axis], self.dilation[axis]
        return 4 * (d * (k - 1) + 1 + 2 * p + s + start), s

    def _read(self, size: int, axis: int, start: int) -> int:
        """Count the positions along `axis` that are read."""
        k, s, d = self.kernel[axis], self.stride[axis], self.dilation[axis]
        low = self.padding[axis] + self._same_padding(size, axis) // 2 - start
        last = (self.output_size(size, axis) - 1) * s
        if last < 0:
            return 0
        marks = bytearray(last + d * (k - 1) + 1)  # from the first window's first tap to the last one's last
        for tap in range(k):
            marks[d * tap : d * tap + last + 1 : s] = b"\1" * (last // s + 1)
        inside = marks[max(low, 0) : low + size]
        outside = {j - low for j, mark in enumerate(marks[: max(low, 0)]) if mark}
        outside |= {j + size for j, mark in enumerate(marks[max(low + size, 0) :]) if mark}
        known = {j - min(low, 0) for j, mark in enumerate(inside) if mark}
        return len(known | {x for x in map(self._mirrored(size), outside) if 0 <= x < size})

    def _mirrored(self, size: int) -> Callable[[int], int]:
        """Give which position stands at one of the padding, by its mode; for padding by a number, none."""
        if self.padding_mode == "circular":
            return lambda x: x % size
        if self.padding_mode == "replicate":
            return lambda x: min(max(x, 0), size - 1)
        if self.padding_mode == "reflect":
            return lambda x: size - 1 - abs(size - 1 - abs(x))
        return lambda _: -1

    def __str__(self) -> str:
        """Give the short form, for example `3x3 s2 p1`."""

        def axes(values: Shape) -> str:
            return str(values[0]) if len(set(values)) == 1 else "x".join(map(str, values))

        text = f"{'x'.join(map(str, self.kernel))} s{axes(self.stride)}"
        if any(self.padding):
            text += f" p{axes(self.padding)}"
        if any(d != 1 for d in self.dilation):
            text += f" d{axes(self.dilation)}"
        if self.depthwise:
            text += " dw"
        elif self.groups > 1:
            text += f" g{self.groups}"
        if self.padding_mode != "zeros":
            text += f" {self.padding_mode}"
        if self.ceil_mode:
            text += " ceil"
        if not self.count_include_pad and any(self.padding):
            text += " no-pad-count"
        return text


def repeated(count: Callable[[int], int], size: int, cycle: tuple[int, int]) -> int:
    """Give what `count` counts along an axis of any size, without going through all of it.

    Args:
        count: Gives the number for a size; what is beyond both ends' reach repeats.
        size: Of the axis.
        cycle: A size that holds both ends, and the period.
    """
    _, period = cycle
    short = shortened(size, cycle)
    if short == size:
        return count(size)
    return count(short) + (size - short) // period * (count(short + period) - count(short))


def shortened(size: int, cycle: tuple[int, int]) -> int:
    """Give a smaller size with the same ends and the same remainder; small ones as they are."""
    least, period = cycle
    return size if size <= least + period else least + (size - least) % period


class Call(Record):
    """Shapes of one call of an operator."""

    input: Shape
    output: Shape


def join_path(*parts: str) -> str:
    """Join module paths; empty ones (the model itself) leave nothing."""
    return ".".join(part for part in parts if part)


class Site(Record):
    """One place in a model that a rewrite may replace.

    Attributes:
        path: Module path of a called module; of the module that makes it, for a functional call.
        operation: Empty for a called module; else what is called and where, `forward:max_pool2d:0`: method, function
            and which of its calls there, in the order of the source.
        expression: Source of a functional call, `F.max_pool2d(x, 3, 2)`; empty for a called module.
        operator: What it computes, without the number of axes.
        type_name: Class of the module, or name of the function.
        parent: Class of the module that holds a called module; empty where that is the model itself.
        geometry: Kernel, stride and so on; a slice has kernel 1 and its steps as stride.
        calls: Shapes of each call in one forward pass.
        aliases: Other paths at which the same module is registered.
        constants: Numbers of the module's own that a rewrite needs (`spdify.graph.adapters` says which).
        channels: For a module without weights that is called with several channel counts, all of them; else empty.
        modes: Modes in which the site is run.
        inside: Path of the composite leaf that hides the site from the whole-model trace, or empty.
        obstacles: Facts about the module (hooks, parametrizations, shared weights …) that make replacing it unsafe.
        macs: Multiply-accumulate operations of one forward pass at batch 1.
        axes: Of a slice, the axes that are stepped over.
        starts: Of a slice, the first position along each of these.
        rank: Of a slice, the number of axes of its tensor.
        stage: Stage of the network that its output belongs to, from 0; None where it belongs to none (a stem).
        stages: Number of the network's stages.

    Where `inserted`, nothing is replaced: a block is put behind the module at `path` (before the model, for an input),
    and `operation` names it there (`end:0`). The window is that of a copy, 1×1; a pyramid has a call for each level.
    """

    path: str
    operation: str = ""
    expression: str = ""
    operator: Operator
    type_name: str
    parent: str = ""
    geometry: Geometry
    calls: Annotated[tuple[Call, ...], Field(min_length=1)]
    aliases: tuple[str, ...] = ()
    constants: dict[str, ParamValue] = Field(default_factory=dict)
    channels: Annotated[tuple[int, ...], Field(max_length=MAX_COUNTS)] = ()
    modes: tuple[Mode, ...] = ("eval", "train")
    inside: str = ""
    obstacles: tuple[str, ...] = ()
    macs: Count = 0
    axes: Shape = ()
    starts: Shape = ()
    rank: int = 0
    stage: int | None = None
    stages: int = 0

    @model_validator(mode="after")
    def _has_an_operation(self) -> Self:
        """Refuse what could name anything but an expression, or a block behind or before a module."""
        if self.operation and not _OPERATION.fullmatch(self.operation):
            msg = "an operation is method, function and number, or kind and number, with colons between"
            raise ValueError(msg)
        middle = self.operation.split(":")[-2:-1]
        if self.inserted and middle != (["input"] if self.operator == "input" else ["end"]):
            msg = f"an operation of {self.operator} is called so: end:0, forward:input:0"
            raise ValueError(msg)
        return self

    @property
    def kind(self) -> Kind:
        """What it is to the network; a convolution of stride 1 is a `convolution`."""
        if self.operator in {"stage_end", "block_end", "input", "pyramid"}:
            return self.operator
        return "downsampling" if any(step > 1 for step in self.geometry.stride) else "convolution"

    @property
    def inserted(self) -> bool:
        """Whether a block comes beside what is there, and takes the place of nothing."""
        return self.kind not in {"downsampling", "convolution"}

    @property
    def functional(self) -> bool:
        """Whether it is a functional call, whose block takes the place of an expression."""
        return bool(self.operation) and not self.inserted

    @property
    def block_paths(self) -> tuple[str, ...]:
        """Paths at which the block that takes its place is registered; for a functional call, a submodule's."""
        own = self.operation.replace(":", "_")
        return tuple(join_path(path, own) for path in (self.path, *self.aliases))

    @property
    def block_path(self) -> str:
        """The first of `block_paths`."""
        return self.block_paths[0]

    @property
    def name(self) -> str:
        """Path, with the operation where the site is a functional call; unique in a model."""
        return f"{self.path}#{self.operation}" if self.operation else self.path

    @property
    def window(self) -> str:
        """Short form of what it computes, for example `conv2d 3x3 s2 p1`."""
        if self.inserted:
            return self.operator.replace("_", " ")
        only = "" if "eval" in self.modes else " (train only)"
        return f"{self.operator}{self.geometry.dims}d {self.geometry}{only}"

    @property
    def resolution(self) -> int:
        """Smallest spatial size of the input, in positions, over all calls."""
        dims = self.geometry.dims
        return min(min(call.input[-dims:]) for call in self.calls)

    @property
    def positions_read(self) -> float:
        """Share of the input's positions that the operator reads, smallest over all calls."""
        dims = self.geometry.dims
        return min(self.geometry.positions_read(call.input[-dims:], self.starts) for call in self.calls)


class LeftAlone(Record):
    """An operator that shrinks or pools but is no site, or what a scaling leaves as it was, and why."""

    path: str
    operator: str
    reason: str
    calls: tuple[Call, ...] = ()


class Layout(Record):
    """How the channels of a tensor became more: each old one was followed by further ones, its copies.

    The old channel c of `runs` ((2, 4), (3, 1)) has four new ones for c < 2 and one for the others: channel-major, as
    `torch.nn.PixelUnshuffle` orders phases. What a copy holds is `how`'s to say.

    Attributes:
        runs: (channels, copies of each) in the order of the old channels.
        how: `select`: the first copy is the old channel, the others are new. `mean`: the old channel is the mean of its
            copies.
        norms: Whether a batch norm has weight, bias and statistics for `each` copy of a channel, or `shared` ones.
        inner: Entries per channel where spatial axes were flattened into the channel axis.
    """

    runs: tuple[tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=0)]], ...]
    how: Literal["select", "mean"] = "select"
    norms: Literal["each", "shared"] = "each"
    inner: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _is_bounded(self) -> Self:
        """Keep out what a damaged or hostile plan might have built: nothing was allocated yet."""
        if self.old > MAX_ENTRIES or self.new > MAX_ENTRIES:
            msg = f"a layout has at most {MAX_ENTRIES} entries"
            raise ValueError(msg)
        return self

    @property
    def old(self) -> int:
        """Number of entries before."""
        return self.inner * sum(count for count, _ in self.runs)

    @property
    def new(self) -> int:
        """Number of entries after."""
        return self.inner * sum(count * copies for count, copies in self.runs)

    @property
    def copies(self) -> int | None:
        """Copies of each channel where all have the same number."""
        found = {copies for _, copies in self.runs}
        return found.pop() if len(found) == 1 else None


class TensorChange(Record):
    """How one tensor of a module follows a change of channels along one axis.

    `repeat` gives every copy its channel's entries; `draw` gives them to the first copy, and random ones of the same
    deviation to the others, by `seed`. `read` gives them to those copies whose sum is the old channel:
    all to the first, or, where the layout is a mean, an equal share to each.
    """

    name: str
    axis: int = Field(ge=0)
    change: Literal["repeat", "draw", "read"]
    layout: Layout
    seed: int = 0


class Adjustment(Record):
    """A module outside the sites that follows a change of channels.

    Attributes:
        path: Of the module.
        aliases: Other paths at which it is registered.
        type_name: Its class.
        role: `carrier` passes the change on, `consumer` takes it in, `follower` has its own output repeated so that it
            fits to what was carried.
        tensors: What becomes of its tensors.
        numbers: Its attributes that count channels, with their new values.
        block: Class of the block that takes its place where numbers are not enough; else empty.
        takes: The channels that come in, where they are more than before.
        gives: The channels that go out, where they are more than before.
        sites: Names of the sites whose change it is.
    """

    path: str
    aliases: tuple[str, ...] = ()
    type_name: str
    role: Literal["carrier", "consumer", "follower"]
    tensors: tuple[TensorChange, ...] = ()
    numbers: dict[str, int] = Field(default_factory=dict)
    block: str = ""
    takes: Layout | None = None
    gives: Layout | None = None
    sites: tuple[str, ...] = ()


class Claim(Record):
    """What a rewrite promises.

    `value`: `exact` is the same function for finite inputs, to rounding. `training`: the same gradients and statistics,
    or what changes, in words.
    """

    value: Literal["exact", "approximate", "reinitialised"]
    training: str


class Decision(Record):
    """A site with what is done to it.

    Attributes:
        site: The site as it was found.
        action: What is done.
        rule: Rule that decides, and `rewrite` what it names.
        params: Of the rewrite.
        claim: What stays the same.
        reason: Why it was kept or refused; of an applied one, why its channels do not go on as the rule would have it.
        also_matched: Later rules that match too. With several rulebooks, rules are called `book/rule`.
        leaves: The channels that leave it, where they are more than before.
    """

    site: Site
    action: Literal["applied", "kept", "refused"]
    rule: str | None = None
    rewrite: str | None = None
    params: dict[str, ParamValue] = Field(default_factory=dict)
    claim: Claim | None = None
    reason: str = ""
    also_matched: tuple[str, ...] = ()
    leaves: Layout | None = None


class InputSpec(Record):
    """One example input: its shape (batch first) and its dtype, for example `float32`."""

    shape: Annotated[tuple[Annotated[int, Field(ge=1, le=MAX_INPUT)], ...], Field(min_length=1, max_length=16)]
    dtype: Dtype = "float32"

    @model_validator(mode="after")
    def _is_bounded(self) -> Self:
        """Refuse what would take all memory before anybody has looked at it."""
        if self.elements > MAX_INPUT:
            msg = f"an input has at most {MAX_INPUT:,} elements, this one {self.elements:,}"
            raise ValueError(msg)
        return self

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class Inputs(Record):
    """Example inputs of a forward pass: positional and by name."""

    args: Annotated[tuple[InputSpec, ...], Field(max_length=MAX_INPUTS)] = ()
    kwargs: Annotated[dict[str, InputSpec], Field(max_length=MAX_INPUTS)] = Field(default_factory=dict)


class Limit(Record):
    """What a conversion may cost, of one kind.

    Attributes:
        text: As it was given: `macs=+15%`.
        quantity: What is counted: MACs and parameters, or seconds per forward pass at batch 1, as measured.
        original: Of the network before.
        allowed: By how much it may grow.
    """

    text: str
    quantity: Quantity
    original: Amount
    allowed: Amount


class SiteForm(Record):
    """One exact form that a site may take: its name, its rewrite's parameters, and what it costs more than the site."""

    name: str
    params: dict[str, ParamValue] = Field(default_factory=dict)
    cost: dict[Quantity, Amount]


class SiteOptions(Record):
    """What a budget could buy at one site, and what it did.

    Attributes:
        site: Its name.
        size: Spatial size of its input, in positions.
        rewrite: What puts the forms there.
        forms: From the plainest to the richest; that it stays as it is, `keep`, costs nothing and is not among them.
        standard: Name of the form that the rules ask for.
        chosen: Name of the form that it takes, or `keep`.
    """

    site: str
    size: Shape
    rewrite: str
    forms: Annotated[tuple[SiteForm, ...], Field(min_length=1)]
    standard: str
    chosen: str = "keep"

    @model_validator(mode="after")
    def _names_its_forms(self) -> Self:
        """Refuse names of forms that there are not."""
        if not {self.standard, self.chosen} <= {"keep", *(form.name for form in self.forms)}:
            msg = f"the forms of a site are {', '.join(form.name for form in self.forms)[:80]}"
            raise ValueError(msg)
        return self

    def cost(self, name: str, quantity: Quantity) -> int | float:
        """Give what a form costs more than the site as it is; nothing for `keep`."""
        return next((form.cost[quantity] for form in self.forms if form.name == name), 0)


class LatencyCheck(Record):
    """A converted network in its deployed form, timed beside the original in turn, at batch 1.

    Attributes:
        rounds: Number of pairs of measurements.
        ratio: Median of converted to original.
        low: First quartile of the ratios.
        high: Third quartile.
        threads: Of PyTorch.
        device: That it ran on.
        taken_back: Purchases that were undone, since with them it was too slow.
    """

    rounds: int
    ratio: float
    low: float
    high: float
    threads: int
    device: str
    taken_back: int = 0


class Budget(Record):
    """What was allowed, what each site could have been given for it, and what was bought.

    Attributes:
        limits: All of them hold.
        prefer: Which sites came first.
        sites: In order of execution; sites that the rules keep or refuse are not among them.
        latency: Of the whole network; None where no limit was about it.
    """

    limits: tuple[Limit, ...]
    prefer: str
    sites: tuple[SiteOptions, ...]
    latency: LatencyCheck | None = None

    @model_validator(mode="after")
    def _costs_are_known(self) -> Self:
        """Refuse forms that do not say what they cost of what is limited."""
        limited = {limit.quantity for limit in self.limits}
        if any(not limited <= form.cost.keys() for site in self.sites for form in site.forms):
            msg = f"every form needs its cost in {', '.join(sorted(limited))}"
            raise ValueError(msg)
        return self

    def spent(self, quantity: Quantity) -> int | float:
        """Give what all that was bought costs."""
        return sum(site.cost(site.chosen, quantity) for site in self.sites)


class Repeat(Record):
    """More or fewer blocks at the end of a stage.

    Attributes:
        path: Of the stage, a sequence of blocks whose names are whole numbers from 0.
        before: Number of its blocks.
        after: Number afterwards; further ones are copies of the last.
        silenced: Names of tensors that are zero in the copies, which makes each of them pass on what it is given.
    """

    path: str
    before: int = Field(ge=1, le=1024)
    after: int = Field(ge=1, le=1024)
    silenced: tuple[str, ...] = ()


class HeadChange(Record):
    """A classifier with another number of outputs; it starts with random weights and a bias of zero.

    Attributes:
        path: Of the linear layer or convolution that makes the outputs.
        before: Number of its outputs.
        after: Number afterwards.
        seed: Of the weights.
    """

    path: str
    before: int = Field(ge=1, le=MAX_ENTRIES)
    after: int = Field(ge=1, le=MAX_ENTRIES)
    seed: int = 0


class Plan(Record):
    """Every site with its decision, and the fingerprint of the structure that it was made for.

    `adjustments` are the modules outside the sites that follow a change of channels. An adjustment at the path of an
    applied site says with which channels it runs.

    `init` is `exact`, or `random`: blocks start with weights as a fresh layer draws them, and so does what reads more
    channels than before.

    `heads` are classifiers with another number of outputs; such a plan changes nothing else.

    `budget` says how the decisions came about where a budget made them; nothing is rebuilt from it.
    """

    schema_version: Literal[1] = 1
    rulebook: Words
    rulebook_source: Words = ""
    fingerprint: str
    inputs: Inputs
    repeats: tuple[Repeat, ...] = ()
    heads: tuple[HeadChange, ...] = ()
    init: Literal["exact", "random"] = "exact"
    decisions: tuple[Decision, ...]
    adjustments: tuple[Adjustment, ...] = ()
    left_alone: tuple[LeftAlone, ...] = ()
    budget: Budget | None = None

    def with_action(self, action: str) -> tuple[Decision, ...]:
        """Give the decisions with this action, in the order of the sites."""
        return tuple(d for d in self.decisions if d.action == action)

    @property
    def applied(self) -> tuple[Decision, ...]:
        """The decisions that change the model."""
        return self.with_action("applied")


class Preprocessing(Record):
    """How images become inputs, in timm's terms; sizes are (C, H, W), mean and std per channel of a 0-to-1 image."""

    input_size: Annotated[tuple[Annotated[int, Field(ge=1, le=MAX_INPUT)], ...], Field(min_length=2, max_length=4)]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"
    crop_pct: float = Field(default=1.0, ge=0.25, le=4)
    crop_mode: str = "center"

    @model_validator(mode="after")
    def _is_bounded(self) -> Self:
        """Refuse what would take all memory before anybody has looked at it."""
        if math.prod(self.input_size) > MAX_INPUT:
            msg = f"an input has at most {MAX_INPUT:,} elements"
            raise ValueError(msg)
        return self


class Source(Record):
    """Where a model comes from, and all that is needed to build its structure again.

    Attributes:
        spec: As the user gave it, canonical (`timm:resnet50`, `torchvision:resnet18`, `path/net.py:factory`).
        kind: Registry sources are rebuilt from `spec` by `load`; `code` and `object` need the caller's code.
        name: Name for folders and titles.
        kwargs: Keyword arguments of the constructor, without the switches for weights.
        num_classes: Outputs of the classifier; None where unknown.
        weights: Where the weights came from, in words (`random, seed 0`, `pretrained`, a file name).
        reparameterized: Whether timm's `reparameterize_model` was applied, after the weights were loaded.
        preprocessing: None where the source does not say.
    """

    spec: Words
    kind: Literal["timm", "torchvision", "ultralytics", "hf-hub", "local-dir", "code", "object"]
    name: str
    kwargs: dict[str, ParamValue | list[ParamValue] | None] = Field(default_factory=dict)
    num_classes: int | None = None
    weights: Words = "random"
    reparameterized: bool = False
    preprocessing: Preprocessing | None = None

    @property
    def is_registry(self) -> bool:
        """Whether `load` may build it without running code that came with the bundle."""
        return self.kind not in {"code", "object"}


class Check(Record):
    """One check with its figure.

    `outcome`: `measured` means a figure that is reported and not asserted (an approximate claim); `not run` says why in
    `detail`, and proves nothing.
    """

    name: str
    outcome: Literal["passed", "failed", "measured", "not run"]
    value: float | None = None
    tolerance: float | None = None
    detail: str = ""


class Measure(Record):
    """Cost of a model at batch 1.

    Attributes:
        params: Number of parameters.
        macs: Multiply-accumulate operations of one forward pass; 1 MAC = 2 FLOPs, counted as
            `torch.utils.flop_counter` does.
        activation_bytes: Bytes of all operator outputs (views not counted) of one forward pass, in the example's
            dtype.
        weight_bytes: Bytes of the state dict.
    """

    params: Count
    macs: Count
    activation_bytes: Count
    weight_bytes: Count

    @property
    def flops(self) -> int:
        """Floating-point operations: two per MAC."""
        return 2 * self.macs


class SiteCost(Record):
    """Cost of one site before and after.

    `positions_read` is the share of its input's positions that the block reads once all of its weights may be used,
    smallest over all calls; None where that was not measured. Before: `Site.positions_read`.
    """

    name: str
    before: Measure
    after: Measure
    positions_read: float | None = None


class Part(Record):
    """A part of a network at the level at which people draw it: a residual block, a pool, a classifier.

    The parts of a network do not overlap, and their costs add up to the network's: the last one, without a path, is all
    that is computed or held between the others.

    Attributes:
        path: Module path.
        type_name: Class.
        stage: Path of the stage that it belongs to; empty where the network itself holds it.
        input: Shape of the tensor that goes in at the first call, batch first; None where it is not called as a whole.
        output: Of the (largest) one that comes out.
        params: Number of parameters; of shared ones, at the first part.
        macs: Multiply-accumulate operations at batch 1.
        activation_bytes: Bytes of operator outputs.
    """

    path: str
    type_name: str
    stage: str = ""
    input: Shape | None = None
    output: Shape | None = None
    params: Count
    macs: Count
    activation_bytes: Count


def _distinct(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """Refuse two parts at one place; what lies between all others may be called as a network of one part is."""
    if len({part.path for part in parts}) < len(parts) - 1:
        msg = "parts lie at different paths"
        raise ValueError(msg)
    return parts


Parts: TypeAlias = Annotated[tuple[Part, ...], Field(max_length=MAX_PARTS), AfterValidator(_distinct)]


class Taps(Record):
    """A kernel as a grid of taps, row by row; all channels together.

    Attributes:
        tensor: Its name in the module; empty for a window without weights.
        kernel: Taps per axis.
        scale: Phases per axis that lie in front of each tap: all 1 without space-to-depth.
        origins: Phase by phase, tap by tap: number of the tap before (from 0) whose weight is there, or -1 for none.
        fresh: Of those without: whether something is there all the same (a one-hot phase weight).
        sizes: Root mean square over all channels of what is there; empty for a window without weights.
    """

    tensor: str
    kernel: Shape
    scale: Shape
    origins: tuple[Annotated[int, Field(ge=-1, le=MAX_TAPS)], ...]
    fresh: tuple[bool, ...] = ()
    sizes: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] = ()

    @model_validator(mode="after")
    def _is_a_grid(self) -> Self:
        """Refuse what cannot be drawn."""
        axes = (len(self.kernel), len(self.scale))
        places = math.prod((*self.kernel, *self.scale))
        if axes not in {(1, 1), (2, 2)} or not 0 < places <= MAX_TAPS:
            msg = f"a kernel has one or two axes and at most {MAX_TAPS} places"
            raise ValueError(msg)
        if len(self.origins) != places or any(len(more) not in {0, places} for more in (self.fresh, self.sizes)):
            msg = f"a kernel of {places} places needs as many entries"
            raise ValueError(msg)
        return self


class Kernel(Record):
    """Where each weight of a site went: `origins` of `before` count its own taps."""

    site: str
    before: Taps
    after: Annotated[tuple[Taps, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _is_one_window(self) -> Self:
        """Refuse several windows in the place of one without weights."""
        if not self.before.tensor and len(self.after) != 1:
            msg = "a window without weights lies in one place"
            raise ValueError(msg)
        return self


class ComparedSite(Record):
    """What was done at one site in each of two networks, in words.

    Attributes:
        name: Of the site.
        window: Its operator, in short form.
        first: In the first network.
        second: In the second.
    """

    name: str
    window: str
    first: str
    second: str


class Origin(Record):
    """How a report came about.

    Attributes:
        sources: Where the network came from, or each of two.
        inputs: What each was looked at with.
        later: What became of each before it was looked at, in words (trainings, calibrations); empty where nothing did.
        command: Command lines, one per line; empty where none was recorded.
        seed: Of all random numbers.
        versions: Of Python and of the packages.
    """

    sources: tuple[Source, ...]
    inputs: tuple[Inputs, ...]
    later: tuple[Words, ...] = ()
    command: Words = ""
    seed: int = 0
    versions: dict[str, str]


class Report(Record):
    """What a conversion changed and what it costs.

    `parts_before` and `parts_after` are in the order in which they run. Reports of earlier releases have neither, and
    no `kernels` and `origin`. `compared` is for two networks, of which at least one was converted.
    """

    schema_version: Literal[1] = 1
    model: Words
    rulebook: Words
    before: Measure
    after: Measure
    scaling: tuple[str, ...] = ()
    sites: tuple[SiteCost, ...]
    decisions: tuple[Decision, ...]
    adjustments: tuple[Adjustment, ...] = ()
    left_alone: tuple[LeftAlone, ...] = ()
    budget: Budget | None = None
    checks: tuple[Check, ...] = ()
    proof: str = "none"
    seconds: float | None = None
    peak_memory_bytes: Count | None = None
    parts_before: Parts = ()
    parts_after: Parts = ()
    kernels: tuple[Kernel, ...] = ()
    compared: tuple[ComparedSite, ...] = ()
    origin: Origin | None = None


class Ratio(Record):
    """How much longer one takes than another, from rounds in which both took turns.

    Attributes:
        median: Of the rounds.
        low: Lower quartile.
        high: Upper quartile.
    """

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        """Give the median and the quartiles."""
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"


class FusedSite(Record):
    """What a block has become in the form that is deployed.

    Attributes:
        path: Of the block.
        block: Its class.
        form: The module in its place, in PyTorch's words; empty where the block stays.
        reason: Why it stays.
    """

    path: str
    block: str
    form: str = ""
    reason: str = ""


class OnnxRecord(Record):
    """How the ONNX file was written and compared."""

    file: str
    opset: int
    dynamic_batch: bool
    dynamic_size: bool = False
    note: str = ""
    checks: tuple[Check, ...] = ()


class TimedForm(Record):
    """One form of a network, as it was timed beside others.

    Attributes:
        form: Its name.
        milliseconds: Of one call: median over the rounds.
        ratio: To the first form; None for that one.
        note: What it is, or why it was not timed.
    """

    form: str
    milliseconds: float | None = None
    ratio: Ratio | None = None
    note: str = ""


class BenchRecord(Record):
    """How long a network takes in several forms, timed in turns in one run.

    Attributes:
        model: Its name.
        backend: `torch` or `ort`.
        device: `cpu` or `cuda`.
        machine: What computes, in words.
        threads: Of the CPU.
        batch: Images of one call.
        inputs: What the network takes, at batch 1.
        channels_last: Memory format (torch).
        compiled: Whether by `torch.compile`.
        rounds: Turns.
        as_is: Whether weights were left as they were, so that what nobody trained folds back.
        timings: By form; ratios are to the first.
        versions: Of Python and of the packages.
    """

    model: str
    backend: str
    device: str
    machine: str
    threads: int
    batch: int
    inputs: Inputs
    channels_last: bool = False
    compiled: bool = False
    rounds: int
    as_is: bool = False
    timings: tuple[TimedForm, ...]
    versions: dict[str, str] = {}


class ExportRecord(Record):
    """What `spdify export` wrote: content of `export.json`.

    Attributes:
        model: Name of the network.
        form: `spd`, `fused` or `space-to-depth`.
        format: `onnx`, `pt2` or `python`.
        dtype: `float32` or `float16`, of weights, inputs and outputs.
        files: Names of the files.
        inputs: What the network takes, at batch 1.
        dynamic_batch: Whether it takes any batch size.
        dynamic_size: Whether it takes any height and width that the network itself takes.
        opset: Of an ONNX file.
        sites: What each block has become.
        checks: What was compared.
        timings: Forms that were timed to choose this one.
        threads: With how many threads.
        preprocessing: How images become inputs, where that is known.
        classes: Names of the outputs, where they are known.
        source: Where the network came from.
        versions: Of Python and of the packages.
    """

    model: str
    form: str
    format: str
    dtype: str
    files: tuple[str, ...]
    inputs: Inputs
    dynamic_batch: bool
    dynamic_size: bool
    opset: int | None = None
    sites: tuple[FusedSite, ...] = ()
    checks: tuple[Check, ...] = ()
    timings: tuple[TimedForm, ...] = ()
    threads: int | None = None
    preprocessing: Preprocessing | None = None
    classes: tuple[str, ...] = ()
    source: Source
    versions: dict[str, str] = {}


class Recipe(Record):
    """How a network is trained. Names are timm's where it has one.

    Attributes:
        name: Of the preset that it began as.
        epochs: Passes over the training images.
        batch_size: Images per step, over all processes and accumulated parts.
        optimizer: As `timm.optim` calls it: `sgd`, `adamw`, `lamb` …
        lr: Learning rate of the weights that were carried over.
        momentum: Of the optimizers that have one.
        weight_decay: Of the weights.
        decay_all: Whether biases and norms decay as well.
        new_lr_factor: Learning rate of tensors that the conversion or a new classifier has put in or made larger, as
            a multiple of `lr`.
        only_new_epochs: First epochs in which only weights that were not there before change.
        sched: `cosine`, `step` (times `decay_rate` at each of `milestones`) or `constant`.
        warmup_epochs: Epochs over which the rate rises from a hundredth.
        milestones: Shares of the run, from 0 to 1.
        decay_rate: Factor at each milestone.
        smoothing: Label smoothing.
        mixup: Alpha of mixup; 0 for none.
        cutmix: Alpha of CutMix; 0 for none.
        crop_padding: Positions of black around an image from which it is cut anew; none for an eighth of its height.
        hflip: Probability that an image is mirrored; none for one half, or 0 where the data set says that mirror images
            are of another class.
        reprob: Probability that a part of an image is erased.
        aa: timm's policy of automatic augmentation, for example `rand-m9-mstd0.5`; images are then transformed one by
            one.
        ema_decay: Decay of averaged weights, which are then those that are measured and saved; 0 for none.
        clip_grad: Largest norm of all gradients; 0 for no limit.
        size_penalty: What the loss grows by for each GMAC of one image, where the network learns sizes; 0 for nothing.
    """

    name: str
    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=128, ge=2)
    optimizer: str = "sgd"
    lr: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=1e-4, ge=0, allow_inf_nan=False)
    decay_all: bool = False
    new_lr_factor: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    only_new_epochs: int = Field(default=0, ge=0)
    sched: Literal["cosine", "step", "constant"] = "cosine"
    warmup_epochs: float = Field(default=0.0, ge=0)
    milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    decay_rate: float = Field(default=0.1, gt=0, le=1)
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    mixup: float = Field(default=0.0, ge=0)
    cutmix: float = Field(default=0.0, ge=0)
    crop_padding: int | None = Field(default=None, ge=0)
    hflip: float | None = Field(default=None, ge=0, le=1)
    reprob: float = Field(default=0.0, ge=0, le=1)
    aa: str = ""
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    clip_grad: float = Field(default=0.0, ge=0)
    size_penalty: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class Machine(Record):
    """What to train on, and how.

    Attributes:
        device: `auto` is a GPU where there is one.
        amp: Mixed precision.
        parts: Parts of a process's share of a batch over which gradients are accumulated.
        channels_last: Memory format of weights and batches.
        compiled: Whether the training network goes through `torch.compile`.
        sync_batchnorm: Whether batch norms see the whole batch of all processes (GPUs only).
        workers: Processes that read image files.
        deterministic: Whether a GPU takes algorithms that give the same bits each time (some cost time); a CPU always
            does.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    amp: Literal["no", "bf16", "fp16"] = "no"
    parts: int = Field(default=1, ge=1)
    channels_last: bool = False
    compiled: bool = False
    sync_batchnorm: bool = False
    workers: int = Field(default=0, ge=0)
    deterministic: bool = True


#: What is drawn of a training: a loss that float32 holds, an epoch.
Loss: TypeAlias = Annotated[float, Field(ge=-3.5e38, le=3.5e38)]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Finite: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]


class Evaluation(Record):
    """How well a classifier does on labelled images.

    Attributes:
        images: Number of images.
        top1: Share that is put into its class.
        top5: Share whose class is among the five best (of fewer classes, among all: then 1).
        loss: Mean cross entropy, in nats.
        calibration_error: Expected calibration error: mean difference of confidence and accuracy over 15 bins of
            confidence, weighted by their images (Guo et al. 2017, arXiv:1706.04599).
    """

    images: Count
    top1: Share
    top5: Share
    loss: float
    calibration_error: float


class EpochResult(Record):
    """What one epoch came to.

    Attributes:
        epoch: From 1.
        lr: Learning rate of the carried weights at its last step.
        train_loss: Mean over its steps, as it is minimised.
        images_per_second: Training images, over all processes.
        seconds: Of training.
        validation: On the validation images; None where there are none.
    """

    epoch: Annotated[int, Field(ge=1, le=2**31)]
    lr: Finite
    train_loss: Loss
    images_per_second: Finite
    seconds: Finite
    validation: Evaluation | None = None


class DataRecord(Record):
    """The data set that was trained on.

    Attributes:
        name: As it was asked for.
        classes: Names, by label.
        images: Number of images per split, `train` among them.
        digest: Of all splits: tells whether they are the same.
        skipped: Number of files that could not be read and were left out.
    """

    name: Words
    classes: tuple[Words, ...]
    images: dict[str, Count]
    digest: str
    skipped: Count = 0

    @model_validator(mode="after")
    def _has_images_to_train_on(self) -> Self:
        """Refuse what nothing can have been trained on."""
        if "train" not in self.images:
            msg = "there are no images to train on"
            raise ValueError(msg)
        return self


class Training(Record):
    """What became of a network after its conversion: its weights are those after `epoch`.

    Attributes:
        data: What it was trained on.
        preprocessing: How images become its inputs.
        recipe: How.
        seed: Of data order and augmentation.
        epoch: From 1; 0 before the first.
        plans: Number of the bundle's plans that came before it.
        processes: Number of processes that trained it.
        averaged: Whether the weights are averaged ones.
        validation: On the validation images, of which the best epoch was chosen.
        test: On the test images; None where they were not looked at.
    """

    data: DataRecord
    preprocessing: Preprocessing
    recipe: Recipe
    seed: int
    epoch: int
    plans: int
    processes: int = 1
    averaged: bool = False
    validation: Evaluation | None = None
    test: Evaluation | None = None


class TrainingRun(Record):
    """What a training run was started with: content of `run.json`.

    Attributes:
        model: As it was named.
        data: The data set as it was named, with its full path.
        data_folder: Where cifar10, cifar100 and tiny-imagenet lie.
        channels: Channels that images are read with.
        validation_share: Share of the training images that was held back.
        skip_corrupt: Whether images that cannot be read are left out.
        from_disk: Whether images were read each time.
        known: What the data set was then.
        preprocessing: How images become inputs.
        recipe: How to train.
        seed: Of everything random.
        machine: What to train on.
        processes: Number of processes.
        onnx: Whether the best network is exported at the end.
        track: Trackers that were told; whoever resumes the run names them again.
        versions: Of the packages.
        command: Command line, if there was one.
    """

    schema_version: Literal[1] = 1
    model: Words
    data: str
    data_folder: Words
    channels: int
    validation_share: float
    skip_corrupt: bool
    from_disk: bool = False
    known: DataRecord
    preprocessing: Preprocessing
    recipe: Recipe
    seed: int
    machine: Machine
    processes: int
    onnx: bool = True
    track: tuple[str, ...] = ()
    versions: dict[str, str]
    command: Words = ""


class TrainingResult(Record):
    """What a finished run came to: content of `result.json`.

    Attributes:
        model: As it was named.
        best_epoch: Epoch whose weights are in `best`; from 1.
        chosen_by: `validation`, or `last epoch` where no images were held back.
        split: What `evaluation` was measured on: `test`, or `validation` where there are no test images.
        evaluation: Of the best network.
        classes: Names, by label.
        cost: Of the network at batch 1.
        images_per_second: Training, mean over the epochs.
        seconds: Of training, all epochs.
    """

    model: Words
    best_epoch: int
    chosen_by: Literal["validation", "last epoch"]
    split: Literal["test", "validation", "train"]
    evaluation: Evaluation
    classes: tuple[Words, ...]
    cost: Measure
    images_per_second: Finite
    seconds: Finite


class MeasuredModel(Record):
    """A model measured on a split of a data set.

    Attributes:
        model: As it was named.
        backend: What computed it.
        data: Name of the data set.
        split: Which of its splits.
        preprocessing: How images became inputs.
        preprocessing_from: Where that is known from, in words.
        classes: Names, by label.
        evaluation: The figures.
        confusion: Images by class (rows) and class found (columns).
        images_per_second: Of the forward passes alone, after the first batch.
        notes: What the reader should know.
    """

    model: Words
    backend: Literal["torch", "onnxruntime"]
    data: Words
    split: str
    preprocessing: Preprocessing
    preprocessing_from: str
    classes: tuple[Words, ...]
    evaluation: Evaluation
    confusion: tuple[tuple[int, ...], ...]
    images_per_second: float | None
    notes: tuple[str, ...] = ()


class ObjectCounts(Record):
    """What is to be found, by COCO's sizes: small to 32² square pixels, medium to 96², large from there.

    Attributes:
        total: Objects.
        small: As COCOeval counts them; what lies on a border counts on both sides.
        medium: Likewise.
        large: Likewise.
        crowds: Groups that nobody has counted, not among the objects: found or not, they change no figure.
    """

    total: int
    small: int
    medium: int
    large: int
    crowds: int = 0


class AveragePrecision(Record):
    """COCO's figures, from 0 to 1, as pycocotools gives them; None where there is no object of that size.

    Attributes:
        ap: Mean average precision over the classes and IoU thresholds .50, .55 … .95.
        ap50: At IoU .50.
        ap75: At IoU .75.
        ap_small: As `ap`, of small objects alone.
        ap_medium: Of medium ones.
        ap_large: Of large ones.
        ar100: Mean recall over the same classes and thresholds, with 100 detections per image and class.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    ar100: float | None


class MeasuredDetector(Record):
    """A detector measured on a split of a data set.

    Attributes:
        model: As it was named.
        detector: What kind of detector it is, in words.
        data: Name of the data set.
        split: Which of its splits.
        images: Number of images.
        objects: What was to be found in them.
        classes: Names of the data's classes, by index.
        image_size: Height and width of the inputs; of detectors that keep an image's proportions and do not fill up to
            a fixed size, the shorter side and the most that the longer one may have.
        resizing: How images get that size, in words.
        precision: The figures.
        images_per_second: From decoded images to boxes, after the first batch; None where one batch was all.
        notes: What the reader should know.
    """

    model: Words
    detector: str
    data: Words
    split: str
    images: int
    objects: ObjectCounts
    classes: tuple[Words, ...]
    image_size: Shape
    resizing: str
    precision: AveragePrecision
    images_per_second: float | None
    notes: tuple[str, ...] = ()


class FittedPool(Record):
    """A pool in the form of one convolution, fitted: relative errors of its output, before and after."""

    path: str
    before: float
    after: float


class Calibration(Record):
    """A calibration without labels; all errors are relative to the original, on images that were not fitted to.

    Attributes:
        data: Name of the data set.
        images: Number of images that were fitted to.
        held_out: Number of images that errors were measured on.
        preprocessing: How images became inputs.
        trainings: Number of trainings that came before it.
        plans: Number of the bundle's plans that came before it; None in records of earlier releases.
        pools: What was fitted.
        not_fitted: Approximate sites that were not, and why.
        norms: Number of batch norms whose statistics were taken anew.
        before: Error of the network's outputs as it was.
        after_pools: With the pools fitted.
        after: With the statistics taken anew as well.
    """

    data: Words
    images: int
    held_out: int
    preprocessing: Preprocessing
    trainings: int = 0
    plans: int | None = None
    pools: tuple[FittedPool, ...] = ()
    not_fitted: dict[str, str] = Field(default_factory=dict)
    norms: int = 0
    before: float
    after_pools: float
    after: float


class StudyRun(Record):
    """One run of a study: its folder's name, which network was trained (its arm), and what it came to."""

    folder: str
    arm: str
    size: int
    seed: int
    result: TrainingResult
    history: tuple[EpochResult, ...]


class BundleRecord(Record):
    """Content of `spdify.json`: everything needed to rebuild the converted network except its weights.

    `plans` lead from the source to the network, in order; none for a network that was trained as it is. `inputs` are
    examples of what the network takes, where no plan says so.
    """

    schema_version: Literal[1] = 1
    source: Source
    plans: Annotated[tuple[Plan, ...], Field(max_length=MAX_PLANS)]
    seed: int
    command: Words = ""
    versions: dict[str, str]
    proof: str
    checks: tuple[Check, ...]
    onnx: OnnxRecord | None = None
    inputs: Inputs | None = None
    trainings: tuple[Training, ...] = ()
    calibrations: tuple[Calibration, ...] = ()

    @property
    def example_inputs(self) -> Inputs | None:
        """Example inputs: of the last training, of the last plan, or its own."""
        if self.inputs is not None:
            return self.inputs
        return self.plans[-1].inputs if self.plans else None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes it was last trained on, by label; empty where they are not known."""
        return self.trainings[-1].data.classes if self.trainings else ()

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How images become inputs: as in the last training or calibration, else as the source says."""
        if self.calibrations and self.calibrations[-1].trainings == len(self.trainings):
            return self.calibrations[-1].preprocessing
        return self.trainings[-1].preprocessing if self.trainings else self.source.preprocessing
