"""Write results/README.md: one table for each paper, and one line for each experiment kept here.

``python results/table.py`` reads the records below results/, and results/published/*.json. No
figure in the tables is typed by hand. What an experiment shows is in the notes.md of its folder.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from fedrobust.experiment import read_yaml
from fedrobust.records.published import Published, tables
from fedrobust.report.leaderboard.page import leaderboard_values

HERE = Path(__file__).parent
EXPERIMENTS = HERE.parent / "experiments"
HEAD = """# Results

`make results` makes this page from the records in these folders. Every record names its commit, its
machine and its time. Each experiment below can be played again with its config, by `fedrobust run`
or, where the config has a grid, by `fedrobust sweep`.

Words of the notes: a *gate* is a figure that was fixed before an experiment was played. *K/N* is
the share of a batch that is attacked (`ratio`). *W₁* is the Wasserstein distance to true examples.
*ρ̂* is the mean squared distance by which the worst shift moves the data
([DRFL](../docs/drfl.md)).
"""
FAT = """
## Federated adversarial training (FAT)

Accuracy / robust accuracy on the test split in per cent, for the model that validation chose and,
in a column of its own, for the model after the last round. Over several seeds: medians. Each
of our settings that corresponds to a published row has its own line. If the paper can be read in
two ways, each reading has a line (`n-2f`, `of-gradients`). Differences are of figures that are not
rounded. The paper's trimmed mean is our `mean-around-median`, and not
`trimmed-mean`. All runs are smaller than the paper's:
[what differs, and what holds](../docs/fat.md).

| published as | ours | paper | points | seeds | last round | record |
|---|---|---|---|---|---|---|
"""
DRFL = """
## Distributionally robust federated learning (DRFL)

