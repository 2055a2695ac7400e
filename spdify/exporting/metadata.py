"""What an ONNX file says about itself: how images become its inputs, and what its outputs are called."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pydantic import ValidationError

from spdify.records import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PREPROCESSING, CLASSES = "spdify.preprocessing", "spdify.classes"


def describe(preprocessing: Preprocessing | None, classes: Sequence[str] = ()) -> dict[str, str]:
    """Give the texts to put into a file; what is not known is left out."""
    texts = {} if preprocessing is None else {PREPROCESSING: preprocessing.model_dump_json()}
    return texts | ({CLASSES: json.dumps(list(classes))} if classes else {})


def described(texts: Mapping[str, str]) -> tuple[Preprocessing | None, tuple[str, ...]]:
    """Read such texts back; of a file without them, or with other ones, nothing is known."""
    try:
        preprocessing = Preprocessing.model_validate_json(texts[PREPROCESSING]) if PREPROCESSING in texts else None
        classes = tuple(map(str, json.loads(texts.get(CLASSES, "[]"))))
    except (ValidationError, ValueError, TypeError, RecursionError):
        return None, ()
    return preprocessing, classes
