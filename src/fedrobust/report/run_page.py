"""The values for the template of a page about one run or several runs."""

import base64
import io
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.image import imsave

from fedrobust.evaluation.intervals import bounds
from fedrobust.records.pictures import answer_text
from fedrobust.report import compare, figures, wording
from fedrobust.report.audits_beside import disagreeing
from fedrobust.report.learned_attack import learned_section
from fedrobust.report.run_records import Evaluation, PerUser, ReportRun, Score
from fedrobust.report.selection import passing, selects


def section(
    run: ReportRun, label: str, prefix: str, figure: Callable[..., dict[str, Any]]
) -> dict[str, Any]:
    """Return all values that the page shows of one run."""
    found = passing(run, 100)
    has_malicious = any(r.malicious for r in run.rounds)
    rule = wording.whole_name(run.config["aggregator"])
    content: dict[str, Any] = {
        "label": label,
        "verdict": wording.verdict(run),
        "scores": _scores(run),
        "facts": _facts(run),
        "warnings": [*disagreeing(run), *wording.warnings(run)],
        "notes": (*wording.extensions(run), *(run.summary.notes if run.summary else ())),
        "rule": rule,
        "passing": found,
        "kept": None,
        "never_selects": has_malicious and bool(run.rounds) and not selects(run.rounds),
        "users": None,
        "pictures": None,
        "learned": learned_section(run, prefix, figure, _png),
        "threat": wording.threat(run),
        "setup": [
            (key, wording.component(value)) for key, value in run.config.items() if key != "name"
        ],
        "yaml": _yaml_lines(run.config_text),
        "environment": [(key, wording.number(value)) for key, value in run.environment.items()],
        "measure": wording.measure(run.config["evaluation"]),
        "audited": any(e.audit is not None for e in run.evaluations),
        "split": run.chosen.split,
        "chosen_round": run.chosen_round,
        "finished": run.summary is not None,
    }
    if found:
        alt = (
            "Shares of malicious rows kept, over rounds and by client: "
            f"{wording.percent(found.total_passed)} of all."
        )
        content["kept"] = figure(f"{prefix}kept", alt, partial(figures.kept, run))
    if run.users:
        each, who, source = run.users
        alt = f"Scatter plot of accuracy and robust accuracy of {len(each.accuracy)} {who}."
        drawn = figure(f"{prefix}users", alt, partial(figures.users, each), narrow=False)
        content["users"] = {"figure": drawn, "who": who, "source": source} | user_numbers(each)
        best = run.test.best if run.test else None
        apart = best and best.clients and best.clients.examples < best.examples
        content["users"]["clients"] = best.clients if best and apart else None
    if run.examples:
        figure(f"{prefix}examples", "", partial(figures.examples, run.examples), narrow=False)
        content["pictures"] = _pictures(run)
    return content


def _scores(run: ReportRun) -> list[dict[str, Any]]:
    """Return the scores at the head of the page, of the chosen and of the last model."""
    entries: list[tuple[str, Score | Evaluation]]
    last = run.evaluations[-1]
    if run.test and run.summary:
        split, end = "test", run.summary.rounds
        names = f"Chosen on {last.split}: round {run.chosen_round:,}", f"Last: round {end:,}"
        entries = [(names[0], run.test.best), (names[1], run.test.final)]
    else:
        split, end = last.split, last.round
        names = f"Best so far: round {run.chosen_round:,}", f"Latest: round {end:,}"
        entries = [(names[0], run.chosen), (names[1], last)]
    if run.chosen_round == end:
        entries = [(f"{names[0]}, the last", entries[0][1])]
    return [
        {
            "title": text,
            "split": split,
            "examples": score.examples,
            "accuracy": score.accuracy,
            "robust": score.robust_accuracy,
            "accuracy_interval": wording.interval(score.accuracy, score.examples),
            "robust_interval": wording.interval(score.robust_accuracy, score.examples),
        }
        for text, score in entries
    ]


def _facts(run: ReportRun) -> list[tuple[str, str]]:
    seconds = run.summary.seconds if run.summary else run.evaluations[-1].seconds
    rounds = run.rounds[-1].round if run.rounds else 0
    facts = [("Rounds", f"{rounds:,} of {run.config['rounds']:,}")]
    if run.clients:
        facts.append(("Clients", f"{run.clients:,}, of these {run.config['malicious']} malicious"))
    if run.summary:
        facts.append(("Parameters", f"{run.summary.parameters:,}"))
    if run.test and (found := run.test.final.wasserstein):
        proved = "certified" if found.certified else "an estimate, not certified"
        rho, loss = wording.number(found.rho), wording.number(found.worst_case_loss)
        facts.append((f"ρ̂, last model, γ = {wording.number(found.gamma)}", f"{rho} ({proved})"))
        if (training := run.test.final.training_wasserstein) is not None:
            facts.append(("ρ̂ on training examples", wording.number(training.rho)))
        facts.append(("Worst-case loss up to ρ̂", loss))
    if run.test:
        models = {"chosen": run.test.best, "last": run.test.final}
        for name, score in models.items():
            if name == "chosen" and run.test.best == run.test.final:
                continue
            if score.audit:
                title = f"Audit, {name} model, {score.audit.examples:,} test examples"
                facts.append((title, wording.audit(score.audit)))
            if under := score.under:
                for attack, share in under.robust_accuracy.items():
                    title = f"Under {attack}, {name} model, {under.examples:,} test examples"
                    facts.append((title, f"{100 * share:.1f}\u202f%"))
    return [*facts, *_times(run, seconds)]


