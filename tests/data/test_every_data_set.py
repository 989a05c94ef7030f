"""Every data set: as a config value, and loaded twice."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from component_table import DATASETS
from pydantic import TypeAdapter

from fedrobust import data
from fedrobust.config.component import to_config
from fedrobust.data import AnyData

SHARED = Path(os.environ.get("FEDROBUST_DATA", "/nowhere"))
IN_FILES = ("mnist", "fashion-mnist", "cifar10", "femnist")


def test_the_table_has_every_data_set() -> None:
    assert list(DATASETS) == [member.__dict__["name"] for member in data.DATASETS]


@pytest.mark.slow
@pytest.mark.parametrize("name", DATASETS)
def test_it_holds_finite_examples_with_labels_and_loads_the_same_again(
    name: str, tmp_path: Path
) -> None:
    if name in IN_FILES and not (SHARED / name).is_dir():
        pytest.skip("FEDROBUST_DATA does not name the data")
    block = dict(DATASETS[name])
    if "path" in block:
        block["path"] = str(tmp_path / "own.npz")
        x, y = np.random.default_rng(0).random((30, 1, 4, 4), np.float32), np.arange(30) % 3
        np.savez(block["path"], x_train=x, y_train=y, x_test=x[:6], y_test=y[:6])
    spec = TypeAdapter(AnyData).validate_python(block)
    assert TypeAdapter(AnyData).validate_python(to_config(spec)) == spec
    first, again = spec.load(), spec.load()
    for split, other in ((first.train, again.train), (first.test, again.test)):
        assert len(split.x) == len(split.y) > 0
        assert 0 <= int(split.y.min()) <= int(split.y.max()) < first.classes
        assert split.images(torch.arange(3)).isfinite().all()
        assert torch.equal(split.x, other.x)
        assert torch.equal(split.y, other.y)
    assert tuple(first.train.images(torch.arange(1)).shape[1:]) == first.shape
