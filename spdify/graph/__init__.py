"""Seeing a model: trace, census, the predicate that says what downsamples, structure."""

from spdify.graph.census import Census, take_census
from spdify.graph.sites import Survey, survey
from spdify.graph.structure import fake_copy, fingerprint
from spdify.graph.trace import Trace, trace_model

__all__ = ["Census", "Survey", "Trace", "fake_copy", "fingerprint", "survey", "take_census", "trace_model"]
