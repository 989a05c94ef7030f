"""FE-MNIST in its layouts: npz, LEAF's json with and without a split, parquet."""

import importlib.util
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_files import npz_bytes

from fedrobust.data import ByWriter, Dataset, Femnist
from fedrobust.data.catalogue import CHECKSUMS
from fedrobust.errors import DataError

real = pytest.mark.skipif("FEDROBUST_DATA" not in os.environ, reason="FEDROBUST_DATA is not set")
RNG = np.random.default_rng(0)
WRITERS = {"f0002_10": 25, "f0001_41": 10, "f0003_07": 1}


def images(n: int) -> np.ndarray:
    return RNG.integers(0, 256, (n, 28, 28), dtype=np.uint8)


WRITTEN = {w: (images(n), RNG.integers(0, 62, n)) for w, n in WRITERS.items()}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDROBUST_DATA", str(tmp_path))
    monkeypatch.setenv("FEDROBUST_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "femnist"
    path.mkdir()
    return path


def leaf(written: dict[str, tuple[np.ndarray, np.ndarray]]) -> str:
    data = {
        w: {"x": (x.reshape(len(x), 784) / 255).tolist(), "y": y.tolist()}
        for w, (x, y) in written.items()
    }
    sizes = [len(y) for _, y in written.values()]
    return json.dumps({"users": list(data), "num_samples": sizes, "user_data": data})


def pairs(data: Dataset, *parts: str) -> dict[str, set[tuple[bytes, int]]]:
    """What each writer wrote, in the splits ``parts``."""
    assert data.user_names is not None
    found: dict[str, set[tuple[bytes, int]]] = {name: set() for name in data.user_names}
    for split in (getattr(data, part) for part in parts):
        for x, y, user in zip(split.x, split.y, split.user, strict=True):
            found[data.user_names[int(user)]].add((x.numpy().tobytes(), int(y)))
    return found


def expected() -> dict[str, set[tuple[bytes, int]]]:
    return {
        w: {(a.tobytes(), int(b)) for a, b in zip(x, y, strict=True)}
        for w, (x, y) in WRITTEN.items()
    }


def check_split_by_writer(data: Dataset) -> None:
    """All images are there, 90 of 100 of each writer train, a lone image trains."""
    assert pairs(data, "train", "test") == expected()
    assert len(data.train) + len(data.test) == 36
    train = {w: len(v) for w, v in pairs(data, "train").items()}
    assert train == {"f0002_10": 22, "f0001_41": 9, "f0003_07": 1}
    assert data.classes == 62
    assert any("no test split: 90 %" in note for note in data.notes)
    assert "1 of 3 writers have no test image" in data.notes


def test_leaf_without_a_split_is_split_by_writer(folder: Path) -> None:
    names = list(WRITTEN)
    for i, part in enumerate((names[:2], names[2:])):
        path = folder / f"all_data_{i}_niid_0_keep_0.json"
        path.write_text(leaf({w: WRITTEN[w] for w in part}))
    data = Femnist(validation=2).load()
    check_split_by_writer(data)
    assert data.user_names == ("f0001_41", "f0002_10", "f0003_07")
    assert data.validation == 2
    note = "no checksum is known of all_data_0_niid_0_keep_0.json and 1 more files: not checked"
    assert note in data.notes
    assert torch.equal(Femnist().load().test.x, data.test.x)


def test_leafs_own_split_is_kept(folder: Path) -> None:
    cut = {w: len(y) - len(y) // 5 for w, (_, y) in WRITTEN.items()}
    for part, take in (("train", lambda n: slice(n)), ("test", lambda n: slice(n, None))):
        (folder / part).mkdir()
        some = {w: (x[take(cut[w])], y[take(cut[w])]) for w, (x, y) in WRITTEN.items()}
        (folder / part / f"all_data_0_niid_0_keep_0_{part}_9.json").write_text(leaf(some))
    data = Femnist().load()
    assert {w: len(v) for w, v in pairs(data, "train").items()} == cut
    assert pairs(data, "train", "test") == expected()
    assert not any("90 %" in note for note in data.notes)
    partition = ByWriter().split(data.train, data.test, torch.Generator())
    assert [len(part) for part in partition.test] == [2, 5, 0]


def parquet(path: Path, **change: Any) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    from PIL import Image

    rows: dict[str, list[Any]] = {"image": [], "writer_id": [], "hsf_id": [], "character": []}
    for writer, (x, y) in WRITTEN.items():
        for image, label in zip(x, y, strict=True):
            png = io.BytesIO()
            Image.fromarray(image).save(png, "PNG")
            values = ({"bytes": png.getvalue(), "path": None}, writer, 0, int(label))
            for column, value in zip(rows.values(), values, strict=True):
                column.append(value)
    pyarrow.parquet.write_table(pyarrow.table(rows | change), path)


def test_parquet_is_read_and_split_by_writer(folder: Path) -> None:
    parquet(folder / "mine.parquet")
    check_split_by_writer(Femnist().load())


def test_a_bad_parquet_file_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "train-00000-of-00001.parquet"
    parquet(path)
    with pytest.raises(DataError, match=r"parquet is corrupt: its content has SHA-256"):
        Femnist().load()
    monkeypatch.setitem(CHECKSUMS, "femnist", {})
    parquet(path, image=["no image"] * 36)
    with pytest.raises(DataError, match=r"is not FE-MNIST in parquet"):
        Femnist().load()
    path.write_bytes(b"PAR1 no more")
    with pytest.raises(DataError, match=r"is not FE-MNIST in parquet"):
        Femnist().load()


@pytest.mark.parametrize("present", [False, True])
def test_without_pyarrow_nothing_is_downloaded_and_the_cure_is_said(
    folder: Path, present: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if present:
        (folder / "mine.parquet").write_bytes(b"")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'fedrobust\[femnist\]'.*LEAF's train and"):
        Femnist().load()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_train": np.full(4, 62)}, r"a label is outside 0 to 61"),
        ({"x_train": images(4)[:, :27]}, r"x_train must be uint8 \[N, 28, 28\]"),
        ({"x_test": images(2) / 255}, r"x_test must be uint8"),
        ({"user_test": np.arange(3)}, r"user_test has 3 entries for 2"),
        ({"user_train": np.array([0, 1, 2, 9])}, r"user_train is beyond the 3 names"),
        ({"user_train": np.arange(4) - 1}, r"negative user id -1"),
        ({"y_train": np.arange(4) / 2}, r"y_train is torch.float64; it needs whole numbers"),
        ({"users": None}, r"has no users; it holds"),
    ],
)
def test_a_bad_npz_is_refused(folder: Path, change: dict[str, Any], message: str) -> None:
    arrays = {
        "x_train": images(4), "y_train": np.arange(4), "user_train": np.arange(4) % 3,
        "x_test": images(2), "y_test": np.arange(2), "user_test": np.arange(2),
        "users": np.array(["a", "b", "c"]),
    }  # fmt: skip
    (folder / "own.npz").write_bytes(npz_bytes(**arrays))
    assert Femnist().load().user_names == ("a", "b", "c")
    arrays = {k: v for k, v in (arrays | change).items() if v is not None}
    (folder / "own.npz").write_bytes(npz_bytes(**arrays))
    with pytest.raises(DataError, match=message):
        Femnist().load()


def test_a_leaf_split_without_images_is_refused(folder: Path) -> None:
    for part, written in (("train", WRITTEN), ("test", {})):
        (folder / part).mkdir()
        (folder / part / "a.json").write_text(leaf(written))
    with pytest.raises(DataError, match=r"hold no image of one of the splits"):
        Femnist().load()


@real
def test_the_real_sample_is_by_writer_and_says_what_it_is() -> None:
    data = Femnist().load()
    assert (data.shape, data.classes, data.train.x.dtype) == ((1, 28, 28), 62, torch.uint8)
    assert data.user_names is not None
    if len(data.user_names) == 300:
        assert data.notes == (
            "300 writers (LEAF has over 3,500), 41,258 training and 4,700 test images; "
            "71% of the training images are digits",
            "4 of 300 writers have no test image",
        )
    assert float(data.train.images(torch.arange(100)).median()) == 1.0  # dark on white
    partition = ByWriter(200).split(data.train, data.test, torch.Generator().manual_seed(0))
    assert len(partition) == 200


@real
def test_a_genuine_leaf_shard_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = os.environ["FEDROBUST_DATA"].split(os.pathsep)
    shards = [p for root in named for p in Path(root).glob("femnist/leaf-json/*.json")]
    if not shards:
        pytest.skip("FEDROBUST_DATA has no femnist/leaf-json")
    (tmp_path / "femnist").mkdir()
    (tmp_path / "femnist" / "leaf-json").symlink_to(shards[0].parent)
    monkeypatch.setenv("FEDROBUST_DATA", str(tmp_path))
    data = Femnist().load()
    users = json.loads(shards[0].read_text())
    sizes = dict(zip(users["users"], users["num_samples"], strict=True))
    assert data.user_names == tuple(sorted(sizes))
    assert len(data.train) + len(data.test) == sum(sizes.values())
    first = users["users"][0]
    mine = pairs(data, "train", "test")[first]
    x = np.array(users["user_data"][first]["x"][0])
    image = next(i for i, y in mine if np.abs(np.frombuffer(i, np.uint8) / 255 - x).max() < 1e-9)
    assert len(image) == 784
