"""A converted network in the form and the format that is deployed."""

from __future__ import annotations

import shutil
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Unpack, get_args

import torch

from spdify.benchmarking import forward_of, paired_seconds, ratio_to
from spdify.bundle import check_output, staged_folder
from spdify.engine import fuse_blocks
from spdify.engine.fusing import BLOCKS
from spdify.errors import CheckFailedError, ExportError, UsageError
from spdify.exporting import (
    BATCH_CHECK,
    HALF_TOLERANCE,
    SIZE_CHECK,
    UNVERIFIED,
    Example,
    OnnxModel,
    OnnxOptions,
    describe,
    export_onnx,
    export_pt2,
    export_python,
    export_ultralytics,
    fixed_size,
    use_native,
)
from spdify.graph.adapters import adapter_of
from spdify.graph.census import take_census
from spdify.graph.structure import detached_copy
from spdify.pipeline.conversion import versions
from spdify.pipeline.converting import PROOF_BATCH
from spdify.pipeline.opening import open_model
from spdify.records import Check, ExportRecord, FusedSite, TimedForm
from spdify.reporting import measure
from spdify.sources import example_inputs
from spdify.verification import choose_level
from spdify.verification.form_proof import FORM_CHECK, prove_form, trained_like

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from spdify.pipeline.opening import Opened
    from spdify.records import OnnxRecord
    from spdify.sources import BuildArguments

Form = Literal["spd", "fused", "space-to-depth"]
Format = Literal["onnx", "pt2", "python", "ultralytics"]
FORMS: tuple[Form, ...] = get_args(Form)
FORMATS: tuple[Format, ...] = get_args(Format)
DTYPES = ("float32", "float16")
EXPORT_FILE = "export.json"
NATIVE = "ONNX's SpaceToDepth, then a convolution without stride"


@dataclass(frozen=True)
class ExportSettings:
    """How a network is exported.

    Attributes:
        form: `spd` as it is; `fused` as strided convolutions, and what nobody trained as it was before;
            `space-to-depth` with ONNX's own operator where a site is dense, fused elsewhere; `auto` the fastest of
            these on this machine. By default `fused`, or `spd` for a file that is trained on.
        format: `onnx`; `pt2`, for `torch.export.load`; `python`, a file with one class, and its weights; `ultralytics`,
            a file (.pt) for the package that a YOLO network comes from.
        dtype: `float32`, or `float16` (ONNX only).
        opset: Of ONNX.
        dynamic_size: Whether height and width stay open; by default, where form and network let them.
        threads: With how many `auto` measures; None for as many as there are cores.
    """

    form: str = ""
    format: str = "onnx"
    dtype: str = "float32"
    opset: int = OnnxOptions.opset
    dynamic_size: bool | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        """Refuse what there is not."""
        if not self.form:
            object.__setattr__(self, "form", "spd" if self.format == "ultralytics" else "fused")
        if self.format == "ultralytics" and self.form != "spd":
            raise UsageError(
                f"cannot write the form {self.form} for ultralytics: its trainer builds networks anew, with blocks",
                hint="Leave out --form; the package's own fuse() and export() give the deployed form.",
            )
        for name, value, known in (
            ("form", self.form, (*FORMS, "auto")),
            ("format", self.format, FORMATS),
            ("dtype", self.dtype, DTYPES),
        ):
            if value not in known:
                raise UsageError(f"cannot export with {name} {value!r}: expected one of {', '.join(known)}")
        if self.format != "onnx" and self.form == "space-to-depth":
            raise UsageError(
                f"cannot write the form space-to-depth as {self.format}: it is an operator of ONNX",
                hint="--form spd moves positions to channels in PyTorch's own words.",
            )
        if self.dynamic_size and self.form in {"spd", "space-to-depth"}:
            raise UsageError(
                f"cannot leave height and width open in the form {self.form}: its blocks divide them",
                hint="--form fused can, where the network itself does.",
            )
        if self.format != "onnx" and self.dtype != "float32":
            raise UsageError(f"cannot write {self.format} in float16: only ONNX", hint="Call .half() on what it gives.")

    @property
    def candidates(self) -> tuple[Form, ...]:
        """Forms to choose from."""
        if self.form != "auto":
            return tuple(form for form in FORMS if form == self.form)
        if self.dynamic_size:  # the others divide height and width
            return ("fused",)
        return ("fused", "spd", "space-to-depth") if self.format == "onnx" else ("fused", "spd")


@dataclass(frozen=True)
class Formed:
    """A network in one form.

    Attributes:
        form: Its name.
        model: The network.
        sites: What each block has become.
    """

    form: str
    model: nn.Module
    sites: tuple[FusedSite, ...] = ()


