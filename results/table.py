"""Write results/README.md: every run kept here beside the figures that its paper publishes.

``python results/table.py`` reads config.yaml, summary.json and environment.json of each run
directory below results/, and results/published/*.json. No figure in the table is typed by hand.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedrobust.experiment import read_yaml
from fedrobust.records.published import tables

HERE = Path(__file__).parent
HEAD = """# Results

`make results` makes this page from the records in these folders. The command in the last column
plays a run again. Its config is the one of experiments/ with the execution plan filled in.
Accuracy / robust accuracy in per cent on the test split, which is read once: for the round that the
validation split chose (*chosen*) and for the last one. *Paper* is the published pair.

| run | rule | attack | rounds | chosen (round) | last | paper | minutes | command |
|---|---|---|---|---|---|---|---|---|
"""


def published(config: dict[str, Any]) -> str:
    """Return the published pair for the run's settings, or a dash."""
    for path in sorted((HERE / "published").glob("*.json")):
        for rows in tables(path.stem).values():
            for row in rows:
                if row.fits(config):
                    return _pair(row.figures)
    return "–"


def row(directory: Path) -> str:
    """Return one run as a row of the table."""
    config = read_yaml(directory / "config.yaml")
    summary = json.loads((directory / "summary.json").read_text())
    best, final = summary["test"]["best"], summary["test"]["final"]
    attack = "–"
    if config["malicious"]:
        attack = f"{config['attack']['name']}, {config['malicious']} of {summary['clients']}"
    file = f"results/{directory.relative_to(HERE)}/config.yaml"
    cells = [
        f"[{config['name']}]({directory.relative_to(HERE)}/report/index.html)",
        config["aggregator"]["name"],
        attack,
        str(summary["rounds"]),
        f"{_pair(best)} ({summary['best_round']})",
        _pair(final),
        published(config),
        f"{summary['seconds'] / 60:.0f}",
        f"`fedrobust run {file}`",
    ]
    return "| " + " | ".join(cells) + " |\n"


def sweep(directory: Path) -> str:
    """Return a sweep's tables and figures, as its report made them, and the notes about them."""
    here = directory.relative_to(HERE)
    content = json.loads((directory / "sweep.json").read_text())
    report = directory / "report"
    figures = "".join(
        f"![{p.stem}]({here}/report/{p.name})\n" for p in sorted(report.glob("*.png"))
    )
    notes = directory / "notes.md"
    command = f"fedrobust sweep experiments/{here}.yaml"
    head = f"\n## {content['name']}\n\n`{command}` ([the page]({here}/report/index.html)). "
    return (
        head
        + "Test split, the model after the last round; medians over seeds.\n\n"
        + (report / "table.md").read_text()
        + "".join(
            f"\n{(report / name).read_text()}"
            for name in ("harm.md", "learned.md")
            if (report / name).exists()
        )
        + (f"\n{notes.read_text()}" if notes.exists() else "")
        + f"\n{figures}"
    )


AUDITS = """
## Audits

`fedrobust audit MODEL` compares the accuracy that a model claims under plain PGD with its accuracy
under the whole battery, in per cent with 95 % intervals ([how](../docs/audit.md)).

| audit | clean | claimed | robust | verdict | examples, budget |
|---|---|---|---|---|---|
"""


def audit(directory: Path) -> str:
    """Return one audit as a row of its table."""
    content = json.loads((directory / "audit.json").read_text())
    here = directory.relative_to(HERE)
    shares = [
        "{:.1f} ({:.1f} to {:.1f})".format(*(100 * share[k] for k in ("value", "low", "high")))
        for share in (content["shares"][name] for name in ("clean", "claimed", "robust"))
    ]
    settings = content["settings"]
    cells = [f"[{directory.name}]({here}/report/index.html)", *shares, content["verdict"]]
    return "| " + " | ".join([*cells, f"{settings['examples']:,}, {settings['budget']}"]) + " |\n"


def _pair(scores: Mapping[str, Any]) -> str:
    return f"{100 * scores['accuracy']:.2f} / {100 * scores['robust_accuracy']:.2f}"


def main() -> None:
    """Write the page."""
    runs = sorted(path.parent for path in HERE.glob("*/*/summary.json"))
    text = HEAD + "".join(row(run) for run in runs)
    notes = HERE / "notes.md"
    if notes.exists():
        text += "\n" + notes.read_text()
    text += "".join(sweep(path.parent) for path in sorted(HERE.glob("*/*/sweep.json")))
    audits = sorted(path.parent for path in HERE.glob("*/*/audit.json"))
    if audits:
        told = [path / "notes.md" for path in audits if (path / "notes.md").exists()]
        text += AUDITS + "".join(audit(path) for path in audits)
        text += "".join(f"\n{path.read_text()}" for path in told)
    (HERE / "README.md").write_text(text)


if __name__ == "__main__":
    main()
