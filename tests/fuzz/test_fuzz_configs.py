"""Whatever a config holds, it loads, or is refused with a short message, within two seconds.

Seconds are those of the processor, so that a busy machine fails nothing.
"""

import os
import time
import warnings
from pathlib import Path

import pytest
from configs import Case, case
from pydantic import TypeAdapter, ValidationError

from fedrobust.config.component import from_config, to_config
from fedrobust.errors import OverrideWarning, UserError
from fedrobust.experiment import Experiment, load, read_yaml
from fedrobust.runs.grid import load_sweep

COUNT = int(os.environ.get("FEDROBUST_FUZZ", "100"))
"""How many cases are tried: 100, or as many as the environment says."""
LONGEST, SECONDS = 4000, 2.0

OWN = """
class Raising:
    def __init__(self, **fields):
        raise KeyError("radius")
class Leaving:
    def __init__(self, **fields):
        raise SystemExit(0)
class Empty:
    def __init__(self, **fields):
        pass
    @property
    def craft(self):
        raise RuntimeError("not now")
    def __repr__(self):
        raise RuntimeError("nor now")
def Nothing(**fields):
    return None
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "fuzz_own.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def outcome(case: Case, path: Path) -> str:
    """What the load of a case says: nothing, or why it is refused."""
    path.write_bytes(case.text.encode("utf-8", "surrogatepass"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OverrideWarning)
            (load_sweep if case.sweep else load)(path, case.overrides)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, COUNT, 25))
def test_a_config_loads_or_is_refused_shortly(start: int, folder: Path) -> None:
    for seed in range(start, min(start + 25, COUNT)):
        asked = case(seed)
        begun = time.process_time()
        try:
            said = outcome(asked, folder / "config.yaml")
        except BaseException as error:
            pytest.fail(f"case {seed}: {type(error).__name__}: {error!s:.300}\n{asked!r:.3000}")
        spent = time.process_time() - begun
        assert len(said) <= LONGEST, f"case {seed}: a message of {len(said)} characters"
        assert spent < SECONDS, f"case {seed}: {spent:.1f} s\n{asked!r:.300}"


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, COUNT, 25))
def test_the_same_from_python(start: int, folder: Path) -> None:
    """Given as a mapping, it is pydantic's error; what is taken is the same written and read."""
    for seed in range(start, min(start + 25, COUNT)):
        path = folder / "config.yaml"
        path.write_bytes(case(seed).text.encode("utf-8", "surrogatepass"))
        try:
            made = TypeAdapter(Experiment).validate_python(read_yaml(path))
        except (UserError, ValidationError):
            continue
        except BaseException as error:
            pytest.fail(f"case {seed}: {type(error).__name__}: {error!s:.300}")
        content = to_config(made)
        if "'opaque'" not in str(content):
            assert from_config(Experiment, content) == made, f"case {seed}"
