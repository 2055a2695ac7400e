"""How fast a network is in each form, side by side in one run."""

from __future__ import annotations

import platform
import statistics
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Unpack, get_args

import torch
from torch import nn

from spdify.benchmarking import forward_of, paired_seconds, ratio_to
from spdify.benchmarking.released import RULES, slice_blocks
from spdify.engine import apply, plan_model
from spdify.errors import ExportError, NothingToConvertError, SpdifyError, TraceError, UsageError
from spdify.exporting import Example, OnnxModel, OnnxOptions, write_unchecked
from spdify.graph import survey
from spdify.graph.structure import detached_copy
from spdify.pipeline.conversion import versions
from spdify.pipeline.converting import PROOF_BATCH
from spdify.pipeline.exporting import make_form
from spdify.pipeline.opening import build_original, open_model
from spdify.records import BenchRecord, TimedForm
from spdify.rulebook import load_rules, with_overrides
from spdify.rulebook.parsing import parse_rulebook
from spdify.sources import build_structure, example_inputs, fold_branches
from spdify.verification.form_proof import trained_like

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    from spdify.pipeline.opening import Opened
    from spdify.sources import BuildArguments

Contestant = Literal["original", "converted", "fused", "space-to-depth", "released"]
CONTESTANTS: tuple[Contestant, ...] = get_args(Contestant)
BACKENDS, DEVICES = ("torch", "ort"), ("auto", "cpu", "cuda")
WORDS: dict[str, str] = {
    "original": "before the conversion",
    "converted": "SPD-Conv as it is trained",
    "fused": "strided convolutions",
    "space-to-depth": "ONNX's own operator, fused elsewhere",
    "released": "slices, concatenation, odd kernels, dense shortcuts; pools as they were",
}


@dataclass(frozen=True)
class BenchSettings:
    """What is timed, and how.

    Attributes:
        forms: Of `original`, `converted`, `fused`, `space-to-depth`, `released`; the others' ratios are to the first.
        backend: `torch` or `ort` (ONNX Runtime).
        threads: How many; None for as many as there are cores.
        batch: Images of one call.
        device: `cpu`, `cuda`, or `auto`: a GPU where there is one.
        channels_last: Memory format of weights and inputs (torch).
        compiled: Whether networks go through `torch.compile`.
        rounds: Turns; each lasts a fifth of a second or one call.
        as_is: Weights as they are. Otherwise every weight is moved, as training would, so that nothing folds back.
        rules: Rulebooks, for a model that is not converted yet.
        overrides: `rule.param=value` items.
    """

    forms: tuple[str, ...] = ("original", "converted", "fused", "released")
    backend: str = "torch"
    threads: int | None = None
    batch: int = 1
    device: str = "auto"
    channels_last: bool = False
    compiled: bool = False
    rounds: int = 9
    as_is: bool = False
    rules: tuple[str, ...] = ("spd",)
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what there is not."""
        chosen = ("form", self.forms, CONTESTANTS), ("backend", (self.backend,), BACKENDS)
        for name, values, known in (*chosen, ("device", (self.device,), DEVICES)):
            if unknown := [value for value in values if value not in known]:
                raise UsageError(f"cannot time with {name} {unknown[0]!r}: expected {', '.join(known)}")
        if not self.forms or len(set(self.forms)) < len(self.forms):
            raise UsageError("cannot time these forms: expected at least one, and each once")
        if self.backend == "ort" and (self.compiled or self.channels_last):
            raise UsageError("cannot use --torchcompile or --channels-last with ONNX Runtime: they are PyTorch's")
        if self.backend == "torch" and "space-to-depth" in self.forms:
            raise UsageError("cannot time the form space-to-depth in PyTorch: it is an operator of ONNX")
        if self.device == "cuda" and self.backend == "torch" and not torch.cuda.is_available():
            raise UsageError("cannot time on CUDA: PyTorch finds no GPU here", hint="Leave out --device.")


def bench(
    model: str | Path | nn.Module,
    *,
    settings: BenchSettings | None = None,
    code: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
    **build: Unpack[BuildArguments],
) -> BenchRecord:
    """Time a network in several forms, in turns (A, B, C, A, B, C, …), in one run.

    Args:
        model: A folder that spdify wrote, or any model, which is converted first (nothing is proved).
        settings: What is timed, and how; defaults where None.
        code: For a bundle of somebody's own network, the source that builds the original.
        progress: Told, in words, what is being done.
        **build: How to build a source, as for `spdify.convert`.

    Returns:
        Milliseconds of each form, and its ratio to the first: median and quartiles over the rounds.

    Raises:
        NothingToConvertError: The rules replace nothing.
        UsageError: The settings do not go together.
        SpdifyError: The model cannot be opened or converted.
    """
    settings = settings or BenchSettings()
    progress("opening the model")
    opened = open_model(model, code=code, **build)
    device = _device(settings)
    threads = torch.get_num_threads()
    networks: dict[str, nn.Module] = {}
    notes: dict[str, str] = {}
    makers = _Makers(opened, settings, code)
    if makers.is_converted and (settings.rules != BenchSettings.rules or settings.overrides):
        raise UsageError(
            f"cannot use rules with {opened.source.name}: it is converted already", hint="Leave out --rules and --set."
        )
    for form in settings.forms:
        progress(f"making the form {form}")
        try:
            networks[form] = makers.make(form)
        except SpdifyError as fault:
            if form == settings.forms[0] or (isinstance(fault, NothingToConvertError) and form != "released"):
                raise
            notes[form] = fault.message
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    try:
        with tempfile.TemporaryDirectory(prefix="spdify-bench-") as scratch:
            calls = _calls(networks, opened, settings, device, Path(scratch), notes, progress)
            progress("timing")
            times = paired_seconds(calls, rounds=settings.rounds)
    finally:
        torch.set_num_threads(threads)
    return BenchRecord(
        model=opened.source.name, backend=settings.backend, device=device, machine=_machine(device),
        threads=settings.threads or threads, batch=settings.batch, inputs=opened.inputs,
        channels_last=settings.channels_last, compiled=settings.compiled, rounds=settings.rounds, as_is=settings.as_is,
        timings=_rows(settings.forms, times, notes), versions=versions(),
    )  # fmt: skip


def _device(settings: BenchSettings) -> str:
    if settings.device == "auto":
        return "cuda" if settings.backend == "torch" and torch.cuda.is_available() else "cpu"
    return settings.device


def _machine(device: str) -> str:
    """Say what computes, as far as the system tells."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


