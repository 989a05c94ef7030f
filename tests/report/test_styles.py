"""Twelve curves of a figure differ for every reader, on light and on dark screens."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from fedrobust.report.style import SERIES, series

# Machado, Oliveira, Fernandes, "A physiologically-based model for simulation of color vision
# deficiency", IEEE TVCG 2009: the matrices of full strength, on linear RGB.
SIGHT = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = np.array([0.9505, 1.0, 1.089])


def linear(colour: str) -> NDArray[np.float64]:
    parts = np.array(to_rgb(colour))
    found: NDArray[np.float64] = np.where(
        parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4
    )
    return found


def lab(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIELAB of linear RGB."""
    parts = XYZ @ light / WHITE
    f = np.where(parts > 0.008856, np.cbrt(parts), 7.787 * parts + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(one: str, other: str) -> float:
    """The contrast of WCAG 2."""
    dark, light = sorted(float(linear(c) @ XYZ[1]) for c in (one, other))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("sight", SIGHT)
def test_no_two_of_twelve_colours_look_alike(sight: str) -> None:
    """A distance of 2.3 is just noticeable; neighbours here are five times as far."""
    seen = {c: lab(np.clip(SIGHT[sight] @ linear(c), 0, 1)) for c in SERIES}
    assert len(seen) == 12
    for one, other in combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 11.5, (one, other)


def test_every_colour_is_seen_on_both_papers() -> None:
    for colour in SERIES:
        assert contrast(colour, "#ffffff") > 2, colour
        assert contrast(colour, "#181e25") > 2, colour


def test_twelve_curves_differ_in_their_marker_and_all_others_in_something() -> None:
    first = [series(i) for i in range(12)]
    assert len({(style.marker, style.hollow) for style in first}) == 12
    assert len({style.colour for style in first}) == 12
    assert len({series(i) for i in range(48)}) == 48
