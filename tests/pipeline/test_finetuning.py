from __future__ import annotations

import csv
import errno
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import spdify
from spdify.bundle import locking, read_record, read_report
from spdify.bundle import writing as bundle_writing
from spdify.datasets import DataOptions
from spdify.errors import BundleError, DataError, ExportError, TrainingError, UsageError
from spdify.pipeline.converting import ConversionSettings
from spdify.pipeline.evaluating import evaluate
from spdify.pipeline.finetuning import finetune, resume
from spdify.pipeline.progress import Progress
from spdify.pipeline.run_settings import TrainingSettings
from spdify.pipeline.studying import Study, run_study
from spdify.records import EpochResult, Machine, TrainingResult
from spdify.training import Trainer, make_recipe
from tests.pipeline.training_networks import tiny

if TYPE_CHECKING:
    from spdify.records import Recipe

RECIPE = make_recipe("finetune", {"epochs": 3, "batch_size": 64, "lr": 0.002}, ["new_lr_factor=2"])
NOTHING = ConversionSettings(rules="none")


def settings(recipe: Recipe = RECIPE, **changes: object) -> TrainingSettings:
    return replace(TrainingSettings(recipe=recipe, machine=Machine(device="cpu"), onnx=False), **changes)  # type: ignore[arg-type]


def train(output: Path, *, training: TrainingSettings | None = None, **options: object) -> TrainingResult:
    model = options.pop("model", None) or tiny()
    return finetune(model, output, **{"data": "digits", "training": training or settings(), **options})  # type: ignore[arg-type]


class Killed(BaseException):
    """Stands for a process that is gone."""


def killed_after(epoch: int) -> Progress:
    def stop(result: EpochResult, _: int) -> None:
        if result.epoch == epoch:
            raise Killed

    return Progress(epoch=stop)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def equal(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainingResult]:
    """Give a run that was not cut off, of the converted network, with ONNX."""
    folder = tmp_path_factory.mktemp("run") / "whole"
    return folder, train(folder, training=settings(onnx=True), model=seeded())


def seeded() -> torch.nn.Module:
    torch.manual_seed(0)
    return tiny()


