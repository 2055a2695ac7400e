"""The front door: the steps of a conversion in order."""

from spdify.pipeline.conversion import Conversion
from spdify.pipeline.converting import ConversionSettings, convert
from spdify.pipeline.loading import load
from spdify.pipeline.looking import inspect, report
from spdify.pipeline.opening import Opened, open_model

__all__ = ["Conversion", "ConversionSettings", "Opened", "convert", "inspect", "load", "open_model", "report"]
