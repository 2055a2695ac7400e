"""Folders of images, and of labelled boxes, that are damaged or made to do harm: read to measure and to train."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from PIL import Image

from tests.faults import templates
from tests.faults.commands import TOUCH, judged, place, run_spdify, run_watched
from tests.faults.mutations import damaged, mutated, shuffled, written
from tests.faults.trials import Case, Part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from tests.faults.commands import Place, Ran
    from tests.faults.trials import Outcome

_DATA = ("--data", "imagefolder:photos")
_TRAIN = ("finetune", "bundle", *_DATA, "--epochs", "1", "--batch-size", "8", "--no-onnx", "-o", "run")
WAYS: dict[str, tuple[str, ...]] = {
    "evaluate": ("evaluate", "bundle", *_DATA),
    "evaluate, skipping": ("evaluate", "bundle", *_DATA, "--skip-corrupt"),
    "finetune": _TRAIN,
    "finetune, skipping": (*_TRAIN, "--skip-corrupt"),
    "finetune from the disk": (*_TRAIN, "--from-disk"),
    "calibrate": ("calibrate", "bundle", *_DATA, "--no-onnx", "-o", "out"),
}


@dataclass(frozen=True)
class Picture:
    """A file in a class's folder.

    Attributes:
        write: Puts it there.
        bad: Whether it cannot be used: without `--skip-corrupt` it must be told, with it left out.
        listed: Whether it counts as an image by its name.
    """

    write: Callable[[Path], object]
    bad: bool = True
    listed: bool = True


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, data: bytes = b"\0" * 64) -> bytes:
    """Give a PNG that declares a size."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(data)) + _chunk(b"IEND", b"")


def _saved(mode: str, kind: str, **more: Any) -> Callable[[Path], object]:
    def write(file: Path) -> None:
        Image.linear_gradient("L").resize((32, 32)).convert(mode).save(file, kind, **more)

    return write


def _animated(file: Path) -> None:
    frames = [Image.new("RGB", (32, 32), (i, 0, 0)) for i in range(3)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])


def _deep(file: Path) -> None:
    place = file.parent
    for number in range(60):
        place /= f"d{number}"
        place.mkdir()
    _saved("RGB", "PNG")(place / file.name)


def _text(data: bytes) -> Callable[[Path], object]:
    return lambda file: file.write_bytes(data)


