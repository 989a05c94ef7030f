"""What the tests of the kernels share."""

import sys

import pytest

from fedrobust.aggregators.kernels import compiled


@pytest.fixture(params=["torch", "compiled"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Has float32 updates of every size take this path."""
    monkeypatch.setattr(compiled, "LEAST", 1 if request.param == "compiled" else sys.maxsize)
    return str(request.param)
