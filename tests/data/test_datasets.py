"""The data sets themselves: real files where they are given, made ones for the other layouts."""

import hashlib
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_files import binary_batch, npz_bytes, python_batch

from fedrobust.data import Cifar10, Digits, FashionMnist, Mnist, Npz
from fedrobust.data.catalogue import BATCHES, BINARY, CHECKSUMS, PYTHON
from fedrobust.errors import DataError

real = pytest.mark.skipif("FEDROBUST_DATA" not in os.environ, reason="FEDROBUST_DATA is not set")


def test_digits_are_scaled_and_split_by_class() -> None:
    from sklearn.datasets import load_digits

    data = Digits().load()
    assert (len(data.train), len(data.test), data.shape) == (1437, 360, (1, 8, 8))
    assert (data.classes, data.validation, data.train.x.dtype) == (10, 300, torch.float32)
    bunch = load_digits()
    share = torch.bincount(torch.from_numpy(bunch.target)) / 5
    assert (torch.bincount(data.test.y) - share).abs().max() < 1
    original = {(x.tobytes(), int(y)) for x, y in zip(bunch.images, bunch.target, strict=True)}
    for split in (data.train, data.test):
        back = (split.x[:, 0].double() * 16).numpy()
        assert {(x.tobytes(), int(y)) for x, y in zip(back, split.y, strict=True)} <= original
    both = torch.cat([data.train.x, data.test.x]).flatten(1)
    everything = torch.from_numpy(bunch.images).flatten(1).float() / 16
    assert torch.equal(both.sum(0), everything.sum(0))
    assert torch.equal(Digits().load().test.x, data.test.x)


def test_digits_are_the_same_wherever_scikit_learn_keeps_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its file is read without importing it; if it is not there, scikit-learn finds it."""
    known = Digits().load()
    monkeypatch.setattr("fedrobust.data.datasets.find_spec", lambda name: None)
    found = Digits().load()
    for split in ("train", "test"):
        assert torch.equal(getattr(found, split).x, getattr(known, split).x)
        assert torch.equal(getattr(found, split).y, getattr(known, split).y)


@pytest.mark.slow
@real
@pytest.mark.parametrize(
    ("spec", "first", "mean"), [(Mnist(), [5, 0, 4], 0.1307), (FashionMnist(), [9, 0, 0], 0.2860)]
)
def test_mnist_and_fashion_mnist_are_the_known_ones(
    spec: Any, first: list[int], mean: float
) -> None:
    data = spec.load()
    assert (len(data.train), len(data.test), data.shape) == (60_000, 10_000, (1, 28, 28))
    assert (data.train.x.dtype, data.classes, data.name) == (torch.uint8, 10, spec.name)
    assert data.train.y[:3].tolist() == first
    # The mean pixel that normalisations of these data sets use everywhere.
    assert abs(float(data.train.x.double().mean()) / 255 - mean) < 1e-4
    assert data.notes == ()


@pytest.mark.slow
@real
def test_the_cifar_subset_says_what_it_is() -> None:
    data = Cifar10(validation=1000).load()
    assert data.shape == (3, 32, 32)
    assert data.validation == 1000
    assert torch.bincount(data.test.y).tolist() == [1000] * 10
    if len(data.train) == 12_000:
        assert data.notes == (
            "12,000 of CIFAR-10's 50,000 training images",
            "34 of the 10,000 test images are JPEG decodes, not exact",
        )
    # Channels first: the channel means of CIFAR-10, which differ between the channels.
    means = data.train.x.double().mean((0, 2, 3)) / 255
    assert (means - torch.tensor([0.491, 0.482, 0.447])).abs().max() < 0.006


RNG = np.random.default_rng(1)
IMAGES = RNG.integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
LABELS = [i % 10 for i in range(12)]


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a tiny cifar10: six batches of two images."""
    monkeypatch.setenv("FEDROBUST_DATA", str(tmp_path))
    monkeypatch.setitem(CHECKSUMS, "cifar10", {})
    (tmp_path / "cifar10").mkdir()
    return tmp_path / "cifar10"


