from __future__ import annotations

import copy
import dataclasses
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

import spdify
from spdify.engine.applying import apply
from spdify.errors import CheckFailedError, NothingToConvertError, RefusedError, RulebookError, UsageError
from spdify.pipeline import converting
from tests.versions import needs_const_addresses

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from spdify.records import Plan, Site
    from tests.pipeline.conftest import Plain, TwoInputs

X = torch.randn(1, 3, 16, 16)


@pytest.mark.parametrize("training", [True, False])
def test_the_caller_s_model_is_left_as_it_was(plain: Plain, *, training: bool) -> None:
    plain.train(training)
    plain.drop.eval()
    plain.stem.weight.requires_grad_(False)
    calls: list[str] = []
    handle = plain.norm.register_forward_hook(lambda *_: calls.append("hook"))
    plain(X).sum().backward()
    calls.clear()
    state = copy.deepcopy(plain.state_dict())
    gradients = {k: p.grad.clone() for k, p in plain.named_parameters() if p.grad is not None}
    modules = dict(plain.named_modules())
    modes = {k: m.training for k, m in modules.items()}
    frozen = {k: p.requires_grad for k, p in plain.named_parameters()}
    parameters = {k: id(p) for k, p in plain.named_parameters()}

    spdify.convert(plain, example_input=X)

    assert all(torch.equal(plain.state_dict()[k], v) for k, v in state.items())
    assert all(torch.equal(plain.get_parameter(k).grad, v) for k, v in gradients.items())
    assert dict(plain.named_modules()) == modules
    assert {k: m.training for k, m in plain.named_modules()} == modes
    assert {k: p.requires_grad for k, p in plain.named_parameters()} == frozen
    assert {k: id(p) for k, p in plain.named_parameters()} == parameters
    assert handle.id in plain.norm._forward_hooks
    assert len(plain.norm._forward_hooks) == 1
    assert all(not m._forward_hooks and not m._forward_pre_hooks for k, m in modules.items() if k != "norm")


def test_random_states_are_left_as_they_were(plain: Plain) -> None:
    states: tuple[Any, ...] = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy())  # noqa: NPY002
    spdify.convert(plain, example_input=X)
    spdify.convert("test_resnet", proof="site")
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])  # noqa: NPY002


def test_same_function_in_eval_mode(plain: Plain) -> None:
    conversion = spdify.convert(plain, example_input=X)
    assert not conversion.model.training
    assert isinstance(conversion.model, type(plain))
    x = torch.randn(3, 3, 17, 19)
    torch.testing.assert_close(conversion.model(x), plain.eval()(x))
    assert [d.site.path for d in conversion.plan.applied] == ["stem", "pool", "last"]
    assert {c.outcome for c in conversion.checks} == {"passed"}
    assert conversion.report.proof == "model"


def test_public_pieces_give_the_same(plain: Plain) -> None:
    conversion = spdify.convert(plain, example_input=X)
    state = conversion.model.state_dict()
    for other in (
        spdify.map_weights(plain.state_dict(), conversion.plan),
        spdify.apply(plain.eval(), conversion.plan).state_dict(),
    ):
        assert other.keys() == state.keys()
        assert all(torch.equal(other[k], v) for k, v in state.items())


