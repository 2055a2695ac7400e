"""Folding branches before the conversion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from spdify.errors import SourceError, UsageError
from spdify.sources import BuildOptions, build, build_structure
from spdify.sources.comparing import first_difference
from spdify.sources.reparameterizing import fold_branches

if TYPE_CHECKING:
    from pathlib import Path

X = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["mobileone_s0", "repvgg_a0", "fastvit_t8"])
def test_the_folded_network_computes_the_same_and_its_record_builds_it(name: str) -> None:
    plain = build(name)
    folded = build(name, BuildOptions(reparameterize=True))
    assert folded.source.reparameterized
    assert len(list(folded.model.modules())) < len(list(plain.model.modules()))
    with torch.no_grad():
        # In float64: fresh, mobileone puts out numbers of 1e14, among which small ones are rounding in float32.
        assert torch.allclose(plain.model.double()(X.double()), folded.model.double()(X.double()), atol=1e-4, rtol=1e-3)
    for device in ("meta", "cpu"):
        assert first_difference(folded.model, build_structure(folded.source, device=device)) is None  # type: ignore[arg-type]


def test_the_checkpoint_is_that_of_the_unfolded_network(tmp_path: Path) -> None:
    model = timm.create_model("mobileone_s0").eval()
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    folded = build("mobileone_s0", BuildOptions(checkpoint=tmp_path / "w.safetensors", reparameterize=True))
    with torch.no_grad():
        expected = model(X)  # fresh, this network puts out numbers of 1e15
        assert torch.allclose(folded.model(X) / expected.abs().max(), expected / expected.abs().max(), atol=1e-4)


def test_nothing_to_fold_is_told() -> None:
    with pytest.raises(UsageError, match=r"Cannot re-parameterise timm:test_resnet: no module of it can be folded"):
        build("test_resnet", BuildOptions(reparameterize=True))


def test_folding_that_fails_is_told() -> None:
    class Broken(nn.Module):
        def fuse(self) -> nn.Module:
            msg = "no branches"
            raise RuntimeError(msg)

    model = nn.Sequential(Broken())
    with pytest.raises(SourceError, match=r"Cannot re-parameterise net: RuntimeError: no branches"):
        fold_branches(model, name="net")
