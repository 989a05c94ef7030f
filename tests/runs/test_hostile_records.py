"""Records that somebody made to harm, or that another version wrote: one message, at once."""

import io
import json
import math
import os
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from damaged import ODD, put, records, refused, tiny
from modest import modestly

from fedrobust import run
from fedrobust.errors import RecordError
from fedrobust.records import bounded, reading
from fedrobust.report import write_report
from fedrobust.runs.audit import audited

Copy = Callable[[str], Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run and an audit of it."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("records")
    run(tiny(), folder / "run")
    audited(records.asked(folder / "run", folder / "audit", resume=False))
    return folder


@pytest.fixture
def copy(folder: Path, tmp_path: Path, quick_pages: None) -> Copy:
    """Makes a copy of one of the records to spoil."""
    return lambda name: Path(shutil.copytree(folder / name, tmp_path / name))


READERS: dict[str, Callable[[Path], object]] = {
    "config.yaml": reading.mapping_of,
    "metrics.jsonl": lambda path: reading.lines_of(path, dict),
    "rounds.jsonl": lambda path: reading.lines_of(path, dict),
    "summary.json": lambda path: reading.json_of(path, dict),
    "best.safetensors": reading.tensors_of,
    "examples.npz": reading.arrays_of,
    "NAME.txt": lambda path: reading.text_of(path, damaged=True),
    "checkpoint.pt": reading.content_of,
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_is_not_read(tmp_path: Path, name: str, kind: str) -> None:
    put(kind, tmp_path / name)
    with modestly(), pytest.raises(RecordError, match=ODD[kind]) as error:
        READERS[name](tmp_path / name)
    assert str(error.value).startswith(f"cannot read {tmp_path / name}: ")


@pytest.mark.parametrize(
    ("name", "message"),
    [("x" * 300, "File name too long"), ("a\0b", "embedded null byte"), ("a/\033[31m", "No such")],
)
def test_a_path_that_cannot_be(tmp_path: Path, name: str, message: str) -> None:
    for read in READERS.values():
        with pytest.raises(RecordError, match=message) as error:
            read(tmp_path / name)
        said = str(error.value)
        assert said.isprintable()
        assert len(said) < 1000


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / "summary.json").chmod(0)
    with pytest.raises(RecordError, match="Permission denied"):
        reading.json_of(tmp_path / "summary.json", dict)


def test_what_is_larger_than_memory_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "available_memory", lambda device: 2**26)
    for name, read in READERS.items():
        path = tmp_path / name
        with path.open("wb") as file:
            file.truncate(2**25 + 2**20)
        with modestly(), pytest.raises(RecordError, match=r"it has 34,603,008 bytes, and "):
            read(path)
        path.unlink()
    path = tmp_path / "summary.json"
    path.write_text('{"a": [' + "[]," * 2**20 + "[]]}")
    with modestly(), pytest.raises(RecordError, match=r"its values take [0-9,]+ bytes"):
        reading.json_of(path, dict)
    path = tmp_path / "metrics.jsonl"
    path.write_text("{}\n" * 2**20)
    with modestly(), pytest.raises(RecordError, match=r"its values take [0-9,]+ bytes"):
        reading.lines_of(path, dict)


def test_what_is_larger_than_any_record_is_not_read(tmp_path: Path) -> None:
    for name, most in (
        ("summary.json", 2**30),
        ("examples.npz", 2**30),
        ("config.yaml", 2_000_000),
    ):
        path = tmp_path / name
        with path.open("wb") as file:
            file.truncate(most + 1)
        said = f"it has {most + 1:,} bytes, and no such file has more than {most:,}"
        with modestly(), pytest.raises(RecordError, match=said):
            READERS[name](path)


