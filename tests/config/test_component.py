"""Components refuse what is wrong with a message that says where and what to do."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from fedrobust.aggregators import AnyAggregator, Krum
from fedrobust.attacks import AnyAttack, Distillation, Learned
from fedrobust.attacks.learned.encoding import AnyEncoding, Basis, Full
from fedrobust.clients.optimizers import Adam, AnyOptimizer
from fedrobust.config.component import component, from_config, to_config
from fedrobust.config.fingerprint import fingerprint
from fedrobust.config.kind import Kind
from fedrobust.config.scalars import Count, Pixels, Positive
from fedrobust.data import AnyData, AnyPartition
from fedrobust.errors import ConfigError
from fedrobust.evaluation.wasserstein_metrics import Wasserstein
from fedrobust.experiment import Experiment
from fedrobust.federation.participation import AnyParticipation
from fedrobust.federation.projection import AnyProjection
from fedrobust.models import AnyModel
from fedrobust.objectives import AnyObjective
from fedrobust.perturb import AnyPerturbation, Pgd
from fedrobust.perturb.wasserstein import Ascent


@component
class Ball:
    eps: Pixels
    name: Literal["ball"] = "ball"

    def area(self) -> float:
        return self.eps


BALL = Kind("shape", has=("area",))
BALL.of(Ball)


@component
class Cube:
    side: Count = 1
    inner: Annotated[Any, BALL] = Ball(0.5)
    name: Literal["cube"] = "cube"

    def area(self) -> float:
        return 1.0


SHAPE = Kind("shape", has=("area",))
SHAPE.of(Ball, Cube)


@component
class Scene:
    shape: Annotated[Any, SHAPE]
    scale: Positive = 1.0


@dataclass(frozen=True)
class Own:
    width: float = 2.0

    def area(self) -> float:
        return self.width


def test_reads_a_mapping_an_instance_and_a_users_own_class() -> None:
    assert from_config(Scene, {"shape": {"name": "ball", "eps": "8/255"}}).shape == Ball(8 / 255)
    ball = Ball(eps=0.25)
    assert Scene(shape=ball).shape is ball
    own = {"name": f"{__name__}:Own", "width": 3.0}
    assert from_config(Scene, {"shape": own}).shape == Own(3.0)


@pytest.mark.parametrize(
    "value", [Ball(0.1), Cube(3, Ball(0.2)), Own(1.5)], ids=["flat", "nested", "own"]
)
def test_config_round_trip_gives_the_same_value(value: Any) -> None:
    scene = Scene(shape=value, scale=2)
    assert from_config(Scene, {"shape": to_config(value), "scale": 2}) == scene


def test_a_part_of_a_nested_value_keeps_the_rest_of_the_fields_own_default() -> None:
    """And not of its class's: ``attack.ascent.steps=30`` must not change the ascent's rule."""
    attack = from_config(Learned, {"ascent": {"steps": 30}})
    assert attack.ascent == Ascent(steps=30, rule="decaying") != Ascent(steps=30)
    measured = from_config(Wasserstein, {"ascent": {"tolerance": 0.1}})
    assert measured.ascent == Ascent(steps=30, rule="backtracking", tolerance=0.1)
    assert from_config(Learned, {"ascent": {"rule": "constant"}}).ascent == Ascent(steps=15)
    assert Learned(ascent=Ascent(steps=3)).ascent == Ascent(steps=3)
    for said in ({"budget": 5.0}, {"name": "basis", "budget": 5.0}):
        assert from_config(Learned, {"encoding": said}).encoding == Basis(budget=5.0)
    full = from_config(Learned, {"encoding": {"name": "full", "scale": "zeta"}}).encoding
    assert full == Full(scale="zeta")
    assert from_config(Distillation, {"optimizer": {"lr": 0.5}}).optimizer == Adam(lr=0.5)
    with pytest.raises(ConfigError, match="encoding: has no name"):
        from_config(Learned, {"encoding": {"scale": "zeta"}})
    with pytest.raises(ConfigError, match=r"ascent\.stepps: unknown key .did you mean 'steps'"):
        from_config(Learned, {"ascent": {"stepps": 3}})
    with pytest.raises(ConfigError, match=r"ascent\.steps: should be .*got 0"):
        from_config(Wasserstein, {"ascent": {"steps": 0}})


def test_what_no_file_can_rebuild_is_marked_and_refused_on_reading() -> None:
    class Local:
        def area(self) -> float:
            return 0.0

    assert isinstance(Scene(shape=Local()).shape, Local)
    content = to_config(Local())
    assert "Local" in content["opaque"]
    with pytest.raises(ConfigError, match=r"shape: was the Python object .*resume from Python"):
        from_config(Scene, {"shape": content})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"shape": {"name": "bal", "eps": 1}}, r"shape: unknown shape 'bal' .*'ball'"),
        ({"shape": {"eps": 1}}, r"shape: has no name; there are: ball, cube"),
        ({"shape": "ball"}, r"^shape: ball alone leaves out eps: must be a .* \{name: ball, eps: "),
        ({"shape": "bal"}, r"shape: unknown shape 'bal' .did you mean 'ball'"),
        ({"shape": ""}, r"shape: unknown shape ''; there are: ball, cube"),
        ({"shape": 3}, r"shape: must be a mapping with a name, .* or the name alone; got 3"),
        ({"shape": None}, r"shape: must be a mapping with a name, .*; got None"),
        (
            {"shape": {"name": "ball", "epz": 1, "eps": 1}},
            r"shape.epz: unknown key .*'eps'.*allowed",
        ),
        ({"shape": {"name": "ball"}}, r"shape.eps: is required"),
        ({"shape": {"name": "ball", "eps": "big"}}, r"shape.eps: .*number; got 'big'"),
        ({"shape": {"name": "cube", "side": True}}, r"shape.side: .*integer; got True"),
        ({"shape": {"name": "cube", "side": 2.0}}, r"shape.side: .*integer; got 2.0"),
        (
            {"shape": {"name": "cube", "inner": {"name": "ball", "eps": -1}}},
            r"shape.inner.eps: .*-1",
        ),
        (
            {"shape": {"name": "cube", "inner": {"name": "ball", "r": 1, "eps": 1}}},
            r"shape.inner.r: unknown key; allowed here: eps, name",
        ),
        ({"shape": {"name": "ball", "eps": 1}, "scael": 2}, r"scael: unknown key .*'scale'"),
        ({"shape": {"name": "ball", "eps": 1}, "scale": float("nan")}, r"scale: .*finite"),
        ({"shape": {"name": "nowhere:Thing"}}, r"shape: cannot import nowhere:Thing"),
        ({"shape": {"name": f"{__name__}:Own", "w": 1}}, r"shape: .*Own refused its arguments"),
    ],
)
def test_bad_config_is_refused_saying_where_and_why(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_config(Scene, content)


def test_a_name_alone_is_the_component_with_its_defaults() -> None:
    assert from_config(Scene, {"shape": "cube"}).shape == Cube()
    assert Scene(shape="cube").shape == Cube()
    assert from_config(Scene, {"shape": f"{__name__}:Own"}).shape == Own(2.0)
    # Within a component that has its own default, it is the one of that name.
    assert from_config(Learned, {"encoding": "basis"}).encoding == Learned().encoding
    assert from_config(Learned, {"encoding": "full"}).encoding == Full()


class Bare:
    """Has nothing."""


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Bare(), r"Bare is no shape: it lacks area$"),
        (Own, r"the class Own is no shape: an object with area is"),
        (len, r"builtin_function_or_method is no shape: it lacks area"),
        ((1, 2), r"must be a mapping with a name"),
        ({1}, r"\{1\} is no shape"),
    ],
    ids=["object", "class", "function", "tuple", "set"],
)
def test_an_object_of_another_kind_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Scene(shape=value)


def test_a_users_object_has_all_that_its_kind_asks_for() -> None:
    def method(*_: Any, **__: Any) -> None:
        return None

    asked: list[tuple[Any, dict[str, Any]]] = [
        (AnyParticipation, {"size": method, "choose": method}),
        (AnyOptimizer, {"build": method, "slots": method, "lr": 0.1}),
        (AnyObjective, {"perturbed": method, "draw": method, "maximize": method}),
        (AnyPerturbation, {"draw": method, "maximize": method}),
        (AnyProjection, {"project": method}),
        (AnyPartition, {"split": method}),
        (AnyData, {"load": method, "validation": 0}),
        (AnyEncoding, dict.fromkeys(("seen", "actions", "observe", "rows"), method)),
        (AnyAttack, {"craft": method}),
        (AnyAggregator, {"aggregate": method}),
        (AnyModel, {"build": method}),
    ]
    for kind, parts in asked:
        adapter = TypeAdapter(kind)
        whole = SimpleNamespace(**parts)
        assert adapter.validate_python(whole) is whole
        for name, part in parts.items():
            without = {other: each for other, each in parts.items() if other != name}
            whole_kind = rf"; an object with .*{name}" if len(parts) > 1 or kind is AnyModel else ""
            with pytest.raises(ValidationError, match=rf"it lacks {name}{whole_kind}"):
                adapter.validate_python(SimpleNamespace(**without))
            wrong = "is no method" if callable(part) else "should be a valid .*; got 'x'"
            with pytest.raises(ValidationError, match=rf"its {name} {wrong}"):
                adapter.validate_python(SimpleNamespace(**parts | {name: "x"}))
    with pytest.raises(ValidationError, match=r"it lacks size and choose \["):
        TypeAdapter(AnyParticipation).validate_python(SimpleNamespace())


def test_a_function_is_a_rule_and_a_network_a_model() -> None:
    network = torch.nn.Linear(2, 2)
    assert TypeAdapter(AnyModel).validate_python(network) is network
    assert TypeAdapter(AnyAggregator).validate_python(torch.mean) is torch.mean
    with pytest.raises(ValidationError, match=r"lacks build; .* build is, or a torch.nn.Module"):
        TypeAdapter(AnyModel).validate_python(SimpleNamespace(forward=len))
    with pytest.raises(ValidationError, match=r"aggregate is, or a function of the updates"):
        TypeAdapter(AnyAggregator).validate_python(SimpleNamespace())
    halfway = SimpleNamespace(aggregate=len, check=3)
    with pytest.raises(ValidationError, match=r"its check should be callable; got 3"):
        TypeAdapter(AnyAggregator).validate_python(halfway)


def test_a_property_that_fails_is_told() -> None:
    class Failing:
        @property
        def area(self) -> float:
            raise KeyError("width")

    with pytest.raises(ConfigError, match=r"its area cannot be read: KeyError: 'width'"):
        Scene(shape=Failing())


def test_opaque_objects_are_told_apart() -> None:
    def scaled(by: float) -> Any:
        return lambda x: by * x

    assert fingerprint(scaled(2.0)) == fingerprint(scaled(2.0))
    assert fingerprint(scaled(2.0)) != fingerprint(scaled(3.0))
    assert fingerprint(lambda x: x + 1) != fingerprint(lambda x: x - 1)
    assert fingerprint(Path("a")) != fingerprint(Path("b"))
    assert fingerprint(x for x in ()) is None


def test_components_are_frozen() -> None:
    with pytest.raises((AttributeError, TypeError)):
        Ball(0.1).eps = 0.2  # type: ignore[misc]


def test_a_member_may_hold_another_of_its_own_kind() -> None:
    kind = Kind("link", has=("area",))

    @component
    class Link:
        next: Annotated[Any, kind] | None = None
        name: Literal["link"] = "link"

        def area(self) -> float:
            return 0.0

    with pytest.raises(RuntimeError, match="the kind link has no members yet"):
        Link(next={"name": "link"})
    kind.of(Link)
    chain = from_config(Link, {"next": {"name": "link", "next": {"name": "link"}}})
    assert chain == Link(next=Link(next=Link()))
    with pytest.raises(ConfigError, match=r"^next\.next\.nxt: unknown key \(did you mean 'next'"):
        from_config(Link, {"next": {"next": {"name": "link", "nxt": 1}, "name": "link"}})
    with pytest.raises(ValueError, match="the members of the kind link are listed already"):
        kind.of(Link)


def test_a_config_has_a_json_schema_that_names_the_members() -> None:
    schema = str(TypeAdapter(Experiment).json_schema())
    assert all(f"'{name}'" in schema for name in ("krum", "budgeted", "digits", "module:Class"))


def test_a_constructor_says_what_a_config_says() -> None:
    """One line for each wrong field, with its name also where it was given by position."""
    for make, said in (
        (lambda: Krum(-1), "Krum: f: should be greater than or equal to 0; got -1"),
        (lambda: Krum(f=2, g=1), "Krum: g: unknown key; allowed here: f, neighbours, name"),
        (lambda: Krum(1, f=2), "Krum: f is given twice"),
        (lambda: Krum(1, "n-f-2", "krum", 4), "Krum takes f, neighbours, name; it got 4 values"),
        (lambda: Pgd(eps="x", step_size=1, steps=0), "Pgd:\neps: should be .*\nsteps: should be"),
        (lambda: Experiment("x"), "Experiment takes its fields by name; it got 1 values"),
    ):
        with pytest.raises(ConfigError, match=said) as error:
            make()
        assert error.value.__cause__ is None
    assert pickle.loads(pickle.dumps(Krum(2))) == Krum(f=2)
