"""Examples from pairs of tensors and from PyTorch data sets, and what does not fit."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Subset, TensorDataset

from fedrobust import Dataset
from fedrobust.data import Split
from fedrobust.data.map_style import split_of
from fedrobust.errors import DataError


class Listed(TorchDataset[Any]):
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        if isinstance(self.items[i], Exception):
            raise self.items[i]
        return self.items[i]


X = torch.rand(5, 3, 4, 6, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 2, 1, 0, 2])


class Picture:
    """A picture as Pillow has it: rows of pixels, as bytes."""

    def __init__(self, pixels: Any) -> None:
        self.pixels = pixels

    @property
    def __array_interface__(self) -> Any:
        return self.pixels.__array_interface__


@pytest.mark.parametrize(
    "source",
    [
        (X, Y),
        [X.numpy(), Y.numpy()],
        TensorDataset(X, Y),
        Listed([(x, int(y)) for x, y in zip(X, Y, strict=True)]),
        Listed([(x.numpy(), np.int64(y)) for x, y in zip(X, Y, strict=True)]),
        Subset(TensorDataset(torch.cat([X, X]), torch.cat([Y, Y])), range(5)),
        Split(X, Y),
    ],
    ids=["pair", "arrays", "tensors", "items", "numbers", "subset", "split"],
)
def test_all_of_them_are_the_same_examples(source: Any) -> None:
    found = split_of(source, "client 0")
    assert torch.equal(found.x, X)
    assert torch.equal(found.y, Y)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_is_bytes_with_its_channels_first(channels: int) -> None:
    shape = (8, 7) if channels == 1 else (8, 7, 3)
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    found = split_of(Listed([(Picture(pixels), 0), (Picture(pixels), 1)]), "client 0")
    assert found.x.dtype == torch.uint8
    assert found.x.shape == (2, channels, 8, 7)
    assert int(found.x[0, -1, 2, 3]) == (pixels[2, 3] if channels == 1 else pixels[2, 3, 2])


WRONG: dict[str, tuple[Any, str]] = {
    "nothing": (3, r"client 0 must be a pair \(x, y\) of tensors, or a data set"),
    "empty": (Listed([]), "client 0 has no examples"),
    "ragged": (
        Listed([(X[0], 0), (X[1][:, :2], 1)]),
        r"example 0 is \[3, 4, 6\] .* example 1 is \[3, 2, 6\] .*: all must be alike; resize",
    ),
    "no pair": (Listed([X[0]]), r"example 0 must be \(x, y\); it is"),
    "a label of two": (Listed([(X[0], torch.tensor([0, 1]))]), "label of example 0 must be"),
    "a soft label": (Listed([(X[0], 0.5)]), "label of example 0 must be a whole number"),
    "a path": (Listed([("cat.png", 0)]), "example 0 must be a tensor, an array or a picture"),
    "another byte order": (
        Listed([(X[0].numpy().astype(">f4"), 0)]),
        "client 0: example 0 is an array of >f4, which is not read",
    ),
    "it fails": (
        Listed([(X[0], 0), OSError("gone")]),
        "example 1 could not be read: OSError: gone",
    ),
    "normalised": ((X * 4 - 2, Y), "pixels lie in"),
    "channels last": (
        (X.new_zeros(5, 8, 8, 3), Y),
        r"x of client 0 has shape \[5, 8, 8, 3\], channels last; pass x.permute\(0, 3, 1, 2\)$",
    ),
    "an array with channels last": (
        (np.zeros((5, 8, 8, 1), "float32"), Y),
        r"channels last; pass np.transpose\(x, \(0, 3, 1, 2\)\)$",
    ),
    "images with channels last, one by one": (
        Listed([(np.zeros((8, 8, 3), "float32"), 0)] * 3),
        r"x of client 0 has shape \[3, 8, 8, 3\], channels last; pass each image as \[c, h, w\],",
    ),
    "bytes without channels": ((X[:, 0].byte(), Y), r": pass x\[:, None\]$"),
    "bytes without channels, one by one": (
        Listed([(X[0, 0].byte(), 0)] * 3),
        r": pass each image as \[1, h, w\]$",
    ),
    "bytes as features": ((X.byte().flatten(1).numpy(), Y), r"as x.astype\(np.float32\)$"),
    "columns of labels": ((X, Y[:, None]), r"y of client 0 has shape \[5, 1\].*pass y\[:, 0\]$"),
    "too few labels": ((X, Y[:3]), "y of client 0 has 3 entries for 5 examples"),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_told(case: tuple[Any, str]) -> None:
    with pytest.raises(DataError, match=case[1]):
        split_of(case[0], "client 0")


def test_a_data_set_of_two_examples_is_no_pair() -> None:
    found = split_of([(X[0], 0), (X[1], 1)], "client 0")
    assert torch.equal(found.x, X[:2])


def test_a_run_takes_pytorchs_data_sets() -> None:
    made = Dataset.from_torch(TensorDataset(X, Y), TensorDataset(X[:2], Y[:2]), validation=1)
    assert (made.classes, made.shape, len(made.train), len(made.test)) == (3, (3, 4, 6), 5, 2)
    with pytest.raises(DataError, match="the test split has no examples"):
        Dataset.from_torch(TensorDataset(X, Y), Listed([]))
