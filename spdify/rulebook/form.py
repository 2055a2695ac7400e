"""The form of a rulebook: which keys a TOML file may have, and what each may hold.

What a rule's `params` mean is not known here: the rewrite that a rule names owns their schema, and the engine checks
them against it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Literal, Self, TypeAlias, get_args

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from spdify.records import Kind, ParamValue, Record, Shape

if TYPE_CHECKING:
    from collections.abc import Sequence

KEEP = "keep"
"""What a rule says in the place of a rewrite to leave its sites as they are."""

SCHEMA_VERSION: Literal[1] = 1

OperatorName: TypeAlias = Literal[
    "conv", "conv1d", "conv2d", "conv3d",
    "max_pool", "max_pool1d", "max_pool2d", "max_pool3d",
    "avg_pool", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "blur_pool", "blur_pool2d",
    "slice",
    "stage_end", "block_end", "input", "pyramid",
]  # fmt: skip

#: What rulebooks are about, in the order of lists.
GROUPS = ("spd", "downsampling", "gate", "context", "sampling", "pyramid")
#: Places where a block comes beside what is there.
INSERTED = ("stage_end", "block_end", "input", "pyramid")
_KEBAB = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_POSITION = re.compile(r"-?\d{1,9}|(-?\d{1,9})?:(-?\d{1,9})?", re.ASCII)
_MAX_AXES = 3
#: Of one key.
MAX_GLOBS = 1_000
#: Characters: the time to read a glob may grow with their square.
MAX_GLOB = 256
MAX_NUMBER = 2**63 - 1  # TOML's own bound, which tomllib does not hold


def expected(what: str) -> PydanticCustomError:
    """Make the error that a validator raises; `what` completes `expected …` in the message to the user."""
    # pydantic formats the message with braces, which a value from the file may have.
    return PydanticCustomError("expected", "{what}", {"what": what})


def _one_or_many(value: object) -> Sequence[str]:
    entries = (value,) if isinstance(value, str) else value
    if not (isinstance(entries, list | tuple) and entries and all(isinstance(e, str) and e for e in entries)):
        raise expected("a string or a list of strings, none of them empty")
    return entries


def _globs(value: object) -> object:
    entries = _one_or_many(value)
    if len(entries) > MAX_GLOBS or any(len(entry) > MAX_GLOB for entry in entries):
        raise expected(f"at most {MAX_GLOBS:,} globs of at most {MAX_GLOB} characters")
    return entries


def _kebab(value: object) -> object:
    if not (isinstance(value, str) and _KEBAB.fullmatch(value)):
        raise expected("lower-case words with hyphens between them, such as 'strided-conv'")
    return value


def _operator(value: object) -> object:
    if value not in get_args(OperatorName):
        raise expected("one of " + ", ".join(get_args(OperatorName)))
    return value


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_NUMBER


def _per_axis(value: object) -> object:
    axes = [value] if isinstance(value, int) else value
    if not (isinstance(axes, list | tuple) and 1 <= len(axes) <= _MAX_AXES and all(map(_is_count, axes))):
        raise expected("a positive integer (for every axis), or a list of 1 to 3 of them (one per axis)")
    return value


def _position(value: object) -> object:
    small = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER
    text = str(value) if small else value
    if not (isinstance(text, str) and _POSITION.fullmatch(text)):
        raise expected("an index or a range, such as 0, -1, '1:' or ':2'")
    return text


def _param(value: object) -> object:
    if not isinstance(value, str | int | float) or (isinstance(value, float) and not math.isfinite(value)):
        raise expected("a string, an integer, a finite number, true or false")
    if isinstance(value, int) and abs(value) > MAX_NUMBER:
        raise expected("an integer of 64 bits")
    return value


def _group(value: object) -> object:
    if value is not None and value not in GROUPS:
        raise expected("one of " + ", ".join(GROUPS))
    return value


def _schema(value: object) -> object:
    # Literal[1] alone would let `true` through, which equals 1.
    if isinstance(value, bool) or value != SCHEMA_VERSION:
        raise expected(f"{SCHEMA_VERSION}, the only form that this version of spdify reads")
    return value


def _sentence(value: str) -> str:
    if not value.strip() or "\n" in value:
        raise expected("one sentence on one line")
    return value


Name: TypeAlias = Annotated[str, BeforeValidator(_kebab)]
Globs: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(_globs)]
Operators: TypeAlias = Annotated[
    tuple[Annotated[OperatorName, BeforeValidator(_operator)], ...], BeforeValidator(_one_or_many)
]
#: Which of a row: an index or a range, as text (`spdify.rulebook.matching.stands_at`).
Position: TypeAlias = Annotated[str, BeforeValidator(_position)]
PerAxis: TypeAlias = Annotated[int | Shape, BeforeValidator(_per_axis)]


class Range(Record):
    """Bounds of a size in positions, both included; at least one is given."""

    min: int | None = Field(default=None, ge=1, le=MAX_NUMBER, strict=True)
    max: int | None = Field(default=None, ge=1, le=MAX_NUMBER, strict=True)

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if (self.min is None and self.max is None) or (self.min or 1) > (self.max or math.inf):
            raise expected("min, max or both, with min not above max")
        return self


class Match(Record):
    """What a site must be for a rule to take it; all keys are optional, and all that are given must hold.

    Attributes:
        operator: One of these, with (`conv2d`) or without (`conv`) the number of axes.
        type: Globs, one of which fits the class of the module or the name of the function.
        parent: Globs, one of which fits the class of the module that holds the site's.
        path: Globs, one of which fits the module path; `*` goes across dots.
        exclude: Globs, none of which fits the module path.
        kernel: Size along every axis, or a list of the size along each; so are `stride` and `dilation`.
        groups: Of a convolution: `dense` is one group, `depthwise` one per channel, `grouped` between the two.
        resolution: Bounds of the smallest spatial size of the input, in positions.
        position: Index (`0`, `-1`) or range (`1:`, `:2`) among the model's sites of this kind in execution order.

    Convolutions that do not downsample are matched where `stride` is 1; `stage_end`, `block_end`, `input` and `pyramid`
    where `operator` says so. What names neither is about downsampling.
    """

    operator: Operators | None = None
    type: Globs | None = None
    parent: Globs | None = None
    path: Globs | None = None
    exclude: Globs | None = None
    kernel: PerAxis | None = None
    stride: PerAxis | None = None
    dilation: PerAxis | None = None
    groups: Literal["dense", "depthwise", "grouped"] | None = None
    resolution: Range | None = None
    position: Position | None = None

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds of sites that it may take."""
        inserted = {name for name in self.operator or () if name in INSERTED}
        if self.stride in {1, (1,), (1, 1), (1, 1, 1)}:
            return frozenset({"convolution", *inserted})  # type: ignore[arg-type]  # of these names
        plain = not self.operator or len(inserted) < len(self.operator)
        return frozenset({*(["downsampling"] if plain else []), *inserted})  # type: ignore[arg-type]  # as above


