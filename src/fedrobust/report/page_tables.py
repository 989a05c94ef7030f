"""The tables of a page for a paper: as LaTeX, and as CSV."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser

from fedrobust.report.wording import slug

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "≥": r"$\ge$",
    "≤": r"$\le$",
    "→": r"$\to$",
    "ρ̂": r"$\hat\rho$",
    "ρ": r"$\rho$",
    "γ": r"$\gamma$",
    "η": r"$\eta$",
    "θ": r"$\theta$",
    "∞": r"$\infty$",
    "ε": r"$\varepsilon$",
    "ℓ": r"$\ell$",
    "–": "--",
    "…": r"\ldots{}",
    "\u202f": r"\,",
    "\u00a0": "~",
    **{chr(0x2080 + digit): f"$_{digit}$" for digit in range(10)},
}
"""What LaTeX writes otherwise, or what not every LaTeX can read."""
_SPECIAL = re.compile("|".join(map(re.escape, sorted(_LATEX, key=len, reverse=True))))
_MINUS = re.compile(r"(?<![\w.-])-(?=\d)")


@dataclass
class PageTable:
    """A table as texts: ``name`` is the heading above it, ``heads`` are its rows of headings.

    A heading over several columns is repeated in each of them, and one over several rows in each.
    ``numbers`` says for each column whether the page sets it as numbers.
    """

    name: str
    heads: list[list[str]] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    numbers: list[bool] = field(default_factory=list)

    def csv(self) -> str:
        """Return it as CSV with one row of headings, and numbers as numbers.

        The unit of a column is part of its heading, ``robust (%)``. What the page says beside the
        numbers has columns of its own: ``robust (%): low`` and ``high`` of a range, and ``remark``
        for words. A number is rounded as on the page, and empty where the page has a dash. A
        heading that the page repeats has the one before it in front: ``robust: paper``.
        """
        out, heads = io.StringIO(), _alone(_joined(self.heads))
        columns = list[tuple[str, ...]]()
        for i, head in enumerate(heads):
            cells = tuple(row[i] for row in self.rows)
            numbers = bool(cells) and self.numbers[i]
            columns += _as_numbers(head, cells) if numbers else [(head, *cells)]
        csv.writer(out, lineterminator="\n").writerows(zip(*columns, strict=True))
        return out.getvalue()

    def latex(self) -> str:
        """Return it as a tabular of the package booktabs."""
        columns = "".join("r" if number else "l" for number in self.numbers)
        lines = [
            "% needs \\usepackage{booktabs}",
            f"\\begin{{tabular}}{{{columns}}}",
            "\\toprule",
            _latex_row(_joined(self.heads)),
            "\\midrule",
            *map(_latex_row, self.rows),
            "\\bottomrule",
            "\\end{tabular}",
        ]
        return "\n".join(lines) + "\n"


def tables_of(page: str) -> list[PageTable]:
    """Return the tables of a page; a heat map is left out, since another table has its scores."""
    reader = _Reader()
    reader.feed(page)
    return reader.found


def table_files(page: str, latex: bool, as_csv: bool) -> dict[str, bytes]:
    """Return the tables of a page as files by name, such as ``table-1-all-scores.tex``."""
    files = dict[str, bytes]()
    for i, table in enumerate(tables_of(page), start=1):
        name = f"table-{i}-{slug(table.name)}"[:80]
        if latex:
            files[f"{name}.tex"] = table.latex().encode()
        if as_csv:
            files[f"{name}.csv"] = table.csv().encode()
    return files


def _joined(heads: list[list[str]]) -> list[str]:
    """Join rows of headings to one: "Chosen model: Round"."""
    columns = zip(*heads, strict=True)
    return [": ".join(dict.fromkeys(text for text in column if text)) for column in columns]


def _alone(heads: list[str]) -> list[str]:
    """Return headings of which none stands twice."""
    found, last = list[str](), ""
    for head in heads:
        if heads.count(head) == 1:
            last = head
        found.append(head if last in (head, "") else f"{last}: {head}")
    return found


_PLAIN = r"[+−-]?[\d,]*\.?\d+(?:e[+-]?\d+)?"
_VALUE = re.compile(rf"({_PLAIN})(?:\s?([^\s\d(]\S*))?(?:\s\((.*)\))?")
_RANGE = re.compile(rf"({_PLAIN}) to ({_PLAIN})(?:, (.*))?")


def _as_numbers(head: str, cells: Sequence[str]) -> list[tuple[str, ...]]:
    """Return a column as columns of numbers and of remarks; as it is where it has no one unit."""
    found = [_VALUE.fullmatch(cell) for cell in cells]
    units = {match[2] or "" for match in found if match}
    if len(units) != 1:
        return [(head, *cells)]
    parts = [_parts(cell, match) for cell, match in zip(cells, found, strict=True)]
    unit = units.pop()
    name = f"{head} ({unit})" if unit and f"({unit})" not in head else head
    names = (name, f"{name}: low", f"{name}: high", f"{name}: remark")
    columns = [(names[i], *column) for i, column in enumerate(zip(*parts, strict=True))]
    return [column for column in columns if any(column[1:])]


def _parts(cell: str, match: re.Match[str] | None) -> tuple[str, str, str, str]:
    """Return a cell's number, the ends of its range and what else it says; empty for nothing."""
    if match is None:
        return "", "", "", "" if cell == "–" else cell
    aside = _RANGE.fullmatch(match[3] or "")
    low, high, remark = aside.groups("") if aside else ("", "", match[3] or "")
    return _number(match[1]), _number(low), _number(high), remark


