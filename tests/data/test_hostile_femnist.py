"""FE-MNIST's json and parquet made to harm: one message that names the file, with little taken."""

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_files import npz_bytes
from made_to_harm import images
from modest import modestly

from fedrobust.data import Femnist, formats
from fedrobust.data.catalogue import CHECKSUMS
from fedrobust.errors import DataError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("fedrobust.records.bounded.available_memory", lambda device: 2**28)
    monkeypatch.setenv("FEDROBUST_DATA", str(tmp_path))
    monkeypatch.setenv("FEDROBUST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(CHECKSUMS, "femnist", {})
    (tmp_path / "femnist").mkdir()
    return tmp_path / "femnist"


WHITE = [1] * 784
FINE = {"x": [WHITE, WHITE], "y": [0, 61]}


def leaf(user: Any = FINE, name: str = "a", **change: Any) -> str:
    content = {"users": [name], "num_samples": [2], "user_data": {name: user}} | change
    return json.dumps({key: value for key, value in content.items() if value is not None})


def raw(x: str = json.dumps(FINE["x"]), y: str = "[0, 61]") -> str:
    return f'{{"user_data": {{"a": {{"x": {x}, "y": {y}}}}}}}'


LEAF = {
    "a count of 10¹⁵": (leaf(num_samples=[10**15]), "num_samples are not"),
    "a count too few": (leaf(num_samples=[]), "num_samples are not"),
    "no list of counts": (leaf(num_samples=2), "num_samples are not"),
    "users twice": (leaf(users=["a", "a"], num_samples=[2, 2]), "hold a name twice"),
    "users that are not there": (leaf(users=["a", "b"], num_samples=[2, 0]), "are not those"),
    "users that are none": (leaf(users=5), "not a list of names"),
    "users that are numbers": (leaf(users=[5]), "not a list of names"),
    "data twice": ('{"user_data": {"a": %s, "a": %s}}' % ((json.dumps(FINE),) * 2), "twice"),
    "no data": (leaf(user_data=None), "user_data"),
    "data that are a list": (leaf(user_data=[1]), "."),
    "100,000 levels": ("[" * 100_000 + "]" * 100_000, "nested too deep"),
    "100,000 levels of a label": (raw(y="[" * 100_000 + "]" * 100_000), "nested too deep"),
    "100,000 levels not closed": ('{"a":' * 100_000, "nested too deep"),
    "1e400": (raw(x=json.dumps([WHITE]).replace("1,", "1e400,", 1), y="[1]"), r"outside \[0, 1\]"),
    "-1e400": (raw(x=json.dumps([WHITE]).replace("1,", "-1e400,", 1), y="[1]"), r"outside"),
    "digits": (raw(y=f"[{'9' * 10**6}, 1]"), "."),
    "digits in a pixel": (raw(x=f"[{'9' * 4000}, 1]"), "."),
    "infinity": (raw(y="[Infinity, 1]"), "Infinity, which is not a number"),
    "lists of unequal lengths": (leaf({"x": [WHITE, WHITE[1:]], "y": [1, 2]}), "."),
    "more labels than images": (leaf({"x": [WHITE], "y": [1, 2]}), "1 images with 2 labels"),
    "images of another size": (leaf({"x": [[1] * 100] * 2, "y": [1, 2]}), r"int64, \[2, 100\]"),
    "images in levels": (leaf({"x": [[WHITE]] * 2, "y": [1, 2]}), r"\[2, 1, 784\]"),
    "images of texts": (leaf({"x": [["1"] * 784] * 2, "y": [1, 2]}), "images of <U1"),
    "images of flags": (leaf({"x": [[True] * 784] * 2, "y": [1, 2]}), "images of bool"),
    "images of nothing": (leaf({"x": [[None] * 784] * 2, "y": [1, 2]}), "images of object"),
    "no list of images": (leaf({"x": "ab", "y": [1, 2]}), "x is a str"),
    "no images": (leaf({"y": [1, 2]}), "x"),
    "labels as floats": (leaf(FINE | {"y": [1.0, 2.0]}), "labels of type float64"),
    "labels as texts": (leaf(FINE | {"y": ["1", "2"]}), "labels of type <U1"),
    "labels of nothing": (leaf(FINE | {"y": [None, 1]}), "labels of type object"),
    "labels as flags": (leaf(FINE | {"y": [True, False]}), "labels of type bool"),
    "labels in levels": (leaf(FINE | {"y": [[1], [2]]}), "labels of type int64"),
    "a label of 10¹⁵": (leaf(FINE | {"y": [0, 10**15]}), "a label that is outside 0 to 61"),
    "a label of 10³⁰": (leaf(FINE | {"y": [0, 10**30]}), "labels of type object"),
    "a label below 0": (leaf(FINE | {"y": [0, -1]}), "a label that is outside 0 to 61"),
    "half a character": (leaf(name="\ud800"), "."),
    "three bytes that become 64": ("[" + "[]," * 2**22 + "[]]", "its values take .* memory for"),
    "a list": ("[1]", "."),
    "cut": (leaf()[:-50], "."),
    "other bytes": ("\x00\x01", "."),
}


@pytest.mark.parametrize("kind", LEAF)
def test_a_hostile_leaf_file(folder: Path, kind: str) -> None:
    content, message = LEAF[kind]
    path = folder / "all_data_0.json"
    path.write_text(content)
    with modestly(2**27), pytest.raises(DataError, match=message) as error:
        Femnist().load()
    said = str(error.value)
    assert said.startswith(f"{path} is not a LEAF FE-MNIST file: ")
    assert len(said) < 1000


def test_bytes_that_are_no_text(folder: Path) -> None:
    (folder / "all.json").write_bytes(b'{"user_data": {"\xff": 1}}')
    with pytest.raises(DataError, match=r"all.json is not a LEAF FE-MNIST file"):
        Femnist().load()


def test_a_user_in_two_files(folder: Path) -> None:
    for name in ("all_data_0", "all_data_0 (1)"):
        (folder / f"{name}.json").write_text(leaf())
    with pytest.raises(DataError, match=r"holds the user a, and so does another file beside it"):
        Femnist().load()


def test_a_user_without_images_is_none_the_less_read() -> None:
    ((name, x, y),) = formats.leaf(leaf({"x": [], "y": []}, num_samples=[0]).encode(), "it")
    assert (name, x.shape, y.shape) == ("a", (0, 1, 28, 28), (0,))


@pytest.mark.parametrize(
    ("users", "message"),
    [
        (np.array([1, 2, 3]), "users must be different names"),
        (np.array([["a", "b"]]), "users must be different names"),
        (np.array(["a", "a", "b"]), "users must be different names"),
        (np.array(3), "users are not names"),
        (np.array([2**31 - 1] * 3, np.int32).view("<U1"), "users are not names"),
        (np.array([0xD800] * 3, np.int32).view("<U1"), "users are not names"),
    ],
)
def test_names_of_writers_that_are_none(folder: Path, users: np.ndarray, message: str) -> None:
    arrays = {f"x_{part}": images(2, 28, 28) for part in ("train", "test")}
    for part in ("train", "test"):
        arrays |= {f"y_{part}": np.arange(2), f"user_{part}": np.arange(2)}
    (folder / "own.npz").write_bytes(npz_bytes(users=users, **arrays))
    with pytest.raises(DataError, match=message) as error:
        Femnist().load()
    assert str(folder / "own.npz") in str(error.value)


def png(width: int = 28, height: int = 28, rows: bytes = b"", more: bytes = b"") -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        told = struct.pack(">I", len(content)) + kind + content
        return told + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows or bytes(29 * 28)))
    return b"\x89PNG\r\n\x1a\n" + head + more + body + chunk(b"IEND", b"")


