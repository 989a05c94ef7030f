"""A data set of the user's own: what is accepted, what is refused and how, what is held out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from fedrobust.config.component import component, from_config, read_as, to_config
from fedrobust.data import AnyData, Dataset, Digits, Split
from fedrobust.data.dataset import loaded
from fedrobust.errors import ConfigError, DataError


def arrays(n: int = 12, m: int = 6) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    return {
        "x_train": torch.randint(0, 256, (n, 1, 4, 4), dtype=torch.uint8, generator=generator),
        "y_train": torch.arange(n) % 3,
        "x_test": torch.randint(0, 256, (m, 1, 4, 4), dtype=torch.uint8, generator=generator),
        "y_test": torch.arange(m) % 3,
    }


def floats(n: int = 12, m: int = 6) -> dict[str, Any]:
    return {k: v.float() / 255 if k.startswith("x") else v for k, v in arrays(n, m).items()}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_bytes_become_pixels_exactly_and_floats_pass_through() -> None:
    x = torch.arange(256, dtype=torch.uint8).view(16, 1, 4, 4)
    index = torch.tensor([3, 0, 15])
    pixels = Split(x, torch.zeros(16).long()).images(index)
    assert pixels.dtype == torch.float32
    assert torch.equal(pixels, x[index].float() / 255)
    assert float(pixels.max()) == 1.0
    values = torch.randn(16, 2)
    assert torch.equal(Split(values, torch.zeros(16).long()).images(index), values[index])


def test_take_keeps_examples_labels_and_users_together() -> None:
    whole = Split(torch.arange(5.0)[:, None], torch.arange(5), 10 * torch.arange(5))
    part = whole.take(torch.tensor([4, 1]))
    assert len(part) == 2
    assert part.x[:, 0].tolist() == [4, 1]
    assert part.y.tolist() == [4, 1]
    assert part.user is not None
    assert part.user.tolist() == [40, 10]
    assert whole.take(torch.tensor([0])).images(torch.tensor([0])).shape == (1, 1)


def test_numpy_and_torch_give_the_same_data_set() -> None:
    tensors = arrays()
    frozen = {k: v.numpy().astype(v.numpy().dtype.newbyteorder("=")) for k, v in tensors.items()}
    for array in frozen.values():
        array.setflags(write=False)
    frozen["y_train"] = frozen["y_train"].astype(np.uint8)
    one, two = Dataset.from_tensors(**tensors), Dataset.from_tensors(**frozen)
    assert torch.equal(one.train.x, two.train.x)
    assert torch.equal(one.train.y, two.train.y)
    assert two.train.y.dtype == torch.int64
    assert (one.classes, one.shape, one.name, one.notes) == (3, (1, 4, 4), "own", ())


def test_wider_floats_become_float32_and_features_may_lie_anywhere() -> None:
    doubles = {k: v.double() if k.startswith("x") else v for k, v in floats().items()}
    assert Dataset.from_tensors(**doubles).train.x.dtype == torch.float32
    features = arrays() | {"x_train": 100 * torch.randn(12, 5), "x_test": torch.randn(6, 5)}
    assert Dataset.from_tensors(**features).shape == (5,)


def test_a_class_without_training_examples_is_noted() -> None:
    data = Dataset.from_tensors(**(arrays() | {"y_train": 2 * (torch.arange(12) % 2)}))
    assert data.classes == 3
    assert data.notes == ("no training example has label 1",)


BYTES = torch.zeros(12, 1, 4, 4, dtype=torch.uint8)
NAN = torch.full((12, 1, 4, 4), 0.5)
NAN[7, 0, 1, 1] = float("nan")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_train": [1, 2]}, r"x_train must be a torch tensor or numpy array; got list"),
        ({"x_train": np.array(["a"] * 12)}, r"x_train is an array of <U1"),
        ({"x_train": torch.zeros(12)}, r"x_train has shape \[12\]; images are"),
        ({"x_train": BYTES[:0], "y_train": torch.zeros(0)}, r"x_train is empty"),
        ({"x_train": BYTES[:, 0]}, r"uint8 of shape \[12, 4, 4\].*x_train\[:, None\]"),
        ({"x_train": BYTES.flatten(1)}, r"uint8 of shape \[12, 16\].*float"),
        ({"x_train": BYTES.long()}, r"x_train is torch.int64; pass pixels 0..255 as uint8"),
        ({"x_train": BYTES > 3}, r"x_train is torch.bool"),
        ({"x_train": torch.zeros(12, 8, 8, 3)}, r"channels last; pass x_train.permute"),
        ({"x_train": torch.zeros(12, 28, 20, 3)}, r"channels last; pass x_train.permute"),
        (
            {"x_train": np.zeros((12, 28, 20, 3))},
            r"channels last; pass np.transpose\(x_train, \(0, 3, 1, 2\)\)$",
        ),
        ({"y_train": torch.zeros(12, 1).long()}, r"one number per example; pass y_train\[:, 0\]"),
        (
            {"y_train": torch.zeros(12, 3).long()},
            r"shape \[12, 3\]; it needs one number per example$",
        ),
        ({"x_train": torch.zeros(12, 1, 8, 8).to_sparse()}, "dense tensor.*sparse"),
        ({"x_train": torch.full((12, 1, 8, 8), 1.001)}, r"lies in \[1.00100005, 1.00100005\]"),
        ({"x_train": NAN}, r"NaN or infinite values in 1 of 12 examples"),
        ({"x_train": NAN.nan_to_num(torch.inf)}, r"NaN or infinite values in 1 of 12"),
        (
            {"x_train": 255 * floats()["x_train"]},
            r"x_train lies in \[.*pixels lie in \[0, 1\]: divide by the largest value",
        ),
        ({"x_train": floats()["x_train"] - 0.5}, r"undo the normalisation"),
        ({"x_train": BYTES.float()}, r"x_train and x_test differ.*float32.*uint8"),
        ({"x_test": torch.zeros(6, 1, 5, 4, dtype=torch.uint8)}, r"\[1, 4, 4\].*\[1, 5, 4\]"),
        ({"y_train": torch.arange(11) % 3}, r"y_train has 11 entries for 12 examples"),
        ({"y_test": torch.arange(7) % 3}, r"y_test has 7 entries for 6 examples"),
        ({"y_train": torch.eye(12)}, r"y_train has shape \[12, 12\].*y_train.argmax\(1\)"),
        ({"y_train": torch.zeros(12)}, r"y_train is torch.float32; it needs whole numbers"),
        ({"y_train": torch.zeros(12) > 0}, r"y_train is torch.bool"),
        ({"y_train": torch.arange(12) % 3 - 1}, r"negative label -1"),
        ({"y_train": torch.zeros(12).long()}, r"every label of y_train is 0"),
        ({"y_train": 1000 * torch.arange(12)}, r"y_train reaches 11,000 with 12.*renumber"),
        ({"y_test": torch.arange(6)}, r"y_test has the label 5, but y_train only reaches 2"),
        ({"user_train": torch.zeros(12).long()}, r"user_train and user_test, or neither"),
        (
            {"user_train": torch.zeros(11).long(), "user_test": torch.zeros(6).long()},
            r"user_train has 11 entries for 12",
        ),
        (
            {"user_train": torch.zeros(12).long() - 1, "user_test": torch.zeros(6).long()},
            r"user_train has the negative user id -1",
        ),
        ({"validation": -1}, r"validation must be a whole number from 0 on; got -1"),
        ({"validation": True}, r"validation must be .* got True"),
        ({"validation": 0.1}, r"validation must be .* got 0.1"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_do(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Dataset.from_tensors(**(arrays() | change))


def test_test_examples_that_are_training_examples_are_noted() -> None:
    given = arrays()
    assert not Dataset.from_tensors(**given).notes
    given["x_test"][2] = given["x_train"][7]
    (note,) = Dataset.from_tensors(**given).notes
    assert note == "1 of 6 test inputs are training inputs too"


def test_bytes_of_black_and_white_are_refused_where_no_split_has_another() -> None:
    given = arrays()
    both = given | {name: given[name] // 128 for name in ("x_train", "x_test")}
    with pytest.raises(DataError, match=r"uint8 with no value above 1.* pass x \* 255"):
        Dataset.from_tensors(**both)
    dark = given | {"x_test": given["x_test"] // 128}
    assert int(Dataset.from_tensors(**dark).test.x.max()) == 1


def test_splits_of_different_shapes_are_refused_before_the_first_round() -> None:
    x, y = torch.rand(6, 1, 9, 9), torch.arange(6) % 3
    made = Dataset("mine", Split(torch.rand(12, 1, 8, 8), torch.arange(12) % 3), Split(x, y), 3)
    with pytest.raises(DataError, match=r"x_train and x_test differ.*\[1, 8, 8\].*\[1, 9, 9\]"):
        loaded(made)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.data())
def test_hold_out_parts_the_training_split_in_order(n: int, data: st.DataObject) -> None:
    held = data.draw(st.integers(0, n - 1))
    seed = data.draw(st.integers(0, 2**32))
    whole = Split(torch.arange(float(n))[:, None], torch.arange(n), torch.arange(n) + 5)
    dataset = Dataset("own", whole, whole, n, validation=held)
    train, validation = dataset.hold_out(generator(seed))
    assert len(validation) == held
    assert sorted(train.y.tolist() + validation.y.tolist()) == list(range(n))
    for part in (train, validation):
        assert part.user is not None
        assert torch.equal(part.y, part.y.sort().values)
        assert torch.equal(part.user, part.y + 5)
    again, _ = dataset.hold_out(generator(seed))
    assert torch.equal(again.y, train.y)


def test_hold_out_is_random_and_depends_on_the_seed() -> None:
    whole = Split(torch.zeros(1000, 1), torch.arange(1000))
    dataset = Dataset("own", whole, whole, 1000, validation=500)
    one, two = (dataset.hold_out(generator(seed))[1].y for seed in (1, 2))
    assert len(set(one.tolist()) & set(two.tolist())) < 350
    assert 400 < float(one.double().mean()) < 600


@pytest.mark.parametrize("validation", [12, 5000])
def test_nothing_left_to_train_on_is_refused(validation: int) -> None:
    data = Dataset.from_tensors(**arrays(), validation=validation)
    with pytest.raises(DataError, match=rf"12 training examples, so {validation:,} .*validation"):
        data.hold_out(generator())


@component
class Run:
    data: AnyData = Digits()


def test_a_data_set_stands_where_a_spec_stands_but_no_file_can_rebuild_it() -> None:
    data = Dataset.from_tensors(**arrays(), validation=2)
    assert Run(data).data is data
    assert Run(data).data.load() is data
    assert Run(data).data.validation == 2
    assert "opaque" in to_config(Run(data))["data"]


def test_data_sets_are_read_by_name() -> None:
    assert from_config(Run, {"data": {"name": "digits", "validation": 7}}).data == Digits(7)
    with pytest.raises(ConfigError, match=r"unknown data set 'mnits' .*'mnist'"):
        from_config(Run, {"data": {"name": "mnits"}})
    with pytest.raises(ConfigError, match=r"validation: .*greater than or equal to 0"):
        from_config(Run, {"data": {"name": "femnist", "validation": -1}})


def test_pixels_that_rounding_put_outside_are_clipped() -> None:
    """Normalised and put back, as is done to CIFAR-10, pixels leave [0, 1] by a rounding step."""
    x = torch.rand(40, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    x[0, 0, 0, 0], x[1, 0, 0, 0] = 0.0, 1.0
    back = (x - 0.4914) / 0.2023 * 0.2023 + 0.4914
    back[2, 0, 0, 0], back[3, 0, 0, 0] = 1 + 2e-7, -2e-7
    y = torch.arange(40) % 3
    data = Dataset.from_tensors(back, y, back, y, validation=4)
    assert data.train.x.min() == 0
    assert data.train.x.max() == 1
    assert (data.train.x - x).abs()[4:].max() < 1e-6


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ((BYTES, BYTES), "a tuple of objects is no data set: "),
        ([(BYTES.numpy(), 1)], "a list of objects is no data set: "),
        ({"x_train": BYTES}, "a dict of objects is no data set: "),
        (BYTES, "Tensor is no data set: it lacks load and validation; "),
        (TensorDataset(BYTES), "TensorDataset is no data set: it lacks load and validation; "),
    ],
    ids=lambda each: type(each).__name__,
)
def test_what_is_no_data_set_yet_is_told_what_makes_one(own: Any, said: str) -> None:
    """Not how a config file is written."""
    with pytest.raises(ConfigError) as told:
        read_as(AnyData, own, "data")
    makes = "Dataset.from_tensors(x_train, y_train, x_test, y_test) makes one of tensors or arrays"
    assert str(told.value).startswith(f"data: {said}{makes}")
    assert len(str(told.value)) < 300


def test_a_data_set_by_name_may_have_objects_as_its_fields(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot import nowhere:Data"):
        read_as(AnyData, {"name": "nowhere:Data", "path": tmp_path}, "data")
    with pytest.raises(ConfigError, match=r"must be a mapping with a name, .* or the name alone"):
        read_as(AnyData, ["mnist"], "data")
    with pytest.raises(ConfigError, match="has no name; there are: digits"):
        read_as(AnyData, {"validation": 3}, "data")