def _number(text: str) -> str:
    """Return a number as every program reads it: with a hyphen, no plus and no commas."""
    return text.replace(",", "").replace("−", "-").removeprefix("+")


def _latex_row(cells: list[str]) -> str:
    signed = (_MINUS.sub("−", cell) for cell in cells)
    texts = (_SPECIAL.sub(lambda found: _LATEX[found.group()], cell) for cell in signed)
    return " & ".join(texts) + r" \\"


_PART, _ASIDE = "\x01", ("\x02", "\x03")
"""Marks before a part of a label, and around what the page sets in small letters."""


def _cell(text: str) -> str:
    """Return the text of a cell: small letters in brackets, parts of a label with commas."""
    text = ", ".join(part.strip(" ") for part in text.split(_PART) if part.strip(" "))
    text = re.sub(r" *\x02 *\(?([^\x03]*?)\)? *\x03", r" (\1)", text)
    return re.sub(" +", " ", text).strip(" ")


class _Reader(HTMLParser):
    """Reads the tables of a page, and the last heading before each."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[PageTable] = []
        self._heading = ""
        self._open: list[str] = []  # of heading and cell, the text so far
        self._table: PageTable | None = None
        self._row: list[str] | None = None
        self._span = (1, 1)
        self._number = False
        self._waiting: dict[int, tuple[str, int]] = {}  # by column: a text, and for how many rows
        self._head = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open a heading, a table, a row or a cell."""
        given = {name: value or "" for name, value in attrs}
        classes = given.get("class", "").split()
        if tag in ("h1", "h2", "h3"):
            self._open = [""]
        elif tag == "table" and "heat" not in classes:
            self._table, self._waiting = PageTable(self._heading), {}
        elif self._table is None:
            return
        elif tag == "thead":
            self._head = True
        elif tag == "tr":
            self._row = []
        elif tag in ("td", "th") and self._row is not None:
            self._fill()
            self._span = int(given.get("colspan", 1)), int(given.get("rowspan", 1))
            self._number, self._open = "number" in classes, [""]
        elif self._open and (tag == "br" or "part" in classes):
            self._open.append(" " if tag == "br" else _PART)
        elif self._open and tag == "small":
            self._open.append(_ASIDE[0])

    def handle_endtag(self, tag: str) -> None:
        """Close what a start tag opened."""
        if tag in ("h1", "h2", "h3"):
            self._heading, self._open = " ".join("".join(self._open).split()), []
        elif self._table is None:
            return
        elif tag == "thead":
            self._head = False
        elif tag in ("td", "th") and self._row is not None:
            self._close_cell(_cell("".join(self._open)))
        elif self._open and tag == "small":
            self._open.append(_ASIDE[1])
        elif tag == "tr" and self._row is not None:
            self._fill()
            (self._table.heads if self._head else self._table.rows).append(self._row)
            self._row = None
        elif tag == "table":
            self.found.append(self._table)
            self._table = None

    def handle_data(self, data: str) -> None:
        """Add text to the heading or the cell that is open."""
        if self._open:
            self._open.append(re.sub(r"[ \t\n]+", " ", data))

    def _fill(self) -> None:
        """Put the texts here that cells of the rows above hold in the next columns."""
        assert self._row is not None
        while len(self._row) in self._waiting:
            at = len(self._row)
            text, left = self._waiting.pop(at)
            self._row.append(text)
            if left > 1:
                self._waiting[at] = text, left - 1

    def _close_cell(self, text: str) -> None:
        assert self._row is not None
        assert self._table is not None
        across, down = self._span
        for _ in range(across):
            at = len(self._row)
            self._row.append(text)
            if down > 1:
                self._waiting[at] = text, down - 1
            if not self._head and len(self._table.numbers) < len(self._row):
                self._table.numbers.append(self._number)
        self._open = []
