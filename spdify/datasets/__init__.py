"""Images to train on and to measure with: data sets, their splits, and how an image becomes an input."""

from spdify.datasets.fitting import check_normalisation, fit_to, fitted, normalise
from spdify.datasets.images import Files, Images, Pixels
from spdify.datasets.opening import NAMES, DataOptions, DataSet, mean_and_deviation, open_data

__all__ = [
    "NAMES",
    "DataOptions",
    "DataSet",
    "Files",
    "Images",
    "Pixels",
    "check_normalisation",
    "fit_to",
    "fitted",
    "mean_and_deviation",
    "normalise",
    "open_data",
]
