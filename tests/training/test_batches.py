from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from PIL import Image

from spdify.datasets import Files, Pixels, fit_to, normalise
from spdify.errors import DataError, UsageError
from spdify.training import RECIPES, Share, make_batches, make_recipe, measured_batches
from spdify.training.batches import crop_and_flip
from tests.training.networks import HOW, coloured

if TYPE_CHECKING:
    from pathlib import Path

    from spdify.records import Recipe
    from spdify.training.batches import Batches
    from spdify.training.reading import Part

PLAIN = make_recipe("finetune", {"batch_size": 16, "crop_padding": 0, "hflip": 0.0})


def batches(recipe: Recipe = PLAIN, images: Pixels | Files | None = None, **options: object) -> Batches:
    return make_batches(images or coloured(), recipe, HOW, classes=4, **options)  # type: ignore[arg-type]


def steps(of: Batches, epoch: int = 1) -> list[list[Part]]:
    return list(of.epoch(epoch))


def on_disk(pixels: Pixels, folder: Path) -> Files:
    paths = []
    for index, image in enumerate(pixels.images):
        paths.append(folder / f"{index}.png")
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(paths[-1])
    return Files(tuple(paths), pixels.labels, 3)


def test_every_image_comes_once_and_as_it_is() -> None:
    images = coloured(50)
    found = steps(batches(images=images))
    assert len(found) == batches(images=images).steps == 3  # the two that fill no batch are left out
    inputs = torch.cat([part[0] for step in found for part in step])
    known = {
        tuple(x.flatten().tolist()): int(y) for x, y in zip(normalise(images.images, HOW), images.labels, strict=True)
    }
    seen = [tuple(x.flatten().tolist()) for x in inputs]
    assert len(set(seen)) == 48
    labels = torch.cat([part[1] for step in found for part in step])
    assert [known[x] for x in seen] == labels.tolist()


def test_order_depends_on_seed_and_epoch_only() -> None:
    one = batches(seed=1)
    first, again = steps(one), steps(one)
    assert all(torch.equal(a[0][0], b[0][0]) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0][0][1], steps(one, epoch=2)[0][0][1])
    assert not torch.equal(first[0][0][1], steps(batches(seed=2))[0][0][1])


AUGMENTED = make_recipe("finetune", {"batch_size": 16, "crop_padding": 2, "hflip": 0.5})


@pytest.mark.parametrize("kind", ["memory", "files", "aa"])
def test_processes_and_parts_see_what_one_sees(kind: str, tmp_path: Path) -> None:
    recipe = AUGMENTED.model_copy(update={"aa": "rand-m5"}) if kind == "aa" else AUGMENTED
    images = on_disk(coloured(32), tmp_path) if kind == "files" else coloured(32)

    def one(rank: int, world: int, parts: int) -> list[list[Part]]:
        return steps(batches(recipe, images, share=Share(rank, world, parts)))

    whole = one(0, 1, 1)
    by_parts = one(0, 1, 4)
    by_process = [one(rank, 2, 2) for rank in range(2)]
    for number, step in enumerate(whole):
        for joined in (by_parts[number], by_process[0][number] + by_process[1][number]):
            assert torch.equal(torch.cat([inputs for inputs, _ in joined]), step[0][0])
            assert torch.equal(torch.cat([labels for _, labels in joined]), step[0][1])


def test_files_and_memory_are_read_in_the_same_order(tmp_path: Path) -> None:
    files = on_disk(coloured(32), tmp_path)
    assert [step[0][1].tolist() for step in steps(batches(images=files))] == [
        step[0][1].tolist() for step in steps(batches(images=coloured(32)))
    ]