@pytest.mark.slow
def test_the_memory_of_json_is_counted_at_its_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """No text may pass whose values take more than was counted."""
    monkeypatch.setattr(bounded, "_SMALL", 0)
    n = 20_000
    for text in (
        "[" + "[]," * n + "[]]",
        "[" + "{}," * n + "{}]",
        "[" + '{"a":1},' * n + "0]",
        "[" + "1.5," * n + "0]",
        "[" + "12345678901," * n + "0]",
        "[" + ",".join(f'"{i}"' for i in range(n)) + "]",
        "{" + ",".join(f'"{i}":0' for i in range(n)) + "}",
        "[" + "[1]," * n + "0]",
        "[" + '{"a":1.5,"b":[2.5]},' * n + "0]",
        '"' + "\U0001f600" * n + '"',
        '"' + "a" * n + '\U0001f600"',
        '"' + "a" * n + '\\ud83d\\ude00"',
        "[" + ",".join(f'"{chr(0x1F600)}{i}"' for i in range(n)) + "]",
        "[" + ",".join(f'"\\ud83d\\ude00{i}"' for i in range(n)) + "]",
    ):
        for given in (text, text.encode()):
            tracemalloc.start()
            found = json.loads(given)
            taken = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            del found
            monkeypatch.setattr(bounded, "available_memory", lambda device, taken=taken: taken)
            with pytest.raises(ValueError, match="its values take"):
                bounded.require_room_for_json(given)


def test_a_file_that_grows_while_it_is_read_is_read_to_its_end(tmp_path: Path) -> None:
    """Such as the log of a run that is going on; of others the size is not known before."""
    assert bounded.contents(Path("/proc/self/status")).startswith(b"Name:")


def report(folder: Path) -> Callable[[], object]:
    return lambda: write_report([folder], folder / "page")


