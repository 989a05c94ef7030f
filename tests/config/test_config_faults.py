"""What a config may hold that no config should: each is one short message that says where."""

import math
import time
from pathlib import Path
from typing import Any, get_args

import pytest
from demo import demo_config

from fedrobust.attacks.learned.inversion import Inversion
from fedrobust.attacks.learned.training import Training
from fedrobust.cli import kinds
from fedrobust.clients.client import Client
from fedrobust.config.component import from_config
from fedrobust.config.explain import field_types
from fedrobust.data import SyntheticRing
from fedrobust.errors import ConfigError, DataError
from fedrobust.evaluation.wasserstein_metrics import Wasserstein
from fedrobust.experiment import Evaluation, Experiment, load
from fedrobust.federation.server import Server
from fedrobust.objectives import Phase, Relative
from fedrobust.perturb import Ascent
from fedrobust.runs.grid import load_sweep


def refusal(**changes: Any) -> str:
    with pytest.raises(ConfigError) as error:
        from_config(Experiment, demo_config(**changes))
    return str(error.value)


# Keys


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (2, "client.lr_factor: should be less than or equal to 1; got 2"),
        ("high", "client.lr_factor: should be a valid number; got 'high'"),
        ({"value": 1}, "client.lr_factor: should be a valid number; got {'value': 1}"),
        (
            [{"value": 1.5}],
            "client.lr_factor.0.value: should be less than or equal to 1; got 1.5",
        ),
        (
            [{"value": 1.0, "untill": 5}, {"value": 0.5}],
            "client.lr_factor.0.untill: unknown key (did you mean 'until'?); allowed here: value, "
            "until",
        ),
    ],
    ids=["range", "text", "no list", "within", "key"],
)
def test_a_schedule_has_one_message(given: Any, said: str) -> None:
    assert refusal(**{"client": demo_config()["client"] | {"lr_factor": given}}) == said


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("learning-rate", "learning-rate"),
        ("my key", "'my key'"),
        ("a.b", "'a.b'"),
        ("", "''"),
        (1, "1"),
        (None, "None"),
        ("own", "own"),
        ("x" * 10**6, "'" + "x" * 38 + "…"),
        ("\x1b[31m", r"'\x1b[31m'"),
    ],
    ids=["dash", "blank", "dot", "empty", "int", "none", "tag", "long", "escape"],
)
def test_any_key_is_told_with_what_is_allowed_where_it_stands(key: Any, told: str) -> None:
    assert refusal(**{"client": demo_config()["client"] | {key: 1}}) == (
        f"client.{told}: unknown key; allowed here: batch_size, batches, epochs, optimizer, "
        "keep_optimizer, lr_factor"
    )
    with pytest.raises(ConfigError) as error:
        from_config(Experiment, demo_config() | {key: 1})
    assert str(error.value).startswith(f"{told}: unknown key; allowed here: name, seed, rounds")
    deep = {"name": "delayed", "start": 1, "attack": {"name": "sign-flip", key: 1}}
    assert refusal(attack=deep).startswith(f"attack.attack.{told}: unknown key; allowed here: sca")


def test_a_key_near_a_known_one_is_told() -> None:
    client = demo_config()["client"] | {"batch-size": 1}
    assert "client.batch-size: unknown key (did you mean 'batch_size'?)" in refusal(client=client)


# Messages


@pytest.mark.slow
def test_what_a_message_echoes_is_short(tmp_path: Path) -> None:
    long = "x" * 400_000
    for changes in (
        {"rounds": long},
        {"aggregator": long},
        {"aggregator": {"name": long}},
        {"aggregator": {"name": long + ":x"}},
        {"aggregator": {"opaque": long}},
        {"evaluation": demo_config()["evaluation"] | {"split": long}},
        {"client": long},
        {"threat": {"classes": list(range(20_000)) * 2}},
    ):
        assert len(refusal(**changes)) < 1000
    assert refusal(rounds=long) == f"rounds: should be a valid integer; got '{'x' * 78}…"
    path = tmp_path / "config.yaml"
    path.write_text("name: a")
    for text in (f"a={long}", f"a=[{long}", long, f"{long}=1", f"a.{long}.b=1"):
        with pytest.raises(ConfigError) as error:
            load(path, [text])
        assert len(str(error.value)) < 1500


def test_of_many_mistakes_the_first_are_told() -> None:
    lines = refusal(threat={"classes": ["x"] * 10_000}).splitlines()
    assert lines[0] == "threat.classes.0: should be a valid integer; got 'x'"
    assert lines[19] == "threat.classes.19: should be a valid integer; got 'x'"
    assert lines[20:] == ["and 9,980 mistakes more"]
    assert len(refusal(**{"x" * 60 + str(i): 1 for i in range(10_000)})) < 4000