def gif() -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.new("L", (28, 28)).save(out, "GIF")
    return out.getvalue()


def table(**change: Any) -> Any:
    pyarrow = pytest.importorskip("pyarrow")
    columns = {
        "image": [{"bytes": png(), "path": None}] * 3,
        "writer_id": ["a", "b", "a"],
        "character": [0, 1, 61],
    }
    return pyarrow.table({k: v for k, v in (columns | change).items() if v is not None})


def written(path: Path, **change: Any) -> None:
    import pyarrow.parquet

    pyarrow.parquet.write_table(table(**change), path)


def pictures(picture: bytes | None) -> list[dict[str, Any]]:
    return [{"bytes": png(), "path": None}, {"bytes": picture, "path": None}] * 2


PARQUET: dict[str, tuple[dict[str, Any], str]] = {
    "null labels": ({"character": [0, None, 1]}, r"its character lacks a value \(null\)"),
    "null writers": ({"writer_id": ["a", None, "a"]}, "its writer_id lacks a value"),
    "null images": ({"image": [None, *pictures(png())[:2]]}, "its (image|bytes) lacks a value"),
    "null bytes": ({"image": pictures(None)[:3]}, "its image lacks a value"),
    "only null": ({"character": [None] * 3}, "its character is null, not whole numbers"),
    "labels as floats": ({"character": [0.0, 1.0, 2.0]}, "its character is double"),
    "labels as texts": ({"character": ["0", "1", "2"]}, "its character is string"),
    "labels as flags": ({"character": [True, False, True]}, "its character is bool"),
    "writers as numbers": ({"writer_id": [1, 2, 3]}, "its writer_id is int64"),
    "images as numbers": ({"image": [1, 2, 3]}, "its images are int64"),
    "images as texts": ({"image": [{"bytes": "a"}] * 3}, "its images are string"),
    "images without bytes": ({"image": [{"path": "a"}] * 3}, "."),
    "no labels": ({"character": None}, "."),
    "a picture of another size": ({"image": pictures(png(29, 28))[:3]}, "a picture has 29 by 28"),
    "a picture of 10⁹ by 10⁹": ({"image": pictures(png(10**9, 10**9))[:3]}, "."),
    "a picture that PIL warns of": ({"image": pictures(png(10_000, 10_000))[:3]}, "."),
    "a picture cut": ({"image": pictures(png()[:45])[:3]}, "."),
    "a picture that is none": ({"image": pictures(b"hello")[:3]}, "cannot identify image"),
    "a picture in another format": ({"image": pictures(gif())[:3]}, "cannot identify image"),
    "pictures of megabytes": ({"image": [{"bytes": bytes(2**26)}] * 3}, "larger than|memory for"),
    "no rows": ({"image": table().column("image")[:0], "writer_id": [], "character": []}, "."),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", PARQUET)
def test_a_hostile_parquet_file(folder: Path, kind: str) -> None:
    change, message = PARQUET[kind]
    path = folder / "own.parquet"
    written(path, **change)
    with modestly(2**28), pytest.raises(DataError, match=message) as error:
        Femnist().load()
    assert str(path if kind != "no rows" else folder) in str(error.value)


def test_a_broken_parquet_file(folder: Path) -> None:
    path = folder / "own.parquet"
    written(path)
    content = path.read_bytes()
    length = struct.pack("<I", 2**31)
    for broken in (
        content[:-1],
        content[:-8] + length + content[-4:],
        content[: len(content) // 2],
        content[:-200] + bytes(100) + content[-100:],
        b"",
        b"PAR1PAR1",
    ):
        path.write_bytes(broken)
        with modestly(), pytest.raises(DataError, match=r"own.parquet is not FE-MNIST in parquet"):
            Femnist().load()


def test_more_rows_than_memory(folder: Path) -> None:
    """A few kilobytes, which say one row again and again."""
    import pyarrow

    many = 2**20
    one = pyarrow.array([png()]).dictionary_encode()
    pngs = pyarrow.DictionaryArray.from_arrays(np.zeros(many, np.int32), one.dictionary)
    image = pyarrow.StructArray.from_arrays([pngs.cast(pyarrow.binary())], ["bytes"])
    path = folder / "own.parquet"
    written(path, image=image, writer_id=["a"] * many, character=[0] * many)
    assert path.stat().st_size < 2**20
    with modestly(), pytest.raises(DataError, match=r"announces 1,048,576 rows .* memory for"):
        Femnist().load()
