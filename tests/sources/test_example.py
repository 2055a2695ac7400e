from __future__ import annotations

import pytest
import torch

from spdify.errors import UsageError
from spdify.records import Inputs, InputSpec
from spdify.sources import describe_inputs, example_inputs


def test_inputs_have_the_described_shape_with_another_batch() -> None:
    inputs = Inputs(args=(InputSpec(shape=(1, 3, 8, 9)),), kwargs={"ids": InputSpec(shape=(1, 5), dtype="int64")})

    (x_NCHW,), named = example_inputs(inputs, batch=4, seed=0)

    assert x_NCHW.shape == (4, 3, 8, 9)
    assert x_NCHW.dtype == torch.float32
    assert abs(x_NCHW.mean()) < 0.2
    assert 0.8 < x_NCHW.std() < 1.2
    assert named["ids"].shape == (4, 5)
    assert named["ids"].dtype == torch.int64
    assert set(named["ids"].flatten().tolist()) == {0, 1}


def test_a_seed_gives_the_same_values_in_every_precision() -> None:
    inputs = Inputs(args=(InputSpec(shape=(1, 3, 4, 4)), InputSpec(shape=(1, 2), dtype="int32")))

    (single, integers), _ = example_inputs(inputs, batch=2, seed=1)
    (double, same), _ = example_inputs(inputs, batch=2, seed=1, dtype=torch.float64)
    (other, _), _ = example_inputs(inputs, batch=2, seed=2)

    assert double.dtype == torch.float64
    assert torch.equal(single.double(), double)
    assert same.dtype == torch.int32
    assert torch.equal(same, integers)
    assert not torch.equal(single, other)


def test_the_callers_random_state_is_left_alone() -> None:
    before = torch.random.get_rng_state()

    example_inputs(Inputs(args=(InputSpec(shape=(1, 3)),)), batch=1, seed=5)

    assert torch.equal(torch.random.get_rng_state(), before)


def test_unknown_dtypes_are_refused() -> None:
    with pytest.raises(UsageError, match="Cannot describe"):
        describe_inputs(torch.zeros(1, 3, dtype=torch.float8_e4m3fn))


def test_inputs_of_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="greater than or equal to 1"):
        describe_inputs(torch.zeros(1, 3, 0))


def test_tensors_tuples_and_dicts_are_described() -> None:
    image, ids = torch.zeros(2, 3, 8, 8), torch.zeros(2, 5, dtype=torch.int64)
    image_spec, ids_spec = InputSpec(shape=(2, 3, 8, 8)), InputSpec(shape=(2, 5), dtype="int64")

    assert describe_inputs(image) == Inputs(args=(image_spec,))
    assert describe_inputs((image, ids)) == Inputs(args=(image_spec, ids_spec))
    assert describe_inputs([ids]) == Inputs(args=(ids_spec,))
    assert describe_inputs({"x": image}) == Inputs(kwargs={"x": image_spec})


@pytest.mark.parametrize("example", ["text", 3, (torch.zeros(1), None), {"x": [1]}, torch.tensor(1.0)])
def test_other_examples_are_refused(example: object) -> None:
    with pytest.raises(UsageError, match="Cannot describe"):
        describe_inputs(example)
