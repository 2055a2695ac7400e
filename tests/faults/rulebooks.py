"""Rulebooks that are damaged, hostile or too large, read by `rules check` and `rules show` and used to convert."""

from __future__ import annotations

import json
import math
import os
import tomllib
from functools import cache, partial
from random import Random
from typing import TYPE_CHECKING, Any

from spdify.rewrites import REGISTRY
from spdify.rulebook import rules_folder
from tests.faults import templates
from tests.faults.commands import judged, place, run_spdify
from tests.faults.mutations import damaged, mutated, shuffled
from tests.faults.trials import Case, Part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from tests.faults.trials import Outcome

BOOK = "book.toml"
_MODEL = ("timm:test_resnet", "--input-size", "3,32,32", "--rules", BOOK)
WAYS: dict[str, tuple[str, ...]] = {
    "check": ("rules", "check", BOOK),
    "show": ("rules", "show", BOOK),
    "json": ("rules", "show", BOOK, "--json"),
    "plan": ("convert", *_MODEL, "--dry-run"),
    "report": ("report", *_MODEL, "--html", "-o", "page.html"),
    "convert": ("convert", *_MODEL, "--no-onnx", "-o", "out"),
    "two": ("convert", *_MODEL, "--rules", "spd", "--no-onnx", "-o", "out"),
    "set": ("convert", *_MODEL, "--set", "strided-conv.kernel=odd", "--dry-run"),
}
_RAW = {
    "@nan": "nan",
    "@infinity": "inf",
    "@digits": "9" * 5000,
    "@deep": "[" * 9000 + "]" * 9000,
    "@exponent": "1e999",
    "@deep-objects": "{a = " * 3000 + "1" + "}" * 3000,
}


def toml(document: Any) -> str:
    """Write a document as TOML; what is no table becomes the value of a key."""
    if not isinstance(document, dict):
        return f"value = {_inline(document)}\n"
    return "".join(f"{_quoted(key)} = {_inline(value)}\n" for key, value in document.items())


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=True)