def _times(run: ReportRun, seconds: float) -> list[tuple[str, str]]:
    """Return how long the run took, and where the time went, if its record holds that."""
    times = run.summary.times if run.summary else None
    if times is None:
        return [("Time", wording.duration(seconds))]
    parts = {name: times[name].seconds for name in ("rounds", "evaluations", "audits")}
    told = [
        f"{name} {wording.duration(spent)}"
        for name, spent in parts.items()
        if name != "audits" or run.config["evaluation"].get("audit")
    ]
    return [("Time", wording.duration(sum(parts.values()))), ("Of this", ", ".join(told))]


def table(runs: Sequence[ReportRun]) -> dict[str, Any]:
    """Return the table of runs: the settings in which they differ, and scores on one split."""
    tested = all(run.test for run in runs)
    best = [run.test.best if tested and run.test else run.chosen for run in runs]
    last = [run.test.final if tested and run.test else run.evaluations[-1] for run in runs]
    rows = []
    for i, run in enumerate(runs):
        found = passing(run, 1)
        row = {"round": run.chosen_round, "best": best[i], "last": last[i]}
        rows.append(
            row | {"kept": found and found.total_passed, "chance": found and found.total_chance}
        )
    watched = {run.chosen.split for run in runs}
    differ = compare.differences(runs)
    first = ("aggregator", "attack", "malicious")  # the settings that readers look for first
    differ = {k: differ[k] for k in sorted(differ, key=lambda k: k not in first)}
    order = sorted(range(len(runs)), key=lambda i: -best[i].robust_accuracy)
    ends = [bounds(score.robust_accuracy, score.examples) for score in best]
    unlike = compare.unlike(runs)
    return {
        "rows": rows,
        "split": "test" if tested else watched.pop() if len(watched) == 1 else "held-out",
        "differ": dict(list(differ.items())[:4]),
        "more": list(differ)[4:],
        "unlike": unlike,
        "kept": any(row["kept"] is not None for row in rows),
        "order": order,
        "clear": not unlike and ends[order[0]][0] > max(ends[i][1] for i in order[1:]),
    }


def user_numbers(scores: PerUser) -> dict[str, Any]:
    """Return medians, deciles and the correlation of clean and robust accuracy over the users."""
    users = sorted(scores.accuracy)
    x = [scores.accuracy[u] for u in users]
    y = [scores.robust_accuracy[u] for u in users]
    varied = len(users) > 2 and np.ptp(x) > 0 and np.ptp(y) > 0
    return {
        "count": len(users),
        "sizes_differ": len(set(scores.examples.values())) > 1,
        "median_accuracy": float(np.median(x)),
        "median_robust": float(np.median(y)),
        "low": float(np.quantile(y, 0.1)),
        "high": float(np.quantile(y, 0.9)),
        "correlation": f"{np.corrcoef(x, y)[0, 1]:.2f}" if varied else None,
    }


def _pictures(run: ReportRun) -> list[dict[str, Any]]:
    found = run.examples
    assert found is not None
    return [
        {
            "label": answer_text(found.labels[i]),
            "pair": [
                ("clean", _png(found.clean[i]), answer_text(found.clean_answers[i])),
                ("attacked", _png(found.adversarial[i]), answer_text(found.adversarial_answers[i])),
            ],
        }
        for i in range(len(found.labels))
    ]


def _png(picture: Any) -> str:
    """Return a picture as a data URI at its own size; the page enlarges it."""
    out = io.BytesIO()
    imsave(out, figures.pixels(picture), cmap="gray", vmin=0, vmax=1, format="png")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def curve_words(run: ReportRun, label: str) -> str:
    """Describe a run's curves for readers who cannot see them."""
    first, last = run.evaluations[0], run.evaluations[-1]
    before, after = (
        [wording.percent(share) for share in (e.accuracy, e.robust_accuracy)] for e in (first, last)
    )
    return (
        f"{label}: from round {first.round} to {last.round}, accuracy goes from {before[0]} to "
        f"{after[0]} and robust accuracy from {before[1]} to {after[1]}"
        + (f"; the audit leaves {wording.percent(last.audit.robust)}." if last.audit else ".")
    )


def _yaml_lines(text: str) -> list[tuple[str, str]]:
    """Split each line into its key and the rest, so that the page can highlight the keys."""
    lines = []
    for line in text.rstrip().splitlines():
        match = re.match(r"(\s*(?:- )?[\w-]+:)(.*)", line)
        lines.append((match[1], match[2]) if match else ("", line))
    return lines
