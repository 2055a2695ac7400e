from __future__ import annotations

import contextlib
import csv
import fcntl
import os
import shutil
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from safetensors.torch import load_file, save_file

import spdify
from spdify.bundle import locking, read_record
from spdify.errors import BundleError, NothingToConvertError, UsageError
from spdify.pipeline import studying
from spdify.pipeline.clusters import ClusterSettings, TaskEnd
from spdify.pipeline.progress import Progress
from spdify.pipeline.studying import Study, is_study, read_study, resume_study, run_study
from spdify.records import EpochResult, Machine
from spdify.reporting.documents import document_page
from spdify.training import make_recipe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from spdify.pipeline.clusters import Task
    from spdify.reporting.studies import StudyPage

RECIPE = make_recipe("paper-cifar10", {"epochs": 2, "batch_size": 128, "lr": 0.05})
CODE = f"{Path(__file__).with_name('training_networks.py')}:tiny"
STUDY = Study(model=CODE, data="digits", recipe=RECIPE, machine=Machine(device="cpu"), seeds=(0, 1), sizes=(8, 16))


class Killed(BaseException):
    """Stands for a process that is gone."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a study that was cut off in its third run and resumed."""
    place = tmp_path_factory.mktemp("study") / "study"
    seen: list[EpochResult] = []

    def stop(result: EpochResult, _: int) -> None:
        seen.append(result)
        if len(seen) == 5:
            raise Killed

    with pytest.raises(Killed):
        run_study(STUDY, place, progress=Progress(epoch=stop))
    assert is_study(place)
    assert not (place / "report.md").exists()
    notes: list[str] = []
    page = resume_study(place, code=CODE, progress=Progress(note=notes.append))
    assert len(page.runs) == 8
    assert "resumed after epoch 1 of 2" in notes
    return place


def test_what_is_compared_begins_alike(folder: Path) -> None:
    for size in (8, 16):
        for seed in (0, 1):
            both = [folder / "runs" / f"{arm}-{size}-seed{seed}" / "start" for arm in ("converted", "original")]
            first, second = (load_file(start / "model.safetensors") for start in both)
            assert set(second) <= set(first)
            same = [name for name in second if first[name].shape == second[name].shape]
            assert len(same) > len(second) / 2
            assert all((first[name] == second[name]).all() for name in same)


def test_a_study_that_was_cut_off_gives_the_same(folder: Path, tmp_path: Path) -> None:
    one = STUDY.model_copy(update={"seeds": (0,), "sizes": (16,)})
    run_study(one, tmp_path / "study")
    for arm in ("converted", "original"):
        names = [
            place / "runs" / f"{arm}-16-seed0" / "last" / "model.safetensors" for place in (folder, tmp_path / "study")
        ]
        first, second = map(load_file, names)
        assert all((first[name] == second[name]).all() for name in first)
    page = (tmp_path / "study" / "report.md").read_text()
    assert "one seed says nothing more" in page
    assert not (tmp_path / "study" / "sizes.svg").exists()