def _inline(value: Any) -> str:
    if value is None:
        return "2026-11-27T04:00:00"  # TOML has no null, but dates
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quoted(key)} = {_inline(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if isinstance(value, str):
        return _RAW.get(value, _quoted(value))
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


@cache
def _books() -> tuple[dict[str, Any], ...]:
    return tuple(tomllib.loads(file.read_text("utf-8")) for file in sorted(rules_folder().glob("*.toml")))


def _rule(**more: Any) -> dict[str, Any]:
    rule = {"name": "a", "rewrite": "replace-strided-conv", "match": {"operator": "conv"}} | more
    return {"schema": 1, "summary": "A book.", "rule": [rule]}


def _thought_out() -> dict[str, Callable[[], bytes]]:
    stars = "*a" * 2000 + "*b"
    texts: dict[str, Callable[[], str]] = {
        "as it is": lambda: toml(_books()[0]),
        "nothing": lambda: "",
        "a NUL": lambda: toml(_rule()).replace("A book", "A \0 book"),
        "5000 digits": lambda: "schema = " + "9" * 5000,
        "brackets": lambda: "a = " + "[" * 100_000,
        "nested lists": lambda: "a = " + "[" * 9000 + "]" * 9000,
        "nested tables": lambda: "a = " + "{a = " * 9000 + "1" + "}" * 9000,
        "a dotted key": lambda: ".".join("a" * 100_000) + " = 1",
        "a dotted table": lambda: "[" + ".".join("a" * 100_000) + "]\nb = 1",
        "10**5 keys": lambda: "".join(f"k{i} = 1\n" for i in range(50_000)),
        "10**4 rules": lambda: toml(_rule() | {"rule": [_rule(name=f"a{i}")["rule"][0] for i in range(8_000)]}),
        "stars in path": lambda: toml(_rule(match={"path": stars})),
        "many globs": lambda: toml(_rule(match={"path": ["*a" * 40 + str(i) for i in range(8_000)]})),
        "brackets in path": lambda: toml(_rule(match={"path": "[" * 5000 + "]" * 5000, "type": "[!" * 900})),
        "a long exclusion": lambda: toml(_rule(match={"exclude": "?" * 900_000})),
        "a range of 10**9": lambda: toml(_rule(match={"position": "-999999999:999999999"})),
        "a position of 10**30": lambda: toml(_rule(match={"position": 10**30})),
        "a kernel of 10**30": lambda: toml(_rule(match={"kernel": 10**30})),
        "a name with a path": lambda: toml(_rule(name="../../outside/x")),
        "a rewrite of os": lambda: toml(_rule(rewrite="os.system")),
        "a date": lambda: "schema = 1979-05-27T07:32:00Z\nsummary = 'a'\n",
        "keys of another class": lambda: toml(_rule(params={"__class__": "x", "_target_": "os.system"})),
    }
    files: dict[str, Callable[[], bytes]] = {name: partial(_encoded, text) for name, text in texts.items()}
    return files | {
        "50 MB": lambda: toml(_rule()).encode() + b"#" * 50 * 2**20,
        "no UTF-8": lambda: toml(_rule()).encode().replace(b"A book", b"\xff\xfe"),
        "UTF-16": lambda: toml(_rule()).encode("utf-16"),
        "a million lines": lambda: b"\n" * 10**6 + b"a",
    }


def _encoded(text: Callable[[], str]) -> bytes:
    return text().encode()


_PLACES: dict[str, Callable[[Path], object]] = {
    "a folder": lambda file: file.mkdir(),
    "a pipe": os.mkfifo,
    "a link to itself": lambda file: file.symlink_to(BOOK),
    "a link to /dev/zero": lambda file: file.symlink_to("/dev/zero"),
    "a link out": lambda file: file.symlink_to("../outside/sentinel"),
}


def rulebook_cases(count: int, seed: int) -> Iterable[Case]:
    """Give the books that were thought out, then parameters out of range, changes at random, damaged bytes."""
    templates.warm()
    made = [
        Case(f"{name}, {way}", "a book that was thought out", partial(_try, partial(_write, data=data), way))
        for name, data in _thought_out().items()
        for way in ("check", "show", "plan")
    ]
    made += [
        Case(f"the book is {name}, {way}", "links, pipes, folders", partial(_try, make, way))
        for name, make in _PLACES.items()
        for way in ("check", "plan")
    ]
    made = [*shuffled(made, seed), *(_random(number, seed) for number in range(count))]
    return made[:count]


def _write(file: Path, *, data: Callable[[], bytes]) -> None:
    file.write_bytes(data())


def _random(number: int, seed: int) -> Case:
    random = Random(f"{seed}/{number}")
    way = random.choice(("check", "show", "json", "plan", "plan", "report", "convert", "two", "set"))
    kind = random.choice((_with_params, _with_params, _with_change, _with_damage))
    data = partial(kind, f"{seed}/{number}")
    words = {_with_params: "parameters out of range", _with_change: "a changed book", _with_damage: "damaged bytes"}
    return Case(f"random {number}, {way}", words[kind], partial(_try, partial(_write, data=data), way))


def _with_params(seed: str) -> bytes:
    """Give a book whose parameters are those that its rewrites know, with other values."""
    random = Random(f"params {seed}")
    book = json.loads(json.dumps(random.choice(_books())))
    for rule in book["rule"]:
        if rule["rewrite"] not in REGISTRY:
            continue
        fields = list(REGISTRY[rule["rewrite"]].params_type.model_fields)
        for name in random.sample(fields, min(len(fields), 2)):
            rule.setdefault("params", {})[name] = random.choice(
                (
                    0,
                    1,
                    2,
                    3,
                    5,
                    7,
                    -1,
                    63,
                    255,
                    4095,
                    2**20 - 1,
                    2**24,
                    2**31,
                    2**40,
                    0.5,
                    1e-30,
                    1e30,
                    True,
                    "",
                    "odd",
                    "keep",
                )
            )
    return toml(book).encode()


def _with_change(seed: str) -> bytes:
    random = Random(f"change {seed}")
    return toml(mutated(random.choice(_books()), random, times=random.choice((1, 1, 2, 4)))[0]).encode()


def _with_damage(seed: str) -> bytes:
    random = Random(f"damage {seed}")
    file = random.choice(sorted(rules_folder().glob("*.toml")))
    return damaged(file.read_bytes(), random)[0]


def _try(make: Callable[[Path], object], way: str) -> tuple[Outcome, str]:
    with place(templates.root()) as where:
        make(where.cwd / BOOK)
        return judged(where, run_spdify(where, WAYS[way]))


RULEBOOKS = Part("rulebooks", rulebook_cases, full=400, short=12, timeout_s=120)
