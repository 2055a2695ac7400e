from __future__ import annotations

import pytest

from spdify.datasets import DetectionSet
from spdify.detection import labels_by_class
from spdify.errors import DataError
from tests.detection.made import Knowing

COCO = ("__background__", "person", "cat", "N/A", "dog")


def data(*classes: str, ids: tuple[int, ...] | None = None) -> DetectionSet:
    return DetectionSet("pets", "validation", classes, (), ids)


def labels(detector: Knowing, dataset: DetectionSet) -> tuple[int, ...]:
    return labels_by_class(detector, dataset, "net")


@pytest.mark.parametrize("names", [(), ("0", "1"), ("class0", "class1"), ("cat", "dog")])
@pytest.mark.parametrize("classes", [("cat", "dog"), ("0", "1")])
def test_as_many_in_their_order(names: tuple[str, ...], classes: tuple[str, ...]) -> None:
    assert labels(Knowing([], outputs=2, names=names), data(*classes)) == (0, 1)


def test_other_counts_and_names() -> None:
    with pytest.raises(DataError, match="cannot measure net on pets: it has 3 classes, the data 2"):
        labels(Knowing([], outputs=3), data("cat", "dog"))
    with pytest.raises(DataError, match="its class 1 is 'cow', that of the data 'dog'"):
        labels(Knowing([], outputs=2, names=("cat", "cow")), data("cat", "dog"))


def test_names_of_a_detector_with_a_background() -> None:
    named = Knowing([], outputs=5, names=COCO, background=True)
    assert labels(named, data("dog", "cat")) == (4, 2)
    assert labels(named, data("dog", "cat", ids=(1, 2))) == (4, 2)  # names say more than numbers
    with pytest.raises(DataError, match="it does not know the class 'cow'") as caught:
        labels(named, data("cat", "cow"))
    assert caught.value.hint == "It knows 3 by name: person, cat, dog …"
    with pytest.raises(DataError, match="it does not know the classes 'N/A', '__background__'"):
        labels(named, data("N/A", "__background__"))


def test_numbers_of_a_detector_with_a_background() -> None:
    assert labels(Knowing([], outputs=3, background=True), data("cat", "dog")) == (1, 2)
    assert labels(Knowing([], outputs=91, background=True), data("cat", "dog", ids=(17, 18))) == (17, 18)
    for wrong in (None, (0, 5), (90, 91)):
        with pytest.raises(
            DataError, match=r"91 outputs \(the first is the background\), the data 2 classes"
        ) as caught:
            labels(Knowing([], outputs=91, background=True), data("cat", "dog", ids=wrong))
        assert "Expected 3 outputs" in caught.value.hint
    # Data that only counts its classes has no names to go by.
    with pytest.raises(DataError, match="it has 5 outputs"):
        labels(Knowing([], outputs=5, names=COCO, background=True), data("0", "1"))
