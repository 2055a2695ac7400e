from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from markdown_it import MarkdownIt

from spdify.errors import BundleError, UsageError
from spdify.reporting.documents import document_page
from spdify.zoo import counting
from spdify.zoo.records import Failure, OnnxAttempt, OnnxFamilyRecord, SessionRecord, SweepSettings
from spdify.zoo.store import ONNX, RESULTS, SESSIONS, RunFolder
from spdify.zoo.summarizing import summarize

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from spdify.zoo.records import RunRecord, ZooRecord


@pytest.fixture
def folder(tmp_path: Path, run_record: RunRecord, records: list[ZooRecord]) -> Path:
    """Give a run of four models and three exports that was killed once."""
    run = RunFolder(tmp_path / "run")
    with run.locked():
        run.begin(run_record, resume=False)
    for record in records:
        run.append(RESULTS, record)
    attempt = OnnxAttempt(name="timm:a_1", outcome="passed", dynamic_batch=True)
    broken = attempt.model_copy(update={"outcome": "original fails too", "detail": "no such operator"})
    run.append(ONNX, OnnxFamilyRecord(name="timm.models.a", outcome="passed", attempts=(attempt,)))
    run.append(ONNX, OnnxFamilyRecord(name="timm.models.b", outcome="original fails too", attempts=(broken,)))
    lost = Failure(stage="worker", kind="crash", message="the worker died of SIGABRT")
    run.append(ONNX, OnnxFamilyRecord(name="timm.models.c", outcome="failed", failure=lost))
    start = SessionRecord(event="start", jobs=2, cores=2, memory_gb=14, timeout_s=600, done=0)
    run.append(SESSIONS, start)
    run.append(SESSIONS, start)
    end = {"event": "end", "done": 4, "seconds": 120.0, "peak_memory_bytes": 2**31}
    run.append(SESSIONS, start.model_copy(update=end))
    return run.path


def test_the_page_says_what_the_lines_say(folder: Path) -> None:
    files = summarize([folder], folder)
    assert [file.name for file in files] == ["summary.md", "summary.html", "families.svg", "changes.svg", "reasons.svg"]
    text = files[0].read_text()
    for line in (
        "**4 of 4 (100.0 %)** models of the run have ended",
        "**6 of 8 (75.0 %)** sites are converted; **6 of 6 (100.0 %)** of them",
        "**1 of 2 (50.0 %)** converted models are proved whole",
        "**1 of 3 (33.3 %)** families export",
        "| exact, with kept or refused sites | 1 | 0 | 1 |",
        "| failed | 0 | 1 | 1 |",
        "| max_pool | 0 | 0 | 2 | 2 |",
        "| conv | 6 | 7239 | -7233 |",
        "| its own \\| forward | refused | max_pool | 2 | 1 | `timm:a_2 pool` |",
        "| parameters | +10.0 % | +10.0 % | +10.0 % | +10.0 % | +10.0 % |",
        "| survey | TraceError | 1 | `torchvision:c` | cannot trace |",
        "| `timm.models.b` | original fails too | `timm:a_1` | no such operator |",
        "the worker died of SIGABRT",
        "sessions: 2, of which 1 never ended (killed)",
        "Most memory held at one time by all processes: 2.00 GiB",
        "spdify zoo run -o DIR --rules spd",
    ):
        assert line in text, line


def test_the_html_page_is_the_markdown_with_its_pictures(folder: Path, tmp_path: Path) -> None:
    text, html, *pictures = (file.read_text() for file in summarize([folder], tmp_path / "out"))
    assert html == document_page(
        "Zoo: 4 models", text, {f.name: f.read_text() for f in (tmp_path / "out").glob("*.svg")}
    )
    assert all(picture.strip() in html for picture in pictures)
    assert html.count("<table ") == text.count("\n\n| ")
    assert "<img" not in html


def test_what_others_wrote_is_no_markup(folder: Path, make_record: Callable[..., ZooRecord]) -> None:
    failure = Failure(stage="survey", kind="TraceError", message="4*u1 > 4*u2 <b>`x")
    RunFolder(folder).append(RESULTS, make_record("timm:d", outcome="failed", failure=failure, after=None, sites=()))
    text, html, *_ = (file.read_text() for file in summarize([folder], folder))
    assert r"4\*u1 > 4\*u2 \<b>\`x" in text
    assert "4*u1 &gt; 4*u2 &lt;b&gt;`x" in html


PICTURES = ["families.svg", "reasons.svg", "changes.svg"]
MARKS = (
    "[fix](http://x.example) ![x](http://x.example/x.png) <http://x.example> `c` **b** __u__ a|b &lt; \\\n\n# h\n```\n"
)