def test_same_seed_same_conversion() -> None:
    one, two = (spdify.convert("test_resnet", proof="site", seed=3) for _ in range(2))
    assert one.plan == two.plan
    assert one.checks == two.checks
    assert all(
        torch.equal(a, b) for a, b in zip(one.model.state_dict().values(), two.model.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("named", [True, False])
def test_two_inputs(two_inputs: TwoInputs, *, named: bool) -> None:
    image, mask = torch.randn(1, 3, 8, 8), torch.randn(1, 1, 8, 8)
    conversion = spdify.convert(two_inputs, example_input={"image": image, "mask": mask} if named else (image, mask))
    assert len(conversion.plan.applied) == 2
    assert bool(conversion.plan.inputs.kwargs) is named
    torch.testing.assert_close(conversion.model(image, mask), two_inputs(image, mask))


def test_progress_in_order(plain: Plain) -> None:
    told: list[str] = []
    spdify.convert(plain, example_input=X, progress=told.append)
    words = ("building the model", "finding the sites", "rewriting 3 sites", "proving (level model)")
    assert told == list(words)


def test_inputs_unknown(plain: Plain) -> None:
    with pytest.raises(UsageError, match="Cannot know the input size of Plain"):
        spdify.convert(plain)


def test_nothing_to_convert() -> None:
    with pytest.raises(NothingToConvertError, match="it has no strided site"):
        spdify.convert(nn.Conv2d(3, 4, 3), example_input=X)


def test_strict(plain: Plain, tmp_path: Path) -> None:
    book = tmp_path / "odd.toml"
    book.write_text(
        'schema = 1\nsummary = "Odd."\n[[rule]]\nname = "odd"\nrewrite = "replace-max-pool"\nmatch = {}\n',
        encoding="utf-8",
    )
    assert len(spdify.convert(plain, example_input=X, rules=str(book)).plan.with_action("refused")) == 2
    with pytest.raises(RefusedError, match=r"cannot convert Plain strictly: 2 sites refused\. stem: "):
        spdify.convert(plain, example_input=X, rules=str(book), strict=True)


def test_several_rulebooks(plain: Plain, tmp_path: Path) -> None:
    book = tmp_path / "mine.toml"
    book.write_text(
        'schema = 1\nsummary = "Mine."\n[[rule]]\nname = "stem"\nrewrite = "replace-strided-conv"\n'
        'match = { operator = "conv", position = "0" }\nparams = { kernel = "odd" }\n',
        encoding="utf-8",
    )
    rules = (str(book), "spd")
    plan = spdify.convert(plain, example_input=X, rules=rules, overrides=["spd/max-pool.form=keep"]).plan
    assert plan.rulebook == "mine+spd"
    assert {d.rule.partition("/")[0] for d in plan.decisions[1:] if d.rule} == {"spd"}
    assert (plan.decisions[0].rule, plan.decisions[0].params["kernel"]) == ("mine/stem", "odd")
    assert spdify.report(plain, example_input=X, rules=rules[::-1]).decisions[0].rule == "spd/strided-conv"
    with pytest.raises(RulebookError, match=r"expected a rule of rulebook 'mine\+spd', got 'steam'") as caught:
        spdify.convert(plain, example_input=X, rules=rules, overrides=["steam.kernel=odd"])
    assert caught.value.hint == "Did you mean 'stem'?"


def test_a_wrong_weight_is_an_error(plain: Plain, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: nn.Module, plan: Plan) -> nn.Module:
        converted = apply(model, plan)
        with torch.no_grad():
            weight = converted.get_parameter("stem.weight")
            weight[0] = -weight[0]
        return converted

    monkeypatch.setattr(converting, "apply", wrong)
    with pytest.raises(
        CheckFailedError, match=r"cannot convert Plain: a claim does not hold. own weights, float32"
    ) as caught:
        spdify.convert(plain, example_input=X)
    assert caught.value.exit_code == 3
    assert "Nothing was written" in caught.value.hint


def test_a_wrong_weight_map_is_an_error(plain: Plain, monkeypatch: pytest.MonkeyPatch) -> None:
    from spdify.rewrites.strided_conv import ReplaceStridedConv

    right = ReplaceStridedConv.weights

    def wrong(self: ReplaceStridedConv, site: Site, old: dict[str, Tensor]) -> dict[str, Tensor]:
        return {k: v.roll(1, 0) if v.dim() > 1 else v for k, v in right(self, site, old).items()}

    monkeypatch.setattr(ReplaceStridedConv, "weights", wrong)
    with pytest.raises(CheckFailedError, match=r"a claim does not hold\. site stem: "):
        spdify.convert(plain, example_input=X)


def test_conversion_is_a_value(plain: Plain) -> None:
    conversion = spdify.convert(plain, example_input=X, command="spdify convert it")
    assert {f.name for f in dataclasses.fields(conversion)} >= {"model", "plan", "checks", "report", "source", "seed"}
    record = conversion.record()
    assert record.command == "spdify convert it"
    assert record.plans == (conversion.plan,)
    assert record.versions["torch"] == torch.__version__.partition("+")[0] or record.versions["torch"]


def test_a_module_is_not_built_anew() -> None:
    with pytest.raises(UsageError, match="cannot build Sequential anew"):
        spdify.convert(nn.Sequential(nn.Conv2d(3, 4, 3, 2)), input_size=(3, 9, 9), num_classes=3)


def test_a_module_takes_an_input_size() -> None:
    conversion = spdify.convert(nn.Sequential(nn.Conv2d(3, 4, 3, 2)), input_size=(3, 9, 11))
    assert conversion.plan.inputs.args[0].shape == (1, 3, 9, 11)


def test_unknown_arguments_and_levels() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2))
    with pytest.raises(UsageError, match="cannot use the argument num_clases") as caught:
        spdify.convert("test_resnet", num_clases=3)
    assert caught.value.hint == "Did you mean num_classes?"
    with pytest.raises(UsageError, match="cannot prove at level 'foo'"):
        spdify.convert(network, input_size=(3, 9, 9), proof="foo")


def test_a_network_that_draws_from_other_generators() -> None:
    class Drawing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) * (1 + random.random()) + np.random.rand()  # noqa: NPY002, S311

    spdify.convert(Drawing(), input_size=(3, 9, 9))


def test_weights_that_learn_after_one_step_are_no_fault() -> None:
    # The 1x1 map leaves the one tap that is not zero to the padding: the weight behind it learns once others are moved.
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, 2, 1))
    conversion = spdify.convert(network, input_size=(3, 1, 1))
    (check,) = [c for c in conversion.checks if c.name == "gradients"]
    assert check.outcome == "passed"


@needs_const_addresses
@pytest.mark.parametrize(("proof", "shares"), [("site", True), ("model", False)])
def test_a_large_model_shares_its_weights_until_one_is_trained(
    plain: Plain, tmp_path: Path, proof: str, *, shares: bool
) -> None:
    conversion = spdify.convert(plain, example_input=X, proof=proof)
    conversion.save(tmp_path / "out", onnx=False)
    one, other = conversion.original.norm.weight, conversion.model.norm.weight
    assert (one.const_data_ptr() == other.const_data_ptr()) is shares
    assert plain.norm.weight.const_data_ptr() != one.const_data_ptr()
    before = copy.deepcopy(conversion.original.state_dict())
    conversion.model.train()(torch.cat([X, X])).sum().backward()
    torch.optim.SGD(conversion.model.parameters(), lr=1.0).step()
    assert all(torch.equal(t, before[name]) for name, t in conversion.original.state_dict().items())
    assert not torch.equal(conversion.model.norm.bias, before["norm.bias"])
    assert torch.equal(spdify.load(tmp_path / "out", model=plain).norm.bias, before["norm.bias"])