EPS = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n(%pipe%touch $SPDIFY_CANARY) (w) file\n{TOUCH}\n"
PICTURES: dict[str, Picture] = {
    "a.png": Picture(_saved("RGB", "PNG"), bad=False),
    "grey.png": Picture(_saved("L", "PNG"), bad=False),
    "grey with alpha.png": Picture(_saved("LA", "PNG"), bad=False),
    "palette.png": Picture(_saved("P", "PNG"), bad=False),
    "one bit.png": Picture(_saved("1", "PNG"), bad=False),
    "16 bits.png": Picture(_saved("I;16", "PNG"), bad=False),
    "alpha.png": Picture(_saved("RGBA", "PNG"), bad=False),
    "cmyk.jpg": Picture(_saved("CMYK", "JPEG"), bad=False),
    "cmyk.tif": Picture(_saved("CMYK", "TIFF"), bad=False),
    "floats.tif": Picture(_saved("F", "TIFF"), bad=False),
    "32 bits.tif": Picture(_saved("I", "TIFF"), bad=False),
    "lab.tif": Picture(_saved("LAB", "TIFF"), bad=False),
    "a.webp": Picture(_saved("RGB", "WEBP"), bad=False),
    "a.bmp": Picture(_saved("RGB", "BMP"), bad=False),
    "a.ppm": Picture(_saved("RGB", "PPM"), bad=False),
    "animated.jpg": Picture(_animated, bad=False),
    "a png.jpg": Picture(_saved("RGB", "PNG"), bad=False),
    "truncated.png": Picture(lambda file: file.write_bytes(_png(32, 32)[:60])),
    "cut.jpg": Picture(lambda file: (_saved("RGB", "JPEG")(file), file.write_bytes(file.read_bytes()[:400]))),
    "empty.png": Picture(_text(b"")),
    "text.png": Picture(_text(b"hello")),
    "60000x60000.png": Picture(_text(_png(60_000, 60_000))),
    "2^31.png": Picture(_text(_png(2**31 - 1, 2**31 - 1))),
    "9000x9000.png": Picture(_text(_png(9000, 9000))),
    "0x0.png": Picture(_text(_png(0, 0))),
    "1x3000000.png": Picture(_text(_png(1, 3_000_000))),
    "bomb.png": Picture(_text(_png(20_000, 20_000, b"\0" * 20_000_000))),
    "text of 2 GB.png": Picture(
        _text(_png(32, 32)[:33] + _chunk(b"zTXt", b"k\0\0" + zlib.compress(b"\0" * 2**26)) + _png(32, 32)[33:])
    ),
    "eps.jpg": Picture(_text(EPS.encode())),
    "eps.png": Picture(_text(b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 32, len(EPS)) + b"\0" * 20 + EPS.encode())),
    "a pickle.png": Picture(_text(b"\x80\x04N.")),
    "psd.png": Picture(_text(b"8BPS\0\1" + b"\0" * 6 + struct.pack(">HIIHH", 3, 30_000, 30_000, 8, 3) + b"\0" * 64)),
    "wmf.png": Picture(_text(b"\xd7\xcd\xc6\x9a" + b"\0" * 40)),
    "xbm.png": Picture(_text(b"#define a_width 30000\n#define a_height 30000\nstatic char a_bits[] = {0};")),
    "a pipe.png": Picture(os.mkfifo, bad=False, listed=False),
    "a folder.png": Picture(lambda file: file.mkdir(), bad=False, listed=False),
    "a device.png": Picture(lambda file: file.symlink_to("/dev/zero"), bad=False, listed=False),
    "a link to itself.png": Picture(lambda file: file.symlink_to(file.name), bad=False, listed=False),
    "a link to nothing.png": Picture(lambda file: file.symlink_to("nothing"), bad=False, listed=False),
    "a link out.png": Picture(lambda file: file.symlink_to("../../../outside/sentinel")),
    "a link round": Picture(lambda file: file.symlink_to("."), bad=False, listed=False),
    "a link up": Picture(lambda file: file.symlink_to(".."), bad=False, listed=False),
    "a\nline.png": Picture(_saved("RGB", "PNG"), bad=False),
    "\x1b]0;canary\x07.png": Picture(_text(b"hello")),
    "\u202egpj.png": Picture(_text(b"hello")),
    "é漢字🙂.png": Picture(_saved("RGB", "PNG"), bad=False),
    "[red]x.png": Picture(_text(b"hello")),
    "no access.png": Picture(lambda file: (_saved("RGB", "PNG")(file), file.chmod(0)), bad=False),
    ".hidden.png": Picture(_text(b"hello"), bad=False, listed=False),
    "deep.png": Picture(_deep, bad=False),
    "x" * 240 + ".png": Picture(_text(b"hello")),
}


def _folders() -> dict[str, Callable[[Path], object]]:
    """Give changes to the folder as a whole; what comes of them is any answer but a bad one."""
    return {
        "no classes": lambda photos: [shutil.rmtree(child) for child in photos.iterdir()],
        "one class": lambda photos: shutil.rmtree(photos / "dog"),
        "three classes": lambda photos: shutil.copytree(photos / "dog", photos / "emu"),
        "an empty class": lambda photos: [file.unlink() for file in (photos / "dog").iterdir()],
        "the folder is a file": lambda photos: (shutil.rmtree(photos), photos.write_bytes(b"x")),
        "the folder is a pipe": lambda photos: (shutil.rmtree(photos), os.mkfifo(photos)),
        "the folder is a link to itself": lambda photos: (shutil.rmtree(photos), photos.symlink_to("photos")),
        "there is none": shutil.rmtree,
        "a class that is a pipe": lambda photos: os.mkfifo(photos / "emu"),
        "a class that is a link round": lambda photos: (photos / "emu").symlink_to("."),
        "a class of two lines": lambda photos: (photos / "dog").rename(photos / "d\nog"),
        "a class that steers": lambda photos: (photos / "dog").rename(photos / "\x1b]0;canary\x07"),
        "a class of markup": lambda photos: (photos / "dog").rename(photos / "<script>canary()<"),
        "a class without UTF-8": lambda photos: (photos / "dog").rename(photos / os.fsdecode(b"\xff\xfe")),
        "1000 classes": lambda photos: [(photos / f"c{i}").mkdir() for i in range(1000)],
        "images beside the classes": lambda photos: shutil.copy(photos / "dog" / "0.png", photos),
        "train alone": lambda photos: _below(photos, "train"),
        "test alone": lambda photos: _below(photos, "test"),
        "val and valid": lambda photos: [
            shutil.copytree(photos / "dog", photos / n / "dog") for n in ("train", "val", "valid")
        ],
        "a class more in test": lambda photos: (
            [shutil.copytree(photos / c, photos / s / c) for s in ("train", "test") for c in ("cat", "dog")],
            shutil.copytree(photos / "dog", photos / "test" / "emu"),
            shutil.rmtree(photos / "dog"),
            shutil.rmtree(photos / "cat"),
        ),
    }


