"""Labelled boxes in both formats."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from spdify.datasets import LabelledImage, is_detection_data, open_detection_data
from spdify.datasets.yolo_format import label_file
from spdify.errors import DataError, UsageError
from tests.detection.made import CATEGORIES, CLASSES, IMAGES, write_coco, write_yolo

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from spdify.datasets import DetectionSet


def opened(path: Path, **options: object) -> DetectionSet:
    return open_detection_data(str(path), **options)  # type: ignore[arg-type]


def test_both_formats_hold_the_same(tmp_path: Path) -> None:
    yolo, coco = opened(write_yolo(tmp_path / "yolo")), opened(write_coco(tmp_path / "coco"))
    assert (yolo.name, yolo.split, coco.name, coco.split) == ("yolo", "validation", "coco", "validation")
    assert yolo.classes == coco.classes == CLASSES
    assert (yolo.category_ids, coco.category_ids) == (None, CATEGORIES)
    for one, other, (size, objects) in zip(yolo.images, coco.images, IMAGES, strict=True):
        assert (one.path.name, one.width, one.height) == (other.path.name, *size) == (other.path.name, *size)
        assert [o.label for o in one.objects] == [o.label for o in other.objects] == [label for label, *_ in objects]
        for mine, its in zip(one.objects, other.objects, strict=True):
            assert mine.box == pytest.approx(its.box)
            assert mine.area == pytest.approx(its.area)
        assert one.read().shape == (3, size[1], size[0])


def test_what_is_detection_data(tmp_path: Path) -> None:
    yolo, coco = write_yolo(tmp_path / "yolo"), write_coco(tmp_path / "coco")
    for path in (yolo, yolo / "data.yaml", coco, coco / "annotations" / "instances_val2017.json"):
        assert is_detection_data(str(path))
    for path in (tmp_path, yolo / "images", "cifar10", "imagefolder:photos"):
        assert not is_detection_data(str(path))
    with pytest.raises(DataError, match="there is no such folder or file"):
        opened(tmp_path / "nothing")
    with pytest.raises(DataError, match="it has neither of the two forms"):
        opened(yolo / "images")
    (coco / "data.yaml").touch()
    with pytest.raises(DataError, match="it has a data yaml and COCO's annotations"):
        opened(coco)


# YOLO's format.


def test_classes_of_a_yaml(tmp_path: Path) -> None:
    folder = write_yolo(tmp_path / "a", names={"0": "x", "1": "y", "2": "z"})
    assert opened(folder).classes == ("x", "y", "z")
    (folder / "data.yaml").write_text("val: images/val\nnames: {0: x, 1: y, 2: z}\n")
    assert opened(folder).classes == ("x", "y", "z")
    (folder / "data.yaml").write_text("val: images/val\nnc: 3\n")
    assert opened(folder).classes == ("0", "1", "2")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("val: [", "cannot read the data yaml .*: while parsing"),
        ("- val", "it is no mapping"),
        ("names: [a]", "it names no images"),
        ("val: images/val", "it has no names of classes"),
        ("val: images/val\nnames: {0: a, 2: b}", "the keys of names are not 0 to 1"),
        ("val: images/val\nnames: [a, b]\nnc: 3", "nc is 3, but there are 2 names"),
        ("val: {a: b}\nnames: [a]", "val is no path"),
        ("val: images/none\nnames: [a]", "expected a folder or a .txt list at .*images/none, there is nothing"),
        ("val: data.yaml\nnames: [a]", "there is another file"),
        ("val: labels\nnames: [a]", "there are none in"),
    ],
)
def test_a_yaml_at_fault(tmp_path: Path, text: str, words: str) -> None:
    folder = write_yolo(tmp_path / "yolo")
    (folder / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=words):
        opened(folder)


def test_two_yamls(tmp_path: Path) -> None:
    folder = write_yolo(tmp_path / "yolo")
    (folder / "other.yml").touch()
    with pytest.raises(DataError, match=r"it has data\.yaml, other\.yml"):
        opened(folder)
    assert opened(folder / "data.yaml").name == "data.yaml"


def test_downloads_are_not_run(tmp_path: Path) -> None:
    folder = write_yolo(tmp_path / "yolo", more=f"download: |\n  open({str(tmp_path / 'ran')!r}, 'w')\n")
    opened(folder)
    text = (folder / "data.yaml").read_text().replace("images/val", "images/other")
    (folder / "data.yaml").write_text(text)
    with pytest.raises(DataError, match="there is nothing") as caught:
        opened(folder)
    assert "never run" in caught.value.hint
    assert not (tmp_path / "ran").exists()


def test_splits_lists_and_places(tmp_path: Path) -> None:
    folder = write_yolo(tmp_path / "yolo")
    (folder / "some.txt").write_text("./images/val/1.png\n\nimages/val/0.png\n")
    (folder / "data.yaml").write_text(
        f"path: {folder.name}\ntest: some.txt\ntrain: [images/val, some.txt]\nnames: {list(CLASSES)}\n"
    )
    (folder / "data.yaml").rename(tmp_path / "data.yaml")
    data = opened(tmp_path / "data.yaml")
    assert (data.split, [image.path.name for image in data.images]) == ("test", ["1.png", "0.png"])
    assert [len(image.objects) for image in data.images] == [2, 2]
    assert len(opened(tmp_path / "data.yaml", split="train").images) == 5
    with pytest.raises(UsageError, match="cannot measure on the validation images") as caught:
        opened(tmp_path / "data.yaml", split="validation")
    assert caught.value.hint == "Expected one of test, train."
    (folder / "some.txt").write_text("images/val/9.png\n")
    with pytest.raises(DataError, match=r"9\.png: there is no such file"):
        opened(tmp_path / "data.yaml")


def test_places_of_labels(tmp_path: Path) -> None:
    assert label_file(tmp_path / "images" / "a" / "images" / "x.jpg") == tmp_path / "images" / "a" / "labels" / "x.txt"
    assert label_file(tmp_path / "photos" / "images.jpg") == tmp_path / "photos" / "images.txt"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 0.5 0.5 0.1", "expected 5 numbers, found 4"),
        ("0 0.1 0.1 0.2 0.1 0.2 0.2", "expected 5 numbers, found 7"),
        ("cat 0.5 0.5 0.1 0.1", "'cat 0.5 0.5 0.1 0.1' is not all numbers"),
        ("0 nan 0.5 0.1 0.1", "coordinates outside 0 to 1"),
        ("0 0.5 1.5 0.1 0.1", "coordinates outside 0 to 1"),
        ("0 0.5 0.5 -0.1 0.1", "coordinates outside 0 to 1"),
        ("3 0.5 0.5 0.1 0.1", "the class is 3, the data yaml has 0 to 2"),
        ("-1 0.5 0.5 0.1 0.1", "the class is -1"),
        ("0.5 0.5 0.5 0.1 0.1", "the class is 0.5"),
    ],
)
def test_a_label_at_fault(tmp_path: Path, line: str, words: str) -> None:
    folder = write_yolo(tmp_path / "yolo")
    (folder / "labels" / "val" / "1.txt").write_text(f"0 0.5 0.5 0.1 0.1\n\n{line}\n")
    for skip in (False, True):  # labels are never skipped
        with pytest.raises(DataError, match=rf"in .*labels/val/1\.txt, line 3: .*{words}"):
            opened(folder, skip_corrupt=skip)


def test_labels_that_are_no_text(tmp_path: Path) -> None:
    folder = write_yolo(tmp_path / "yolo")
    (folder / "labels" / "val" / "1.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"cannot read .*1\.txt"):
        opened(folder)


def test_no_object_anywhere(tmp_path: Path) -> None:
    folder = write_yolo(tmp_path / "yolo")
    (folder / "labels").rename(folder / "elsewhere")
    with pytest.raises(DataError, match="there is no object in any of 3") as caught:
        opened(folder)
    assert "label files are there" in caught.value.hint


# COCO's format.


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda said: said.pop("annotations"), "expected a list 'annotations'"),
        (lambda said: said["images"].append({}), "expected a list 'images'"),
        (lambda said: said["categories"].clear(), "its categories are not numbers with names"),
        (lambda said: said["images"].clear(), "cannot read annotation 1 in .*: there is no image 10|lists no images"),
        (lambda said: said["annotations"][1].update(image_id=99), "annotation 2 in .*: there is no image 99"),
        (lambda said: said["annotations"][1].update(category_id=4), "there is no category 4"),
        (lambda said: said["annotations"][1].update(bbox=[1, 2, 3]), r"its bbox is \[1, 2, 3\]"),
        (lambda said: said["annotations"][1].update(bbox=[1, 2, -3, 4]), "its bbox is"),
        (lambda said: said["annotations"][1].update(bbox=[1, 2, float("nan"), 4]), "its bbox is"),
        (lambda said: said["annotations"][1].update(area="large"), "its area is large"),
        (lambda said: said["images"][1].pop("width"), "expected file_name, width and height"),
        (lambda said: said["images"][1].update(file_name="gone.png"), r"gone\.png: there is no such file"),
        (lambda said: said["images"][0].update(width=100), "labels are for 100x160 pixels, it has 200x160"),
    ],
)
def test_annotations_at_fault(tmp_path: Path, change: Callable[..., object], words: str) -> None:
    folder = write_coco(tmp_path / "coco", change)
    with pytest.raises(DataError, match=words):
        opened(folder).images[0].read()


def test_crowds_and_areas(tmp_path: Path) -> None:
    def change(said: dict[str, list[dict[str, Any]]]) -> None:
        said["annotations"][0].update(iscrowd=1)
        said["annotations"][1].update(area=77.5)
        del said["annotations"][2]["area"]

    first, second, _ = opened(write_coco(tmp_path / "coco", change)).images
    assert [thing.crowd for thing in first.objects] == [True, False]
    assert first.objects[1].area == 77.5
    assert second.objects[0].area == 50 * 60


def test_files_and_splits_of_coco(tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "coco")
    file = folder / "annotations" / "instances_val2017.json"
    alone = opened(file)
    assert (alone.split, len(alone.images)) == ("instances_val2017", 3)
    with pytest.raises(UsageError, match="the file is one split"):
        opened(file, split="validation")
    with pytest.raises(UsageError, match="cannot measure on the test images"):
        opened(folder, split="test")
    (folder / "annotations" / "instances_val2014.json").write_text(file.read_text())
    with pytest.raises(DataError, match=r"instances_val2014\.json, instances_val2017\.json"):
        opened(folder)
    moved = tmp_path / "flat" / "boxes.json"
    (folder / "val2017").rename(tmp_path / "flat")
    moved.write_text(file.read_text())
    assert len(opened(moved).images) == 3
    with pytest.raises(DataError, match=r"cannot find the images of .*: 0\.png is in none of"):
        opened(file)
    other = folder / "annotations" / "instances_default.json"
    other.write_text("{")
    for left in (file, folder / "annotations" / "instances_val2014.json"):
        left.unlink()
    with pytest.raises(DataError, match="no file says train, val or test"):
        opened(folder)
    with pytest.raises(DataError, match="cannot read the annotations"):
        opened(other)


# Images.


@pytest.mark.parametrize("write", [write_yolo, write_coco])
def test_images_that_cannot_be_read(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    folder = write(tmp_path / "data")
    next(folder.rglob("1.png")).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"cannot read the image .*1\.png") as caught:
        [image.read() for image in opened(folder).images]
    assert "--skip-corrupt" in caught.value.hint
    data = opened(folder, skip_corrupt=True)
    assert [image.path.name for image in data.images] == ["0.png", "2.png"]
    assert [path.name for path in data.skipped] == ["1.png"]
    for file in folder.rglob("*.png"):
        file.write_bytes(b"no image")
    with pytest.raises(DataError, match="none of 3 can be read"):
        opened(folder, skip_corrupt=True)


def test_images_that_are_not_there(tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "coco")
    (folder / "val2017" / "2.png").unlink()
    assert [path.name for path in opened(folder, skip_corrupt=True).skipped] == ["2.png"]


def test_images_on_their_side(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "a.txt").write_text("0 0.5 0.25 0.5 0.5\n")
    (tmp_path / "data.yaml").write_text("val: ./\nnames: [a]\n")
    (image,) = opened(tmp_path).images
    assert (image.width, image.height, image.objects[0].box) == (20, 40, (5, 0, 10, 20))
    assert image.read().shape == (3, 40, 20)
    # Who labelled it as it lies says so by its size.
    assert LabelledImage(image.path, 40, 20).read().shape == (3, 20, 40)


# Files that somebody made to do harm.

MERGES = "k0: &k0 {a: b}\n" + "".join(f"k{i}: &k{i} {{<<: [{f'*k{i - 1}, ' * 10}]}}\n" for i in range(1, 20))
LAUGHS = "a: &a [x, x]\n" + "".join(f"k{i}: &k{i} [*{'a' if not i else f'k{i - 1}'}, *a]\n" for i in range(40))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("val: images/val\nnc: 1000000000", "it has no names of classes"),
        (f"{LAUGHS}val: images/val\nnames: *k39", "a name of a class is no text"),
        ("val: images/val\nnames: &a [*a]", "a name of a class is no text"),
        ("val: images/val\nnames: " + "[" * 9000, "cannot read the data yaml"),
        (f"val: images/val\nnc: {'9' * 5000}", "cannot read the data yaml"),
        (f"val: {'x' * 10_000}\nnames: [a]", "there is nothing"),
        ("path: ~nobody-of-that-name\nval: images\nnames: [a]", "there is nothing"),
        ("#" * 2**20, "expected at most"),
        (f"{MERGES}val: images/val\nnames: [a]", "merge keys .* are not read"),
        (f"{LAUGHS}val: images/val\nnames: [a]\npath: *k39", "path is no path"),
        (f"{LAUGHS}val: images/val\nnames: [a]\nnc: *k39", "nc is no number"),
        (f"val: images/val\nnames: [a]\nnc: 0x{'f' * 5000}", "nc is no number"),
        ("val: images/val\nnames: [!!int _]", "cannot read the data yaml"),
        ("val: images/val\nnames: [!!timestamp x]", "could not determine a constructor"),
    ],
    ids=range(14),
)
def test_a_yaml_made_to_do_harm(tmp_path: Path, text: str, words: str) -> None:
    folder = write_yolo(tmp_path / "yolo")
    (folder / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=words):
        opened(folder)


@pytest.mark.parametrize("name", ["0x" + "f" * 5000, "1" + ":1" * 200_000, "1" + ":1" * 5000 + ".5", "1" * 5000])
def test_numbers_without_end_are_names(tmp_path: Path, name: str) -> None:
    folder = write_yolo(tmp_path / "yolo")
    (folder / "data.yaml").write_text(f"val: images/val\nnames: [{name}, b, c]\n")
    assert opened(folder).classes == (name, "b", "c")


def test_plain_values_of_a_yaml_are_what_yaml_says(tmp_path: Path) -> None:
    folder = write_yolo(tmp_path / "yolo")
    (folder / "data.yaml").write_text(
        "path: .\ntrain:\ntest: ~\nval: &v images/val\nminival: *v\nnc: 3\nnames: {0: 1.50, 1: -2, '2': off}\n"
    )
    data = opened(folder)
    assert (data.split, data.classes) == ("validation", ("1.5", "-2", "False"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda said: said["annotations"][1].update(image_id=[1]), "there is no image None"),
        (lambda said: said["annotations"][1].update(category_id={}), "there is no category None"),
        (lambda said: said["annotations"][1].update(area=10**400), "its area is"),
        (lambda said: said["annotations"][1].update(bbox=[0, 0, 10**400, 1]), "its bbox is"),
        (lambda said: said["images"][1].update(file_name="x" * 10_000), "there is no such file"),
    ],
)
def test_annotations_made_to_do_harm(tmp_path: Path, change: Callable[..., object], words: str) -> None:
    with pytest.raises(DataError, match=words):
        opened(write_coco(tmp_path / "coco", change))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"images": ' + "9" * 5000 + "}"])
def test_annotations_that_are_no_json_for_python(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match="cannot read the annotations"):
        opened(tmp_path / "a.json")


def test_pipes_among_labelled_images(tmp_path: Path) -> None:
    folder = write_yolo(tmp_path / "yolo")
    count = len(opened(folder).images)
    os.mkfifo(folder / "images" / "val" / "pipe.png")
    assert len(opened(folder).images) == count
    labels = next((folder / "labels" / "val").iterdir())
    labels.unlink()
    os.mkfifo(labels)
    with pytest.raises(DataError, match="not a plain file"):
        opened(folder)
