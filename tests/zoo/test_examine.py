from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from spdify.records import Check
from spdify.rulebook import load_rulebook
from spdify.zoo import examine as module
from spdify.zoo.examine import examine, portable
from spdify.zoo.site_proofs import proof_key, with_values

if TYPE_CHECKING:
    from spdify.rulebook import Rulebook


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def rulebook() -> Rulebook:
    return load_rulebook("spd")


def test_a_model_is_converted_and_proved_whole(rulebook: Rulebook) -> None:
    record, proofs = examine("timm:test_resnet", rulebook)
    assert record.failure is None
    assert (record.outcome, record.proof, record.family) == ("exact", "model", "timm.models.resnet")
    assert record.count("applied") == record.sites_proved > 0
    assert record.worst_site_error is not None
    assert record.worst_site_error < 1e-10
    assert record.inputs[0].shape == (1, 3, 160, 160)
    assert record.proof_inputs[0].shape == (1, 3, 96, 96)
    assert record.after is not None
    assert record.before is not None
    assert record.after.params > record.before.params
    for name in ("two eyes", "nothing else left", "whole model, eval", "live sites", "gradients"):
        check = record.check(name)
        assert check is not None
        assert check.outcome == "passed"
    again, more = examine("timm:test_resnet", rulebook, known=proofs)
    assert again.finding == record.finding
    assert more == {}


def test_a_model_of_one_size_is_built_for_the_small_input(rulebook: Rulebook) -> None:
    record, _ = examine("timm:test_vit", rulebook)
    assert (record.outcome, record.proof) == ("exact", "model")
    assert record.proof_inputs[0].shape == (1, 3, 96, 96)


def test_torchvision(rulebook: Rulebook) -> None:
    record, _ = examine("torchvision:squeezenet1_1", rulebook)
    assert (record.outcome, record.proof) == ("exact", "model")
    assert {group.operator for group in record.sites} == {"conv", "max_pool"}


def test_a_large_model_is_proved_site_by_site_and_never_built(
    rulebook: Rulebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "prove_reduced", None)
    record, _ = examine("timm:vit_huge_patch14_224", rulebook)
    assert (record.outcome, record.proof, record.sites_proved) == ("exact", "site", 1)
    assert "GMACs" in record.proof_note


def test_an_unknown_model_is_a_finding(rulebook: Rulebook) -> None:
    record, _ = examine("timm:no_such_model", rulebook)
    assert record.outcome == "failed"
    assert record.failure is not None
    assert (record.failure.stage, record.failure.kind) == ("build", "SourceError")


def test_a_check_that_fails_is_a_finding(rulebook: Rulebook, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = Check(name="untouched names", outcome="failed", detail="x")
    monkeypatch.setattr(module, "untouched_tensors", lambda *_: bad)
    record, _ = examine("timm:test_resnet", rulebook)
    assert record.outcome == "failed"
    assert record.failure is not None
    assert (record.failure.stage, record.failure.kind) == ("census", "check")
    assert record.check("untouched names") == bad


def test_a_wrong_block_is_found_by_the_proof_of_its_site(rulebook: Rulebook, monkeypatch: pytest.MonkeyPatch) -> None:
    from spdify.rewrites.strided_conv import ReplaceStridedConv

    honest = ReplaceStridedConv.weights

    def wrong(self: ReplaceStridedConv, site: object, old: object) -> dict[str, torch.Tensor]:
        new = dict(honest(self, site, old))  # type: ignore[arg-type]
        return new | {"weight": new["weight"].flip(-1)}

    monkeypatch.setattr(ReplaceStridedConv, "weights", wrong)
    record, _ = examine("timm:test_resnet", rulebook)
    assert record.failure is not None
    assert (record.failure.stage, record.failure.kind) == ("site proofs", "check")


def test_what_is_left_is_found_by_the_census(rulebook: Rulebook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "apply", lambda model, _: model)
    record, _ = examine("timm:test_resnet", rulebook)
    assert record.failure is not None
    assert record.failure.stage == "census"
    check = record.check("nothing else left")
    assert check is not None
    assert "is still there" in check.detail


def test_messages_are_portable() -> None:
    parts = ("", "some", "folder", "file.py")
    text = portable(f"at 0x7f00ab in {'/'.join(parts)}: a/b and 1/2")
    assert text == "at 0x… in …/file.py: a/b and 1/2"
    assert len(portable("x" * 1000)) == 401


def test_a_copy_with_values_has_some_everywhere() -> None:
    with torch.device("meta"):
        norm = torch.nn.BatchNorm2d(3)
    copied = with_values(norm)
    assert all(not t.is_meta and bool(t.isfinite().all()) for t in copied.state_dict().values())


def test_equal_sites_have_one_key_and_others_have_not(rulebook: Rulebook) -> None:
    from spdify.engine import make_plan
    from spdify.graph import fingerprint, survey
    from spdify.records import Inputs, InputSpec

    net = torch.nn.Sequential(*(torch.nn.Conv2d(4, 4, 3, 2, 1) for _ in range(2)))
    inputs = Inputs(args=(InputSpec(shape=(1, 4, 32, 32)),))
    plan = make_plan(survey(net, inputs), rulebook, fingerprint=fingerprint(net), inputs=inputs)
    first, second = (proof_key(net[i], plan.applied[i], seed=0) for i in range(2))
    assert first == second
    assert first != proof_key(net[0], plan.applied[0], seed=1)
    net[0].eps = 1e-3
    assert first != proof_key(net[0], plan.applied[0], seed=0)
