"""Write the page: one self-contained HTML file, and its figures as files beside it."""

import base64
import hashlib
import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import IO, Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from fedrobust.config.trust import Trusted, trusting
from fedrobust.errors import RecordError, WriteError
from fedrobust.files import atomically, clear, held, listing, reason, written
from fedrobust.records.leaderboard import FILE as LEADERBOARD
from fedrobust.records.reading import present
from fedrobust.records.schema.reproduction import FILE as REPRODUCTION
from fedrobust.report import compare, figures, wording
from fedrobust.report.leaderboard.page import leaderboard_values
from fedrobust.report.leaderboard.tables import leaderboard_tables
from fedrobust.report.page_tables import PageTable, table_files
from fedrobust.report.reproduction.page import reproduction_values
from fedrobust.report.run_page import curve_words, section, table
from fedrobust.report.run_records import ReportRun
from fedrobust.report.style import SERIES, THEME, inches_of, render
from fedrobust.report.svg import bare, renamed
from fedrobust.report.sweep.page import sweep_values
from fedrobust.report.tables_of_page import tables_of


class Content(NamedTuple):
    """The text of a page, and the files beside it by name.

    ``tables`` are what a paper takes from it, where these are not the tables that the page shows.
    """

    page: str
    files: dict[str, bytes]
    tables: list[PageTable] | None = None


_MARK = '<meta name="generator" content="fedrobust report">'
_PAGE = "index.html"
_FIGURE = re.compile(
    r"(\d+-[a-z0-9-]+-)?(accuracy|claims|effects|kept|users|examples|boundaries|matrix|course|learned|harm|surface|signs|audit|(error|loss)-[a-z]+|table)\.(svg|png|pdf|md|json)"
    r"|(course|clean|users)-[a-z0-9-]+\.(svg|png|pdf)|table-\d+-[a-z0-9-]*\.(tex|csv)"
)


def write_report(
    runs: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    trust: bool | Trusted = False,
    latex: bool = False,
    csv: bool = False,
    pdf: bool | float = False,
) -> Path:
    """Write the report on runs, a sweep, a reproduction, an audit or a leaderboard.

    Returns the path of the page. ``out`` is the folder for ``index.html`` and the figures. By
    default it is ``report`` in the folder of the record; for several runs it is ``report-`` and
    their names, in the current folder. The content depends only on the run directories: the same
    runs give the same bytes. ``trust`` lets the configs of a sweep's cells name code
    (``module:name``) as their model, and this code is run. Without it, the figure that needs the
    model is left out, and the page says so. ``latex`` and ``csv`` write each table of the page
    beside it in that form too, and ``pdf`` each figure as PDF with text as text, drawn for one
    column of a paper (3.5 inches), or as many inches wide as it says.

    Raises: ``RecordError`` for a folder that is no run directory, has no evaluations yet or holds
    a broken file, and for an ``out`` that cannot be written or holds anything but a report.
    """
    try:
        paths = list(dict.fromkeys(Path(path).resolve() for path in runs))
    except (OSError, RuntimeError, ValueError) as error:  # a link to itself is a RuntimeError
        raise RecordError(f"cannot read {', '.join(map(str, runs))}: {reason(error)}") from error
    if not paths:
        raise RecordError("there is no run to report on; give at least one run directory")
    inches, out = inches_of(pdf), None if out is None else Path(out)
    sweep = partial(_build_sweep, trusted=trusting(trust), out=out, pdf=inches)
    whole: tuple[tuple[str, Callable[[Path], Content]], ...] = (
        (REPRODUCTION, partial(_build_reproduction, pdf=inches)),
        ("sweep.json", sweep),
        ("audit.json", partial(_build_audit, pdf=inches)),
        (LEADERBOARD, _build_leaderboard),
    )

    def with_tables(build: Callable[[], Content]) -> Content:
        page, files, tables = build()
        more = table_files(tables_of(page) if tables is None else tables, latex, csv)
        if (latex or csv) and not more:
            raise RecordError(
                "the page of one run has no table: give several runs, a sweep, a reproduction, "
                "an audit or a leaderboard"
            )
        return Content(page, files | more)

    for record, build in whole:
        if len(paths) == 1 and present(paths[0] / record):
            return _publish(out, paths[0], partial(with_tables, partial(build, paths[0])))
    for path in paths:
        if os.path.isfile(path / "progress.jsonl") and not present(path / "config.yaml"):
            raise RecordError(f"{path} holds an audit that is not finished: go on with --resume")
    read = [ReportRun.read(path) for path in paths]
    labels = compare.unique_labels(read)
    if out is None and len(paths) > 1:
        names = "-".join(wording.slug(label) for label in labels)[:100]
        out = Path(f"report-{names}")
    return _publish(out, paths[0], partial(with_tables, partial(_build, read, labels, inches)))


def _publish(out: Path | None, inside: Path, build: Callable[[], Content]) -> Path:
    """Write the page and its files to ``out``, in place of an older report.

    If ``out`` is None, it is the folder ``report`` in the folder ``inside``.
    """
    if out is None and (inside / "report").is_symlink():
        raise RecordError(
            f"{inside / 'report'} is a link: name the folder of the report with --out"
        )
    out = Path(out or inside / "report")
    try:
        _check_ours(out)
        html, files, _ = build()
        # The page is built before the folder is made, so that no error leaves an empty folder.
        with held(out, f"another process is writing a report to {out}", remove=True):
            clear(out)
            # The page comes first, since it marks the folder as ours if we are stopped here.
            written(out / _PAGE, html)
            for name, content in files.items():
                atomically(out / name, partial(_fill, content))
            for old in listing(out):
                if _FIGURE.fullmatch(old) and old not in files:
                    (out / old).unlink()
    except (OSError, WriteError) as error:
        raise RecordError(f"cannot write the report to {out}: {reason(error)}") from error
    return out / _PAGE