def batches(write: Any) -> list[bytes]:
    return [write(IMAGES[i : i + 2], LABELS[i : i + 2]) for i in range(0, 12, 2)]


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize(
    ("kind", "names", "write"), [("python", PYTHON, python_batch), ("binary", BINARY, binary_batch)]
)
def test_every_layout_of_cifar_gives_the_same_images(
    cifar: Path, archived: bool, kind: str, names: tuple[str, ...], write: Any
) -> None:
    if archived:
        with tarfile.open(cifar / f"cifar-10-{kind}.tar.gz", "w:gz") as archive:
            for name, content in zip(names, batches(write), strict=True):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    else:
        for name, content in zip(names, batches(write), strict=True):
            (cifar / name).parent.mkdir(exist_ok=True)
            (cifar / name).write_bytes(content)
    data = Cifar10().load()
    assert torch.equal(data.train.x, torch.from_numpy(IMAGES[:10]))
    assert torch.equal(data.test.x, torch.from_numpy(IMAGES[10:]))
    assert (data.train.y.tolist(), data.test.y.tolist()) == (LABELS[:10], LABELS[10:])


def test_unpacked_batches_are_checked(cifar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {}
    for name, content in zip(PYTHON, batches(python_batch), strict=True):
        (cifar / name).parent.mkdir(exist_ok=True)
        (cifar / name).write_bytes(content)
        known[name] = hashlib.md5(content, usedforsecurity=False).hexdigest()
    monkeypatch.setitem(CHECKSUMS, "cifar10", known)
    assert len(Cifar10().load().test) == 2
    (cifar / PYTHON[5]).write_bytes(batches(python_batch)[0])
    with pytest.raises(
        DataError, match=rf"{BATCHES[5]} is corrupt: its content has MD5 .* expected"
    ):
        Cifar10().load()


def test_an_npz_of_cifar_may_have_channels_last(cifar: Path) -> None:
    last = IMAGES.transpose(0, 2, 3, 1)
    content = npz_bytes(x_train=last[:10], y_train=LABELS[:10], x_test=last[10:], y_test=[0, 1])
    (cifar / "mine.npz").write_bytes(content)
    data = Cifar10().load()
    assert torch.equal(data.train.x, torch.from_numpy(IMAGES[:10]))
    assert data.notes == (
        "no checksum is known of mine.npz: not checked",
        "10 of CIFAR-10's 50,000 training images",
        "2 of CIFAR-10's 10,000 test images",
    )
    (cifar / "yours.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"holds mine.npz, yours.npz; keep only the one to use"):
        Cifar10().load()


def test_an_npz_of_something_else_is_not_cifar(cifar: Path) -> None:
    x = np.zeros((12, 1, 28, 28), np.uint8)
    content = npz_bytes(x_train=x, y_train=LABELS, x_test=x, y_test=LABELS)
    (cifar / "mine.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"is not CIFAR-10: it needs uint8 images of 32 by 32"):
        Cifar10().load()


def own(tmp_path: Path, **change: Any) -> Npz:
    arrays: dict[str, Any] = {
        "x_train": IMAGES,
        "y_train": np.array(LABELS),
        "x_test": IMAGES[:4],
        "y_test": np.array(LABELS[:4]),
    }
    path = tmp_path / "own.npz"
    arrays = {k: v for k, v in (arrays | change).items() if v is not None}
    path.write_bytes(npz_bytes(**arrays))
    return Npz(path, validation=3)


def test_an_own_npz_is_read_with_users(tmp_path: Path) -> None:
    users = {"user_train": np.arange(12, dtype=np.int16) // 3, "user_test": np.zeros(4, np.uint8)}
    data = own(tmp_path, **users).load()
    assert (data.name, data.validation, data.classes, data.shape) == ("own", 3, 10, (3, 32, 32))
    assert torch.equal(data.train.x, torch.from_numpy(IMAGES))
    assert data.train.user is not None
    assert data.train.user.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert len(data.hold_out(torch.Generator())[1]) == 3
    assert own(tmp_path).load().train.user is None
    assert own(tmp_path) == Npz(str(tmp_path / "own.npz"), validation=3), "a Path is kept as a text"


def test_a_bad_own_npz_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no y_test; it holds x_train, y_train, x_test"):
        own(tmp_path, y_test=None).load()
    with pytest.raises(DataError, match=r"user_train and user_test, or neither"):
        own(tmp_path, user_train=np.arange(12)).load()
    with pytest.raises(DataError, match=r"y_train has 3 entries for 12"):
        own(tmp_path, y_train=np.arange(3)).load()
    with pytest.raises(DataError, match=r"cannot be read as an .npz file"):
        own(tmp_path, x_train=np.array([None] * 12)).load()
    with pytest.raises(DataError, match=r"missing.npz cannot be read: No such file"):
        Npz(str(tmp_path / "missing.npz")).load()
