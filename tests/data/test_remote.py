"""The partition of a real federation: the server's books, and no data."""

from typing import Any

import pytest
import torch
from demo import demo_config

from fedrobust import run
from fedrobust.config.component import from_config, to_config
from fedrobust.data import Dataset, Remote
from fedrobust.errors import ConfigError
from fedrobust.experiment import Experiment
from fedrobust.federation.backends import Received
from fedrobust.runs.prepare import prepare
from fedrobust.runs.run import play


class Steps:
    """A backend whose client i moves each parameter by i; the last client is refused."""

    def local_updates(
        self, federation: Any, state: Any, clients: Any, rng: Any, poison: Any
    ) -> Received:
        rows = torch.stack([torch.full_like(state.parameters, float(i)) for i in clients])
        rows[-1] = torch.nan
        return Received(rows, {clients[-1]: "it is asleep"})


def experiment(**changes: Any) -> Experiment:
    remote = {"name": "remote", "clients": 3, "counts": [1, 3, 9]}
    base = {"malicious": 0, "attack": None, "partition": remote, "aggregator": {"name": "mean"}}
    return from_config(Experiment, demo_config(**(base | changes)))


def test_the_books_weigh_the_rows_and_a_refused_row_is_told_with_its_reason() -> None:
    played = play(experiment(rounds=1), elsewhere=Steps())
    start = prepare(experiment(), elsewhere=Steps()).start
    # (1·0 + 3·1) / 4; without books it would be 1/2
    torch.testing.assert_close(played.state.parameters, start + 0.75)
    assert played.summary["clients"] == 3
    assert played.summary["troubles"][0] == (
        "rows of client 2 were refused in 1 round, the first 1: it is asleep"
    )
    equal = experiment(rounds=1, partition={"name": "remote", "clients": 3})
    torch.testing.assert_close(play(equal, elsewhere=Steps()).state.parameters, start + 0.5)


def test_it_is_a_value_of_a_config() -> None:
    partition = Remote(clients=2, counts=(4, 5))
    assert to_config(partition) == {"name": "remote", "clients": 2, "counts": [4, 5]}
    for counts in [(1,), (1, 0), (1, 2, 3), (1, 2.0)]:
        with pytest.raises(ConfigError, match="counts"):
            Remote(clients=2, counts=counts)  # type: ignore[arg-type]


def test_the_server_may_hold_all_of_its_data_out() -> None:
    x, y = torch.rand(60, 1, 8, 8), torch.arange(60) % 10
    data = Dataset.from_tensors(x[:40], y[:40], x[40:], y[40:], validation=40)
    found = prepare(experiment(data=data), elsewhere=Steps())
    assert len(found.held_out) == 40
    assert [len(part) for part in found.federation.local.clients] == [1, 3, 9]
    assert sum(part.untyped_storage().nbytes() for part in found.partition.train) < 100


def test_no_run_here_can_play_it() -> None:
    with pytest.raises(ConfigError, match="the clients and their data are elsewhere"):
        run(experiment(), progress=False)