def make_form(model: nn.Module, form: str) -> Formed:
    """Copy a converted network into a form.

    Args:
        model: Not changed.
        form: `spd`, `fused` or `space-to-depth`.
    """
    twin = detached_copy(model)
    if form == "spd":
        return Formed(form, twin)
    native = use_native(twin) if form == "space-to-depth" else {}
    named = [FusedSite(path=path, block="SPDConv", form=f"{NATIVE}: {block!r}") for path, block in native.items()]
    return Formed(form, twin, (*named, *fuse_blocks(twin)))


def pads_by_size(model: nn.Module) -> str:
    """Give the path of a layer that pads by the size of its input, or learns its own; empty where there is none."""
    for path, module in model.named_modules():
        adapter = adapter_of(module)
        if (
            getattr(module, "margin_mode", "") in {"same", "ceil"}
            or (type(module) in BLOCKS and (hasattr(module, "form") or getattr(module, "by_size", False)))
            or (adapter is not None and adapter.same(module))
        ):
            return str(path)
    return ""


def export(  # noqa: PLR0913 - the options of the command line
    model: str | Path | nn.Module,
    folder: str | Path,
    *,
    settings: ExportSettings | None = None,
    code: str | None = None,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda _: None,
    **build: Unpack[BuildArguments],
) -> ExportRecord:
    """Write a network in the form and the format that is deployed, and compare what was written with it.

    Args:
        model: A folder that spdify wrote; or any other network, in the form `spd`: as it is.
        folder: Where to: `model.onnx`, `model.pt2`, or `model.py` and `weights.safetensors`; and `export.json`.
        settings: Form, format and the rest; defaults where None.
        code: For a bundle of somebody's own network, the source that builds the original.
        overwrite: Whether an earlier export there may be replaced.
        progress: Told, in words, what is being done.
        **build: How to build a source, as for `spdify.convert`.

    Returns:
        Content of `export.json`.

    Raises:
        CheckFailedError: What was written does not compute what the network computes; nothing is left under its name.
        ExportError: The network cannot be written so.
        UsageError: The settings do not go together, or the network has no block that could take another form.
        SpdifyError: The model cannot be opened, or the folder not be written.
    """
    settings = settings or ExportSettings()
    folder = Path(folder)
    check_output(folder, overwrite=overwrite, marker=EXPORT_FILE, kind=ExportRecord)
    progress("opening the model")
    opened = open_model(model, code=code, **build)
    network = opened.model.float().cpu().eval()
    whole = choose_level("auto", measure(network, take_census(network, opened.inputs, mode="eval"))) == "model"
    with staged_folder(folder, overwrite=overwrite, marker=EXPORT_FILE, kind=ExportRecord) as stage:
        made = []
        for form in settings.candidates:
            progress(f"writing {settings.format}, form {form}")
            place = stage / f".{form}"
            place.mkdir()
            made.append(_Export(opened, network, settings, whole=whole).write(form, place))
            _require_passed(made[-1])
        chosen = made[0]
        timings: tuple[TimedForm, ...] = ()
        if len(made) > 1:
            progress("timing the forms")
            timings = _timed(made, stage, opened, network, settings)
            fastest = min(timings, key=lambda timing: timing.milliseconds or 0.0).form
            chosen = next(record for record in made if record.form == fastest)
        for path in sorted((stage / f".{chosen.form}").iterdir()):
            path.rename(stage / path.name)
        for form in settings.candidates:
            shutil.rmtree(stage / f".{form}")
        record = chosen.model_copy(update={"timings": timings, "threads": settings.threads if timings else None})
        (stage / EXPORT_FILE).write_text(record.model_dump_json(indent=2), encoding="utf-8")
    return record