def test_workers_change_nothing(tmp_path: Path) -> None:
    files = on_disk(coloured(32), tmp_path)
    alone, helped = (steps(batches(AUGMENTED, files, workers=n)) for n in (0, 2))
    assert all(torch.equal(a[0][0], b[0][0]) for a, b in zip(alone, helped, strict=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_file_is_told_with_its_path(tmp_path: Path, workers: int) -> None:
    files = on_disk(coloured(32), tmp_path)
    files.paths[5].write_bytes(b"broken")
    with pytest.raises(DataError, match=r"cannot read the image .*5\.png") as caught:
        steps(batches(images=files, workers=workers))
    assert "--skip-corrupt" in caught.value.hint
    with pytest.raises(DataError, match=r"5\.png"):
        list(measured_batches(files, HOW, workers=workers))


def test_crop_and_flip() -> None:
    images = torch.arange(1, 2 * 3 * 4 * 5 + 1).reshape(2, 3, 4, 5).to(torch.uint8)
    crops = torch.tensor([[1, 1], [0, 2]])
    kept = crop_and_flip(images, torch.tensor([[1, 1], [1, 1]]), torch.tensor([False, True]), 1)
    assert torch.equal(kept[0], images[0])
    assert torch.equal(kept[1], images[1].flip(2))
    moved = crop_and_flip(images, crops, torch.tensor([False, False]), 1)
    assert torch.equal(moved[0], images[0])
    assert (moved[1, :, 0] == 0).all()  # from one row above
    assert (moved[1, :, :, -1] == 0).all()
    assert torch.equal(moved[1, :, 1:, :-1], images[1, :, :-1, 1:])
    assert torch.equal(crop_and_flip(images, crops * 0, torch.tensor([True, True]), 0), images.flip(3))


def test_augmentation_moves_and_mirrors() -> None:
    plain, moved = (steps(batches(recipe))[0][0][0] for recipe in (PLAIN, AUGMENTED))
    same = (plain == moved).flatten(1).all(1)
    mirrored = (plain.flip(3) == moved).flatten(1).all(1)
    assert not same.all()
    assert (same | mirrored).sum() < len(same)
    still = steps(batches(PLAIN.model_copy(update={"hflip": None}), mirrored=False))[0][0][0]
    assert torch.equal(still, plain)
    flipped = steps(batches(PLAIN.model_copy(update={"hflip": None})))[0][0][0]
    assert 0 < (flipped == plain).flatten(1).all(1).sum() < len(plain)


def test_images_are_resized_once_as_for_measuring() -> None:
    large = coloured(16, size=40)
    found = steps(batches(images=large))[0][0]
    expected = normalise(fit_to(large.images, HOW), HOW)
    assert sorted(found[0].sum((1, 2, 3)).tolist()) == pytest.approx(sorted(expected.sum((1, 2, 3)).tolist()), rel=1e-5)


def test_mixup_and_erasing_are_the_same_each_time() -> None:
    recipe = PLAIN.model_copy(update={"mixup": 0.5, "cutmix": 0.5, "smoothing": 0.1, "reprob": 0.5})
    first, again = steps(batches(recipe)), steps(batches(recipe))
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a[0][0], b[0][0])
        assert torch.equal(a[0][1], b[0][1])
        assert a[0][1].shape == (16, 4)
        assert torch.allclose(a[0][1].sum(1), torch.ones(16))
    assert not torch.equal(first[0][0][0], steps(batches())[0][0][0])
    with pytest.raises(UsageError, match="odd size"):
        batches(recipe.model_copy(update={"batch_size": 15}))
    with pytest.raises(UsageError, match="cannot augment by aa='nonsense'"):
        batches(PLAIN.model_copy(update={"aa": "nonsense"}))


def test_batches_that_cannot_be_divided() -> None:
    with pytest.raises(UsageError, match="cannot divide a batch of 16 over 3 processes") as caught:
        batches(share=Share(0, 3, 1))
    assert "multiple of 3" in caught.value.hint
    with pytest.raises(UsageError, match="cannot divide"):
        batches(share=Share(0, 4, 4))  # one image each
    with pytest.raises(UsageError, match="cannot take batches of 128 from 64"):
        batches(RECIPES["paper-cifar10"])


def test_measured_batches_cover_the_split(tmp_path: Path) -> None:
    pixels = coloured(21, size=24)
    for images in (pixels, on_disk(pixels, tmp_path)):
        found = list(measured_batches(images, HOW, batch_size=8))
        assert [len(labels) for _, labels, _ in found] == [8, 8, 5]
        assert torch.equal(torch.cat([i for *_, i in found]), torch.arange(21))
        assert torch.equal(torch.cat([x for x, *_ in found]), normalise(fit_to(pixels.images, HOW), HOW))
        shares = [list(measured_batches(images, HOW, rank=rank, world=2)) for rank in range(2)]
        indices = torch.cat([i for share in shares for *_, i in share])
        assert sorted(indices.tolist()) == list(range(21))
    assert list(measured_batches(pixels.subset(torch.tensor([0])), HOW, rank=1, world=2)) == []