Error in per cent / ρ̂ of the model after the last round, on the test split, by rule; medians over
the seeds in brackets, where there are several. One attacker of ten. In a column all
attacks keep within one budget and begin in the same round. Before that round the learned attacks
learn (`-late` on MNIST). The paper has figures and no tables:
[what differs, and what holds](../docs/drfl.md#the-experiments).

| attack | ring, no rule | median | Krum | MNIST, no rule | median | Krum |
|---|---|---|---|---|---|---|
"""
LEADERBOARD = """
## Leaderboard

True robust accuracy in per cent under the worst of the attacks, as an audit counts it, beside what
plain PGD would have said: [all rules and attacks](leaderboard/report/index.html),
[what it shows](leaderboard/notes.md),
[the protocol, and how to submit a rule](../docs/leaderboard.md).

| data | rank | rule | worst attack | robust | range | plain PGD | its rank | clean | seeds |
|---|---|---|---|---|---|---|---|---|---|
"""
_LATE = {
    **{f"{name}-late": name for name in ("random", "inner-product", "fang", "shrink")},
    "learned-black": "learned-black-box",
    "learned": "learned",
}
ATTACKS = {
    "none": "none",
    "random": "random",
    "inner-product": "inner product",
    "fang": "Fang 2020",
    "shrink": "shrink",
    "best-constant": "best constant action",
    "learned-black-box": "learned, black-box",
    "learned": "learned, white-box",
}
FIGURES = {
    "ring": {"ring-learned": {name: name for name in ATTACKS}},
    "mnist": {
        "mnist": {"none": "none"},
        "mnist-learned": {"none": "none", **_LATE},  # in bfloat16, as all of that column
        "mnist-learned-rest": _LATE,
    },
}
"""For each of DRFL's figures, the attacks that a sweep has, by their names there."""
TITLES = {
    "fat": "FAT",
    "drfl": "DRFL",
    "byzantine": "Rules against attacks",
    "audits": "Audits",
}


def cells_of_fat() -> Iterator[tuple[Path, dict[str, Any], dict[str, Any]]]:
    """Yield place, config and summary of every run of FAT; reproductions of tables come first."""
    found = sorted((HERE / "fat").rglob("summary.json"), key=lambda p: (-len(p.parts), p))
    for path in found:
        yield path.parent, read_yaml(path.parent / "config.yaml"), json.loads(path.read_text())


def beside(published: Published, found: list[tuple[Path, dict[str, Any], dict[str, Any]]]) -> str:
    """Return the lines of a published row: one for each setting of ours that has its place.

    Where a reproduction has the row, runs outside of it are left out.
    """
    ours = [cell for cell in found if published.fits(cell[1])]
    figures = published.figures
    paper = _pair(figures)
    if not ours:
        return f"| {published.label} | – | {paper} | – | – | – | not played |\n"
    here = [cell for cell in ours if len(cell[0].parts) == len(ours[0][0].parts)]
    settings = list[list[tuple[Path, dict[str, Any], dict[str, Any]]]]()
    for one in here:
        for same in settings:
            if _place(same[0][0]) == _place(one[0]) and _alike(same[0][1], one[1]):
                same.append(one)
                break
        else:
            settings.append([one])
    return "".join(_setting(published.label, figures, paper, same) for same in settings)


def _setting(
    label: str,
    figures: Mapping[str, Any],
    paper: str,
    same: list[tuple[Path, dict[str, Any], dict[str, Any]]],
) -> str:
    """Return one line: the medians of the runs ``same``, which differ only in their seeds."""
    best, last = (
        {
            name: median(summary["test"][which][name] for _, _, summary in same)
            for name in ("accuracy", "robust_accuracy")
        }
        for which in ("best", "final")
    )
    points = " / ".join(
        f"{100 * (best[n] - figures[n]):+.1f}".replace("-", "−") for n in best if n in figures
    )
    place, (cell, config, _) = _place(same[0][0]), same[0]
    name = cell.name.removesuffix("-" + str(config["seed"]))
    setting = "" if place == cell else f", {name}"
    link = f"[{place.name}{setting}]({place.relative_to(HERE)}/report/index.html)"
    cells = [label, _pair(best), paper, points, str(len(same)), _pair(last), link]
    return "| " + " | ".join(cells) + " |\n"


def _place(cell: Path) -> Path:
    """Return the folder with the page that shows a cell: its reproduction, its sweep, or itself."""
    for folder in (cell.parents[2], cell.parents[1], cell):
        if (folder / "report").is_dir():
            return folder
    return cell


def _alike(config: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two configs differ in nothing but their seeds and names."""
    silent = ("name", "seed", "execution")
    return all(config[key] == other[key] for key in config if key not in silent)


def _pair(scores: Mapping[str, Any]) -> str:
    return f"{100 * scores['accuracy']:.1f} / {100 * scores['robust_accuracy']:.1f}"


def drfl() -> str:
    """Return the rows of DRFL's table."""
    found = dict[tuple[str, str, str], str]()
    for figure, sweeps in FIGURES.items():
        for name, attacks in sweeps.items():
            content = json.loads((HERE / "drfl" / name / "report" / "table.json").read_text())
            for line in content["rows"]:
                if (attack := attacks.get(line["labels"]["attack"])) is not None:
                    told = f"{100 * line['error']['middle']:.1f} / {_number(line['ρ̂'])}"
                    seeds = line["error"]["seeds"]
                    several = f" ({seeds})" if seeds > 1 else ""
                    found[figure, line["labels"]["rule"], attack] = told + several
    places = [(figure, rule) for figure in FIGURES for rule in ("none", "median", "krum")]
    return "".join(
        f"| {title} | " + " | ".join(found.get((*place, name), "–") for place in places) + " |\n"
        for name, title in ATTACKS.items()
    )


def _number(value: Mapping[str, Any]) -> str:
    middle = value["middle"]
    return middle if isinstance(middle, str) else f"{middle:.2g}"


def leaderboard() -> str:
    """Return the rows of the leaderboard's ranked rules."""
    _, files = leaderboard_values(HERE / "leaderboard")
    return "".join(files["table.md"].decode().splitlines(keepends=True)[2:])


def experiments() -> str:
    """Return one line for each experiment, by folder."""
    text = ""
    for folder, title in TITLES.items():
        lines = [_line(path) for path in sorted((HERE / folder).iterdir()) if path.is_dir()]
        text += f"\n## {title}: the experiments\n\n" if folder in ("fat", "drfl") else ""
        text += f"\n## {title}\n\n" if folder not in ("fat", "drfl") else ""
        text += "".join(lines)
    return text


def _line(path: Path) -> str:
    here = path.relative_to(HERE)
    notes = f" [What it shows]({here}/notes.md)." if (path / "notes.md").exists() else ""
    return f"- [{path.name}]({here}/report/index.html): {_purpose(path)}{notes}\n"


def _purpose(path: Path) -> str:
    """Return what an experiment is for: a reproduction's title, or its config's first sentence."""
    if (path / "reproduction.json").exists():
        return f"{json.loads((path / 'reproduction.json').read_text())['title']}."
    if (path / "audit.json").exists():
        found = json.loads((path / "audit.json").read_text())
        shares = {k: f"{100 * found['shares'][k]['value']:.1f} %" for k in ("claimed", "robust")}
        return (
            f"`fedrobust audit`, {found['settings']['budget']}, of the run of that name: "
            f"{shares['claimed']} claimed, {shares['robust']} robust, {found['verdict']}."
        )
    comment = " ".join(
        line.removeprefix("#").strip()
        for line in (EXPERIMENTS / path.parent.name / f"{path.name}.yaml").read_text().splitlines()
        if line.startswith("#")
    )
    return re.split(r"(?<=[.?]) (?=[A-Z`])", comment, maxsplit=1)[0]


def page() -> str:
    """Return the page."""
    found = list(cells_of_fat())
    rows = [row for name in ("table-1", "table-2", "table-3") for row in tables("fat")[name]]
    fat = "".join(beside(published, found) for published in rows)
    return HEAD + FAT + fat + DRFL + drfl() + LEADERBOARD + leaderboard() + experiments()


if __name__ == "__main__":
    (HERE / "README.md").write_text(page())
