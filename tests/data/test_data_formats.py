"""The file formats: what is read is what was written, and nothing harmful is run."""

import gzip
import io
import json
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_files import binary_batch, idx_bytes, npz_bytes, python_batch

from fedrobust.data import formats
from fedrobust.data.catalogue import BATCHES
from fedrobust.errors import DataError

RNG = np.random.default_rng(0)


IMAGES = RNG.integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
LABELS = [3, 1, 4, 1, 5]


@pytest.mark.parametrize("shape", [(7,), (4, 3, 2)])
def test_idx_gives_back_the_array(shape: tuple[int, ...]) -> None:
    array = RNG.integers(0, 256, shape, dtype=np.uint8)
    assert torch.equal(formats.idx(idx_bytes(array), "it"), torch.from_numpy(array))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"here is not an IDX file"),
        (b"\0\0\x08\x03\0\0", r"here is not an IDX file"),
        (b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0", r"not an IDX file of unsigned bytes"),
        (idx_bytes(np.zeros((4, 2), np.uint8))[:-1], r"7 values where .* \(4, 2\)"),
        (b"<html>not found</html>", r"not an IDX file"),
    ],
)
def test_a_broken_idx_file_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        formats.idx(content, "here")


@pytest.mark.parametrize(
    ("read", "write"),
    [(formats.cifar_python, python_batch), (formats.cifar_binary, binary_batch)],
)
def test_cifar_batches_give_back_pixels_and_labels(read: Any, write: Any) -> None:
    x, y = read(write(IMAGES, LABELS), "it")
    assert torch.equal(x, torch.from_numpy(IMAGES))
    assert y.dtype == torch.int64
    assert y.tolist() == LABELS


def test_a_batch_pickled_by_python_2_is_read() -> None:
    # As the published files are: python 2 strings, and numpy's names of that time.
    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<I", len(value)) + value

    pixels = IMAGES.tobytes()
    batch = (
        b"\x80\x02}(" + text(b"data") + b"cnumpy.core.multiarray\n_reconstruct\n"
        b"(cnumpy\nndarray\nK\0\x85" + text(b"b") + b"tR"
        b"(K\x01K\x05M\x00\x0c\x86cnumpy\ndtype\n(" + text(b"u1") + b"K\0K\x01tR"
        b"(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
        b"\x89" + text(pixels) + b"tb" + text(b"labels") + b"](K\x03K\x01K\x04K\x01K\x05eu."
    )
    x, y = formats.cifar_python(batch, "it")
    assert torch.equal(x, torch.from_numpy(IMAGES))
    assert y.tolist() == LABELS


class Malicious:
    def __reduce__(self) -> Any:
        return eval, ("1 / 0",)  # if it ran, the test would see the division


def test_a_batch_that_would_run_code_is_refused() -> None:
    with pytest.raises(DataError, match=r"it is not a CIFAR-10 batch: it asks for builtins.eval"):
        formats.cifar_python(pickle.dumps({b"data": Malicious(), b"labels": []}), "it")


@pytest.mark.parametrize(
    "content",
    [b"", b"no pickle", pickle.dumps([1]), pickle.dumps({b"data": 3}), b"\x80\x03}q\0(X\xff\xff"],
)
def test_a_broken_python_batch_is_refused(content: bytes) -> None:
    with pytest.raises(DataError, match=r"it is not a CIFAR-10 batch"):
        formats.cifar_python(content, "it")


@pytest.mark.parametrize("content", [b"", binary_batch(IMAGES, LABELS)[:-1]])
def test_a_broken_binary_batch_is_refused(content: bytes) -> None:
    with pytest.raises(DataError, match=r"no multiple of 3,073"):
        formats.cifar_binary(content, "it")


def archive(names: list[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as members:
        for i, name in enumerate(names):
            member = tarfile.TarInfo(name)
            member.size = 1
            members.addfile(member, io.BytesIO(bytes([i])))
    return buffer.getvalue()


def test_an_archive_gives_the_batches_in_order_and_touches_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["../../evil", *(f"cifar-10-batches-bin/{b}.bin" for b in reversed(BATCHES))]
    assert formats.cifar_archive(archive(names), "it") == [bytes([i]) for i in range(6, 0, -1)]
    assert list(tmp_path.iterdir()) == []


def test_a_broken_archive_is_refused() -> None:
    with pytest.raises(DataError, match=r"it has no data_batch_2, test_batch"):
        formats.cifar_archive(archive([b for b in BATCHES if b[-1] in "1345"]), "it")
    with pytest.raises(DataError, match=r"it is not a complete archive"):
        formats.cifar_archive(archive(list(BATCHES))[:-20], "it")
    with pytest.raises(DataError, match=r"it is not a complete archive"):
        formats.cifar_archive(gzip.compress(b"x" * 600), "it")


def test_npz_gives_back_arrays_and_refuses_objects() -> None:
    arrays = formats.npz(npz_bytes(a=np.arange(3), b=np.eye(2)), "it")
    assert arrays["a"].tolist() == [0, 1, 2]
    assert formats.required(arrays, ["b", "a"], "it")[1] is arrays["a"]
    with pytest.raises(DataError, match=r"it has no c, d; it holds a, b"):
        formats.required(arrays, ["a", "c", "d"], "it")
    with pytest.raises(DataError, match=r"cannot be read as an .npz file"):
        formats.npz(npz_bytes(a=np.array([{}], dtype=object)), "it")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"cannot be read"),
        (b"hello", r"cannot be read"),
        (npz_bytes(a=np.arange(100))[:-30], r"cannot be read"),
        (pickle.dumps(Malicious()), r"cannot be read"),
    ],
)
def test_a_broken_npz_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        formats.npz(content, "it")


def test_a_single_array_is_no_npz() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(3))
    with pytest.raises(DataError, match=r"it is a single array"):
        formats.npz(buffer.getvalue(), "it")


def test_leaf_pixels_come_back_as_the_bytes_they_were() -> None:
    pixels = np.arange(784) % 256
    # Some copies of LEAF round to four digits, which must not move a pixel to the next value.
    user = {"x": [(pixels / 255).round(4).tolist(), [1.0] * 784], "y": [61, 0]}
    content = json.dumps({"users": ["a"], "num_samples": [2], "user_data": {"a": user}})
    ((name, x, y),) = formats.leaf(content.encode(), "it")
    assert (name, x.dtype, x.shape, y.tolist()) == ("a", np.uint8, (2, 1, 28, 28), [61, 0])
    assert (x[0].ravel() == pixels).all()
    assert (x[1] == 255).all()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[1]",
        b'{"users": []}',
        b'{"user_data": {"a": {"x": [[0.5]], "y": [1]}}}',
        b'{"user_data": {"a": {"x": [' + b"[" + b"2," * 783 + b'2]], "y": [1]}}}',
        b'{"user_data": {"a": {"x": [' + b"[" + b"1," * 783 + b'1]], "y": [1, 2]}}}',
        b'{"user_data": {"a": {"x": [' + b"[" + b"1," * 783 + b'1]], "y": [1.5]}}}',
        b'{"user_data": {"a": {"x": [' + b"[" + b"NaN," * 783 + b'1]], "y": [1]}}}',
    ],
)
def test_what_is_not_leaf_is_refused(content: bytes) -> None:
    with pytest.raises(DataError, match=r"it is not a LEAF FE-MNIST file"):
        formats.leaf(content, "it")