def test_the_run_folder(whole: tuple[Path, TrainingResult]) -> None:
    folder, result = whole
    names = {path.name for path in folder.iterdir() if path.name != locking.LOCK}
    assert names == {
        "run.json", "train.log", "start", "last", "best", "state.safetensors", "results.csv", "curves.svg",
        "report.html", "result.json", "scores.safetensors",
    }  # fmt: skip
    with (folder / "results.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    best = max(rows, key=lambda row: float(row["validation_top1"]))
    assert int(best["epoch"]) == result.best_epoch
    assert "<svg" in (folder / "curves.svg").read_text()
    assert TrainingResult.model_validate_json((folder / "result.json").read_text()) == result
    assert result.split == "test"
    assert result.chosen_by == "validation"
    assert result.evaluation.images == 359


def test_the_page_of_a_run(whole: tuple[Path, TrainingResult]) -> None:
    folder, result = whole
    page = (folder / "report.html").read_text()
    assert f"{result.evaluation.top1:.2%}" in page
    assert (folder / "curves.svg").read_text().strip() in page
    assert "no longer computes what the original does" in page
    right = [int(number) for number in re.findall(r'class="number right".*?>(\d+)</td>', page)]
    wrong = [int(number) for number in re.findall(r'class="number wrong".*?>(\d+)</td>', page)]
    assert (len(right), len(wrong)) == (10, 90)
    assert sum(right) / sum(right + wrong) == result.evaluation.top1
    for link in re.findall(r'href="([^"#]+)"', page):
        assert (folder / link).is_file()


def test_the_bundles_say_what_they_are(whole: tuple[Path, TrainingResult]) -> None:
    folder, result = whole
    record = read_record(folder / "best")
    (training,) = record.trainings
    assert training.epoch == result.best_epoch
    assert training.test == result.evaluation
    assert training.validation is not None
    assert training.data.classes == record.classes == tuple("0123456789")
    assert training.preprocessing.mean == (0.3058,) * 3  # the digits' own
    assert training.plans == len(record.plans) == 1
    config = json.loads((folder / "best" / "config.json").read_text())
    assert config["label_names"] == list("0123456789")
    assert config["pretrained_cfg"]["mean"] == [0.3058] * 3
    assert read_record(folder / "last").trainings[0].epoch == 3
    assert read_record(folder / "last").trainings[0].test is None
    card = (folder / "best" / "README.md").read_text()
    assert f"epoch {result.best_epoch} of 3" in card
    assert "no longer computes what the original does" in card
    assert "Trained on" not in (folder / "start" / "README.md").read_text()
    assert read_report(folder / "best").checks


def test_evaluate_gives_the_same_from_torch_and_onnx(whole: tuple[Path, TrainingResult]) -> None:
    folder, result = whole
    code = f"{Path(__file__).with_name('training_networks.py')}:tiny"
    cpu = Machine(device="cpu")
    found = evaluate(folder / "best", data="digits", code=code, machine=cpu)
    assert found.evaluation == result.evaluation
    assert found.preprocessing_from == "as it was trained"
    onnx = evaluate(folder / "best" / "model.onnx", data="digits", machine=cpu)
    assert onnx.backend == "onnxruntime"
    assert onnx.preprocessing == found.preprocessing
    assert onnx.preprocessing_from == "as the file says"
    assert onnx.confusion == found.confusion
    assert onnx.evaluation.top1 == result.evaluation.top1
    assert onnx.evaluation.loss == pytest.approx(result.evaluation.loss, rel=1e-4)


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(
    epoch: int, whole: tuple[Path, TrainingResult], tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        train(tmp_path / "cut", model=seeded(), progress=killed_after(epoch))
    assert not (tmp_path / "cut" / "result.json").exists()
    torch.manual_seed(1234)
    notes: list[str] = []
    result = resume(tmp_path / "cut", model=tiny(), progress=Progress(note=notes.append))
    assert notes == [f"resumed after epoch {epoch} of 3"]
    for name in ("last", "best"):
        assert equal(tmp_path / "cut" / name, whole[0] / name)
    assert result.evaluation == whole[1].evaluation
    assert f"{result.evaluation.top1:.2%}" in (tmp_path / "cut" / "report.html").read_text()
    assert resume(tmp_path / "cut") == result  # it has come to its end


def test_nothing_is_left_of_what_a_killed_run_was_writing(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(tmp_path / "cut", progress=killed_after(2))
    (tmp_path / "cut" / ".spdify.x.partial").mkdir()
    (tmp_path / "cut" / ".spdify.state.safetensors").write_bytes(b"torn")
    resume(tmp_path / "cut", model=tiny())
    assert not list((tmp_path / "cut").glob(".spdify*"))


def test_it_begins_with_the_function_of_the_original(whole: tuple[Path, TrainingResult]) -> None:
    start = spdify.load(whole[0] / "start", model=tiny())
    x = torch.randn(2, 3, 32, 32)
    assert torch.allclose(start(x), seeded().eval()(x), atol=1e-5)


def test_trained_as_it_is_without_rules(tmp_path: Path) -> None:
    result = train(tmp_path / "run", conversion=NOTHING, training=settings(onnx=True))
    record = read_record(tmp_path / "run" / "best")
    assert record.plans == ()
    assert record.proof == "none"
    network = spdify.load(tmp_path / "run" / "best", model=tiny())
    assert isinstance(network[0], torch.nn.Conv2d)  # type: ignore[index]
    assert result.cost.params == sum(p.numel() for p in tiny().parameters())
    assert "not converted" in (tmp_path / "run" / "best" / "README.md").read_text()


@pytest.mark.slow
def test_registry_models_need_nobody_s_code(tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"epochs": 1})
    with pytest.raises(Killed):
        train(tmp_path / "run", model="test_resnet", training=settings(recipe), progress=killed_after(1))
    resume(tmp_path / "run")
    best = spdify.load(tmp_path / "run" / "best")
    assert best.num_classes == 10
    measured = evaluate(tmp_path / "run" / "best", data="digits", machine=Machine(device="cpu"))
    assert measured.preprocessing_from == "as it was trained"
    assert sum(map(sum, measured.confusion)) == 359
    # A trained bundle is trained further, and converted further.
    again = train(tmp_path / "more", model=tmp_path / "run" / "best", training=settings(recipe))
    assert len(read_record(tmp_path / "more" / "best").trainings) == 2
    assert again.model == str(tmp_path / "run" / "best")
    with pytest.raises(spdify.SpdifyError, match="nothing to convert"):
        spdify.convert(tmp_path / "run" / "best")


def test_the_classifier_follows_the_data(tmp_path: Path) -> None:
    notes: list[str] = []
    recipe = RECIPE.model_copy(update={"epochs": 1})
    train(tmp_path / "run", model=tiny(num_classes=3), training=settings(recipe), progress=Progress(note=notes.append))
    assert notes == ["classifier replaced (10): 3 outputs before, 10 now, with random weights"]
    record = read_record(tmp_path / "run" / "best")
    assert [len(plan.heads) for plan in record.plans] == [1, 0]
    network = spdify.load(tmp_path / "run" / "best", model=tiny(num_classes=3))
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_a_bundle_is_trained_as_it_stands(tmp_path: Path) -> None:
    conversion = spdify.convert("test_resnet", input_size=(3, 32, 32))
    conversion.save(tmp_path / "bundle", onnx=False)
    notes: list[str] = []
    train(
        tmp_path / "run", model=tmp_path / "bundle", training=settings(RECIPE.model_copy(update={"epochs": 1})),
        progress=Progress(note=notes.append),
    )  # fmt: skip
    assert notes == ["classifier replaced (fc): 1000 outputs before, 10 now, with random weights"]
    record = read_record(tmp_path / "run" / "best")
    assert [plan.rulebook for plan in record.plans] == ["spd", "classifier"]
    assert spdify.load(tmp_path / "run" / "best")(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_a_loss_that_is_no_number_leaves_the_last_good_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    networks: list[torch.nn.Module] = []

    class Watched(Trainer):
        def __init__(self, network: torch.nn.Module, *args: Any, **options: Any) -> None:  # noqa: ANN401
            networks.append(network)
            super().__init__(network, *args, **options)

    def explode(epoch: int, _: int, step: int, *__: object) -> None:
        if (epoch, step) == (2, 1):
            torch.nn.init.constant_(networks[0].get_parameter("0.weight"), torch.nan)

    monkeypatch.setattr("spdify.pipeline.running.Trainer", Watched)
    with pytest.raises(TrainingError, match="the loss became nan in epoch 2"):
        train(tmp_path / "run", progress=Progress(batch=explode))
    assert all(t.isfinite().all() for t in weights(tmp_path / "run" / "last").values())
    assert read_record(tmp_path / "run" / "last").trainings[0].epoch == 1
    resume(tmp_path / "run", model=tiny())
    assert read_record(tmp_path / "run" / "last").trainings[0].epoch == 3


def test_a_full_disk_leaves_the_epoch_before(
    tmp_path: Path, whole: tuple[Path, TrainingResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = bundle_writing.serialize_file, []

    def full(*args: object, **kwargs: object) -> None:
        calls.append(1)
        if len(calls) == 4:  # start, best and last of the first epoch, then the best of the second
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(bundle_writing, "serialize_file", full)
    with pytest.raises(BundleError, match="no space left"):
        train(tmp_path / "run", model=seeded())
    assert read_record(tmp_path / "run" / "last").trainings[0].epoch == 1
    monkeypatch.undo()
    resume(tmp_path / "run", model=tiny())
    assert equal(tmp_path / "run" / "last", whole[0] / "last")


def test_without_validation_the_last_epoch_is_the_best(tmp_path: Path) -> None:
    result = train(tmp_path / "run", data_options=DataOptions(validation_share=0))
    assert (result.chosen_by, result.best_epoch) == ("last epoch", 3)
    assert equal(tmp_path / "run" / "best", tmp_path / "run" / "last")
    assert (tmp_path / "run" / "results.csv").read_text().splitlines()[1].count(",,") >= 1


def test_refusals_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("")
    with pytest.raises(BundleError, match="not empty"):
        train(tmp_path / "full")
    with pytest.raises(BundleError, match=r"spdify did not write it \(it has no such run.json\)"):
        train(tmp_path / "full", overwrite=True)
    with pytest.raises(UsageError, match="cannot track with 'mlflow'"):
        settings(track=("mlflow",))
    for changes, words in (
        ({"batch_size": 4096}, "cannot take batches of 4096 from 1295"),
        ({"optimizer": "nosuch"}, "cannot make the optimizer"),
        ({"aa": "nonsense"}, "cannot augment by"),
        ({"batch_size": 63, "mixup": 0.2}, "odd size"),
    ):
        with pytest.raises(UsageError, match=words):
            train(tmp_path / "new", training=settings(RECIPE.model_copy(update=changes)))
    with pytest.raises(UsageError, match="3 channels by 2 means"):
        train(tmp_path / "new", training=settings(mean=(0.5, 0.5), std=(1.0, 1.0)))
    with pytest.raises(UsageError, match="cannot normalise"):
        train(tmp_path / "new", training=settings(std=(1.0, 0.0, 1.0)))
    assert not (tmp_path / "new").exists()


def test_paths_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"o\xff")
    with pytest.raises(UsageError, match=r"o\ufffd.*: its name is not UTF-8"):
        train(odd)
    with pytest.raises(UsageError, match=r"o\ufffd.*: its name is not UTF-8"):
        train(tmp_path / "run", data=f"imagefolder:{odd}")
    with pytest.raises(UsageError, match=r"o\ufffd.*: its name is not UTF-8"):
        run_study(Study(model=str(odd / "net.py:make"), data="digits", recipe=RECIPE), tmp_path / "study")
    assert not list(tmp_path.iterdir())


def test_resume_refuses_what_would_not_be_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BundleError, match=r"cannot read .*run\.json"):
        resume(tmp_path)
    with pytest.raises(Killed):
        train(tmp_path / "run", progress=killed_after(1))
    with pytest.raises(UsageError, match="code of your own"):
        resume(tmp_path / "run")
    with pytest.raises(UsageError, match="is a bundle of a run"):
        resume(tmp_path / "run" / "last")
    with locking.locked(tmp_path / "run"), pytest.raises(UsageError, match="another run is writing"):
        resume(tmp_path / "run", model=tiny())
    monkeypatch.setattr("spdify.datasets.opening.TEST_SHARE", 0.3)
    with pytest.raises(DataError, match="digits is not what it was"):
        resume(tmp_path / "run", model=tiny())


def test_a_tracker_is_not_told_because_a_run_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr("accelerate.Accelerator.init_trackers", lambda *args, **_: told.append(args))
    with pytest.raises(Killed):
        train(tmp_path / "run", progress=killed_after(1))
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps(run | {"track": ["wandb", "nosuch"]}))
    notes: list[str] = []
    resume(tmp_path / "run", model=tiny(), progress=Progress(note=notes.append))
    assert not told
    assert notes[0] == "wandb was told of this run, and is not any more: --track wandb tells it again"


def test_the_state_of_another_run_is_refused(tmp_path: Path) -> None:
    for name, width in (("a", 8), ("b", 12)):
        with pytest.raises(Killed):
            train(tmp_path / name, model=tiny(width=width), progress=killed_after(1))
    shutil.copy(tmp_path / "b" / "state.safetensors", tmp_path / "a")
    with pytest.raises(BundleError, match="its state is not of this network"):
        resume(tmp_path / "a", model=tiny())
    (tmp_path / "a" / "state.safetensors").write_bytes(b"torn")
    with pytest.raises(BundleError, match="cannot read"):
        resume(tmp_path / "a", model=tiny())


DAMAGED_STATES = {
    "a number": {"state": "5"},
    "a list": {"state": "[]"},
    "no epoch": {"state": '{"$pairs": [["network", 1]]}'},
    "another format": {"$format": "channels_last_3d"},
    "no history": {"history": "[]"},
    "a loss without end": {"train_loss": float("inf")},
    "an epoch without end": {"epoch": 10**400},
    "a share of more than all": {"validation": {"top1": 1e308}},
}


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a run that was cut off after its first epoch, not to be changed."""
    folder = tmp_path_factory.mktemp("cut") / "run"
    with pytest.raises(Killed):
        train(folder, progress=killed_after(1))
    return folder


@pytest.mark.parametrize("name", DAMAGED_STATES)
def test_a_damaged_state_is_told(name: str, cut: Path, tmp_path: Path) -> None:
    file = shutil.copytree(cut, tmp_path / "run") / "state.safetensors"
    tensors, changes = load_file(file), dict(DAMAGED_STATES[name])
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    metadata |= {key: changes.pop(key) for key in ("state", "history") if key in changes}
    if (format_ := changes.pop("$format", None)) is not None:
        metadata["state"] = metadata["state"].replace('"$format": ""', f'"$format": "{format_}"')
    if changes:
        (first,) = json.loads(metadata["history"])
        inner = changes.pop("validation", {})
        metadata["history"] = json.dumps([first | changes | {"validation": first["validation"] | inner}])
    save_file(tensors, file, metadata=metadata)
    with pytest.raises(BundleError, match=r"state\.safetensors: |its state is not of this network: ."):
        resume(tmp_path / "run", model=tiny())


@pytest.mark.parametrize(
    ("changes", "words"), [({"input_size": [3, 32]}, "expected C,H,W"), ({"mean": [0.5, 0.5]}, "cannot normalise")]
)
def test_preprocessing_of_no_images_is_told(changes: dict[str, object], words: str, cut: Path, tmp_path: Path) -> None:
    file = shutil.copytree(cut, tmp_path / "run") / "run.json"
    run = json.loads(file.read_text())
    file.write_text(json.dumps(run | {"preprocessing": run["preprocessing"] | changes}))
    with pytest.raises(spdify.SpdifyError, match=words):
        resume(tmp_path / "run", model=tiny())


def test_onnx_that_cannot_be_had_ends_the_run_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ExportError("cannot export Tiny to ONNX: no.")

    monkeypatch.setattr("spdify.pipeline.starting.export_onnx", refuse)
    recipe = RECIPE.model_copy(update={"epochs": 1})
    with pytest.raises(ExportError, match="The run is complete all the same"):
        train(tmp_path / "run", training=settings(recipe, onnx=True))
    assert (tmp_path / "run" / "result.json").exists()
    assert read_record(tmp_path / "run" / "best").onnx is None