@dataclass
class _Makers:
    """Makes each form of one network, from one set of weights."""

    opened: Opened
    settings: BenchSettings
    code: str | None
    _converted: nn.Module | None = None
    _original: nn.Module | None = None

    def make(self, form: str) -> nn.Module:
        """Give the network in one form, in eval mode."""
        if form == "original":
            return self.original().eval()
        if form == "released":
            return self.released().eval()
        network = self.converted()
        return network if form == "converted" else make_form(network, form).model.eval()

    @property
    def is_converted(self) -> bool:
        """Whether it was converted before."""
        return any(plan.applied for plan in self.opened.plans)

    def original(self) -> nn.Module:
        """Give the network before the first plan that replaced anything."""
        if self._original is None:
            self._original = self._before()
        return self._original

    def _before(self) -> nn.Module:
        record = self.opened.record
        if record is None:
            return self.opened.model
        if record.source.is_registry:
            network = build_structure(record.source, device="cpu")
        elif self.code is not None:
            network = build_original(self.code, record)
            if record.source.reparameterized:
                network = fold_branches(network, name=record.source.spec)
        else:  # open_model has asked for the code already
            raise UsageError(f"cannot build {record.source.spec}: it is code of your own", hint="Give it by --code.")
        for plan in record.plans:
            if plan.applied:
                break
            network = apply(network, plan)
        return network

    def converted(self) -> nn.Module:
        """Give the converted network, its weights moved unless they are to stay."""
        if self._converted is None:
            network = self.opened.model if self.is_converted else self._convert(self.opened.model)
            self._converted = self._moved(network)
        return self._converted

    def _convert(self, model: nn.Module) -> nn.Module:
        rulebook = with_overrides(load_rules(self.settings.rules), self.settings.overrides)
        inputs = self.opened.inputs
        plan = plan_model(model, survey(model, inputs, rulebook.kinds), rulebook, inputs=inputs)
        if not plan.applied:
            raise NothingToConvertError(f"nothing to convert in {self.opened.source.name} with {plan.rulebook}")
        return apply(model, plan)

    def released(self) -> nn.Module:
        """Give the network with SPD-Convs as people have them today."""
        original, inputs = self.original(), self.opened.inputs
        rulebook = parse_rulebook(RULES, name="released", file="the released form")
        plan = plan_model(original, survey(original, inputs), rulebook, inputs=inputs)
        network = apply(original, plan) if plan.applied else detached_copy(original)
        if not slice_blocks(network):
            raise NothingToConvertError("no strided convolution that is dense or depthwise, with zero padding")
        return self._moved(network)

    def _moved(self, network: nn.Module) -> nn.Module:
        if self.settings.as_is:
            return network.eval()
        with _running(self.opened):
            return trained_like(
                network,
                lambda dtype: example_inputs(self.opened.inputs, batch=PROOF_BATCH, seed=0, dtype=dtype),
                seed=0,
            )


