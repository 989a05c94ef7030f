"""Make the SVG of a matplotlib figure smaller: the same picture in a third of the bytes.

Numbers keep two decimals. Outlines are written as steps. Equal styles become one class. An outline
that is drawn several times is drawn by reference. Names that nothing refers to are dropped.
"""

import re
from collections import Counter
from string import ascii_lowercase, ascii_uppercase
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape, quoteattr

from fedrobust.report.outlines import UNIT, decimal, outline

_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
_HEAD = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
_ROOT = "s"
"""The id of the root. Styles apply only inside it, since a page holds many figures."""
_EVERYWHERE = {"stroke-linejoin": "round"}
"""The attributes that matplotlib gives to every element; elements inherit them from the root."""
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_REFERENCES = {"#": "&#35;", '"': "&quot;"}
"""Replacements in texts, so that a text cannot look like a colour or an id."""
_NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
_UNTURNED = re.compile(r"rotate\(-?0(?:[ ,][^)]*)?\)\s*")
_PLACED = re.compile(r"(?:(?:rotate|translate)\([^)]*\)\s*)*")
_START = re.compile(r"M(-?[\d.]+) ?(-?[\d.]+)(.*)")
_USED = re.compile(r"(?:^|(?<=url\())#([\w.-]+)")
_REPEATED = 300
"""The length from which an outline that occurs several times is stored once."""
_GROUP, _EMPTY = f"{_SVG}g", (f"{_SVG}g", f"{_SVG}defs")
_PUT = tuple(_SVG + name for name in ("text", "use", "rect"))
_WORDS = ("text", "tspan")


def compact(svg: str) -> str:
    """Return the picture of matplotlib's ``svg`` in fewer bytes."""
    root = ET.fromstring(_UNPRINTABLE.sub("?", svg))
    for element in root.iter():
        _simplify(element)
    _share_outlines(root)
    _forget_names(root)
    styles = _classes(root)
    _flatten(root)
    size = {name: root.get(name, "") for name in ("width", "height", "viewBox")}
    root.attrib = {"id": _ROOT} | size | _EVERYWHERE
    rules = "".join(f"#{_ROOT} .{name}{{{style}}}" for style, name in styles.items())
    if rules:
        sheet = ET.Element(f"{_SVG}style")
        sheet.text = rules
        root.insert(0, sheet)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{_text(root).replace("<svg", _HEAD, 1)}\n'


def bare(svg: str) -> str:
    """Return the part of a figure of :func:`compact` that a page needs, without the file header."""
    return svg[svg.index("<svg") :].replace(_HEAD, "<svg", 1).replace(" xlink:href=", " href=")


def renamed(svg: str, prefix: str) -> str:
    """Put ``prefix`` before all ids of the figure, so that a page can hold several figures.

    An id begins with a letter, since a style sheet cannot name one that begins with a digit.
    """
    prefix = prefix if prefix[:1].isalpha() else f"run-{prefix}"
    for before, after in (('id="', ""), ("url(#", ""), ('href="#', ""), ("#", f"{_ROOT} .")):
        svg = svg.replace(f"{before}{after}", f"{before}{prefix}-{after}")
    return svg


def _simplify(element: ET.Element) -> None:
    """Round numbers, and remove parts without effect."""
    for child in list(element):
        if child.tag in (f"{_SVG}metadata", f"{_SVG}style"):
            element.remove(child)
    given = element.attrib
    if "style" in given:
        given["style"] = re.sub(r"([:;]) ", r"\1", given["style"].strip().rstrip(";"))
    if element.tag == f"{_SVG}path":
        given["d"] = outline(given.get("d", ""))
    elif element.tag in _PUT:
        for name in ("x", "y", "width", "height"):
            if name in given:
                given[name] = _NUMBER.sub(_rounded, given[name])
    turned = _UNTURNED.sub("", given.pop("transform", ""))
    if turned:
        placed = _PLACED.fullmatch(turned)
        given["transform"] = _NUMBER.sub(_rounded, turned) if placed else turned


def _rounded(found: re.Match[str]) -> str:
    return decimal(round(float(found[0]) * UNIT))


def _share_outlines(root: ET.Element) -> None:
    """Draw outlines that occur more than once, at other places, by reference."""
    found: dict[str, list[tuple[ET.Element, str, str]]] = {}
    for element in root.iter(f"{_SVG}path"):
        start = _START.match(element.get("d", ""))
        if (
            start
            and len(start[3]) >= _REPEATED
            and not element.attrib.keys() - {"d", "style", "id"}
        ):
            found.setdefault(start[3], []).append((element, start[1], start[2]))
    kept = ET.Element(f"{_SVG}defs")
    for steps, drawn in found.items():
        if len(drawn) == 1:
            continue
        name = f"outline-{len(kept)}"
        ET.SubElement(kept, f"{_SVG}path", {"id": name, "d": f"M0 0{steps}"})
        for element, x, y in drawn:
            element.tag = f"{_SVG}use"
            del element.attrib["d"]
            element.attrib |= {_LINK: f"#{name}", "x": x, "y": y}
    if len(kept):
        root.insert(0, kept)


def _forget_names(root: ET.Element) -> None:
    """Keep the ids that something refers to, and make them short."""
    used = {name for e in root.iter() for v in e.attrib.values() for name in _USED.findall(v)}
    names: dict[str, str] = {}
    for element in root.iter():
        name = element.attrib.pop("id", "")
        if name in used:
            names[name] = element.attrib["id"] = _name(len(names), ascii_uppercase)
    for element in root.iter():
        for key, value in element.attrib.items():
            element.set(key, _USED.sub(lambda found: f"#{names.get(found[1], found[1])}", value))


def _name(number: int, letters: str) -> str:
    """Return the name of a number: a, b, ... z, ba, bb, ..."""
    more, last = divmod(number, len(letters))
    return (_name(more, letters) if more else "") + letters[last]


def _classes(root: ET.Element) -> dict[str, str]:
    """Give a class to each style that several elements share; return the class of each style."""
    styles = Counter(e.attrib["style"] for e in root.iter() if "style" in e.attrib)
    several = [style for style, times in styles.items() if times > 1]
    names = {style: _name(i, ascii_lowercase) for i, style in enumerate(several)}
    for element in root.iter():
        if element.get("style") in names:
            element.set("class", names[element.attrib.pop("style")])
    return names


def _flatten(element: ET.Element) -> None:
    """Replace each group without attributes by its content."""
    for child in element:
        _flatten(child)
    children: list[ET.Element] = []
    for child in element:
        if child.tag == _GROUP and not child.attrib:
            children += child
        elif child.tag not in _EMPTY or len(child):
            children.append(child)
    element[:] = children


def _text(element: ET.Element) -> str:
    name = element.tag.removeprefix(_SVG)
    given = "".join(
        f" {'xlink:href' if key == _LINK else key}={quoteattr(value)}"
        for key, value in element.attrib.items()
    )
    inside = escape(element.text or "", _REFERENCES) if name in _WORDS else ""
    if name == "style":
        inside = element.text or ""
    inside += "".join(map(_text, element))
    return f"<{name}{given}>{inside}</{name}>" if inside else f"<{name}{given}/>"
