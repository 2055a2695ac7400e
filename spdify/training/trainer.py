"""The loop: one epoch after the other, on one process or many, with accelerate."""

from __future__ import annotations

import math
import os
import time
import warnings
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, gather_object
from timm.loss.cross_entropy import SoftTargetCrossEntropy
from timm.utils.distributed import distribute_bn
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from spdify.blocks import SPDBatchNorm2d
from spdify.errors import TrainingError, UsageError, memory_ran_out
from spdify.graph.structure import detached_copy
from spdify.records import EpochResult
from spdify.training.measuring import join, scores_of
from spdify.training.optimizing import make_optimizer, make_schedule
from spdify.training.randomness import seed_all
from spdify.training.reading import measured_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from spdify.datasets import Images
    from spdify.records import Machine, Preprocessing, Recipe
    from spdify.training.batches import Batches
    from spdify.training.measuring import Scores
    from spdify.training.reading import Part

AUXILIARY = 0.4  # weight of an auxiliary classifier's loss, as in PyTorch's tutorial for Inception
CHECK_EVERY = 20  # steps after which the loss is looked at: reading it waits for the device
DIVERGED_HINT = (
    "What was saved after the epoch before is kept. Lower --lr, set clip_grad (--recipe-set), or leave out --amp fp16."
)
MEMORY_HINT = "Lower --batch-size, split it by --grad-accum-steps, or use --amp."


def make_accelerator(machine: Machine, **options: Any) -> Accelerator:  # noqa: ANN401 - accelerate's own
    """Make accelerate's front to devices and processes; under torchrun or accelerate launch it finds the others.

    Raises:
        UsageError: The machine has not what was asked for.
    """
    if machine.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("cannot train on CUDA: PyTorch finds no GPU here", hint="Leave out --device.")
    if machine.sync_batchnorm and not torch.cuda.is_available():
        raise UsageError("cannot synchronise batch norms: PyTorch does so on GPUs only", hint="Leave out --sync-bn.")
    cpu = machine.device == "cpu" or not torch.cuda.is_available()
    if cpu and machine.amp == "fp16":
        raise UsageError(
            "cannot train with --amp fp16 on a CPU: it needs a GPU", hint="Use --amp bf16, or leave it out."
        )
    if machine.compiled:
        options["dynamo_backend"] = "inductor"
    try:
        # accelerate keeps one setting per process; a second training in it may have another.
        AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())  # noqa: SLF001
        # Each process keeps its own running statistics within an epoch; `run_epoch` averages them at its end.
        wrapping = DistributedDataParallelKwargs(broadcast_buffers=False)
        return Accelerator(cpu=cpu, mixed_precision=machine.amp, kwargs_handlers=[wrapping], **options)
    except ValueError as error:
        raise UsageError(f"cannot train with --amp {machine.amp} here: {error}") from error


@contextmanager
def repeatable(machine: Machine, device: torch.device) -> Iterator[None]:
    """Let a GPU take algorithms that give the same bits each time, if so asked: else a resumed run ends elsewhere.

    An operator that has none goes on as it is, with PyTorch's warning.
    """
    if device.type != "cuda" or not machine.deterministic:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what PyTorch asks for of cuBLAS
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def join_all(own: list[Scores], accelerator: Accelerator) -> Scores:
    """Put the scores of all processes together; each gets them."""
    return join(own if accelerator.num_processes == 1 else gather_object(own))