def test_page_and_tables(folder: Path) -> None:
    page = (folder / "report.md").read_text()
    assert page.startswith(f"# {CODE} on digits")
    assert "95% interval over 2 seeds" in page
    assert "| 8 | " in page
    assert "| parameters | " in page
    assert "epochs 2" in page
    with (folder / "results.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 8
    assert {row["network"] for row in rows} == {"converted", "original"}
    assert {row["split"] for row in rows} == {"test"}
    for name in ("curves-8.svg", "curves-16.svg", "sizes.svg"):
        assert (folder / name).read_text().startswith("<svg")
    assert "±" in (folder / "sizes.svg").read_text()
    pictures = {file.name: file.read_text() for file in folder.glob("*.svg")}
    assert (folder / "report.html").read_text() == document_page(f"{CODE} on digits", page, pictures)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClusterSettings:
    """Give a cluster whose only node is this process, in a folder of its own; this one lies in `here`."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    shutil.copy(CODE.partition(":")[0], tmp_path / "here" / "net.py")
    monkeypatch.chdir(tmp_path / "here")

    def run(tasks: Iterable[Task]) -> Iterator[TaskEnd]:
        for task in tasks:
            with contextlib.chdir(tmp_path / "there"):
                task.run()
            yield TaskEnd(task.name)

    monkeypatch.setattr(studying, "require_reachable", lambda _: None)
    monkeypatch.setattr(studying, "connected", lambda *_: contextlib.nullcontext(SimpleNamespace(nodes=1, run=run)))
    return ClusterSettings(gpus=1)


ONE = STUDY.model_copy(
    update={"model": "net.py:tiny", "contenders": (("spd",),), "compare": False, "seeds": (0,), "sizes": (8,)}
)


def test_nodes_are_told_whole_paths_and_have_the_gpus(elsewhere: ClusterSettings, tmp_path: Path) -> None:
    run_study(ONE, "study", cluster=elsewhere)
    file = Path("study", "study.json")
    file.write_text(file.read_text().replace('"device": "cpu"', '"device": "cuda"'))
    # As if trained on GPUs, which the driver need not have.
    page = resume_study("study", code=ONE.model, cluster=elsewhere)
    assert list(page.starts) == [("spd", 8)]
    assert not list((tmp_path / "there").iterdir())


def test_a_lost_node_is_waited_for_to_let_go_of_its_run(elsewhere: ClusterSettings) -> None:
    def stop(*_: object) -> None:
        raise Killed

    with pytest.raises(Killed):
        run_study(ONE, "study", progress=Progress(epoch=stop))
    (run,) = Path("study", "runs").iterdir()
    lock = os.open(run / locking.LOCK, os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    threading.Timer(locking.PATIENCE_SECONDS + 1, os.close, [lock]).start()
    assert len(resume_study("study", code=ONE.model, cluster=elsewhere).runs) == 1


def test_settings_are_kept(folder: Path) -> None:
    assert read_study(folder) == STUDY
    with pytest.raises(BundleError, match="not empty"):
        run_study(STUDY, folder)


def test_what_cannot_be_opened_replaces_nothing(folder: Path) -> None:
    before = (folder / "report.md").read_text()
    for changes in ({"data": "digts"}, {"model": "no_such_model"}, {"rules": ("nosuch",)}):
        with pytest.raises(spdify.SpdifyError):
            run_study(STUDY.model_copy(update=changes), folder, overwrite=True)
    with locking.locked(folder), pytest.raises(UsageError, match="another run is writing"):
        run_study(STUDY, folder, overwrite=True)
    assert (folder / "report.md").read_text() == before


def test_refusals(tmp_path: Path) -> None:
    spdify.convert("test_resnet", input_size=(3, 32, 32)).save(tmp_path / "bundle", onnx=False)
    with pytest.raises(UsageError, match="a bundle no longer has its weights"):
        run_study(STUDY.model_copy(update={"model": str(tmp_path / "bundle")}), tmp_path / "out")
    with pytest.raises(UsageError, match="cannot compare a network with itself"):
        run_study(STUDY.model_copy(update={"rules": ("none",)}), tmp_path / "out")
    with pytest.raises(UsageError, match="same sizes twice"):
        run_study(STUDY.model_copy(update={"sizes": (8, 8)}), tmp_path / "out")
    with pytest.raises(BundleError, match="cannot read") as caught:
        read_study(tmp_path)
    assert "spdify study" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_runs_of_other_images_are_told(folder: Path, tmp_path: Path) -> None:
    place = shutil.copytree(folder, tmp_path / "study")
    file = place / "runs" / "original-16-seed1" / "scores.safetensors"
    save_file({name: tensor[:-1].contiguous() for name, tensor in load_file(file).items()}, file)
    with pytest.raises(BundleError, match=r"cannot read the scores of .*original-16-seed1: expected 359 images"):
        resume_study(place, code=CODE)
    result = file.with_name("result.json")
    result.write_text(result.read_text().replace('"split": "test"', '"split": "train"'))
    with pytest.raises(BundleError, match="expected 1295 images"):
        resume_study(place, code=CODE)


def left_by_somebody(folder: Path, **changes: object) -> Path:
    folder.mkdir()
    (folder / "study.json").write_text(STUDY.model_copy(update=changes).model_dump_json())
    return folder


def test_code_that_a_study_names_is_not_run(tmp_path: Path) -> None:
    code = tmp_path / "evil.py"
    code.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nmake = None\n")
    for model in (f"{code}:make", "antigravity:geohash"):
        place = left_by_somebody(tmp_path / model.rpartition(":")[2], model=model)
        with pytest.raises(UsageError, match="is code, which would be run") as caught:
            resume_study(place)
        assert f"--code {model}" in caught.value.hint
    assert not (tmp_path / "ran").exists()
    assert "antigravity" not in sys.modules


def test_nothing_is_fetched_because_a_study_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []

    def fetch(model: str, *_: object, build: dict[str, bool], **__: object) -> None:
        asked.append((model, build["pretrained"]))
        raise Killed

    monkeypatch.setattr("spdify.pipeline.studying.finetune", fetch)
    weights = left_by_somebody(tmp_path / "weights", model="test_resnet", pretrained=True)
    with pytest.raises(UsageError, match="weights of test_resnet would be fetched") as caught:
        resume_study(weights)
    assert "--pretrained" in caught.value.hint
    hub = left_by_somebody(tmp_path / "hub", model="hf-hub:some/body")
    with pytest.raises(UsageError, match="hf-hub:some/body would be fetched"):
        resume_study(hub)
    assert not asked
    for resumed in (lambda: resume_study(weights, pretrained=True), lambda: resume_study(hub, code="hf-hub:some/body")):
        with pytest.raises(Killed):
            resumed()
    assert asked == [("test_resnet", True), ("hf-hub:some/body", False)]


CONTEST = STUDY.model_copy(
    update={
        "model": CODE.replace(":tiny", ":staged"), "sizes": (8,), "contenders": (("spd",), ("spd", "cbam")),
        "overrides": ("cbam/gate.reduction=2",), "recipe": make_recipe("paper-cifar10", {"epochs": 1}), "seeds": (0,),
    }
)  # fmt: skip


@pytest.fixture(scope="module")
def contest(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StudyPage]:
    place = tmp_path_factory.mktemp("contest") / "study"
    return place, run_study(CONTEST, place)


def test_a_network_for_each_rulebook(contest: tuple[Path, StudyPage]) -> None:
    folder, page = contest
    assert page.arms == ["spd", "spd+cbam", "original"]
    assert len(page.runs) == 3
    rules = {
        arm: {d.rule for plan in read_record(folder / "runs" / f"{arm}-8-seed0" / "start").plans for d in plan.applied}
        for arm in page.arms
    }
    assert rules == {"spd": {"strided-conv"}, "spd+cbam": {"spd/strided-conv", "cbam/gate"}, "original": set()}
    params = {arm: page.of(arm, 8)[0].result.cost.params for arm in page.arms}
    assert params["spd+cbam"] > params["spd"] > params["original"]
    starts = {round(page.starts[arm, 8], 6) for arm in page.arms}
    assert len(starts) == 1, "what keeps the function keeps the accuracy"


def test_page_of_a_contest(contest: tuple[Path, StudyPage]) -> None:
    folder, page = contest
    text = (folder / "report.md").read_text()
    assert "| network | before | after | difference | parameters | MACs |" in text
    assert all(f"| {arm} | " in text for arm in page.arms)
    assert "Converted with spd, cbam." in text
    assert "2 comparisons: of twenty that make no difference" in text
    for name in ("macs-8.svg", "time.svg"):
        picture = (folder / name).read_text()
        assert picture.count("<circle") == 3
        assert f"]({name})" in text
    assert not list(folder.glob("curves*"))
    with (folder / "results.csv").open() as stream:
        assert {row["network"] for row in csv.DictReader(stream)} == set(page.arms)
    assert read_study(folder) == CONTEST


def test_a_contest_is_resumed(contest: tuple[Path, StudyPage]) -> None:
    folder, page = contest
    again = resume_study(folder, code=CONTEST.model)
    assert [run.result for run in again.runs] == [run.result for run in page.runs]


def test_refusals_of_a_contest(tmp_path: Path) -> None:
    for changes, words in (
        ({"contenders": (("spd",), ("spd",))}, "same rulebooks twice"),
        ({"contenders": (("none",),)}, "cannot compare a network with itself"),
        ({"overrides": ("gate.reduction=2",)}, "expected book/rule.param=value"),
        ({"overrides": ("dcn/gate.reduction=2",)}, "expected book/rule.param=value"),
    ):
        with pytest.raises(UsageError, match=words):
            run_study(CONTEST.model_copy(update=changes), tmp_path / "out")
    with pytest.raises(NothingToConvertError, match=r"with cbam of spd\+cbam: it has no part in a comparison"):
        run_study(CONTEST.model_copy(update={"model": CODE}), tmp_path / "out")
    assert not (tmp_path / "out").exists()
