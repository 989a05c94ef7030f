"""Components refuse what is wrong with a message that says where and what to do."""

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from fedrobust.component import Count, Pixels, Positive, component, from_config, one_of, to_config
from fedrobust.errors import ConfigError


@component
class Ball:
    eps: Pixels
    name: Literal["ball"] = "ball"


@component
class Cube:
    side: Count = 1
    inner: one_of("shape", Ball) = Ball(0.5)
    name: Literal["cube"] = "cube"


@component
class Scene:
    shape: one_of("shape", Ball, Cube)
    scale: Positive = 1.0


@dataclass(frozen=True)
class Own:
    width: float = 2.0


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


def test_what_no_file_can_rebuild_is_marked_and_refused_on_reading() -> None:
    class Local:
        pass

    content = to_config(Local())
    assert "Local" in content["opaque"]
    with pytest.raises(ConfigError, match=r"shape: was the Python object .*resume from Python"):
        from_config(Scene, {"shape": content})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"shape": {"name": "bal", "eps": 1}}, r"shape: unknown shape 'bal' .*'ball'"),
        ({"shape": {"eps": 1}}, r"shape: has no name; there are: ball, cube"),
        ({"shape": "ball"}, r"shape: must be a mapping with a name"),
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


def test_components_are_frozen() -> None:
    with pytest.raises((AttributeError, TypeError)):
        Ball(0.1).eps = 0.2  # type: ignore[misc]