def test_marks_in_every_text_of_a_run_are_words(folder: Path, make_record: Callable[..., ZooRecord]) -> None:
    run = RunFolder(folder)
    before = document_links(summarize([folder], folder)[1])
    first = run.results()[0]
    group = first.sites[0].model_copy(update={"action": "refused", "reason": MARKS, "example": MARKS, "count": 1})
    checks = tuple(check.model_copy(update={"name": MARKS}) for check in first.checks)
    more = {"family": MARKS, "sites": (group,), "checks": checks, "proof_note": MARKS, "seconds": {MARKS: 1e9}}
    run.append(RESULTS, make_record(MARKS, proof="site", worst_site_error=1e-3, peak_memory_bytes=2**60, **more))
    failure = Failure(stage=MARKS, kind=MARKS, message=MARKS)
    run.append(RESULTS, make_record(f"{MARKS}2", outcome="failed", failure=failure, after=None, **more))
    attempt = OnnxAttempt(name=MARKS, outcome="failed", detail=MARKS, dynamic_batch=False)
    for number, failed in enumerate((None, failure)):
        name = f"{MARKS}{number}"
        run.append(ONNX, OnnxFamilyRecord(name=name, outcome="failed", attempts=(attempt,), failure=failed))
    settings = SweepSettings(rules=(MARKS,), filter=MARKS, shard=MARKS)
    record = run.run().model_copy(update={"settings": settings, "versions": {MARKS: MARKS}})
    (folder / "run.json").write_text(record.model_dump_json())
    text, html = (file.read_text() for file in summarize([folder], folder)[:2])
    assert document_links(folder / "summary.html") == before
    tokens = [child for token in MarkdownIt("commonmark").parse(text) for child in token.children or ()]
    assert not {token.type for token in tokens} & {"link_open", "html_inline"}
    assert [token.attrs["src"] for token in tokens if token.type == "image"] == PICTURES
    assert all(words not in html for words in ("<strong>b<", "<strong>u<", "<code>c<", "<h1>h<", "<http"))
    assert html.count("<table ") == text.count("\n\n| ")


def document_links(file: Path) -> list[str]:
    return re.findall(r"<(?:a|img|h1)\b|<h2[^>]*>|<pre>", file.read_text())


def test_an_export_that_failed_without_a_word(folder: Path) -> None:
    attempt = OnnxAttempt(name="timm:d", outcome="failed")
    RunFolder(folder).append(ONNX, OnnxFamilyRecord(name="d", outcome="failed", attempts=(attempt,)))
    assert "| `d` | failed | `timm:d` |  |" in summarize([folder], folder)[0].read_text()


@pytest.mark.parametrize("key", ["sites_proved", "peak_memory_bytes", "count"])
def test_numbers_without_end_are_no_record(folder: Path, key: str) -> None:
    file = folder / RESULTS
    file.write_text(re.sub(rf'"{key}":\d+', f'"{key}":1{"0" * 400}', file.read_text()))
    with pytest.raises(BundleError, match=f"cannot read .*line 1: .*{key}"):
        summarize([folder], folder)


def test_a_summary_is_not_written_through_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (folder / "reasons.svg").symlink_to(tmp_path / "precious")
    with pytest.raises(BundleError, match=r"cannot write .*reasons\.svg: it is a link"):
        summarize([folder], folder)
    assert (tmp_path / "precious").read_text() == "mine"
    assert not (folder / "summary.md").exists()


def test_a_summary_is_not_written_to_a_pipe(folder: Path) -> None:
    os.mkfifo(folder / "summary.html")
    with pytest.raises(BundleError, match=r"cannot write .*summary\.html: it is not a plain file"):
        summarize([folder], folder)
    assert not (folder / "summary.md").exists()


def test_the_page_names_every_rulebook(tmp_path: Path, run_record: RunRecord, records: list[ZooRecord]) -> None:
    run = RunFolder(tmp_path / "run")
    with run.locked():
        run.begin(run_record.model_copy(update={"settings": SweepSettings(rules=("a", "b"))}), resume=False)
    run.append(RESULTS, records[0])
    text = summarize([run.path], run.path)[0].read_text()
    assert "# Zoo: 1 models, rulebook `a+b`" in text
    assert "spdify zoo run -o DIR --rules a --rules b " in text


def test_the_pictures_are_well_formed_and_have_words(folder: Path, tmp_path: Path) -> None:
    for file in summarize([folder], tmp_path / "out")[2:]:
        root = ET.parse(file).getroot()  # noqa: S314 - our own file
        assert root.tag.endswith("svg")
        assert [child.tag.rpartition("}")[2] for child in root][:2] == ["title", "desc"]
        assert root[0].text
        assert root[1].text


def test_summing_up_twice_gives_the_same(folder: Path, tmp_path: Path) -> None:
    texts = [[f.read_text() for f in summarize([folder], tmp_path / name)] for name in ("a", "b")]
    assert texts[0] == texts[1]


def test_shards_add_up(folder: Path, tmp_path: Path, run_record: RunRecord, records: list[ZooRecord]) -> None:
    second = RunFolder(tmp_path / "second")
    shard = run_record.model_copy(update={"settings": run_record.settings.model_copy(update={"shard": "2/2"})})
    with second.locked():
        second.begin(shard, resume=False)
    second.append(RESULTS, records[0].model_copy(update={"name": "timm:z"}))
    assert "**5 of 8" in summarize([folder, second.path], tmp_path / "out")[0].read_text()
    other = shard.model_copy(update={"versions": {}})
    (second.path / "run.json").write_text(other.model_dump_json())
    with pytest.raises(UsageError, match="different runs"):
        summarize([folder, second.path], tmp_path / "out")


def test_nothing_to_sum_up(tmp_path: Path, run_record: RunRecord) -> None:
    with pytest.raises(BundleError, match="cannot read the run"):
        summarize([tmp_path], tmp_path)
    with RunFolder(tmp_path).locked():
        RunFolder(tmp_path).begin(run_record, resume=False)
    with pytest.raises(UsageError, match="no model has ended"):
        summarize([tmp_path], tmp_path)


def test_spread() -> None:
    assert counting.spread([0.0, 1.0, 2.0, 3.0, 4.0]) == (0.0, 1.0, 2.0, 3.0, 4.0)
    assert counting.spread([7.0]) == (7.0,) * 5