def test_of_many_cells_the_first_are_told(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"name: a\n{'x' * 1000}: 1\ngrid: {{seed: {[f's{i}' for i in range(500)]}}}")
    with pytest.raises(ConfigError, match=r"and 4\d\d problems more$") as error:
        load_sweep(path)
    assert "\ncell s0: seed: " in str(error.value)
    assert len(str(error.value)) < 4000


# Sweeps


def test_cells_are_counted_before_any_is_made(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    axes = ", ".join(f"k{i}: {list(range(100))}" for i in range(4))
    path.write_text(f"name: a\ngrid: {{{axes}}}")
    begun = time.process_time()
    with pytest.raises(ConfigError, match="the grid has 100,000,000 cells, more than 10,000"):
        load_sweep(path)
    assert time.process_time() - begun < 1


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("{1: {x: {seed: 1}}, a: {2: {1: 1}}}", "(?s)cell x-2: .* 1: unknown key"),
        ("{rule: {x: {a..b: 1}}}", r"grid.rule.x: 'a..b' is no dotted key"),
        ("{seed: [2001-01-01]}", r"grid.seed.0: .*type date"),
        ("{? '' : [1]}", r"grid.'': '' is no dotted key"),
        ("{seed: [a b]}", r"grid.seed: 'a b' cannot name a choice"),
    ],
)
def test_odd_grids(tmp_path: Path, grid: str, message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"name: a\ngrid: {grid}")
    with pytest.raises(ConfigError, match=message):
        load_sweep(path)


# A user's own classes

