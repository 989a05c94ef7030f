"""How much memory is free within the limit of a container."""

from pathlib import Path

import psutil
import pytest

from fedrobust.compute import memory


def test_files_that_a_container_has_read_are_not_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux counts them as used, and gives them up when memory is asked for."""
    monkeypatch.setattr(memory, "_CONTAINER", tmp_path)
    here = psutil.virtual_memory().available
    assert memory.available_memory("cpu") == pytest.approx(here, rel=0.2), "no container"
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    assert memory.available_memory("cpu") == 100
    (tmp_path / "memory.stat").write_text("anon 300\ninactive_file 550\nactive_file 50\n")
    assert memory.available_memory("cpu") == 650
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_memory("cpu") == pytest.approx(here, rel=0.2), "no limit"
