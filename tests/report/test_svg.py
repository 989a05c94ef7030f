"""A figure made small is the same figure: its outlines, its texts, its references."""

import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrobust.report.outlines import outline
from fedrobust.report.svg import bare, compact, renamed

SVG = (
    '<?xml version="1.0"?><svg xmlns:xlink="http://www.w3.org/1999/xlink" width="9pt" height="9pt" '
    'viewBox="0 0 9 9" xmlns="http://www.w3.org/2000/svg" version="1.1"><metadata>x</metadata>{}'
    "</svg>"
)
Point = tuple[float, float]
PAIRS = {"L": 1, "Q": 2, "C": 3}
points = st.tuples(*[st.floats(-2000, 2000).map(lambda v: round(v, 6))] * 2)
commands = st.sampled_from("LQC").flatmap(
    lambda name: st.tuples(st.just(name), st.lists(points, min_size=PAIRS[name], max_size=3))
)
pieces = st.lists(st.tuples(points, st.lists(commands, max_size=6), st.booleans()), min_size=1)


def written(drawn: list[tuple[Point, list[tuple[str, list[Point]]], bool]]) -> str:
    """Path data as matplotlib writes it."""
    lines = []
    for start, parts, closed in drawn:
        lines.append(f"M {start[0]:f} {start[1]:f} ")
        for name, places in parts:
            told = " ".join(f"{x:f} {y:f}" for x, y in places[: PAIRS[name]])
            lines.append(f"{name} {told} ")
        lines += ["z"] * closed
    return "\n".join(lines)


def places(path: str) -> list[tuple[str, Point]]:
    """Every point of path data with its command, by the rules of SVG."""
    tokens = re.findall(r"[A-Za-z]|-?(?:\d+\.?\d*|\.\d+)", path)
    found: list[tuple[str, Point]] = []
    at = start = (0.0, 0.0)
    name, i = "", 0
    while i < len(tokens):
        if tokens[i].isalpha():
            name = tokens[i]
            i += 1
            if name in "zZ":
                found.append(("Z", start))
                at = start
                continue
        else:  # what follows a move without a letter is a line
            name = {"M": "L", "m": "l"}.get(name, name)
        x0, y0 = at if name.islower() else (0.0, 0.0)
        kind = name.upper()
        for _ in range(PAIRS.get(kind, 1)):
            dx = 0.0 if kind == "V" else float(tokens[i])
            dy = 0.0 if kind == "H" else float(tokens[i + (kind != "V")])
            i += 1 if kind in "HV" else 2
            found.append(("L" if kind in "HV" else kind, (x0 + dx, y0 + dy)))
        at = found[-1][1]
        start = at if kind == "M" else start
    return found


@pytest.mark.long
@given(pieces)
def test_an_outline_goes_through_the_same_points(
    drawn: list[tuple[Point, list[tuple[str, list[Point]]], bool]],
) -> None:
    drawn = [
        (start, [(n, p) for n, p in parts if len(p) >= PAIRS[n]], z) for start, parts, z in drawn
    ]
    before, after = places(written(drawn)), places(outline(written(drawn)))
    assert [name for name, _ in before] == [name for name, _ in after]
    for (_, one), (_, other) in zip(before, after, strict=True):
        assert one == pytest.approx(other, abs=0.0101)


@given(st.lists(points, min_size=3, max_size=50), st.integers(-900, 900))
def test_the_same_outline_elsewhere_is_told_by_the_same_steps(at: list[Point], by: int) -> None:
    here = outline(written([(at[0], [("L", [p]) for p in at[1:]], False)]))
    moved = [(x + by, y) for x, y in at]
    there = outline(written([(moved[0], [("L", [p]) for p in moved[1:]], False)]))
    # A number that lies halfway may be rounded either way after the move.
    if all(abs((x - at[0][0]) * 100 % 1 - 0.5) > 1e-3 for x, _ in at):
        assert re.sub(r"^M[-\d. ]+", "", here) == re.sub(r"^M[-\d. ]+", "", there)


@pytest.mark.parametrize("path", ["", "M 1 2 A 3 3 0 0 1 5 5", "M 1.23456 2 S 1 2 3 4", "none"])
def test_what_is_no_outline_of_matplotlib_is_left_as_it_is(path: str) -> None:
    assert outline(path) == path


def test_texts_stay_whatever_they_look_like() -> None:
    text = 'id="a" #1f2933 url(#p) &lt;b&gt; #s .a'
    told = compact(SVG.format(f'<g id="text_1"><text x="1.23456" y="2">{text}\x07</text></g>'))
    whole = ET.fromstring(renamed(bare(told), "figure").replace("#1f2933", "var(--ink)"))
    assert [e.text for e in whole.iter() if e.tag.endswith("text")] == [
        'id="a" #1f2933 url(#p) <b> #s .a?'
    ]
    assert "metadata" not in told
    assert 'x="1.23"' in told


def test_styles_and_references_are_those_of_the_figure_alone() -> None:
    line = "M 1 1 L 2 2 L 3 1 z"
    uses = '<use xlink:href="#mark" x="3.14159" y="1" style="fill: #1f2933; stroke-width: 0.8"/>'
    inside = (
        f'<defs><path id="mark" d="{line}"/><clipPath id="box"><rect x="0" y="0" width="9" '
        f'height="9"/></clipPath></defs><g id="line_1"><g clip-path="url(#box)">{uses * 2}</g></g>'
    )
    small = compact(SVG.format(inside))
    assert "line_1" not in small
    both = "".join(renamed(bare(small), prefix) for prefix in ("one", "two"))
    ids = re.findall(r'\bid="([^"]+)"', both)
    assert len(ids) == len(set(ids)) == 6
    used = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)|#([\w-]+) \.', both)
    assert {name for names in used for name in names if name} == set(ids)
    assert both.count("{fill:#1f2933;stroke-width:0.8}") == 2
    assert both.count('class="a"') == 4


def test_a_picture_keeps_its_place_and_size() -> None:
    place = 'transform="matrix(1.23456 0 0 4.5678 0 1)"'
    image = f'<image xlink:href="data:image/png;base64,AA==" {place}/>'
    assert place in compact(SVG.format(image))


def test_an_outline_drawn_twice_is_kept_once() -> None:
    steps = [(i / 3, i * i % 7) for i in range(200)]
    lines = [" L ".join(f"{x + by:f} {y:f}" for x, y in steps) for by in (0, 50)]
    inside = "".join(f'<path d="M {line}" style="fill: none"/>' for line in lines)
    root = ET.fromstring(compact(SVG.format(inside)))
    drawn = [e for e in root.iter() if e.tag.endswith("use")]
    assert [e.get("x") for e in drawn] == ["0", "50"]
    assert len({e.get("{http://www.w3.org/1999/xlink}href") for e in drawn}) == 1
    assert all(b.get("class") == a.get("class") for a, b in pairwise(drawn))