def changed(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def surface(**change: Any) -> Callable[[Any], object]:
    return lambda content: content["surface"].update(change)


AUDITS: dict[str, tuple[Callable[[Any], object], str]] = {
    "an unknown sign": (lambda c: c["signs"][0].update(name="x" * 5000), "there is no sign xxx"),
    "a sign that is none": (lambda c: c["signs"].append(3), "signs"),
    "no signs": (lambda c: c.update(signs=[]), "signs"),
    "an unknown attack": (lambda c: c["taken"][0].update(name=5), r"taken.0.name"),
    "a sign without a floor": (lambda c: c["signs"][0].pop("floor"), r"signs.0.floor"),
    "a sign of infinity": (lambda c: c["signs"][0].update(value=math.inf), "Infinity is no JSON"),
    "a ragged surface": (surface(loss=[[0.0]]), r"loss is not \[17, 17\]"),
    "a ragged row": (lambda c: c["surface"]["errors"][3].pop(), r"errors is not \[17, 17\]"),
    "a surface of texts": (surface(lead="x"), r"surface.lead"),
    "ticks that fall": (lambda c: c["surface"]["ticks"].reverse(), "ticks do not rise"),
    "one tick": (surface(ticks=[0.0]), "surface.ticks"),
    "more of less": (lambda c: c["shares"]["clean"].update(count=99), "99 of 12 is no share"),
    "of none": (lambda c: c["shares"]["clean"].update(total=0), "shares.clean.total"),
    "another share": (lambda c: c.update(clean=0.9), "clean is not 9 of 40|clean is not"),
    "no shares": (lambda c: c.update(shares={}), "shares has no clean"),
    "another verdict": (lambda c: c.update(verdict="fine"), "verdict"),
    "a verdict that does not follow": (
        lambda c: c.update(verdict="genuine"),
        "genuine does not follow from the signs",
    ),
    "settings without examples": (
        lambda c: c.update(settings={}),
        "does not give the number of examples",
    ),
    "notes that are a text": (lambda c: c.update(notes="x"), "notes"),
    "a name of half a character": (lambda c: c.update(model="\ud800"), "half a character"),
    "a list": (lambda c: c.clear(), "verdict"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", AUDITS)
def test_a_hostile_audit(copy: Copy, folder: Path, kind: str) -> None:
    change, message = AUDITS[kind]
    where = copy("audit")
    changed(where / "audit.json", change)
    asked = records.asked(folder / "run", where, resume=True)
    for read in (report(where), lambda: audited(asked)):
        said = refused(where, rf"audit.json is broken: .*{message}", read)
        assert said.endswith("; audit again in a new --out")
        assert len(said) < 1000


@pytest.mark.slow
def test_an_attack_that_this_version_does_not_know_is_shown(copy: Copy) -> None:
    """What each attack took is told, and nothing depends on its name."""
    where = copy("audit")
    changed(where / "audit.json", lambda c: c["taken"][0].update(name="<b>of tomorrow</b>"))
    assert "&lt;b&gt;of tomorrow&lt;/b&gt;" in write_report([where], where / "page").read_text()


PICTURES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a label of 10¹⁵": (lambda a: a["labels"].__setitem__(0, 10**15), "labels outside 0 to"),
    "a label below 0": (lambda a: a["labels"].__setitem__(0, -1), "labels outside 0 to"),
    "an answer below −1": (lambda a: a["clean_answers"].__setitem__(0, -2), "labels outside 0 to"),
    "too few labels": (lambda a: a.update(labels=a["labels"][1:]), "do not fit together"),
    "labels as floats": (lambda a: a.update(labels=a["labels"] * 1.0), "do not fit together"),
    "labels as texts": (lambda a: a.update(labels=a["labels"].astype(str)), "no array of numbers"),
    "labels in levels": (lambda a: a.update(labels=a["labels"][:, None]), "do not fit together"),
    "a label": (lambda a: a.update(labels=np.int64(3)), "do not fit together"),
    "no labels": (lambda a: a.pop("labels"), "it holds no labels"),
    "no pictures": (lambda a: a.update(clean=a["clean"][:0]), "do not fit together"),
    "pictures of bytes": (lambda a: a.update(clean=a["clean"].astype(np.uint8)), "do not fit"),
    "flat pictures": (lambda a: a.update(clean=a["clean"].reshape(-1)), "do not fit together"),
    "large pictures": (
        lambda a: a.update(
            dict.fromkeys(a, np.zeros(4096, int))
            | dict.fromkeys(("clean", "adversarial"), np.zeros((4096, 1, 4096, 3), np.float16))
        ),
        "more than a page can show",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", PICTURES)
def test_hostile_pictures(copy: Copy, kind: str) -> None:
    change, message = PICTURES[kind]
    where = copy("run")
    with np.load(where / "examples.npz") as archive:
        arrays = dict(archive)
    change(arrays)
    np.savez_compressed(where / "examples.npz", **arrays)
    said = refused(where, rf"examples.npz is broken: .*{message}", report(where))
    assert "resume the run (--resume)" in said


@pytest.mark.slow
def test_the_pictures_of_a_model_whose_logits_are_nan_are_shown(copy: Copy) -> None:
    where = copy("run")
    with np.load(where / "examples.npz") as archive:
        arrays = dict(archive)
    arrays["clean_answers"][:] = -1
    np.savez_compressed(where / "examples.npz", **arrays)
    page = " ".join(write_report([where], where / "page").read_text().split())
    assert "clean <b>✗ none</b>" in page


@pytest.mark.slow
def test_a_bomb_of_pictures(copy: Copy) -> None:
    where = copy("run")
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "<f8", "fortran_order": False, "shape": (2**28 + 1,)}
    )
    with zipfile.ZipFile(where / "examples.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("clean", "adversarial", "labels", "clean_answers", "adversarial_answers"):
            archive.writestr(f"{name}.npy", head.getvalue())
    said = r"examples.npz is broken: clean: it claims to be .*, but it has 0"
    with modestly():
        refused(where, said, report(where))


def bits(content: bytes) -> Iterator[bytes]:
    """The content with one bit turned over, at 40 places."""
    for i in range(40):
        at = len(content) * i // 40
        yield content[:at] + bytes([content[at] ^ 1 << i % 8]) + content[at + 1 :]


@pytest.mark.slow
def test_bits_of_pictures_turned_over(folder: Path, tmp_path: Path) -> None:
    """They are the same pictures, or a message."""
    path = tmp_path / "examples.npz"
    content = (folder / "run" / "examples.npz").read_bytes()
    wanted = reading.arrays_of(folder / "run" / "examples.npz")
    refusals = 0
    for turned in bits(content):
        path.write_bytes(turned)
        try:
            found = reading.arrays_of(path, *wanted)
        except RecordError:
            refusals += 1
        else:
            assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
    assert refusals > 20
