"""What several files of tests watch."""

from typing import Any

import pytest

from fedrobust.attacks.learned import environment


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rounds that environments have really simulated."""
    rounds: list[int] = []
    real = environment.run_round

    def counted(state: Any, *args: Any, **options: Any) -> Any:
        rounds.append(state.round)
        return real(state, *args, **options)

    monkeypatch.setattr(environment, "run_round", counted)
    return rounds