def _below(photos: Path, name: str) -> None:
    (photos / name).mkdir()
    for label in ("cat", "dog"):
        (photos / label).rename(photos / name / label)


def image_cases(count: int, seed: int) -> Iterable[Case]:
    """Give single files and folders that were thought out, labelled boxes, then damaged files."""
    templates.warm()
    templates.photos()
    templates.bundle()
    made = [*shuffled([*_pictures(), *_whole(), *_boxes()], seed), *(_random(number, seed) for number in range(count))]
    return made[:count]


def _pictures() -> Iterator[Case]:
    for name, picture in PICTURES.items():
        for way in ("evaluate", "evaluate, skipping", "finetune, skipping", "finetune from the disk"):
            run = partial(try_picture, name, picture, way)
            yield Case(f"{ascii(name)[:60]}, {way}", "a file in a class", run)


def _whole() -> Iterator[Case]:
    for name, change in _folders().items():
        for way in ("evaluate", "evaluate, skipping", "finetune", "calibrate"):
            yield Case(f"{name}, {way}", "the folder as a whole", partial(_try, change, way))


def _random(number: int, seed: int) -> Case:
    if number % 4 == 0:
        coco = partial(_changed_coco, seed=f"{seed}/{number}")
        run = partial(_try_boxes, coco, "boxes/annotations/instances_val.json")
        return Case(f"coco {number}", "labelled boxes, COCO", run)
    way = list(WAYS)[number % len(WAYS)]
    change = partial(_damage, seed=f"{seed}/{number}")
    return Case(f"random {number}, {way}", "damaged bytes", partial(_try, change, way))


def _damage(photos: Path, *, seed: str) -> None:
    random = Random(f"damage {seed}")
    for file in random.sample(sorted(photos.glob("*/*.png")), 3):
        kind = random.choice(("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"))
        Image.open(file).save(file, kind)
        file.write_bytes(damaged(file.read_bytes(), random)[0])


def try_picture(name: str, picture: Picture, way: str) -> tuple[Outcome, str]:
    """Put a file among the images; what cannot be used must be told, or left out and counted."""
    skips = "skipping" in way
    with place(templates.root()) as where:
        ran = _run(where, lambda photos: picture.write(photos / "dog" / name), way)
        outcome, words = judged(where, ran, refuses=picture.bad and not skips)
    if outcome == "refused" and (skips or not picture.bad):
        return "wrong", f"the rest can be used: {words}"
    if outcome == "held" and skips and picture.bad and way.startswith("evaluate") and "left out" not in ran.out:
        return "wrong", f"left out without a word: {ran.out[-200:]}"
    return outcome, words


def _try(change: Callable[[Path], object], way: str) -> tuple[Outcome, str]:
    with place(templates.root()) as where:
        return judged(where, _run(where, change, way))


def _run(where: Place, change: Callable[[Path], object], way: str) -> Ran:
    shutil.copytree(templates.bundle(), where.cwd / "bundle")
    shutil.copytree(templates.photos(), where.cwd / "photos")
    change(where.cwd / "photos")
    return run_spdify(where, WAYS[way])


def _coco() -> dict[str, Any]:
    return {
        "images": [
            {"id": 1, "file_name": "0.png", "width": 32, "height": 32},
            {"id": 2, "file_name": "1.png", "width": 32, "height": 32},
        ],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 8, 9], "area": 72, "iscrowd": 0}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 9, "name": "dog"}],
    }


_YAML = "path: .\nval: images\nnames: {0: cat, 1: dog}\n"
YAMLS = {
    "as it is": _YAML,
    "10**9 classes": "path: .\nval: images\nnc: 1000000000\n",
    "10**30 classes": f"path: .\nval: images\nnc: {10**30}\n",
    "laughs": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9))
    + "val: images\nnames: *j\n",
    "itself": "val: images\nnames: &a [*a]\n",
    "deep": "val: images\nnames: " + "[" * 20_000 + "]" * 20_000,
    "code": f'val: images\nnames: !!python/object/apply:eval ["{TOUCH}"]\n',
    "download": f"{_YAML}download: |\n  {TOUCH}\n",
    "a script": f"{_YAML}download: bash touch $SPDIFY_CANARY\n",
    "outside": "path: /\nval: etc\nnames: [a]\n",
    "above": "path: ../outside\nval: .\nnames: [a]\n",
    "somebody's home": "path: ~nobody-of-that-name\nval: images\nnames: [a]\n",
    "a NUL": 'path: .\nval: "images\\0"\nnames: [a]\n',
    "a path of 10**5": f"path: .\nval: {'x' * 10**5}\nnames: [a]\n",
    "keys without hash": "? [1, 2]\n: 3\nval: images\nnames: [a]\n",
    "digits": f"val: images\nnc: {'9' * 5000}\n",
    "a date": "val: 2026-11-27\nnames: [a]\n",
    "two documents": f"{_YAML}---\n{_YAML}",
    "lists of a pipe": "path: .\nval: list.txt\nnames: [cat, dog]\n",
}
LABELS = (
    "0 .5 .5 .2 .2",
    "1e999 .5 .5 .2 .2",
    "nan nan nan nan nan",
    "0 .5",
    "0 " * 100_000,
    "\0",
    "9" * 5000 + " 0 0 0 0",
    "é",
)


