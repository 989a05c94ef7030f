"""fedrobust does not need Flower, and says what to do where it is asked for and missing."""

import subprocess
import sys

import pytest

import fedrobust.flower
from fedrobust.errors import ConfigError


def test_without_flower_one_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fedrobust.flower, "find_spec", lambda name: None)
    told = r"pip install 'fedrobust\[flower\]'.*--constraint constraints-flower.txt"
    for name in fedrobust.flower.__all__:
        with pytest.raises(ConfigError, match=told):
            getattr(fedrobust.flower, name)
    with pytest.raises(AttributeError):
        fedrobust.flower.Strategy  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.long
def test_nothing_but_its_own_names_imports_flower() -> None:
    code = (
        "import sys, fedrobust, fedrobust.flower, fedrobust.cli, fedrobust.runs.run\n"
        "[getattr(fedrobust, name) for name in fedrobust.__all__]\n"
        "sys.exit('flwr' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