class Rule(Record):
    """One match → rewrite with its parameters; `keep` in the place of a rewrite is a policy, and has a reason.

    Where rulebooks are joined, the name of the book stands in front of the rule's: `spd/max-pool`. No file can say so.
    """

    name: Name
    rewrite: Name
    reason: str = ""
    match: Match
    params: dict[str, Annotated[ParamValue, BeforeValidator(_param)]] = Field(default_factory=dict)

    @property
    def keeps(self) -> bool:
        """Whether the rule leaves its sites as they are."""
        return self.rewrite == KEEP

    @model_validator(mode="after")
    def _policy_is_explained(self) -> Self:
        if self.keeps and not self.reason.strip():
            raise expected("a `reason`, since its rewrite is 'keep'")
        if self.keeps and self.params:
            raise expected("no `params`, since its rewrite is 'keep'")
        return self


class RulebookSource(Record):
    """Where the idea behind a rulebook was published; both may be empty."""

    paper: str = ""
    section: str = ""

    def __str__(self) -> str:
        """Give the short form, for example `arXiv:2208.03641, section 3`."""
        return ", ".join(filter(None, (self.paper, self.section and f"section {self.section}")))


def _have_names_of_their_own(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    if not rules:
        raise expected("at least one [[rule]]")
    twice = [name for name, count in Counter(rule.name for rule in rules).items() if count > 1]
    if twice:
        raise expected(f"a name of its own for each rule, but '{twice[0]}' is used more than once")
    return rules


class Rulebook(Record):
    """Rules in order; the first one that matches a site decides about it.

    Attributes:
        name: Stem of the file; of several that are joined, all of them with `+` between.
        schema_version: `schema` in the file.
        group: What it is about, for lists; the user's own may leave it out.
        summary: What the rulebook does, in one sentence.
        source: Where it was published.
        rules: `[[rule]]` in the file.
    """

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    name: str
    schema_version: Annotated[Literal[1], BeforeValidator(_schema)] = Field(validation_alias="schema")
    group: Annotated[str | None, BeforeValidator(_group)] = None
    summary: Annotated[str, AfterValidator(_sentence)]
    source: RulebookSource = RulebookSource()
    rules: Annotated[tuple[Rule, ...], AfterValidator(_have_names_of_their_own)] = Field(validation_alias="rule")

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds of sites that it has rules for."""
        return frozenset().union(*(rule.match.kinds for rule in self.rules))
