"""IDX files and the batches of CIFAR-10 made to harm: one message, with little taken."""

import gzip
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_to_harm import archive, images, named
from modest import modestly

from fedrobust.data import Mnist, formats
from fedrobust.data.catalogue import BATCHES, CHECKSUMS, IDX
from fedrobust.errors import DataError

ZEROS = bytes(2**27)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that FEDROBUST_DATA names, of whose files nothing is known."""
    monkeypatch.setenv("FEDROBUST_DATA", str(tmp_path))
    monkeypatch.setitem(CHECKSUMS, "mnist", {})
    (tmp_path / "mnist").mkdir()
    return tmp_path


def idx(*shape: int, kind: int = 8) -> bytes:
    return struct.pack(f">HBB{len(shape)}I", 0, kind, len(shape), *shape)


@pytest.mark.parametrize(
    "content",
    [
        idx(100_000, 100_000, 100_000),
        idx(2**32 - 1, 2**32 - 1, 2**31, 2),
        idx(*([2**16] * 4)),  # whose product is 0 in 64 bits
        idx(*([1] * 200)) + b"a",
        b"\0\0\x08\0",
    ],
)
def test_an_idx_file_that_announces_what_it_has_not(content: bytes) -> None:
    with modestly(), pytest.raises(DataError, match=r"^it (has \d+ values where|is not an IDX)"):
        formats.idx(content, "it")


def test_a_gz_bomb(data: Path) -> None:
    for name in IDX:
        (data / "mnist" / name).write_bytes(idx(0))
    (data / "mnist" / f"{IDX[0]}.gz").write_bytes(gzip.compress(ZEROS, 1))
    (data / "mnist" / IDX[0]).unlink()
    with modestly(2**28), pytest.raises(DataError, match=rf"{IDX[0]}.gz is corrupt: .*67,108,864"):
        Mnist().load()


class Called:
    """Pickled as the call of a function."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.told = (function, arguments, *(() if state is None else (state,)))

    def __reduce__(self) -> Any:
        return self.told


RECONSTRUCT, _, STATE = np.zeros(3, np.uint8).__reduce__()
HUGE = Called(RECONSTRUCT, np.ndarray, (10**12,), b"b", state=STATE)
LOOP: list[Any] = []
LOOP.append(LOOP)


def with_data(data: Any) -> bytes:
    return pickle.dumps({b"data": data, b"labels": [0]}, protocol=3)


def nested_key() -> bytes:
    """A key of 60 tuples of two, whose hash takes 2⁶⁰ steps."""
    return b"\x80\x03}" + b")" + b"q\x00h\x00\x86" * 60 + b"K\x00s."


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [
        with_data(Called(np.ndarray, (10**10,))),
        with_data(Called(np.dtype, "V" + "9" * 9)),
        with_data(Called(np.dtype, b"O")),
        with_data(
            Called(
                RECONSTRUCT, np.ndarray, (0,), b"b", state=(1, (10**12,), STATE[2], False, b"abc")
            )
        ),
        with_data(
            Called(RECONSTRUCT, np.ndarray, (0,), b"b", state=(1, (-3,), STATE[2], False, b"abc"))
        ),
        with_data(
            Called(RECONSTRUCT, np.ndarray, (0,), b"b", state=(1, (3,), STATE[2], False, [1, 2, 3]))
        ),
        with_data(np.zeros(3)),
        with_data(np.zeros((1, 3072), np.int8)),
        with_data(np.array([{}], object)),
        with_data([1, 2, 3]),
        with_data(np.zeros(3073, np.uint8)),
        pickle.dumps({b"data": images(1, 3072), b"labels": LOOP}, protocol=3),
        pickle.dumps({b"data": images(1, 3072), b"labels": [10**15]}, protocol=3),
        pickle.dumps({b"data": images(1, 3072), b"labels": [0.0]}, protocol=3),
        pickle.dumps({b"data": images(1, 3072), b"labels": [0, 1]}, protocol=3),
        b"\x80\x04" + b"\x96" + struct.pack("<Q", 2**40) + b"a.",
        b"\x80\x04" + b"\x8e" + struct.pack("<Q", 2**40) + b"a.",
        b"\x80\x03B" + struct.pack("<I", 2**32 - 1) + b"a.",
        b"\x80\x03Nr\xff\xff\xff\x7f.",  # keep None as number 2³¹ - 1: a table of 32 GiB
        b"\x80\x03cnumpy\ndtype\n}X\x0c\x00\x00\x00__setstate__Nsb.",
        nested_key(),
        b"(" * 10**5,
        b"\x80\x02cos\nsystem\n(X\x04\x00\x00\x00truetR.",
    ],
)
def test_a_hostile_batch_of_cifar(content: bytes) -> None:
    with (
        modestly(),
        pytest.raises(DataError, match=r"^it (is not a CIFAR-10 batch: |has 1 images)"),
    ):
        formats.cifar_python(content, "it")


def test_a_batch_leaves_nothing_behind() -> None:
    content = b"\x80\x03cnumpy\nndarray\n}X\x01\x00\x00\x00aK\x01sb."
    with pytest.raises(DataError, match="it sets what no batch sets"):
        formats.cifar_python(content, "it")


def test_a_batch_in_fortrans_order_and_by_newer_pickles_is_read() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3072), dtype=np.uint8)
    content = {b"data": np.asfortranarray(pixels), b"labels": [3, 9]}
    for protocol in (3, 4):
        x, y = formats.cifar_python(pickle.dumps(content, protocol=protocol), "it")
        assert x.reshape(2, -1).numpy().tolist() == pixels.tolist()
        assert y.tolist() == [3, 9]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([(named("data_batch_1"), bytes(2**26 + 1))], "holds data_batch_1 with 67,108,865 bytes"),
        ([(named("data_batch_1"), b"a")] * 2, "holds data_batch_1 more than once"),
        ([(named("data_batch_1", tarfile.SYMTYPE), b"")], "has no data_batch_1"),
        ([(named("data_batch_1", tarfile.LNKTYPE), b"")], "has no data_batch_1"),
        ([(named("data_batch_1", tarfile.CHRTYPE), b"")], "has no data_batch_1"),
        ([(named("data_batch_1", tarfile.FIFOTYPE), b"")], "has no data_batch_1"),
        ([(named("data_batch_1", tarfile.DIRTYPE), b"")], "has no data_batch_1"),
    ],
)
def test_a_hostile_archive_of_cifar(members: list[Any], message: str) -> None:
    content = archive(*members)
    with modestly(2**28), pytest.raises(DataError, match=message):
        formats.cifar_archive(content, "it")


def test_an_archive_that_unfolds_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_ARCHIVE", 2**20)
    content = archive((named("elsewhere"), bytes(2**20)))
    with pytest.raises(DataError, match="is larger than 1,048,576 bytes"):
        formats.cifar_archive(content, "it")


def test_an_archive_of_the_real_size_is_within_the_bounds() -> None:
    assert len(BATCHES) * 31_035_704 < formats._ARCHIVE
    assert formats.FILE > 60_000 * 784 + 16
