"""Data files made to harm: one message that names the file, in little time and memory."""

import io
import os
import socket
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_files import npz_bytes
from made_to_harm import images, npy, with_directory, with_end, zipped
from modest import modestly

from fedrobust.data import Cifar10, Femnist, Mnist, Npz, formats
from fedrobust.data.catalogue import CHECKSUMS, IDX
from fedrobust.errors import DataError

ROOM = 2**27


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 256 MiB, half of which may be read."""
    monkeypatch.setattr("fedrobust.records.bounded.available_memory", lambda device: 2 * ROOM)


ZEROS = bytes(ROOM + 2**20)
FINE = ("fine.npy", npy((3,), data=b"abc"))
NPZ: dict[str, tuple[bytes, str]] = {
    "10¹⁵ values": (zipped(("x.npy", npy((10**15,)))), "x: it claims to be .*10000"),
    "a product that wraps around": (zipped(("x.npy", npy((2**32, 2**32)))), "x: it claims to be"),
    "a negative side": (zipped(("x.npy", npy((-1, 5)))), r"x: its shape is \(-1, 5\)"),
    "two negative sides": (zipped(("x.npy", npy((-1, -5), data=bytes(5)))), "x: its shape"),
    "a side that is a flag": (zipped(("x.npy", npy((True,), data=b"a"))), "x: its shape"),
    "no shape": (zipped(("x.npy", npy("abc"))), "x: .*shape is not valid"),
    "a bomb": (zipped(("x.npy", npy((len(ZEROS),), data=ZEROS))), "where there is room for"),
    "two halves of a bomb": (
        zipped(*((f"{i}.npy", npy((2**26 + 1,), data=ZEROS[: 2**26 + 1])) for i in range(2))),
        "1 is .*, and with it the arrays take 134,217,730 bytes, where there is room for",
    ),
    "a bomb that its directory makes small": (
        with_directory(zipped(("x.npy", npy((72,), data=ZEROS))), size=200),
        "Bad CRC-32",
    ),
    "a directory that says too much": (
        with_directory(zipped(("x.npy", npy((10**9,)))), size=10**9 + 128),
        "x: it claims to have 1,000,000,128 bytes, which is impossible",
    ),
    "compressed bytes that are not there": (
        with_directory(zipped(("x.npy", npy((4,), data=b"abcd"))), compressed=2**31, size=2**31),
        "x: it claims to have 2,147,483,648 bytes, which is impossible",
    ),
    "a stream that ends before what all say": (
        with_directory(zipped(("x.npy", npy((200,), data=bytes(100)))), size=328),
        "x.npy has another size than it claims",
    ),
    "less than it says": (zipped(("x.npy", npy((100,), data=bytes(99)))), "but it has 99"),
    "more than it says": (zipped(("x.npy", npy((100,), data=bytes(101)))), "but it has 101"),
    "objects": (zipped(("x.npy", npy((1,), "|O", b"N."))), "x: it holds Python objects"),
    "fields": (
        zipped(("x.npy", npy((1,), [("a", "<i4"), ("b", "|O")], bytes(8)))),
        "x: it holds P",
    ),
    "fields of numbers": (zipped(("x.npy", npy((1,), [("a", "<i4")], bytes(4)))), "is not read"),
    "arrays within": (zipped(("x.npy", npy((1,), ("<i4", (2**40,)), bytes(4)))), "x: "),
    "nothing in each": (zipped(("x.npy", npy((10**15,), "|V0"))), "x: it is an array of"),
    "no type": (zipped(("x.npy", npy((1,), "nonsense"))), "x: .*not a valid dtype"),
    "a deep header": (zipped(("x.npy", npy((1,), "(" * 5000))), "x: "),
    "brackets": (
        zipped(("x.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"(" * 9000)),
        "x: ",
    ),
    "a header of gigabytes": (
        zipped(("x.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + bytes(2**24))),
        "x: its header is of 4,294,967,295 bytes",
    ),
    "another version": (zipped(("x.npy", b"\x93NUMPY\x09\x00" + bytes(99))), "another version"),
    "no array": (zipped(("x.npy", b"hello")), "x: it is not an array"),
    "nothing": (zipped(("x.npy", b"")), "x: it is not an array"),
    "cut in its header": (zipped(("x.npy", npy((3,))[:50])), "x: "),
    "encrypted": (with_directory(zipped(FINE), flags=1), "fine: it is encrypted"),
    "compressed otherwise": (with_directory(zipped(FINE), method=14), "fine: it is compressed in"),
    "a directory of gigabytes": (with_end(zipped(FINE) + bytes(99), size=2**31), "."),
    "a directory beyond the file": (with_end(zipped(FINE), offset=2**31), "."),
    "a directory that is too large": (
        zipped(*((f"{i:05}" + "x" * 1000, b"") for i in range(1100))),
        "its directory has",
    ),
    "a bit turned over": (
        zipped(FINE, deflated=False).replace(b"abc", b"abd"),
        "Bad CRC-32",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", NPZ)
def test_a_hostile_npz(tmp_path: Path, kind: str) -> None:
    content, message = NPZ[kind]
    path = tmp_path / "own.npz"
    path.write_bytes(content)
    with modestly(), pytest.raises(DataError, match=message) as error:
        Npz(str(path)).load()
    assert str(error.value).startswith(f"{path} cannot be read as an .npz file: ")


def test_a_name_twice_in_an_npz() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as members:
        members.writestr(*FINE)
        with pytest.warns(UserWarning, match="Duplicate"):
            members.writestr(*FINE)
    with pytest.raises(DataError, match="it holds fine twice"):
        formats.npz(buffer.getvalue(), "it")


def test_what_an_npz_may_hold_is_as_numpy_reads_it() -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "fortran": np.asfortranarray(rng.normal(size=(3, 4, 5))),
        "scalar": np.float32(3.5),
        "none": np.zeros((0, 3)),
        "names": np.array(["a", "Grüße"]),
        "flags": np.array([True, False]),
        "large": np.arange(3, dtype=">i4"),
        "half": np.ones(3, np.float16),
        "more": rng.integers(0, 256, 3 * 2**20, dtype=np.uint8),
    }
    found = formats.npz(npz_bytes(**arrays), "it")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == np.asarray(array).dtype
        np.testing.assert_array_equal(found[name], array)
    both = zipped(FINE, ("readme.txt", b"hello"))
    assert {name: bytes(array) for name, array in formats.npz(both, "it").items()} == {
        "fine": b"abc"
    }


SPLITS = {"x_train": images(4, 1, 8, 8), "y_train": np.arange(4) % 2}
SPLITS |= {"x_test": images(2, 1, 8, 8), "y_test": np.arange(2)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_train": np.array([0, 1, 0, 10**15])}, "y_train reaches 1,000,000,000,000,000"),
        ({"x_train": np.zeros((4, 0, 8, 8))}, "x_train is empty"),
        ({"y_train": np.zeros((0,), int)}, "y_train has 0 entries for 4"),
        ({"x_train": np.array(["a"] * 4)}, "x_train"),
        ({"y_test": np.array([0, 2**64 - 1], np.uint64)}, "y_test"),
        ({"x_train": np.full((4, 1, 8, 8), np.nan)}, "x_train has NaN"),
        ({"x_train": np.zeros((4, 1, 8, 8), ">f4")}, "x_train"),
        ({"x_train": np.zeros((4, 1, 8, 8), np.complex64)}, "x_train"),
        ({"x_train": np.float32(1)}, "x_train"),
    ],
)
def test_the_file_is_named_whatever_is_wrong_with_its_arrays(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "own.npz"
    path.write_bytes(npz_bytes(**(SPLITS | change)))
    with pytest.raises(DataError, match=message) as error:
        Npz(str(path)).load()
    assert str(path) in str(error.value)


def odd_files(folder: Path) -> dict[str, Path]:
    """What can lie where a file should, by kind."""
    there = {name: folder / name for name in ("pipe", "folder", "socket", "loop", "sparse")}
    os.mkfifo(there["pipe"])
    there["folder"].mkdir()
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(there["socket"]))
    there["loop"].symlink_to(there["loop"])
    with there["sparse"].open("wb") as file:
        file.truncate(2**40)
    for name in ("zero", "full"):
        there[name] = Path("/dev") / name
    for name, target in list(there.items()):
        there[f"link to {name}"] = folder / f"link-{name}"
        there[f"link to {name}"].symlink_to(target)
    return there | {"long": folder / ("x" * 5000), "nul": folder / "a\0b"}


ODD = {
    "pipe": "is no regular file",
    "folder": "is no regular file",
    "socket": "is no regular file",
    "zero": "is no regular file",
    "full": "is no regular file",
    "loop": "Too many levels of symbolic links",
    "sparse": "it has 1,099,511,627,776 bytes, and there is memory for 134,217,728",
}
PATHS = ODD | {"long": "File name too long", "nul": "embedded null byte"}
LINKS = {f"link to {kind}": message for kind, message in ODD.items()}


@pytest.mark.parametrize("kind", [*PATHS, *LINKS])
def test_what_is_no_file_of_data(tmp_path: Path, kind: str) -> None:
    path = odd_files(tmp_path)[kind]
    with modestly(), pytest.raises(DataError, match=(PATHS | LINKS)[kind]) as error:
        Npz(str(path)).load()
    said = str(error.value)
    assert "\0" not in said
    assert len(said) < 2000


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that FEDROBUST_DATA names, of whose files nothing is known."""
    monkeypatch.setenv("FEDROBUST_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("FEDROBUST_CACHE", str(tmp_path / "cache"))
    for name in ("mnist", "femnist", "cifar10"):
        monkeypatch.setitem(CHECKSUMS, name, {})
        (tmp_path / "data" / name).mkdir(parents=True)
    return tmp_path / "data"


@pytest.mark.parametrize("kind", ["pipe", "folder", "socket", "loop", "sparse"])
@pytest.mark.parametrize(
    ("file", "spec"),
    [
        ("femnist/own.npz", Femnist()),
        ("femnist/all.json", Femnist()),
        ("femnist/own.parquet", Femnist()),
        ("cifar10/own.npz", Cifar10()),
        ("cifar10/cifar-10-python.tar.gz", Cifar10()),
        (f"mnist/{IDX[0]}", Mnist()),
    ],
)
def test_what_is_no_file_in_a_folder_of_data(
    tmp_path: Path, data: Path, kind: str, file: str, spec: Any
) -> None:
    odd_files(tmp_path)[kind].rename(data / file)
    if kind == "loop":
        (data / file).unlink()
        (data / file).symlink_to(data / file)
    for name in IDX[1:]:
        (data / "mnist" / name).write_bytes(b"")
    with modestly(), pytest.raises(DataError, match=ODD[kind]) as error:
        spec.load()
    assert str(data / file) in str(error.value)


@pytest.mark.parametrize("name", ["x" * 5000, "~nobody-of-this-name/data", "loop"])
def test_a_folder_of_data_that_cannot_be(
    tmp_path: Path, data: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for variable in ("FEDROBUST_DATA", "FEDROBUST_CACHE"):
        where = name if name.startswith("~") else str(tmp_path / name)
        monkeypatch.setenv("FEDROBUST_DATA", str(data))
        monkeypatch.setenv(variable, where)
        if variable == "FEDROBUST_DATA" or name.startswith("~"):
            with pytest.raises(DataError, match=variable) as error:
                Mnist().load()
            assert len(str(error.value)) < 2000
