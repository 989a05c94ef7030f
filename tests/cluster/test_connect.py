"""A Ray cluster is connected to, or one message says within seconds why not."""

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedrobust.cluster import connect
from fedrobust.cluster import probe as probing
from fedrobust.cluster.connect import connected
from fedrobust.cluster.probe import alike, nodes, probe, require_shared
from fedrobust.errors import ConfigError, ResourceError

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.cluster


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that accepts connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def refused(kind: type[Exception], words: str, address: str | None) -> float:
    """Return the seconds until the message came."""
    begun = time.monotonic()
    with pytest.raises(kind, match=words), connected(address):
        pass
    return time.monotonic() - begun


@pytest.mark.parametrize(
    "address", ["here", ":6379", "host:", "host:port", "host:99999", "ray://x"]
)
def test_what_is_no_address_is_refused_at_once(address: str) -> None:
    assert refused(ConfigError, "is no address of a Ray cluster: write HOST:PORT", address) < 2


def test_an_address_where_nothing_listens_is_refused_at_once() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    assert refused(ResourceError, f"no Ray cluster can be used at {address}", address) < 2


def test_an_address_that_does_not_answer_is_refused_in_a_bounded_time(
    silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "SECONDS", 4.0)
    assert refused(ResourceError, "no answer in 4 seconds", silent) < 8


def test_without_a_cluster_the_message_says_how_to_start_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))  # where Ray notes the cluster that runs
    if any("gcs_server" in command for command in commands()):
        pytest.skip("a Ray cluster of somebody runs on this machine")
    refused(ResourceError, "no Ray cluster runs on this machine: start one with `ray start", None)


def commands() -> Iterator[str]:
    import psutil

    for process in psutil.process_iter(["name"]):
        yield process.info["name"] or ""


def test_without_ray_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "find_spec", lambda name: None)
    refused(ConfigError, r"pip install 'fedrobust\[ray\]'", None)


def test_it_connects_asks_each_node_and_disconnects(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "intruder.py").write_text("raise SystemExit")
    handler = signal.getsignal(signal.SIGTERM)
    with connected(cluster.address):
        assert ray.is_initialized()
        assert Path.cwd() == tmp_path
        with pytest.raises(ConfigError, match="connected to a Ray cluster already"):
            connected(cluster.address).__enter__()
        with connected():
            pass
        assert ray.is_initialized(), "it did not connect, so it must not disconnect"

        def seen() -> tuple[str, bool]:
            from importlib.util import find_spec

            return ray.get_runtime_context().get_node_id(), find_spec("intruder") is not None

        answers = probe(seen)
        assert [each.value for each in answers] == [(node.id, False) for node in nodes()]
        assert len({node.id for node in nodes()}) == 2

        def fails() -> None:
            raise ValueError("as it must")

        assert [each.failure for each in probe(fails)] == ["ValueError: as it must"] * 2
        assert len({each.processor for each in alike()}) == 1
        require_shared(tmp_path)
        assert [each.name for each in tmp_path.iterdir()] == ["intruder.py"]
    assert not ray.is_initialized()
    assert signal.getsignal(signal.SIGTERM) == handler


def test_a_node_with_another_version_is_named(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "version", lambda name: "9.9")
    with connected(cluster.address), pytest.raises(ResourceError) as refusal:
        alike()
    assert "needs fedrobust 9.9, as here, but" in str(refusal.value)
    assert "has fedrobust 0.1.0" in str(refusal.value)


def test_a_folder_that_the_nodes_do_not_see_is_refused(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nodes are on this machine: the folder is elsewhere while they are asked."""
    out, ask = tmp_path / "out", probing.probe
    out.mkdir()

    def away(*question: Any) -> Any:
        out.rename(tmp_path / "away")
        try:
            return ask(*question)
        finally:
            (tmp_path / "away").rename(out)

    monkeypatch.setattr(probing, "probe", away)
    with connected(cluster.address), pytest.raises(ResourceError) as refusal:
        require_shared(out)
    assert "must be a folder that all nodes of the cluster share" in str(refusal.value)
    assert "does not see it" in str(refusal.value)
    assert list(out.iterdir()) == []