def _boxes() -> Iterator[Case]:
    for name, text in YAMLS.items():
        yield Case(f"yaml: {name}", "labelled boxes, YOLO", partial(_try_boxes, partial(_yolo, text=text)))
    for number, line in enumerate(LABELS):
        yield Case(
            f"label {number}", "labelled boxes, YOLO", partial(_try_boxes, partial(_yolo, text=_YAML, label=line))
        )
    for name, make in _ODD.items():
        yield Case(
            f"beside the images: {name}", "labelled boxes, YOLO", partial(_try_boxes, partial(_beside, make=make))
        )


_ODD: dict[str, Callable[[Path], object]] = {
    "a pipe": lambda folder: os.mkfifo(folder / "images" / "p.png"),
    "a folder": lambda folder: (folder / "images" / "f.png").mkdir(),
    "a device": lambda folder: (folder / "images" / "d.png").symlink_to("/dev/zero"),
    "a link round": lambda folder: (folder / "images" / "l").symlink_to("."),
    "a link to itself": lambda folder: (folder / "images" / "l.png").symlink_to("l.png"),
    "labels are a pipe": lambda folder: (
        (folder / "labels" / "0.txt").unlink(),
        os.mkfifo(folder / "labels" / "0.txt"),
    ),
    "the yaml is a pipe": lambda folder: ((folder / "data.yaml").unlink(), os.mkfifo(folder / "data.yaml")),
    "the yaml is a device": lambda folder: (
        (folder / "data.yaml").unlink(),
        (folder / "data.yaml").symlink_to("/dev/zero"),
    ),
    "a large image": lambda folder: (folder / "images" / "g.png").write_bytes(_png(60_000, 60_000)),
}


def _layout(folder: Path) -> None:
    shutil.copytree(templates.photos() / "cat", folder / "images")
    (folder / "labels").mkdir()
    for number in range(10):
        (folder / "labels" / f"{number}.txt").write_text(LABELS[0], encoding="utf-8")


def _yolo(folder: Path, *, text: str, label: str = "") -> None:
    _layout(folder)
    (folder / "data.yaml").write_text(text, encoding="utf-8")
    os.mkfifo(folder / "list.txt")
    if label:
        (folder / "labels" / "0.txt").write_text(label, encoding="utf-8")


def _beside(folder: Path, *, make: Callable[[Path], object]) -> None:
    _layout(folder)
    (folder / "data.yaml").write_text(_YAML, encoding="utf-8")
    make(folder)


def _changed_coco(folder: Path, *, seed: str) -> None:
    random = Random(f"coco {seed}")
    (folder / "annotations").mkdir(parents=True)
    shutil.copytree(templates.photos() / "cat", folder / "val")
    text = written(mutated(_coco(), random, times=random.choice((1, 2, 3)))[0])
    data = damaged(text.encode("utf-8", "surrogatepass"), random)[0] if random.random() < 0.2 else text.encode()
    (folder / "annotations" / "instances_val.json").write_bytes(data)


def _try_boxes(change: Callable[[Path], object], spec: str = "boxes") -> tuple[Outcome, str]:
    with place(templates.root()) as where:
        change(where.cwd / "boxes")
        return judged(where, run_watched(where, partial(read_boxes, spec)))


def read_boxes(spec: str) -> None:
    """Read labelled boxes and their images as `evaluate` does: a fault of the user's is told and ends it."""
    from spdify.datasets import is_detection_data, open_detection_data
    from spdify.errors import SpdifyError

    try:
        is_detection_data(spec)
        for image in open_detection_data(spec).images:
            image.read()
        open_detection_data(spec, skip_corrupt=True)
    except SpdifyError as error:
        print(error)
        raise SystemExit(1) from None


IMAGES = Part("images", image_cases, full=400, short=14, timeout_s=120)
