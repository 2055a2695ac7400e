"""Images to train on and to measure with: data sets, their splits, and how an image becomes an input."""

from spdify.datasets.boxes import DetectionSet, LabelledImage, LabelledObject
from spdify.datasets.detection import FORMS_HINT, is_detection_data, open_detection_data
from spdify.datasets.fitting import check_normalisation, fit_to, fitted, image_size, normalise
from spdify.datasets.images import Files, Images, Pixels
from spdify.datasets.opening import NAMES, DataOptions, DataSet, mean_and_deviation, open_data

__all__ = [
    "FORMS_HINT",
    "NAMES",
    "DataOptions",
    "DataSet",
    "DetectionSet",
    "Files",
    "Images",
    "LabelledImage",
    "LabelledObject",
    "Pixels",
    "check_normalisation",
    "fit_to",
    "fitted",
    "image_size",
    "is_detection_data",
    "mean_and_deviation",
    "normalise",
    "open_data",
    "open_detection_data",
]
