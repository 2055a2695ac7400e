from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from spdify.engine import apply, map_weights, plan_classifier
from spdify.engine.classifiers import class_count
from spdify.errors import PlanError, RefusedError, TraceError
from spdify.records import Inputs, InputSpec


def inputs(*size: int) -> Inputs:
    return Inputs(args=(InputSpec(shape=(1, *size)),))


@pytest.mark.parametrize(
    ("name", "size", "paths"),
    [
        ("test_resnet", 32, ["fc"]),
        ("test_vit", 160, ["head"]),
        ("test_convnext", 64, ["head.fc"]),
        ("deit_tiny_distilled_patch16_224", 224, ["head", "head_dist"]),
        ("tv:squeezenet1_1", 64, ["classifier.1"]),
        ("tv:mobilenet_v3_small", 64, ["classifier.3"]),
        ("tv:inception_v3", 299, ["fc", "AuxLogits.fc"]),
        ("tv:googlenet", 64, ["fc", "aux2.fc2", "aux1.fc2"]),
    ],
)
def test_classifiers_are_found_and_replaced(name: str, size: int, paths: list[str]) -> None:
    if name.startswith("tv:"):
        options = {"init_weights": False} if name in {"tv:inception_v3", "tv:googlenet"} else {}
        model = torchvision.models.get_model(name[3:], **options)
    else:
        model = timm.create_model(name)
    model.eval()
    plan = plan_classifier(model, inputs(3, size, size), 7)
    assert plan is not None
    assert [head.path for head in plan.heads] == paths
    changed = apply(model, plan).eval()
    assert type(changed) is type(model)
    assert class_count(changed, inputs(3, size, size)) == 7
    for path in paths:
        layer = changed.get_submodule(path)
        assert layer.weight.std() > 0  # type: ignore[operator,union-attr]
        assert not layer.bias.any()  # type: ignore[operator,union-attr]
    untouched = [n for n in model.state_dict() if n.rpartition(".")[0] not in paths]
    assert all(torch.equal(model.state_dict()[n], changed.state_dict()[n]) for n in untouched)
    assert plan_classifier(changed, inputs(3, size, size), 7) is None
    if hasattr(model, "num_classes"):
        assert changed.num_classes == 7


def test_weights_follow_the_seed_and_nothing_else() -> None:
    model = timm.create_model("test_resnet").eval()
    plans = [plan_classifier(model, inputs(3, 32, 32), 5, seed=seed) for seed in (0, 0, 1)]
    heads = []
    for plan in plans:
        assert plan is not None
        torch.manual_seed(len(heads))
        heads.append(map_weights(model.state_dict(), plan)["fc.weight"])
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


class NoScores(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Hidden(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) @ self.weight.t()


def test_refusals() -> None:
    with pytest.raises(RefusedError, match=r"expected outputs \(N, classes\), got a tensor of 4 axes"):
        plan_classifier(NoScores(), inputs(3, 8, 8), 2)
    with pytest.raises(RefusedError, match="the layer that makes its 5 outputs was not found"):
        plan_classifier(Hidden(), inputs(3, 8, 8), 2)
    with pytest.raises(TraceError, match="cannot run Sequential on 3x8x8 inputs") as caught:
        plan_classifier(nn.Sequential(nn.Linear(7, 2)), inputs(3, 8, 8), 2)
    assert "--input-size" in caught.value.hint


def test_a_plan_for_another_network_is_refused() -> None:
    model = timm.create_model("test_resnet").eval()
    plan = plan_classifier(model, inputs(3, 32, 32), 5)
    assert plan is not None
    with pytest.raises(PlanError, match="expected structure"):
        apply(timm.create_model("test_resnet", num_classes=3), plan)
    with pytest.raises(PlanError, match="no tensors of it"):
        map_weights({"conv.weight": torch.zeros(1)}, plan)
