"""Changes to JSON and to bytes that hostile or damaged files may have."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from tests.faults.commands import ESCAPE, MARKUP

if TYPE_CHECKING:
    from collections.abc import Iterable

CaseT = TypeVar("CaseT")

#: Written in the place of a text `@NAME`: what `json.dumps` would not write.
RAW = {
    "@nan": "NaN",
    "@infinity": "-Infinity",
    "@digits": "9" * 5000,
    "@deep": "[" * 100_000 + "]" * 100_000,
    "@deep-objects": '{"a":' * 5000 + "1" + "}" * 5000,
    "@exponent": "1e999",
}
NUMBERS = (-1, 0, 1, 2, 2**31, 2**31 - 1, 2**40, 2**63, 2**63 - 1, -(2**63), 10**9, 10**30, 0.5, 1e308, -0.0)
TEXTS = (
    "", ".", "..", "../../outside/sentinel", "/etc/passwd", "~/x", "~nobody-of-that-name/x", "os:system",
    "evil.py:factory", "evil:factory", "timm:evil", "local-dir:../outside", "hf-hub:evil/evil", "code", "object",
    "__class__", "__init__", "forward.__globals__", "__dict__.update", "load_state_dict", "a\nb", "a\0b", "\ud800",
    MARKUP, f'"><img src=x onerror=canary()>{MARKUP}', ESCAPE, "\u202egpj.exe", "{0.__class__}", "${jndi:x}", "%s%n",
    "x" * 100_000, "é" * 300, "[red]x[/]", "[/]", "|a|b|", "float128", "conv1.0", "maxpool", "fc", "layer2.0.conv1",
)  # fmt: skip
VALUES: tuple[Any, ...] = (None, True, [], {}, [[]], [None], {"_target_": "os.system", "_args_": ["x"]}, *RAW)


def shuffled(cases: Iterable[CaseT], seed: int) -> list[CaseT]:
    """Give cases in another order, the same for a seed: a short run has some of each kind."""
    found = list(cases)
    Random(f"order {seed}").shuffle(found)
    return found


def spots(value: Any, where: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List the places of all values in a document, from the outermost in."""
    found = [where]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += spots(inner, (*where, key))
    return found


def mutated(value: Any, random: Random, *, times: int = 1) -> tuple[Any, str]:
    """Give a document with something else in it, and say what."""
    changed, words = copy.deepcopy(value), []
    for _ in range(times):
        places = [where for where in spots(changed) if where]
        if not places:
            break
        *way, last = random.choice(places)
        holder = changed
        for key in way:
            holder = holder[key]
        words.append(f"{'.'.join(map(str, (*way, last)))} {_change(holder, last, random)}")
    return changed, "; ".join(words)


def _change(holder: Any, key: Any, random: Random) -> str:
    """Change one value in place; more often than not into one of its kind, which a schema lets through."""
    if random.random() < _ALIKE:
        holder[key] = _alike(holder[key], random)
        return f"= {str(holder[key])[:40]!a}"
    match random.randrange(8):
        case 0:
            del holder[key]
            return "dropped"
        case 1 | 2:
            holder[key] = random.choice(NUMBERS)
        case 3 | 4:
            holder[key] = random.choice(TEXTS)
        case 5:
            holder[key] = random.choice(VALUES)
        case 6 if isinstance(holder[key], list) and holder[key]:
            holder[key] = holder[key] * random.choice((2, 50))
        case 7 if isinstance(holder, dict):
            holder[random.choice((*TEXTS[:24], "weights", "checkpoint_path", "pretrained"))] = random.choice(VALUES)
            return "beside another key"
        case _:
            holder[key] = random.choice((*NUMBERS, *TEXTS))
    return f"= {str(holder[key])[:40]!a}"


_ALIKE = 0.6


def _alike(value: Any, random: Random) -> Any:
    """Give another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return random.choice((*NUMBERS, value + 1, value * 2, value - 1))
    if isinstance(value, str):
        return random.choice(TEXTS)
    if isinstance(value, list):
        return random.choice(([], value[:1], value[1:], value[::-1], value * 2))
    if isinstance(value, dict):
        return {name: item for name, item in value.items() if random.random() < 0.9}  # most stay
    return random.choice((None, 0, ""))


def written(value: Any) -> str:
    """Write a document, with what no document has."""
    text = json.dumps(value)
    for name, raw in RAW.items():
        text = text.replace(f'"{name}"', raw)
    return text


def damaged(data: bytes, random: Random) -> tuple[bytes, str]:
    """Give bytes with something else in them, and say what."""
    at = random.randrange(len(data) + 1)
    match random.randrange(5):
        case 0:
            return data[:at], f"cut at {at}"
        case 1:
            return data[:at] + random.randbytes(random.choice((1, 8, 4096))) + data[at:], f"bytes put in at {at}"
        case 2:
            return data[:at] + data[at + random.choice((1, 64)) :], f"bytes taken out at {at}"
        case 3:
            early = random.randrange(min(len(data), 4096) or 1)
            return data[:early] + bytes([data[early] ^ (1 << random.randrange(8))]) + data[
                early + 1 :
            ], f"bit at {early}"
        case _:
            changed = bytearray(data)
            for _ in range(32):
                changed[random.randrange(len(changed))] = random.randrange(256)
            return bytes(changed), "32 bytes"