def _calls(  # noqa: PLR0913 - what is run, on what, where
    networks: Mapping[str, nn.Module],
    opened: Opened,
    settings: BenchSettings,
    device: str,
    scratch: Path,
    notes: dict[str, str],
    progress: Callable[[str], None],
) -> dict[str, Callable[[], object]]:
    """Give a call for each form."""
    calls: dict[str, Callable[[], object]] = {}
    for form, network in networks.items():
        if settings.backend == "torch":
            calls[form] = _by_torch(network, opened, settings, device)
            continue
        progress(f"exporting {form}")
        try:
            calls[form] = _by_onnx_runtime(network, opened, settings, device, scratch / form)
        except ExportError as fault:
            if form == settings.forms[0]:
                raise
            notes[form] = fault.message
    return calls


def _by_onnx_runtime(
    network: nn.Module, opened: Opened, settings: BenchSettings, device: str, folder: Path
) -> Callable[[], object]:
    path = write_unchecked(
        network, folder, make_inputs=partial(_inputs, opened), batch=settings.batch, opset=OnnxOptions.opset
    )
    session = OnnxModel(path, threads=settings.threads, device=device)
    return session.runner(Example(*_inputs(opened, settings.batch)))


def _by_torch(network: nn.Module, opened: Opened, settings: BenchSettings, device: str) -> Callable[[], object]:
    args, kwargs = _inputs(opened, settings.batch)
    layout = torch.channels_last if settings.channels_last else torch.preserve_format
    moved = network.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    inputs = [x.to(device) for x in args]
    if settings.channels_last:
        inputs = [x.contiguous(memory_format=layout) if x.dim() == 4 else x for x in inputs]  # noqa: PLR2004 - images
    ready: nn.Module = torch.compile(moved) if settings.compiled else moved  # type: ignore[assignment]
    call = forward_of(ready, *inputs, **{name: x.to(device) for name, x in kwargs.items()})
    with _running(opened):
        call()
    return call


@contextmanager
def _running(opened: Opened) -> Iterator[None]:
    """Tell in words that a network cannot be run on the inputs that are said to be its own."""
    try:
        yield
    except SpdifyError:
        raise
    except Exception as error:  # whatever the network's own code raises
        raise TraceError(
            f"cannot run {opened.source.name} on its example inputs: {type(error).__name__}: {error}",
            hint="Give a size that it takes (--input-size), or convert it again.",
        ) from error


def _inputs(opened: Opened, batch: int) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    return example_inputs(opened.inputs, batch=batch, seed=0)


def _rows(
    forms: Sequence[str], times: Mapping[str, Sequence[float]], notes: Mapping[str, str]
) -> tuple[TimedForm, ...]:
    """Give a row for each form, also where it could not be timed."""
    first = times[forms[0]]
    rows = []
    for form in forms:
        if form not in times:
            rows.append(TimedForm(form=form, note=f"not timed: {notes[form]}"))
            continue
        ratio = None if form == forms[0] else ratio_to(first, times[form])
        ms = 1000 * statistics.median(times[form])
        rows.append(TimedForm(form=form, milliseconds=ms, ratio=ratio, note=WORDS[form]))
    return tuple(rows)
