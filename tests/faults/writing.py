"""Commands that write a folder or a file, with what goes on where they left off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.faults.processes import Command
from tests.faults.references import SIZE, Reference, converting, scratch, sweeping, training, write_images
from tests.faults.results import differences, line_differences

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.trials import Outcome


@dataclass(frozen=True)
class Writing:
    """A command that writes, its undisturbed run, and what goes on with it where something does."""

    reference: Reference
    output: str
    onwards: tuple[str, ...] = ()
    before: Reference | None = None

    def prepare(self) -> None:
        """Have the undisturbed run made, and what it begins with."""
        if self.before is not None:
            self.before.working_s()
        self.reference.working_s()

    def start(self, folder: Path, say: Path) -> Command:
        """Start it, or what goes on with it where there is something to go on with."""
        if self.onwards and (folder / self.output / "run.json").exists():
            return Command(self.onwards, folder, say=say)
        return self.reference.start(folder, say=say)

    def differences(self, folder: Path) -> tuple[Outcome, str] | None:
        """Say how what is there differs from what an undisturbed run writes."""
        whole, made = self.reference.folder / self.output, folder / self.output
        if not made.exists():
            return "lost", self.output
        if self.output == "zoo":
            return line_differences(whole, made)
        if whole.is_file():
            return None if made.read_bytes() == whole.read_bytes() else ("wrong", made.name)
        found = differences(whole, made)
        return ("wrong", ", ".join(found)) if found else None


def writings() -> dict[str, Writing]:
    """Give all of them."""
    images = write_images(scratch() / "images")
    page = ("report", "timm:test_resnet", *SIZE, "--html", "-o", "page.html", "-v")
    bundle = Reference(converting("--no-onnx"), words="building the model")
    export = ("export", str(bundle.folder / "out"), "-o", "made", "-v")
    sweep = sweeping("test_resnet")
    return {
        "convert": Writing(Reference(converting(), words="building the model"), "out"),
        "finetune": Writing(
            Reference(training(images), words="reading the data"), "run", ("finetune", "--resume", "run", "-v")
        ),
        "zoo run": Writing(Reference(sweep, words=" to do"), "zoo", (*sweep, "--resume")),
        "report": Writing(Reference(page, words="comparing"), "page.html"),
        "export": Writing(Reference(export, words="opening the model"), "made", before=bundle),
    }