@dataclass(frozen=True)
class _Export:
    """One network on its way into one format."""

    opened: Opened
    network: nn.Module
    settings: ExportSettings
    whole: bool

    @property
    def seed(self) -> int:
        return self.opened.record.seed if self.opened.record else 0

    def inputs(self, batch: int, dtype: torch.dtype | None = None) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Give example inputs."""
        return example_inputs(self.opened.inputs, batch=batch, seed=self.seed, dtype=dtype)

    def proof_inputs(self, dtype: torch.dtype) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Give the inputs of a proof."""
        return self.inputs(PROOF_BATCH, dtype)

    def write(self, form: Form, place: Path) -> ExportRecord:
        """Write one form to a folder of its own, and compare."""
        formed = make_form(self.network, form)
        if form != "spd" and not formed.sites:
            raise UsageError(
                f"cannot export {self.opened.source.name} {form}: it has no block that could take another form",
                hint="Convert it first (`spdify convert`), or write it as it is: --form spd.",
            )
        checks = () if form == "spd" else (self._proof(form),)
        options = OnnxOptions(
            opset=self.settings.opset, seed=self.seed, metadata=self._metadata(), half=self.settings.dtype == "float16",
            # Moving positions to channels fixes the size.
            dynamic_size=form == "fused" and self.settings.dynamic_size is not False,
        )  # fmt: skip
        if options.dynamic_size and (fixing := pads_by_size(formed.model)):
            # The sizes of such layers' outputs grow into ever longer formulas: a trace of them need not end.
            checks = (*checks, fixed_size(f"{fixing} pads by the size of its input, or learns its own"))
            options = replace(options, dynamic_size=False)
        if options.half:
            options = replace(options, tolerance=HALF_TOLERANCE)
        written, files, opset = self._files(formed, place, options)
        checks = (*checks, *written)
        self._require_open_size(checks)
        names = {check.name for check in checks if check.outcome == "passed"}
        if self.settings.format == "ultralytics":  # a module, as it was
            names |= {BATCH_CHECK, SIZE_CHECK}
        record = self.opened.record
        return ExportRecord(
            model=self.opened.source.name, form=form, format=self.settings.format, dtype=self.settings.dtype,
            files=files, inputs=self.opened.inputs, dynamic_batch=BATCH_CHECK in names,
            dynamic_size=SIZE_CHECK in names, opset=opset, sites=formed.sites, checks=checks,
            preprocessing=record.preprocessing if record else None, classes=record.classes if record else (),
            source=self.opened.source, versions=versions(),
        )  # fmt: skip

    def _require_open_size(self, checks: tuple[Check, ...]) -> None:
        """Insist on open height and width where they were asked for; by default they are open where they can be."""
        size = next((check for check in checks if check.name == SIZE_CHECK and check.outcome != "passed"), None)
        if self.settings.dynamic_size and size is not None:
            raise ExportError(
                f"cannot leave height and width of {self.opened.source.name} open: {size.detail}",
                hint="Leave out --dynamic-size.",
            )

    def _proof(self, form: Form) -> Check:
        if not self.whole:
            return Check(name=FORM_CHECK, outcome="not run", detail="the network is too large")
        return prove_form(self.network, lambda net: make_form(net, form).model, self.proof_inputs, seed=self.seed)

    def _metadata(self) -> Mapping[str, str]:
        record = self.opened.record
        return describe(record.preprocessing, record.classes) if record else {}

    def _files(
        self, formed: Formed, place: Path, options: OnnxOptions
    ) -> tuple[tuple[Check, ...], tuple[str, ...], int | None]:
        """Write the files; give checks, names and opset."""
        if self.settings.format == "onnx":
            record = self._onnx(formed, place, options)
            return record.checks, tuple(sorted(path.name for path in place.iterdir())), record.opset
        if self.settings.format == "pt2":
            files, checks = export_pt2(
                formed.model, place, make_inputs=self.inputs, reference=self.network, options=options
            )
        elif self.settings.format == "ultralytics":
            files, checks = export_ultralytics(formed.model, place, make_inputs=self.inputs, options=options)
        else:
            title = f"{self.opened.source.name}, form {formed.form}"
            files, checks = export_python(
                formed.model, place, make_inputs=self.inputs, reference=self.network, options=options, title=title
            )
        return tuple(checks), files, None

    def _onnx(self, formed: Formed, place: Path, options: OnnxOptions) -> OnnxRecord:
        """Write ONNX, compared on its own weights and on random ones."""
        perturbed = None
        if self.whole:
            perturbed = trained_like(formed.model, self.proof_inputs, seed=self.seed).state_dict()
        return export_onnx(
            formed.model, place, make_inputs=self.inputs, reference=self.network, perturbed=perturbed, options=options
        )


def _require_passed(record: ExportRecord) -> None:
    """Insist that nothing failed, and that something was compared with what was written."""
    bad = [check for check in record.checks if check.outcome == "failed"]
    compared = [c for c in record.checks if c.outcome == "passed" and c.value is not None and c.name != FORM_CHECK]
    if bad or not compared or UNVERIFIED in record.files:
        words = "; ".join(f"{c.name}: {c.detail or c.value}" for c in bad or record.checks if c.outcome != "passed")
        raise CheckFailedError(
            f"the {record.form} form of {record.model} as {record.format} does not pass: {words}",
            hint="Nothing was written. Try another --form, or report it.",
        )


def _timed(
    made: list[ExportRecord], stage: Path, opened: Opened, network: nn.Module, settings: ExportSettings
) -> tuple[TimedForm, ...]:
    """Time what was written, batch 1, side by side."""
    args, kwargs = example_inputs(opened.inputs, batch=1, seed=0)
    calls: dict[str, Callable[[], object]] = {}
    for record in made:
        place = stage / f".{record.form}"
        if settings.format == "onnx":
            calls[record.form] = OnnxModel(place / record.files[0], threads=settings.threads).runner(
                Example(args, kwargs)
            )
        else:
            calls[record.form] = forward_of(make_form(network, record.form).model, *args, **kwargs)
    before = torch.get_num_threads()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    try:
        times = paired_seconds(calls)
    finally:
        torch.set_num_threads(before)
    first = times[made[0].form]
    return tuple(
        TimedForm(
            form=form, milliseconds=1000 * statistics.median(found), ratio=None if i == 0 else ratio_to(first, found)
        )
        for i, (form, found) in enumerate(times.items())
    )
