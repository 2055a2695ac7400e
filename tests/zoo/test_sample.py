"""Real models, chosen so that each brings a difficulty of its own; a full sweep takes the better part of an hour."""

from __future__ import annotations

import pytest
import torch

from spdify.rulebook import load_rulebook, load_rules
from spdify.zoo.examine import examine

#: One per kind of difficulty; the quick run takes these.
QUICK = {
    "timm:resnet18": "max pool, 1x1 shortcuts",
    "timm:repvgg_a0": "two strided branches beside each other",
    "timm:levit_128s": "strided slices, attention that caches biases when traced",
    "timm:mobilenetv3_small_050": "depthwise",
    "timm:nf_resnet50": "weight-standardised, gains of zero",
    "timm:tf_efficientnet_b0": "same padding that depends on the size",
    "timm:resnetblur18": "blur pool: a functional convolution with fixed weights",
    "timm:hiera_tiny_224": "a mask among the arguments, amax pooling",
    "timm:swin_tiny_patch4_window7_224": "one image size only, patch merging",
    "timm:vit_giant_patch14_224": "a billion parameters",
    "torchvision:googlenet": "auxiliary heads in train mode",
    "torchvision:r3d_18": "three axes",
}
#: With these the slow sample has sixty.
MORE = {
    "timm:aimv2_large_patch14_224": "patches, a large transformer",
    "timm:beit_base_patch16_224": "relative positions",
    "timm:cait_xxs24_224": "class attention",
    "timm:coat_tiny": "several scales in parallel",
    "timm:coatnet_0_rw_224": "average pools as shortcuts",
    "timm:convit_tiny": "positions kept as attributes",
    "timm:convmixer_768_32": "7x7 patches",
    "timm:convnext_atto": "layer norm between stages",
    "timm:crossvit_9_240": "two branches at sizes of their own",
    "timm:cs3darknet_s": "6x6 stem",
    "timm:cspresnet50": "average pool in the shortcut, partial stages",
    "timm:davit_tiny": "channel attention",
    "timm:densenet121": "average pools in the transitions",
    "timm:dla34": "max pools in a tree",
    "timm:dm_nfnet_f0": "in-place gains, composite leaves",
    "timm:dpn68": "several inputs to a block",
    "timm:eca_nfnet_l0": "standardised and attended",
    "timm:edgenext_xx_small": "positions by slices that are no sites",
    "timm:efficientformer_l1": "attention that caches biases",
    "timm:efficientnet_b0": "depthwise 5x5",
    "timm:eva02_tiny_patch14_224": "rotary positions",
    "timm:fastvit_t8": "many branches to be fused later",
    "timm:focalnet_tiny_srf": "focal modulation",
    "timm:gcresnext26ts": "odd stem",
    "timm:gernet_s": "grouped",
    "timm:ghostnetv2_100": "functional average pool",
    "timm:halonet26t": "unfolded blocks",
    "timm:hardcorenas_a": "searched depthwise kernels",
    "timm:hrnet_w18_small": "sites on all branches",
    "timm:inception_v3": "pools beside convolutions",
    "timm:inception_next_tiny": "strips",
    "timm:lambda_resnet26t": "lambda layers",
    "timm:legacy_xception": "odd sizes",
    "timm:maxvit_nano_rw_256": "same padding in a transformer",
    "timm:mobilenetv5_base": "a fused stage",
    "timm:naflexvit_base_patch16_gap": "input of its own form",
    "timm:nest_tiny": "same max pool",
    "timm:pit_ti_224": "a pool with a token",
    "timm:poolformer_s12": "overlapping patches",
    "timm:pvt_v2_b0": "strided reductions in attention",
    "timm:regnety_002": "grouped with attention",
    "timm:res2net50_14w_8s": "hierarchical splits",
    "timm:resnest14d": "average pools before convolutions",
    "timm:selecsls42b": "concatenated stages",
    "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn": "a detector",
    "torchvision:raft_small": "two images, a loop",
    "torchvision:regnet_y_400mf": "cannot be built on meta",
    "torchvision:swin_v2_t": "slices that lose nothing",
}

LIGHT = 5_000_000_000


def check(name: str) -> None:
    """A model converts and is proved as far as its size asks for."""
    torch.set_num_threads(1)
    record, _ = examine(name, load_rulebook("spd"))
    assert record.failure is None
    assert record.outcome in {"exact", "partial", "nothing"}
    assert record.sites_proved == record.count("applied")
    if record.before is not None and record.before.macs < LIGHT and record.sites_proved:
        assert record.proof == "model", record.proof_note


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_quick_sample(name: str) -> None:
    check(name)


@pytest.mark.slow
@pytest.mark.zoo
@pytest.mark.parametrize("name", MORE)
def test_sample(name: str) -> None:
    check(name)


#: The other rulebooks, which change channel counts, sizes of maps or the function.
OTHERS = (("spd-released",), ("spd-fold",), ("spd-paper",), ("spd-lowres", "spd-released"))


@pytest.mark.slow
@pytest.mark.zoo
@pytest.mark.parametrize("rules", OTHERS, ids="+".join)
@pytest.mark.parametrize("name", {**QUICK, **MORE})
def test_sample_of_other_rulebooks(name: str, rules: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    record, _ = examine(name, load_rules(rules))
    assert record.failure is None
    if rules == ("spd-released",):  # all that it does is exact
        assert record.outcome in {"exact", "partial", "nothing"}
        assert record.sites_proved == record.count("applied")
        if record.before is not None and record.before.macs < LIGHT and record.sites_proved:
            assert record.proof == "model", record.proof_note


#: Rulebooks of other operators, those first whose claims are all exact.
EXACT = ("se", "cbam", "non-local", "aspp", "rfb", "dcn", "stn")
OPERATORS = (*EXACT, "blurpool", "dynopool", "shape-adaptor", "asff")


@pytest.mark.slow
@pytest.mark.zoo
@pytest.mark.parametrize("book", OPERATORS)
@pytest.mark.parametrize("name", {**QUICK, **MORE})
def test_sample_of_other_operators(name: str, book: str) -> None:
    torch.set_num_threads(1)
    record, _ = examine(name, load_rules((book,)))
    assert record.failure is None
    if book not in EXACT:
        return
    assert record.outcome in {"exact", "partial", "nothing"}
    assert record.sites_proved == record.count("applied")
    if record.before is not None and record.before.macs < LIGHT and record.sites_proved:
        assert record.proof == "model", record.proof_note


def test_the_sample_has_the_size_it_is_said_to_have() -> None:
    assert len(QUICK) == 12
    assert len({**QUICK, **MORE}) == 60
