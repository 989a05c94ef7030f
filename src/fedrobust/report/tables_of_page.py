"""Read the tables of a page: their headings, and the texts of their cells."""

import re
from html.parser import HTMLParser

from fedrobust.report.page_tables import PageTable


def tables_of(page: str) -> list[PageTable]:
    """Return the tables of a page; a heat map is left out, since another table has its scores."""
    reader = _Reader()
    reader.feed(page)
    return reader.found


_PART, _ASIDE = "\x01", ("\x02", "\x03")
"""Marks before a part of a label, and around what the page sets in small letters."""
_Cell = list[str]
"""The parts of a cell."""


def _cell(text: str) -> _Cell:
    """Return the parts of a cell, small letters in brackets."""
    parts = [
        re.sub(r" *\x02 *\(?([^\x03]*?)\)? *\x03", r" (\1)", part) for part in text.split(_PART)
    ]
    return [re.sub(" +", " ", part).strip(" ") for part in parts if part.strip(" ")] or [""]


class _Reader(HTMLParser):
    """Reads the tables of a page, and the last heading before each."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[PageTable] = []
        self._heading = ""
        self._open: list[str] = []  # of heading and cell, the text so far
        self._reading = False  # whether a table is open, and then its cells
        self._heads: list[list[_Cell]] = []
        self._rows: list[list[_Cell]] = []
        self._numbers: list[bool] = []
        self._row: list[_Cell] | None = None
        self._span = (1, 1)
        self._number = False
        self._small: list[bool] = []  # of small letters that are open, whether they are an aside
        self._waiting: dict[int, tuple[_Cell, int]] = {}  # by column: a cell, and for how many rows
        self._head = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open a heading, a table, a row or a cell."""
        given = {name: value or "" for name, value in attrs}
        classes = given.get("class", "").split()
        if tag in ("h1", "h2", "h3"):
            self._open = [""]
        elif tag == "table" and "heat" not in classes:
            self._reading, self._waiting = True, {}
            self._heads, self._rows, self._numbers = [], [], []
        elif not self._reading:
            return
        elif tag == "thead":
            self._head = True
        elif tag == "tr":
            self._row = []
        elif tag in ("td", "th") and self._row is not None:
            self._fill()
            self._span = int(given.get("colspan", 1)), int(given.get("rowspan", 1))
            self._number, self._open, self._small = "number" in classes, [""], []
        elif self._open:
            if tag == "small":
                self._small.append("part" not in classes)
            if tag == "br" or "part" in classes:
                self._open.append(" " if tag == "br" else _PART)
            elif tag == "small":
                self._open.append(_ASIDE[0])

    def handle_endtag(self, tag: str) -> None:
        """Close what a start tag opened."""
        if tag in ("h1", "h2", "h3"):
            self._heading, self._open = " ".join("".join(self._open).split()), []
        elif not self._reading:
            return
        elif tag == "thead":
            self._head = False
        elif tag in ("td", "th") and self._row is not None:
            self._close_cell(_cell("".join(self._open)))
        elif tag == "small" and self._small and self._small.pop():
            self._open.append(_ASIDE[1])
        elif tag == "tr" and self._row is not None:
            self._fill()
            (self._heads if self._head else self._rows).append(self._row)
            self._row = None
        elif tag == "table":
            self.found.append(self._table())
            self._reading = False

    def handle_data(self, data: str) -> None:
        """Add text to the heading or the cell that is open."""
        if self._open:
            self._open.append(re.sub(r"[ \t\n]+", " ", data))

    def _fill(self) -> None:
        """Put the cells here that the rows above hold in the next columns."""
        assert self._row is not None
        while len(self._row) in self._waiting:
            at = len(self._row)
            cell, left = self._waiting.pop(at)
            self._row.append(cell)
            if left > 1:
                self._waiting[at] = cell, left - 1

    def _close_cell(self, cell: _Cell) -> None:
        assert self._row is not None
        across, down = self._span
        for _ in range(across):
            at = len(self._row)
            self._row.append(cell)
            if down > 1:
                self._waiting[at] = cell, down - 1
            if not self._head and len(self._numbers) < len(self._row):
                self._numbers.append(self._number)
        self._open = []

    def _table(self) -> PageTable:
        """Return the table that was read. A heading of several parts makes as many columns."""
        wide = [max(map(len, column)) for column in zip(*self._heads, strict=True)]
        numbers = [number for number, n in zip(self._numbers, wide, strict=False) for _ in range(n)]
        heads = [_spread(row, wide, repeat=True) for row in self._heads]
        return PageTable(self._heading, heads, [_spread(row, wide) for row in self._rows], numbers)


def _spread(row: list[_Cell], wide: list[int], repeat: bool = False) -> list[str]:
    """Return the texts of a row, each cell in ``wide`` columns; the last one has what remains."""
    texts = list[str]()
    for cell, n in zip(row, wide, strict=True):
        parts = [*cell[: n - 1], ", ".join(cell[n - 1 :])]
        fill = cell[0] if repeat and len(cell) == 1 else ""
        texts += [part or fill for part in (*parts, *[""] * (n - len(parts)))]
    return texts