def _fill(content: bytes, file: IO[bytes]) -> None:
    file.write(content)


def _check_ours(out: Path) -> None:
    """Refuse a folder that holds anything but a report."""
    if os.path.exists(out) and not os.path.isdir(out):
        raise RecordError(f"{out} is a file; give a folder for the report")
    if not os.path.exists(out) or not listing(out):
        return
    page = out / _PAGE
    if not page.is_file() or _MARK not in page.read_text(encoding="utf-8", errors="replace"):
        raise RecordError(
            f"{out} is not empty and holds no report of fedrobust; nothing was written. "
            "Give another folder for the report, or a new one"
        )


def _build(runs: Sequence[ReportRun], labels: Sequence[str], pdf: float | None) -> Content:
    """Build the page of one or several runs, and the files beside it, by name."""
    files: dict[str, bytes] = {}
    figure = _collector(files, pdf)
    sections = []
    for i, (run, label) in enumerate(zip(runs, labels, strict=True)):
        prefix = "" if len(runs) == 1 else f"{i + 1}-{wording.slug(label)}-"
        sections.append(section(run, label, prefix, figure) | {"anchor": f"run-{i + 1}"})
    curves = figure(
        "accuracy",
        " ".join(curve_words(run, label) for run, label in zip(runs, labels, strict=True)),
        partial(figures.accuracy, runs, labels),
    )
    html = (
        _templates()
        .get_template("page.html.j2")
        .render(
            mark=Markup(_MARK),
            runs=sections,
            curves=curves,
            table=table(runs) if len(runs) > 1 else None,
            files=sorted(files),
            series=SERIES,
        )
    )
    return Content(html, files)


def _build_sweep(path: Path, trusted: Trusted, out: Path | None, pdf: float | None) -> Content:
    """Build the page of a sweep, and the files beside it, by name."""
    files: dict[str, bytes] = {}
    values, tables = sweep_values(path, _collector(files, pdf), trusted, out or path / "report")
    files |= tables
    page = _templates().get_template("sweep.html.j2")
    script = _script("sort.js")
    html = page.render(
        mark=Markup(_MARK),
        sweep=values,
        files=sorted(files),
        script=Markup(script),
        # The browser runs a script with this digest, and no other.
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    return Content(html, files)


def _build_reproduction(path: Path, pdf: float | None) -> Content:
    """Build the page of a reproduction, and the files beside it, by name."""
    files: dict[str, bytes] = {}
    values, tables = reproduction_values(path, _collector(files, pdf))
    files |= tables
    page = _templates().get_template("reproduction.html.j2")
    return Content(page.render(mark=Markup(_MARK), sweep=values, files=sorted(files)), files)


def _build_audit(path: Path, pdf: float | None) -> Content:
    """Build the page of an audit, and the files beside it, by name."""
    from fedrobust.report.audit_page import audit_values  # loads the audit, only for this page

    files: dict[str, bytes] = {}
    values, tables = audit_values(path, _collector(files, pdf))
    page = _templates().get_template("audit.html.j2")
    html = page.render(mark=Markup(_MARK), audit=values, files=sorted(files))
    return Content(html, files, tables)


def _build_leaderboard(path: Path) -> Content:
    """Build the page of a leaderboard, and its ranking as files beside it, by name."""
    values, files = leaderboard_values(path)
    page = _templates().get_template("leaderboard.html.j2")
    html = page.render(mark=Markup(_MARK), board=values, files=sorted(files))
    return Content(html, files, leaderboard_tables(values["boards"]))


def _collector(files: dict[str, bytes], pdf: float | None) -> Callable[..., dict[str, Any]]:
    """Return a function that draws a figure, adds it to ``files``, and gives it to the page."""

    def figure(
        name: str, alt: str, draw: Callable[[float], Figure], narrow: bool = True
    ) -> dict[str, Any]:
        drawing = render(draw, narrow, pdf)
        files[f"{name}.svg"], files[f"{name}.png"] = drawing.wide.encode(), drawing.png
        if drawing.pdf is not None:
            files[f"{name}.pdf"] = drawing.pdf
        return {
            "name": name,
            "wide": _inline(drawing.wide, name, alt),
            "narrow": _inline(drawing.narrow, f"{name}-n", alt) if narrow else None,
        }

    return figure


def _script(name: str) -> str:
    """Return a script of this package, which stands in the page as it is."""
    return (resources.files("fedrobust.report") / "templates" / name).read_text("utf-8")


class _KeysFirst(Environment):
    """Reads ``row.clear`` as the key of a mapping before it reads it as a method of it."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return the key, where the mapping has it."""
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


def _templates() -> Environment:
    environment = _KeysFirst(
        loader=PackageLoader("fedrobust.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=wording.percent,
        strong=_strong_numbers,
        capitalize_first=lambda text: text[:1].upper() + text[1:],
    )
    return environment


def _inline(svg: str, prefix: str, alt: str) -> Markup:
    """Return an SVG file as part of the page: with its own ids, the page's colours and a text.

    The text describes the figure to readers who cannot see it. Matplotlib has escaped the texts in
    the figure.
    """
    svg = renamed(bare(svg), prefix)
    for colour, name in THEME.items():
        svg = svg.replace(colour, f"var(--{name})")
    return Markup(svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1))


def _strong_numbers(text: str) -> Markup:
    return Markup(re.sub(r"\d+\.\d\u202f%", r"<strong>\g<0></strong>", str(escape(text))))