OWN = """
import sys
class Raises:
    def __init__(self, error=""):
        raise {"key": KeyError("radius"), "run": RuntimeError("x" * 10**6), "exit": SystemExit(0),
               "stop": KeyboardInterrupt()}[error]
class Named:
    def __init__(self, needs=("colluders",), size=1):
        self.needs, self.given = needs, size
    def craft(self, state, view, rng): ...
    def choose(self, clients, generator): ...
    def size(self, clients):
        if self.given == "fails":
            raise KeyError("size")
        return self.given
CONSTANT = 3
MADE = Named()
import torch
LAYER = torch.nn.Linear(2, 2)
class Within:
    class Inner:
        def aggregate(self, updates, context): ...
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "faulty_own.py").write_text(OWN)
    (tmp_path / "leaving_own.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "faulty_own"


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"name": "faulty_own:Raises", "error": "key"}, "could not be made: KeyError: 'radius'"),
        ({"name": "faulty_own:Raises", "error": "run"}, "could not be made: RuntimeError: x{300}"),
        ({"name": "faulty_own:Raises", "error": "exit"}, "could not be made: SystemExit: 0"),
        (
            {"name": "faulty_own:Raises", "other": 1},
            "refused its arguments: .*argument 'other'; al",
        ),
        (
            {"name": "faulty_own:Named", "sise": 2},
            r"Named refused its arguments: unknown argument 'sise' \(did you mean 'size'\?\); "
            "allowed here: needs, size$",
        ),
        ({"name": "faulty_own:Raises", 3: 1}, "its fields must be texts; got 3"),
        ({"name": "faulty_own:CONSTANT"}, "faulty_own:CONSTANT is no class or function: it is 3"),
        (
            {"name": "faulty_own:MADE"},
            "faulty_own:MADE is no class or function: it is an object of the class Named; name its "
            "class, faulty_own:Named, or a function that returns it$",
        ),
        (
            {"name": "faulty_own:LAYER"},
            "LAYER is no class or function: it is an object of the class Linear; name a class or a "
            "function that returns it, so that the seed of a run decides its first parameters$",
        ),
        ({"name": "faulty_own.py:Named"}, "cannot import .*; write faulty_own:Named, the module w"),
        ({"name": "./faulty_own.py:Named"}, "names nothing: write faulty_own:Named, the module w"),
        ({"name": "rules/faulty_own:Named"}, "cannot import .*; write rules.faulty_own:Named, the"),
        ({"name": "/a/b/faulty_own.py:X"}, "cannot import .*; write faulty_own:X, the module with"),
        ({"name": "a b.py:X"}, "cannot import a b.py:X: ModuleNotFoundError: [^;]*; [^w]"),
        ({"name": "faulty_own:Within.Nothing"}, "cannot import .*AttributeError"),
        ({"name": "leaving_own:X"}, "cannot import leaving_own:X: SystemExit: 0"),
        ({"name": "sys:exit"}, "sys:exit could not be made: SystemExit"),
        ({"name": "os:getcwd"}, "'/.*' is no aggregator: an object with aggregate is, or a func"),
        ({"name": "builtins:dict"}, r"\{\} is no aggregator"),
        ({"name": "builtins:object"}, "object is no aggregator: it lacks aggregate"),
        ({"name": "faulty_own:"}, "faulty_own: names nothing: write module:Class"),
        ({"name": ":x"}, ":x names nothing: write module:Class"),
        ({"name": ".relative:x"}, ".relative:x names nothing: write module:Class"),
        ({"name": "faulty_own:Within..Inner"}, "names nothing: write module:Class"),
        ({"name": "a\0b:c"}, r"cannot import 'a\\x00b:c'"),
    ],
    ids=lambda value: str(value.get("error") or value["name"]) if isinstance(value, dict) else "",
)
def test_a_class_of_ones_own_that_cannot_be_made(own: str, node: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^aggregator: .*{message}") as error:
        from_config(Experiment, demo_config(aggregator=node))
    assert len(str(error.value)) < 1000


def test_a_class_within_a_class(own: str) -> None:
    rule = from_config(Experiment, demo_config(aggregator={"name": f"{own}:Within.Inner"}))
    assert type(rule.aggregator).__name__ == "Inner"


def test_who_stops_the_program_stops_it(own: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        refusal(aggregator={"name": f"{own}:Raises", "error": "stop"})


def test_plain_data_is_no_object_though_it_has_the_method() -> None:
    """A text has ``split``, as a partition has."""
    assert "partition: '' is no partition: an object with split is" in refusal(
        partition={"name": "builtins:str"}
    )


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("fails", r"participation.size\(11\) failed: KeyError: 'size'"),
        ("x", r"participation.size\(11\) must be a whole number from 1 to 11; it is 'x'"),
        (0, r"must be a whole number from 1 to 11; it is 0"),
        (12, r"must be a whole number from 1 to 11; it is 12"),
        (2.0, r"must be a whole number from 1 to 11; it is 2.0"),
    ],
)
def test_a_participation_of_ones_own_is_asked(own: str, size: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_config(Experiment, demo_config(participation={"name": f"{own}:Named", "size": size}))


# Numbers

HUGE: list[tuple[dict[str, Any], str]] = [
    ({"seed": 2**63}, "seed: should be less than or equal to 9223372036854775807"),
    ({"seed": 10**400}, "seed: should be less than or equal to 9223372036854775807"),
    ({"seed": 16**5000}, "seed: should be less than .*; got a value of type int"),
    ({"rounds": 10**30}, "rounds: should be less than or equal to 2147483647"),
    ({"client": {"batch_size": 10**18, "batches": 1}}, "client.batch_size: should be less than"),
    ({"partition": {"name": "iid", "clients": 10**12}}, "partition.clients: should be less than"),
    ({"data": {"name": "synthetic-ring", "n": 10**15}}, "data.n: should be less than .* 10000000"),
    ({"data": {"name": "synthetic-ring", "test": 10**8}}, "data.test: should be .* 10000000"),
    ({"execution": {"threads": 10**9}}, "execution.threads: should be less than or equal to 1024"),
    ({"execution": {"batch": 10**7}}, "execution.batch: should be less than or equal to 1048576"),
    ({"data": {"name": "synthetic-ring", "radius": 1e308}}, r"radius 1e\+308 leaves almost no"),
    (
        {"data": {"name": "synthetic-ring", "radius": 1e308, "margin": 1e308}},
        r"radius 1e\+308 leaves almost no point outside the ring",
    ),
    ({"data": {"name": "synthetic-ring", "radius": 1e-5}}, "almost no point inside the ring"),
    (
        {"partition": {"name": "dirichlet", "clients": 11, "alpha": 1e308}},
        r"partition.alpha: should be less than or equal to 1000000000",
    ),
    ({"name": "x" * 201}, "name: .*at most 200 characters"),
]


@pytest.mark.parametrize(("changes", "message"), HUGE, ids=[m[:30] for _, m in HUGE])
def test_what_is_too_large_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_config(Experiment, demo_config(**changes))


def test_the_largest_seed_is_one() -> None:
    seed = 2**63 - 1
    assert from_config(Experiment, demo_config(seed=seed)).seed == seed


def test_points_of_one_label_are_refused_when_drawn() -> None:
    with pytest.raises(DataError, match="all 1,000 training points have label 0: draw more points"):
        SyntheticRing(n=1000, test=10, radius=5.0, validation=0).load()


MEMBERS = [member for each in kinds().values() for member in each]
WITHIN = [Ascent, Client, Evaluation, Inversion, Phase, Relative, Server, Training, Wasserstein]


def _floats(hint: Any) -> bool:
    return hint is float or any(map(_floats, get_args(hint)))


@pytest.mark.parametrize("member", [*MEMBERS, *WITHIN], ids=lambda member: member.__name__)
def test_no_field_takes_a_number_that_is_none(member: Any) -> None:
    """NaN nowhere; infinity only as a price, which means no perturbation."""
    for name, hint in field_types(member).items():
        if not _floats(hint):
            continue
        for value in (math.nan, math.inf, -math.inf, 10**400):
            if name == "gamma" and value == math.inf:
                continue
            with pytest.raises(ConfigError) as error:
                from_config(member, {name: value})
            told = [line for line in str(error.value).splitlines() if line.startswith(name)]
            assert told, f"{name} takes {value!r:.20}: {error.value}"
            assert "is required" not in told[0]
