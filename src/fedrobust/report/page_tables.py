"""The tables of a page for a paper: as LaTeX, and as CSV."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

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
        heading that the page repeats has the one before it in front: ``robust: paper``. A column of
        words has its words; a number among them is written as a number.
        """
        out, heads = io.StringIO(), _alone(_joined(self.heads))
        columns = list[tuple[str, ...]]()
        for i, head in enumerate(heads):
            cells = tuple(row[i] for row in self.rows)
            numbers = bool(cells) and self.numbers[i]
            columns += _as_numbers(head, cells) if numbers else [(head, *map(_word, cells))]
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


def table_files(tables: Sequence[PageTable], latex: bool, as_csv: bool) -> dict[str, bytes]:
    """Return tables as files by name, such as ``table-1-all-scores.tex``."""
    files = dict[str, bytes]()
    for i, table in enumerate(tables, start=1):
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


_PLAIN = r"[+−-]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d*\.?\d+(?:e[+−-]?\d+)?|inf)"
_PIXELS = re.compile(r"(\d+)/255")
_NONE = "–"
"""What a page has where there is nothing."""
_VALUE = re.compile(rf"({_PLAIN})(?:\s?([^\s\d(]\S*))?(?:\s\((.*)\))?")
_RANGE = re.compile(rf"({_PLAIN}) to ({_PLAIN})(?:\s?%)?(?:, (.*))?")


def _as_numbers(head: str, cells: Sequence[str]) -> list[tuple[str, ...]]:
    """Return a column as columns of numbers and of remarks; as words where it has no one unit."""
    found = [_VALUE.fullmatch(cell) for cell in cells]
    units = {match[2] or "" for match in found if match}
    if len(units) != 1:
        return [(head, *map(_word, cells))]
    parts = [_parts(cell, match) for cell, match in zip(cells, found, strict=True)]
    unit = units.pop()
    name = f"{head} ({unit})" if unit and f"({unit})" not in head else head
    names = (name, f"{name}: low", f"{name}: high", f"{name}: remark")
    columns = [(names[i], *column) for i, column in enumerate(zip(*parts, strict=True))]
    return [column for column in columns if any(column[1:])]


def _parts(cell: str, match: re.Match[str] | None) -> tuple[str, str, str, str]:
    """Return a cell's number, the ends of its range and what else it says; empty for nothing."""
    if match is None:
        return "", "", "", _word(cell)
    aside = _RANGE.fullmatch(match[3] or "")
    low, high, remark = aside.groups("") if aside else ("", "", match[3] or "")
    return _number(match[1]), _number(low), _number(high), remark


def _word(cell: str) -> str:
    """Return a cell of a column of words; a number alone in it as a number, and a dash as nothing.

    A number of pixel levels, ``8/255``, is written as a decimal number.
    """
    if levels := _PIXELS.fullmatch(cell):
        return f"{int(levels[1]) / 255:.6g}"
    return "" if cell == _NONE else _number(cell) if re.fullmatch(_PLAIN, cell) else cell


def _number(text: str) -> str:
    """Return a number as every program reads it: with a hyphen, no plus and no commas."""
    return text.replace(",", "").replace("−", "-").removeprefix("+")


def _latex_row(cells: list[str]) -> str:
    signed = (_MINUS.sub("−", cell) for cell in cells)
    texts = (_SPECIAL.sub(lambda found: _LATEX[found.group()], cell) for cell in signed)
    return " & ".join(texts) + r" \\"
