"""The style of every figure: its colours, its fonts, its two widths, its files.

Twelve curves differ in their colour and in their marker. The first six colours are Okabe and Ito's;
a test simulates how colour-blind readers see all twelve. For dark screens, the page replaces the
colours of ``THEME`` by CSS variables.
"""

import gc
import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import matplotlib as mpl
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import MaxNLocator, MultipleLocator, PercentFormatter, StrMethodFormatter

from fedrobust.errors import ConfigError
from fedrobust.report.svg import compact

PAPER, INK, MUTED, RULE = "#ffffff", "#1f2933", "#667085", "#e3e7ec"
ACCURACY, ROBUST, MALICIOUS, RIGHT = "#0072b2", "#d55e00", "#b0417f", "#009e73"
THEME = {
    PAPER: "surface",
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    ACCURACY: "accuracy",
    ROBUST: "robust",
    MALICIOUS: "malicious",
}
SERIES = (
    *("#0077bb", "#d55e01", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"),
    *("#4725ed", "#6e6e6e", "#b3123f", "#8b5a1e", "#ed25ed", "#b2b260"),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_FULL = len(MARKERS)
"""The number of filled markers; the curves after them have the same ones hollow."""
_DASHES = ("-", "--", "-.", ":")
WIDE, NARROW = 9.0, 4.1  # inches; at the width of a page and of a phone, text is 11 to 13 px


class Style(NamedTuple):
    """The style of a curve. ``dash`` is for lines without markers, ``line`` for those with them."""

    colour: str
    marker: str
    dash: str
    hollow: bool = False
    line: str = "-"

    @property
    def drawn(self) -> dict[str, Any]:
        """The arguments of a curve with markers."""
        face = PAPER if self.hollow else self.colour
        return {"color": self.colour, "marker": self.marker, "mfc": face, "ls": self.line}


def series(i: int) -> Style:
    """Return the style of curve ``i``. Twelve curves differ in colour and in marker."""
    colour, around = i % len(SERIES), i // len(SERIES)
    marker = (colour + around) % len(SERIES)
    dash, line = _DASHES[i % len(_DASHES)], _DASHES[around % len(_DASHES)]
    return Style(SERIES[colour], MARKERS[marker % _FULL], dash, marker >= _FULL, line)


_STYLE = {
    "axes.edgecolor": MUTED,
    "axes.facecolor": PAPER,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": MUTED,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titley": 1.0,  # a place that need not be searched for, which takes time
    "figure.constrained_layout.h_pad": 0.07,
    "figure.constrained_layout.w_pad": 0.07,
    "figure.facecolor": PAPER,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "grid.color": RULE,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "savefig.facecolor": PAPER,
    "pdf.fonttype": 42,  # text is text, in a font that is part of the file
    "svg.fonttype": "none",  # text stays text: it takes the page's font and can be searched
    "svg.hashsalt": "fedrobust",
    "text.color": INK,
    "text.parse_math": False,  # a run's name may hold a dollar sign
    "xtick.color": MUTED,
    "xtick.major.size": 3,
    "ytick.color": MUTED,
    "ytick.major.size": 0,
}
_PIXELS = 2.2e6
"""The most pixels of a PNG; only figures of many panels have fewer than 200 in an inch."""
COLUMN = 3.5
"""The width in inches of one column of a paper of two columns."""
_LEAST, _MOST = 2.5, 20.0
"""The widths in inches that a figure of a paper may have."""
_PRINT = {
    "axes.titlesize": 8.5,
    "figure.constrained_layout.h_pad": 0.04,
    "figure.constrained_layout.w_pad": 0.02,
    "font.size": 8,
}
"""What differs in a PDF for a paper, where a letter of 8 points is as large as the captions'."""


@dataclass(frozen=True)
class Drawing:
    """One figure in every form: SVG for the page, for a phone, and as a file; and PNG."""

    wide: str
    narrow: str
    png: bytes
    pdf: bytes | None = None
    """For a paper, where it is asked for."""


def render(
    draw: Callable[[float], Figure], narrow: bool = True, pdf: float | None = None
) -> Drawing:
    """Draw at both widths, without regard to the user's own matplotlib settings.

    ``pdf`` is the width in inches of a PDF file for a paper, where it is asked for.
    """
    with mpl.style.context(["default", _STYLE]), _uncollected():
        wide = _laid_out(draw(WIDE))
        svg, png = _svg(wide), _png(wide)
        small = _laid_out(draw(NARROW)) if narrow else wide
        phone = _svg(small) if narrow else svg
    vector = None if pdf is None else printed(draw, pdf)
    return Drawing(svg, phone, png, vector)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Inside this context nothing searches for garbage.

    A figure is many objects that live until it is written, and a search goes through all of them:
    a fifth of the time of a page.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def inches_of(pdf: bool | float) -> float | None:
    """Return the width of the PDF files; None where there are none. Raises: ``ConfigError``."""
    if isinstance(pdf, bool):
        return COLUMN if pdf else None
    if not _LEAST <= pdf <= _MOST:
        raise ConfigError(
            f"a figure of {pdf:g} inches cannot be drawn: give a width from {_LEAST:g} to {_MOST:g}"
        )
    return float(pdf)


def printed(draw: Callable[[float], Figure], width: float) -> bytes:
    """Draw a figure for a paper, as a PDF of this width in inches."""
    with mpl.style.context(["default", _STYLE, _PRINT]):
        return _pdf(_laid_out(draw(width)))


def styled(draw: Callable[[], Figure]) -> Figure:
    """Return the figure that ``draw`` makes in the style of the reports.

    A notebook shows it, also where matplotlib.pyplot is not imported.
    """
    with mpl.style.context(["default", _STYLE]):
        figure = draw()
    figure._repr_png_ = partial(_png, figure)  # type: ignore[attr-defined]
    return figure


def svg(draw: Callable[[float], Figure]) -> str:
    """Draw a figure as SVG, for a notebook."""
    with mpl.style.context(["default", _STYLE]):
        return _svg(_laid_out(draw(WIDE)))


def printable(text: str, length: int) -> str:
    """Cut ``text`` to ``length`` characters, and show those that the font lacks as ``?``."""
    text = text if len(text) <= length else text[: length - 1] + "…"
    glyphs = get_font(findfont(FontProperties(family="DejaVu Sans"))).get_charmap()
    return "".join(c if ord(c) in glyphs and c.isprintable() else "?" for c in text)


def percent_axis(axes: Axes, highest: float = 1.0) -> None:
    """Make the vertical axis an axis of shares, from 0 to the tenth above the ``highest``."""
    top = min(1.0, math.ceil(10 * highest + 0.3) / 10)
    axes.set_ylim(0, top)
    axes.yaxis.set_major_locator(MultipleLocator(0.2 if top > 0.6 else 0.1 if top > 0.2 else 0.05))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axes.set_axisbelow(True)


def rounds_axis(axes: Axes, last: int, first: int = 0) -> None:
    """Make the horizontal axis an axis of rounds."""
    axes.set_xlim(first, max(last, first + 1))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_xlabel("round")


def _laid_out(figure: Figure) -> Figure:
    """Fix the layout of the figure, so that it is not computed again for each file."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine(None)
    return figure


def _svg(figure: Figure) -> str:
    out = io.BytesIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(out, format="svg", metadata=nothing)
    return compact(out.getvalue().decode())


def _pdf(figure: Figure) -> bytes:
    out = io.BytesIO()
    nothing = {"CreationDate": None, "Creator": None, "Producer": None}
    figure.savefig(out, format="pdf", metadata=nothing)
    return out.getvalue()


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    dpi = min(200.0, math.sqrt(_PIXELS / math.prod(figure.get_size_inches())))
    figure.savefig(out, format="png", dpi=dpi, metadata={"Software": None})
    return out.getvalue()
