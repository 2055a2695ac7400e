"""Detectors of several libraries behind one face, and COCO's average precision of what they find."""

from spdify.detection.average_precision import average_precision, count_objects, require_pycocotools
from spdify.detection.classes import labels_by_class, named_labels
from spdify.detection.detectors import KNOWN, Detector, DetectorOptions, is_detector, make_detector
from spdify.detection.found import Found
from spdify.detection.measuring import Findings, find_all

__all__ = [
    "KNOWN",
    "Detector",
    "DetectorOptions",
    "Findings",
    "Found",
    "average_precision",
    "count_objects",
    "find_all",
    "is_detector",
    "labels_by_class",
    "make_detector",
    "named_labels",
    "require_pycocotools",
]
