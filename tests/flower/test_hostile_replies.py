"""Whatever a client answers, it never reaches the rule unless it fits, and never ends the run."""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("flwr")

from demo import demo_config
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from loopback import Loopback, moved, saying

from fedrobust.aggregators import Context, Mean, TrimmedMean
from fedrobust.config.component import from_config
from fedrobust.experiment import Experiment
from fedrobust.flower import RobustStrategy
from fedrobust.flower.rounds import Replied
from fedrobust.flower.tensors import Tensors
from fedrobust.runs.prepare import prepare

pytestmark = pytest.mark.flower

HOSTILE = 1
MOVES = [0.01, 0.0, 0.03, 0.05, 0.02]
"""How far each client moves each parameter; the hostile one moves as it likes."""


def experiment(**changes: Any) -> Experiment:
    base = {
        "malicious": 0,
        "attack": None,
        "rounds": 1,
        "partition": {"name": "remote", "clients": 5},
        "data": {"name": "digits", "validation": 300},
        "aggregator": {"name": "trimmed-mean", "f": 1},
        "evaluation": {
            "attack": {"name": "pgd", "eps": 0.1, "step_size": 0.1, "steps": 1},
            "samples": 20,
            "every": 1,
            "test_samples": 20,
        },
        "execution": {"batch": 16},
    }
    return from_config(Experiment, demo_config(**(base | changes)))


def reply(message: Message, arrays: ArrayRecord, **more: Any) -> Message:
    told = MetricRecord({"num-examples": 10})
    return Message(RecordDict({"arrays": arrays, "metrics": told, **more}), reply_to=message)


def honest(by: float) -> Callable[[Message], Message]:
    return lambda message: reply(message, moved(message, by))


def played(
    out: Path | None,
    hostile: Callable[[Message], Any],
    setting: Experiment,
    who: Sequence[int] = (HOSTILE,),
) -> tuple[Any, dict[str, Any], Loopback]:
    """Play a run with hostile clients: its last state, its first round, and its grid."""
    answers = [hostile if i in who else honest(by) for i, by in enumerate(MOVES)]
    grid = Loopback({900 - i: saying(i, answer) for i, answer in enumerate(answers)})
    strategy = RobustStrategy(setting, out, timeout=0.3, wait=5)
    strategy.start(grid=grid)
    assert strategy.run is not None
    line = {} if out is None else json.loads((out / "rounds.jsonl").read_text().splitlines()[0])
    return strategy.run.state, line, grid


def changed(
    change: Callable[[dict[str, Array]], Any],
) -> Callable[[Message], Message]:
    """Return a client that changes its honest arrays before it sends them."""

    def answer(message: Message) -> Message:
        arrays = dict(moved(message, 0.5))
        change(arrays)
        return reply(message, ArrayRecord(arrays))

    return answer


def put(name: str, make: Callable[[np.ndarray], Any]) -> Callable[[dict[str, Array]], Any]:
    def change(arrays: dict[str, Array]) -> None:
        found = make(arrays[name].numpy())
        arrays[name] = found if isinstance(found, Array) else Array(found)

    return change


def saved(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def lying(true: Any) -> Callable[[np.ndarray], Array]:
    """Return an array whose description fits, and whose content is another."""
    return lambda a: Array(str(a.dtype), a.shape, "numpy.ndarray", true)


def stranger(message: Message) -> Message:
    found = reply(message, moved(message, 0.5))
    found.metadata.__dict__["_src_node_id"] = 77
    return found


def failing(message: Message) -> Message:
    raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "what Flower raises when bytes are no text")


def bare(message: Message) -> Message:
    return Message(RecordDict(), reply_to=message)


