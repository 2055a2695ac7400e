"""Calibration of a bundle on images without labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from spdify.blocks import SPDConv
from spdify.bundle import check_output, is_bundle, read_record, read_report, read_weights, staged_folder, write_bundle
from spdify.datasets import DataOptions, DataSet, open_data
from spdify.engine import rebuild
from spdify.engine.carrying import as_it_runs
from spdify.engine.places import block_places
from spdify.engine.weight_map import site_weights
from spdify.errors import NothingToConvertError, UsageError
from spdify.pipeline.conversion import require_verified
from spdify.pipeline.evaluating import Normalisation, resolve_preprocessing
from spdify.pipeline.loading import build_converted, load, load_state
from spdify.pipeline.opening import build_original
from spdify.pipeline.starting import export_trained
from spdify.records import Calibration, FittedPool, Inputs, InputSpec, Preprocessing
from spdify.reporting import report_files
from spdify.training import calibrate_norms, fit_pool, measured_batches, output_error, pool_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

    from spdify.datasets import Images
    from spdify.records import BundleRecord, Decision

EXACT_FORMS = {"replace-max-pool": "tournament", "replace-average-pool": "depthwise"}
"""Rewrites of pools with an approximate form of one convolution, and the form that is exact."""

HELD_OUT = 5  # one image of so many is held out
BATCH = 16


@dataclass(frozen=True)
class _Pair:
    """A converted network, and the same with exact pools: the function of the original."""

    network: nn.Module
    reference: nn.Module
    paths: tuple[str, ...]
    not_fitted: dict[str, str]


def calibrate(  # noqa: PLR0913 - a bundle, a data set, and how
    folder: str | Path,
    output: str | Path,
    *,
    data: str | DataSet = "cifar10",
    data_options: DataOptions | None = None,
    normalisation: Normalisation | None = None,
    images: int = 1024,
    pools: bool = True,
    norms: bool | None = None,
    onnx: bool = True,
    overwrite: bool = False,
    code: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Calibration:
    """Fit approximate pools to the original's and take batch-norm statistics anew; no label is looked at.

    The original is the bundle's own network with every approximate pool computed exactly; all other weights stay.
    Pools are fitted in the order of the plan, each with the inputs that those before it now give.

    Args:
        folder: A bundle.
        output: Folder of the calibrated bundle.
        data: Name of a data set, or one that is open; its training images are used.
        data_options: Where it lies and how it is read.
        normalisation: How images become inputs, where the bundle does not say or is to be overruled.
        images: Number of images, of which a fifth is held out to measure errors on.
        pools: Whether pools are fitted.
        norms: Whether statistics are taken anew; by default where something is approximate. Of an exact network they
            are the original's, and new ones move it away.
        onnx: Whether the result is exported.
        overwrite: Whether a bundle that is in `output` may be replaced.
        code: For a bundle of somebody's own network, the source that builds the original.
        progress: Told, in words, what is being done.

    Raises:
        CheckFailedError: The ONNX file does not pass; the bundle is there, with the file under another name.
        NothingToConvertError: There is neither a pool to fit nor a batch norm.
        SpdifyError: The bundle or the data cannot be read, or the folder not be written.
    """
    folder, output = Path(folder), Path(output)
    check_output(output, overwrite=overwrite)
    progress("opening the model")
    if is_bundle(folder / "best"):
        raise UsageError(f"cannot open {folder}: it is a training run", hint=f"Name a bundle of it: {folder}/best.")
    record = read_record(folder)
    original = build_original(code, record) if code is not None else None
    pair = _pair(record, folder, original)
    if (inputs := record.example_inputs) is None or len(inputs.args) != 1:
        raise UsageError(f"cannot calibrate {folder}: its network does not take one batch of images")
    progress("reading the data")
    size = inputs.args[0].shape[1:]
    options = replace(data_options or DataOptions(), channels=size[0])
    dataset = data if isinstance(data, DataSet) else open_data(data, options)
    wanted = normalisation or Normalisation()
    how, _ = resolve_preprocessing(record.preprocessing, "", wanted, wanted.size or size, dataset)
    found = _calibrate(pair, _inputs(dataset, how, images), progress, pools=pools, norms=norms)
    calibration = found.model_copy(
        update={"data": dataset.name, "trainings": len(record.trainings), "plans": len(record.plans)}
    )
    progress("writing, with ONNX" if onnx else "writing")
    _write(folder, output, record, pair.network, calibration, overwrite=overwrite, onnx=onnx)
    return calibration


def _pair(record: BundleRecord, folder: Path, original: nn.Module | None) -> _Pair:
    """Load a bundle twice: as it is, and with its approximate pools made exact.

    An approximate site that cannot be fitted is the same in both.
    """
    network = load(folder, model=original)
    reference = build_converted(record, original, folder, plans=0)
    state = read_weights(folder)
    paths: list[str] = []
    not_fitted: dict[str, str] = {}
    for plan in record.plans:
        decisions = []
        for decision in plan.decisions:
            approximate = decision.action == "applied" and decision.claim and decision.claim.value == "approximate"
            places = block_places(plan).get(decision.site.block_path, ()) if approximate else ()
            reason = _unfit(decision, network, places) if approximate else ""
            if reason == "" and approximate:
                exact = decision.model_copy(update={"params": {"form": EXACT_FORMS[decision.rewrite or ""]}})
                for path in places:
                    made = site_weights(state, as_it_runs(exact, plan), path)
                    state = {n: t for n, t in state.items() if not n.startswith(f"{path}.")}
                    state |= {f"{path}.{name}": tensor for name, tensor in made.items()}
                paths += places
                decisions.append(exact)
                continue
            if reason:
                not_fitted[decision.site.name] = reason
            decisions.append(decision)
        rebuild(reference, plan.model_copy(update={"decisions": tuple(decisions)}))
    load_state(reference, state, where=str(folder))
    return _Pair(network, reference.eval(), tuple(paths), not_fitted)


def _unfit(decision: Decision, network: nn.Module, places: tuple[str, ...]) -> str:
    """Say why an approximate site cannot be fitted; empty where it can."""
    if decision.rewrite not in EXACT_FORMS:
        return f"{decision.rewrite} is not of the form of one convolution in the place of a pool"
    if not all(isinstance(network.get_submodule(path), SPDConv) for path in places):
        return "the pool is called with several channel counts"
    return ""


@dataclass(frozen=True)
class _Inputs:
    """Images as inputs, in batches, the same each time they are asked for."""

    images: Images
    how: Preprocessing

    @property
    def count(self) -> int:
        return len(self.images)

    def __call__(self) -> Iterator[Tensor]:
        return (inputs for inputs, *_ in measured_batches(self.images, self.how, batch_size=BATCH))

    def whole_batches(self) -> Iterator[Tensor]:
        """Leave out a rest that would count as much as a batch, and may be a single image."""
        return (inputs for inputs in self() if len(inputs) == BATCH)


def _inputs(dataset: DataSet, how: Preprocessing, count: int) -> tuple[_Inputs, _Inputs]:
    """Take images evenly from the training split; every fifth is held out."""
    total = len(dataset.train)
    if min(count, total) < 2 * BATCH:
        raise UsageError(f"cannot calibrate on {min(count, total)} images: expected at least {2 * BATCH}")
    chosen = torch.linspace(0, total - 1, min(count, total)).long()
    held = torch.arange(len(chosen)) % HELD_OUT == HELD_OUT - 1
    return _Inputs(dataset.train.subset(chosen[~held]), how), _Inputs(dataset.train.subset(chosen[held]), how)


def _calibrate(
    pair: _Pair, inputs: tuple[_Inputs, _Inputs], progress: Callable[[str], None], *, pools: bool, norms: bool | None
) -> Calibration:
    """Fit, and measure the errors before and after."""
    network, reference, (fitted_to, held_out) = pair.network, pair.reference, inputs
    before = output_error(network, reference, held_out)
    fitted = []
    for path in pair.paths if pools else ():
        progress(f"fitting {path}")
        old = pool_error(network, reference, path, held_out)
        fit_pool(network, reference, path, fitted_to)
        fitted.append(FittedPool(path=path, before=old, after=pool_error(network, reference, path, held_out)))
    after_pools = output_error(network, reference, held_out)
    count = 0
    if norms or (norms is None and (pair.paths or pair.not_fitted)):
        progress("taking the statistics of batch norms anew")
        count = calibrate_norms(network, fitted_to.whole_batches)
    if not fitted and not count:
        raise NothingToConvertError(
            "nothing to calibrate: neither an approximate pool that can be fitted nor a batch norm to renew",
            hint="Where all is exact, batch norms keep the original's statistics; --norms renews them all the same.",
        )
    return Calibration(
        data="", images=fitted_to.count, held_out=held_out.count, preprocessing=held_out.how, pools=tuple(fitted),
        not_fitted=pair.not_fitted if pools else {}, norms=count, before=before, after_pools=after_pools,
        after=output_error(network, reference, held_out),
    )  # fmt: skip


def _write(  # noqa: PLR0913 - what a bundle holds
    folder: Path, output: Path, record: BundleRecord, network: nn.Module, calibration: Calibration, *,
    overwrite: bool, onnx: bool,
) -> None:  # fmt: skip
    report = read_report(folder)
    size = calibration.preprocessing.input_size
    new = record.model_copy(
        update={
            "calibrations": (*record.calibrations, calibration),
            "onnx": None,
            "inputs": Inputs(args=(InputSpec(shape=(1, *size)),)),
        }
    )
    with staged_folder(output, overwrite=overwrite) as stage:
        if onnx:
            new = export_trained(network, stage, new)
        write_bundle(stage, state=network.state_dict(), record=new, report=report, pages=report_files(report, new))
    require_verified(new.onnx, output)