class Trainer:
    """A network in training.

    Attributes:
        network: The network itself, not wrapped; its weights change.
        measured: A copy with the weights that are measured and saved: the network's, or averaged ones.
        epoch: Epochs done.
    """

    def __init__(  # noqa: PLR0913 - what, on what, how
        self,
        network: nn.Module,
        batches: Batches,
        recipe: Recipe,
        *,
        accelerator: Accelerator,
        machine: Machine,
        seed: int,
        masks: Mapping[str, Tensor] | None = None,
        size_cost: Callable[[], Tensor] | None = None,
        progress: Callable[[int, int, float], None] = lambda *_: None,
    ) -> None:
        """Set everything up; nothing is trained yet.

        Args:
            network: Changed in place.
            batches: The training set.
            recipe: How to train.
            accelerator: As `make_accelerator` gives it.
            machine: As the accelerator was made for.
            seed: Of dropout and the like; `batches` has its own.
            masks: As `carried_masks` gives them: what is new, for its learning rate.
            size_cost: Of the network's sizes in GMACs, where the recipe has a `size_penalty`.
            progress: Told, at each step, its number, the number of steps, and the loss last seen.
        """
        self.network, self.recipe, self.epoch = network, recipe, 0
        self._batches, self._accelerator, self._machine, self._seed = batches, accelerator, machine, seed
        self._progress = progress
        self._size_cost = size_cost if recipe.size_penalty else None
        format_ = torch.channels_last if machine.channels_last else torch.contiguous_format
        network.to(accelerator.device, memory_format=format_)  # type: ignore[call-overload]
        names = dict(network.named_parameters())
        self._masks = {name: m.to(accelerator.device) for name, m in (masks or {}).items() if name in names}
        self._ema = ModelEmaV3(network, decay=recipe.ema_decay, use_warmup=True) if recipe.ema_decay else None
        self.measured = self._ema.module if self._ema else detached_copy(network)
        optimizer = make_optimizer(network, recipe, self._masks)
        self._schedule = make_schedule(optimizer, recipe, batches.steps)
        if machine.sync_batchnorm and accelerator.num_processes > 1:
            if any(isinstance(module, SPDBatchNorm2d) for module in network.modules()):
                raise UsageError(
                    "cannot synchronise norms that phases share: torch would make plain ones of them",
                    hint="Leave out --sync-bn.",
                )
            self.network = network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        with warnings.catch_warnings():
            # The newer name of the argument is not one that accelerate passes on.
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
            self._wrapped, self._optimizer = accelerator.prepare(network, optimizer)
        mixes = bool(recipe.mixup or recipe.cutmix)
        self._loss: nn.Module = nn.CrossEntropyLoss(label_smoothing=recipe.smoothing)
        if mixes:
            self._loss = SoftTargetCrossEntropy()  # type: ignore[no-untyped-call]

    def run_epoch(self) -> EpochResult:
        """Train for one epoch.

        Returns:
            Its figures, without any on validation images.

        Raises:
            TrainingError: The loss is no number any more, or memory ran out; the epoch is lost.
        """
        epoch = self.epoch + 1
        seed_all(self._seed, epoch, self._accelerator.process_index, 3)
        self._wrapped.train()
        start = self._start_of_new_only() if epoch <= self.recipe.only_new_epochs else None
        decays = [group["weight_decay"] for group in self._optimizer.param_groups]
        if start is not None:  # which would gather momentum for entries that are not to move
            for group in self._optimizer.param_groups:
                group["weight_decay"] = 0.0
        total, count, last = torch.zeros((), device=self._accelerator.device), 0, 0.0
        began = time.perf_counter()
        with _memory_told(), warnings.catch_warnings():
            # About the memory format of gradients: "not an error".
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            for step, parts in enumerate(self._batches.epoch(epoch)):
                total += self._step(self.epoch * self._batches.steps + step, parts, start)
                count += 1
                if count % CHECK_EVERY == 0 or count == self._batches.steps:
                    last = total.item() / count
                    self._require_finite(last, epoch, count)
                self._progress(count, self._batches.steps, last)
        seconds = time.perf_counter() - began
        for group, decay in zip(self._optimizer.param_groups, decays, strict=True):
            group["weight_decay"] = decay
        self._require_finite_weights(epoch)
        self.epoch = epoch
        if self._accelerator.num_processes > 1:
            for network in (self.network, *([self.measured] if self._ema else [])):
                distribute_bn(network, self._accelerator.num_processes, reduce=True)  # type: ignore[no-untyped-call]
        if self._ema is None:
            self.measured.load_state_dict(self.network.state_dict())
        loss = self._accelerator.reduce(total / max(count, 1), reduction="mean").item()
        images = count * self.recipe.batch_size
        return EpochResult(
            epoch=epoch, lr=self._optimizer.param_groups[0]["lr"], train_loss=loss,
            images_per_second=images / seconds, seconds=seconds,
        )  # fmt: skip

    def _step(self, update: int, parts: list[Part], start: dict[str, Tensor] | None) -> Tensor:
        """Take one step; give its loss."""
        accelerator = self._accelerator
        if self._schedule is not None:
            self._schedule.step(update)
        total = torch.zeros((), device=accelerator.device)
        for number, (inputs, labels) in enumerate(parts):
            last = number == len(parts) - 1
            with nullcontext() if last else accelerator.no_sync(self._wrapped):
                loss = self._loss_of(inputs, labels)
                if self._size_cost is not None:
                    loss = loss + self.recipe.size_penalty * self._size_cost()
                loss = loss / len(parts)
                accelerator.backward(loss)
            total += loss.detach()
        if start is not None:
            self._keep_gradients_of_new()
        if self.recipe.clip_grad:
            accelerator.clip_grad_norm_(self._wrapped.parameters(), self.recipe.clip_grad)
        self._optimizer.step()
        self._optimizer.zero_grad()
        if start is not None:
            self._put_back(start)
        if self._ema is not None:
            self._ema.update(self.network, step=update)
        return total

    def _loss_of(self, inputs: Tensor, labels: Tensor) -> Tensor:
        if self._machine.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        outputs = self._wrapped(inputs)
        if isinstance(outputs, Tensor):
            loss: Tensor = self._loss(outputs, labels)
            return loss
        first, *others = outputs
        # Auxiliary classifiers, in train mode only.
        auxiliary: Tensor = sum((self._loss(other, labels) for other in others), torch.zeros_like(first[0, 0]))
        return cast("Tensor", self._loss(first, labels)) + AUXILIARY * auxiliary

    def _start_of_new_only(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self.network.named_parameters()}

    def _keep_gradients_of_new(self) -> None:
        """Take the gradients of carried entries away, so that no optimizer gathers momentum from them."""
        for name, parameter in self.network.named_parameters():
            if parameter.grad is None:
                continue
            mask = self._masks.get(name)
            if mask is None:
                parameter.grad.zero_()
            else:
                parameter.grad.masked_fill_(mask, 0)

    @torch.no_grad()
    def _put_back(self, start: dict[str, Tensor]) -> None:
        """Undo what an optimizer has done to carried entries all the same, by weight decay for example."""
        for name, parameter in self.network.named_parameters():
            mask = self._masks.get(name)
            parameter.copy_(start[name] if mask is None else torch.where(mask, start[name], parameter))

    def _require_finite(self, loss: float, epoch: int, step: int) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"cannot go on training: the loss became {loss} in epoch {epoch}, by step {step}",
                hint=DIVERGED_HINT,
            )

    def _require_finite_weights(self, epoch: int) -> None:
        """Refuse weights that the last steps have spoilt: no loss has told of them yet."""
        tensors = (t for t in self.network.state_dict().values() if t.is_floating_point())
        if not all(bool(tensor.isfinite().all()) for tensor in tensors):
            raise TrainingError(
                f"cannot go on training: weights are no numbers any more after epoch {epoch}", hint=DIVERGED_HINT
            )

    def evaluate(self, images: Images, how: Preprocessing, *, batch_size: int = 256) -> Scores:
        """Measure the averaged or present weights on a split; every process does its part and gets all scores."""
        accelerator = self._accelerator
        self.measured.eval()
        batches = measured_batches(
            images, how, batch_size=batch_size, rank=accelerator.process_index, world=accelerator.num_processes,
            device=accelerator.device, workers=self._machine.workers,
        )  # fmt: skip
        with _memory_told():
            own = scores_of(self.measured, batches)
        return join_all(own, accelerator)

    def state(self) -> dict[str, Any]:
        """Give all that `load_state` needs to go on from here; no copies are made."""
        scaler = self._accelerator.scaler
        return {
            "epoch": self.epoch,
            "network": dict(self.network.state_dict()),
            "measured": dict(self.measured.state_dict()) if self._ema else None,
            "optimizer": self._optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, bit for bit."""
        self.epoch = state["epoch"]
        self.network.load_state_dict(state["network"])
        self.measured.load_state_dict(state["measured"] or state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        if state["scaler"] is not None and self._accelerator.scaler is not None:
            self._accelerator.scaler.load_state_dict(state["scaler"])


@contextmanager
def _memory_told() -> Iterator[None]:
    """Turn an allocation that failed into a message that says what to lower."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError("cannot go on training: the GPU has not enough memory", hint=MEMORY_HINT) from error
    except (RuntimeError, MemoryError) as error:
        if not memory_ran_out(error):
            raise
        raise TrainingError("cannot go on training: not enough memory", hint=MEMORY_HINT) from error