BIAS = "0.bias"
CASES: dict[str, tuple[Callable[[Message], Any], str]] = {
    "nan": (changed(put(BIAS, lambda a: a * np.float32("nan"))), "not finite"),
    "infinite": (changed(put(BIAS, lambda a: a + np.float32("inf"))), "not finite"),
    "wrong shape": (changed(put(BIAS, lambda a: a[None])), "0.bias is 'float32'"),
    "scalar": (changed(put(BIAS, lambda a: np.array(3, "float32"))), "0.bias is"),
    "wrong dtype": (changed(put(BIAS, lambda a: a.astype("float64"))), "'float64'"),
    "whole numbers": (changed(put(BIAS, lambda a: a.astype("int32"))), "'int32'"),
    "complex": (changed(put(BIAS, lambda a: a.astype("complex64"))), "'complex64'"),
    "missing key": (changed(lambda arrays: arrays.pop(BIAS)), "it lacks '0.bias'"),
    "extra key": (
        changed(lambda arrays: arrays.update(more=Array(np.zeros(3, "float32")))),
        "it holds 'more'",
    ),
    "no arrays at all": (lambda m: reply(m, ArrayRecord()), "it lacks '0.weight'"),
    "lies about its dtype": (
        changed(put(BIAS, lying(saved(np.zeros(16, "float16"))))),
        "not what it says: float16",
    ),
    "lies about its shape": (
        changed(put(BIAS, lying(saved(np.zeros((2, 8), "float32"))))),
        "not what it says: float32 [2, 8]",
    ),
    "the other byte order": (
        changed(put(BIAS, lying(saved(np.zeros(16, ">f4"))))),
        "not what it says",
    ),
    "no array": (changed(put(BIAS, lying(b"rubbish"))), "cannot be read: ValueError"),
    "a pickle": (
        changed(put(BIAS, lying(saved(np.array([{}] * 16, dtype=object))))),
        "cannot be read: ValueError",
    ),
    "too many bytes": (changed(put(BIAS, lying(b"\x00" * 100_000))), "of 100,000 bytes"),
    "another serialisation": (
        changed(put(BIAS, lambda a: Array("float32", a.shape, "pickle", b""))),
        "cannot be read: TypeError",
    ),
    "two records": (
        lambda m: reply(m, moved(m, 0.5), more=moved(m, 0.5)),
        "2 records of arrays instead of one",
    ),
    "an empty record": (bare, "no records of arrays instead of one"),
    "only a config": (
        lambda m: Message(RecordDict({"arrays": ConfigRecord({"a": 1})}), reply_to=m),
        "no records of arrays instead of one",
    ),
    "an error": (
        lambda m: Message(Error(2, "out of\nmemory\x1b[31m" + "!" * 999), reply_to=m),
        "an error reply: out of memory\\x1b[31m!!!",
    ),
    "an error without a reason": (lambda m: Message(Error(0), reply_to=m), "without a reason"),
    "no reply": (lambda m: None, "no reply within 0.3 seconds"),
    "two replies": (lambda m: [honest(0.5)(m), honest(0.0)(m)], "2 replies to one message"),
    "another node's": (stranger, "a reply from another node, 77"),
    "unreadable": (failing, "its reply cannot be read: UnicodeDecodeError"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_reply_is_refused_with_its_reason_and_the_rule_gets_the_others(
    tmp_path: Path, case: str
) -> None:
    answer, reason = CASES[case]
    setting = experiment()
    state, line, _ = played(tmp_path / "run", answer, setting)
    assert line["dropped"] == [HOSTILE]
    assert line["applied"]
    assert list(line["refused"]) == [str(HOSTILE)]
    assert reason in line["refused"][str(HOSTILE)]
    assert len(line["refused"][str(HOSTILE)]) < 400
    start = prepared_start(setting)
    good = [by for i, by in enumerate(MOVES) if i != HOSTILE]
    rows = np.stack([(start + np.float32(by)) - start for by in good])
    step = TrimmedMean(f=0)(tensor(rows))
    assert (state.parameters == tensor(start) + step).all()


def test_the_same_refusals_hold_in_a_loop_of_flowers_own() -> None:
    for case in ("nan", "wrong dtype", "no reply", "two replies", "an error"):
        answers = [honest(by) for by in MOVES]
        answers[HOSTILE] = CASES[case][0]
        grid = Loopback({900 - i: saying(i, answer) for i, answer in enumerate(answers)})
        setting = experiment()
        strategy = RobustStrategy(setting)
        start = prepared_start(setting)
        arrays = record_of(setting)
        messages = list(strategy.configure_train(1, arrays, ConfigRecord(), grid))
        assert [m.content["config"]["fedrobust-client"] for m in messages] == [0, 1, 2, 3, 4]
        replies = list(reversed(list(grid.send_and_receive(messages))))
        found, told = strategy.aggregate_train(1, replies)
        assert found is not None
        assert told is not None
        assert dict(told) == {"applied": 1, "refused": 1}
        good = [by for i, by in enumerate(MOVES) if i != HOSTILE]
        rows = np.stack([(start + np.float32(by)) - start for by in good])
        expected = start + TrimmedMean(f=0)(tensor(rows)).numpy()
        got = np.concatenate([a.numpy().reshape(-1) for a in found.values()])
        assert (got == expected).all()


def test_a_reply_to_an_older_round_counts_for_nothing() -> None:
    """In the place of the reply of this round, and beside it."""
    for beside in (False, True):
        grid = Loopback({900 - i: saying(i, honest(by)) for i, by in enumerate(MOVES)})
        strategy, setting = RobustStrategy(experiment()), experiment()
        first = list(strategy.configure_train(1, record_of(setting), ConfigRecord(), grid))
        late = list(grid.send_and_receive(first))
        arrays, _ = strategy.aggregate_train(1, late)
        assert arrays is not None
        second = list(strategy.configure_train(2, arrays, ConfigRecord(), grid))
        replies = list(grid.send_and_receive(second))
        given = [*replies, late[2]] if beside else [*replies[:2], late[2], *replies[3:]]
        _, told = strategy.aggregate_train(2, given)
        assert told is not None
        assert dict(told) == {"applied": 1, "refused": 0 if beside else 1}


def test_a_client_that_claims_a_billion_examples_weighs_what_the_books_say(tmp_path: Path) -> None:
    counts = [1, 2, 3, 4, 10]
    setting = experiment(
        partition={"name": "remote", "clients": 5, "counts": counts},
        aggregator={"name": "mean"},
    )

    def greedy(message: Message) -> Message:
        found = honest(0.5)(message)
        found.content["metrics"] = MetricRecord({"num-examples": 1_000_000_000})
        return found

    state, line, _ = played(tmp_path / "run", greedy, setting)
    assert line["dropped"] == []
    start = prepared_start(setting)
    moves = [*MOVES[:HOSTILE], 0.5, *MOVES[HOSTILE + 1 :]]
    rows = tensor(np.stack([(start + np.float32(by)) - start for by in moves]))
    step = Mean()(rows, Context(counts=tensor(np.array(counts))))
    assert (state.parameters == tensor(start) + step).all()
    equal = played(None, greedy, experiment(aggregator={"name": "mean"}))[0]
    assert (equal.parameters == tensor(start) + Mean()(rows)).all()
    assert (equal.parameters != state.parameters).any()


def test_a_round_whose_rule_has_too_few_rows_makes_no_step_and_says_why(tmp_path: Path) -> None:
    setting = experiment(aggregator={"name": "krum", "f": 1}, rounds=2)
    state, line, _ = played(tmp_path / "run", CASES["nan"][0], setting, (0, 2, 3))
    assert not line["applied"]
    assert line["dropped"] == [0, 2, 3]
    assert line["reason"] == (
        "3 rows were missing, not finite or of the wrong shape, which leaves 2: "
        "Krum needs n >= 2f + 3: n = 2, f = 0 needs 3"
    )
    assert state.round == 2
    assert (state.parameters == tensor(prepared_start(setting))).all()


def prepared_start(setting: Experiment) -> Any:
    return ready(setting).start.numpy()


def ready(setting: Experiment) -> Any:
    return prepare(setting, elsewhere=Replied())


def record_of(setting: Experiment) -> ArrayRecord:
    run = ready(setting)
    return Tensors.of(run.model).record(run.start)


def tensor(array: Any) -> Any:
    return torch.from_numpy(np.asarray(array))
