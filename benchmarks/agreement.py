"""Compare our attacks with other toolboxes' attacks on three MNIST models, at equal settings.

    python benchmarks/agreement.py --work runs/agreement --out results/benchmarks/agreement.json

This command trains a natural, an adversarially trained and a distilled ``mnist-cnn-small``
(``subjects.py``). It attacks test images of each with our ``Pgd`` and ``Apgd`` and with those of
ART, and audits each with the ``standard`` battery beside AutoAttack's standard version. Models and
finished comparisons are kept in ``--work``, so that a second call goes on where the first ended.
It needs the extra ``agreement``: ``pip install -e '.[agreement]'``.

``--table FILE`` prints the tables of a stored file, and measures nothing.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import nn

from fedrobust.evaluation import audit
from fedrobust.perturb import Apgd, Pgd
from fedrobust.perturb.geometry import Norm
from fedrobust.runs.provenance import commit
from fedrobust.typing import Images, Labels, Mask
from subjects import RECIPES, Recipe, tested, trained

BALLS: tuple[tuple[Norm, float], ...] = (("linf", 0.3), ("l2", 1.5))
LIBRARIES = ("fedrobust", "adversarial-robustness-toolbox", "pyautoattack", "torch", "numpy")
SEED = 0
STARTS = 5
"""The number of random starts from which our attacks and ART's are compared."""


def main() -> None:
    """Parse the arguments, measure or load, print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("runs/agreement"))
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="where to store the results as JSON")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the tables of FILE")
    options = parser.parse_args()
    if options.table:
        print(tables(json.loads(options.table.read_text())))
        return
    torch.set_num_threads(options.threads)
    print(__doc__.split("\n\n")[0], flush=True)
    for found in measured(options.work, options.samples, options.threads):
        print(line(found["rows"][-1], options.samples), flush=True)
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(found, indent=1) + "\n")
    print(tables(found))


def measured(work: Path, samples: int, threads: int) -> Iterator[dict[str, Any]]:
    """Yield the results after each comparison. Comparisons that ``work`` holds are not repeated."""
    x, y = tested(samples)
    models = {name: trained(name, RECIPES[name], work / "models") for name in RECIPES}
    result: dict[str, Any] = {
        "examples": samples,
        "seed": SEED,
        "starts": STARTS,
        "threads": threads,
        "platform": platform.platform(),
        "versions": {"python": platform.python_version()} | {n: version(n) for n in LIBRARIES},
        "models": {name: story for name, (_, story) in models.items()},
        "rows": [],
    }
    for norm, eps in BALLS:
        for attack, compare in comparisons(norm, eps):
            for name, (model, _) in models.items():
                kept = work / f"{samples}-{norm}-{name}-{attack}.json".replace(" ", "-")
                if not kept.exists():
                    row = {"model": name, "norm": norm, "eps": eps, "attack": attack}
                    row |= {"commit": commit()} | compare(model, x, y)
                    kept.write_text(json.dumps(row) + "\n")
                result["rows"].append(json.loads(kept.read_text()))
                yield result


Compare = Callable[[nn.Module, Images, Labels], dict[str, Any]]


def comparisons(norm: Norm, eps: float) -> Iterator[tuple[str, Compare]]:
    """Yield the comparisons in one ball by name. PGD is FAT's: 40 steps of ε/30, in l2 of ε/10."""
    step = eps / 30 if norm == "linf" else eps / 10
    yield f"PGD 40 x {step:g}", with_art(Pgd(eps=eps, step_size=step, steps=40, norm=norm))
    yield "APGD-CE 100", with_art(Apgd(eps=eps, norm=norm))
    yield "APGD-DLR 100", with_art(Apgd(eps=eps, norm=norm, loss="dlr"))
    yield "standard battery", lambda model, x, y: with_autoattack(model, x, y, eps, norm)


def with_art(attack: Pgd | Apgd) -> Compare:
    """Compare our attack with ART's from equal starts: examples that stand, or fall to one only."""
    from toolboxes import art_apgd, art_pgd, stands

    def compare(model: nn.Module, x: Images, y: Labels) -> dict[str, Any]:
        right = stands(model, x, y, x, eps=attack.eps, norm=attack.norm)
        x, y = x[right], y[right]  # ART starts from no others

        def judged(points: Images) -> Mask:
            return stands(model, x, y, points, eps=attack.eps, norm=attack.norm)

        found: dict[str, Any] = {"with": "ART", "ours": [], "theirs": []}
        found |= {"fell to ours alone": 0, "fell to theirs alone": 0, "cpu seconds": [0.0, 0.0]}
        for seed in range(SEED, SEED + STARTS):
            start = attack.draw(x, torch.Generator().manual_seed(seed))
            began = time.process_time()
            ours = judged(attack.maximize(model, x, y, lambda start=start: start))
            between = time.process_time()
            if isinstance(attack, Pgd):
                theirs = judged(art_pgd(model, x, y, attack, start=start))
            else:
                theirs = judged(art_apgd(model, x, y, attack, start=start))
            found["cpu seconds"][0] += between - began
            found["cpu seconds"][1] += time.process_time() - between
            found["ours"].append(int(ours.sum()))
            found["theirs"].append(int(theirs.sum()))
            found["fell to ours alone"] += int((theirs & ~ours).sum())
            found["fell to theirs alone"] += int((ours & ~theirs).sum())
        return found

    return compare


def with_autoattack(
    model: nn.Module, x: Images, y: Labels, eps: float, norm: Norm
) -> dict[str, Any]:
    """Run the audit and AutoAttack, both ``standard``, and count what each attack left standing."""
    from toolboxes import autoattack

    began = time.process_time()
    found = audit(model, x, y, eps=eps, norm=norm, budget="standard", seed=SEED)
    between = time.process_time()
    after = autoattack(model, x, y, eps=eps, norm=norm, seed=SEED)
    return {
        "with": "AutoAttack",
        "ours": [found.shares["robust"].count],
        "theirs": [int(after["square"].sum())],
        "verdict": found.verdict,
        "clean": found.shares["clean"].count,
        "claimed": found.shares["claimed"].count,
        "our attacks": [[taken.name, taken.tried, taken.fell] for taken in found.taken],
        "their attacks": [[name, int(mask.sum())] for name, mask in after.items()],
        "cpu seconds": [between - began, time.process_time() - between],
    }


HEAD = """| model | ball | attack | with | ours | theirs | points | fell to one alone | CPU s |
|---|---|---|---|---|---|---|---|---|"""
AUDIT = """| model | ball | clean | claimed | verdict | standing after AutoAttack's {} |
|---|---|---|---|---|---|"""


def tables(found: dict[str, Any]) -> str:
    """Return the models, the comparisons and the results of the audits as Markdown."""
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    n, commits = found["examples"], {str(row["commit"])[:9] for row in found["rows"]}
    audits = [row for row in found["rows"] if row["with"] == "AutoAttack"]
    steps = [name for name, _ in audits[0]["their attacks"]] if audits else []
    parts = [
        f"{n:,} MNIST test images, means of {found['starts']} starts beside ART; seed "
        f"{found['seed']}, threads {found['threads']}. {versions}. "
        f"Commit {', '.join(sorted(commits))}.",
        "\n".join([HEAD, *(line(row, n) for row in found["rows"])]),
        "\n".join([AUDIT.format(", ".join(steps)), *(audited(row, n) for row in audits)]),
        "| model | trained | seconds | accuracy | robust accuracy |\n|---|---|---|---|---|\n"
        + "\n".join(subject(name, story) for name, story in found["models"].items()),
    ]
    return "\n\n".join(parts)


def line(row: dict[str, Any], n: int) -> str:
    """Return one comparison as a row of the table."""
    ours, theirs = (100 * mean(row[who]) / n for who in ("ours", "theirs"))
    points = [100 * (a - b) / n for a, b in zip(row["ours"], row["theirs"], strict=True)]
    spread = f" ({min(points):+.1f} to {max(points):+.1f})" if len(points) > 1 else ""
    alone = "–"
    if "fell to ours alone" in row:
        alone = f"{row['fell to ours alone']}, {row['fell to theirs alone']}"
    cells = [row["model"], ball(row), row["attack"], row["with"], f"{ours:.1f} %"]
    cells += [f"{theirs:.1f} %", f"{ours - theirs:+.1f}{spread}", alone]
    return "| " + " | ".join([*cells, " / ".join(f"{s:.0f}" for s in row["cpu seconds"])]) + " |"


def audited(row: dict[str, Any], n: int) -> str:
    """Return one audit as a row of the table."""
    left = ", ".join(f"{100 * count / n:.1f}" for _, count in row["their attacks"])
    shares = [f"{100 * row[name] / n:.1f} %" for name in ("clean", "claimed")]
    return "| " + " | ".join([row["model"], ball(row), *shares, row["verdict"], left]) + " |"


def subject(name: str, story: dict[str, Any]) -> str:
    """Return one model as a row of the table."""
    recipe, judged = Recipe(**story["recipe"]), story["validation"]
    how = f"Adam {recipe.lr:g}, {recipe.steps:,} batches of {recipe.batch}"
    if story["recipe"]["attack"]:
        attack = story["recipe"]["attack"]
        how += f", PGD {attack['steps']} x {attack['step_size']:g} in {attack['eps']:g}"
    if recipe.temperature > 1:
        how += f", teacher and student at temperature {recipe.temperature:g}"
    shares = [f"{100 * judged[key]:.1f} %" for key in ("accuracy", "robust accuracy")]
    return "| " + " | ".join([name, how, f"{story['seconds']}", *shares]) + " |"


def ball(row: dict[str, Any]) -> str:
    """Return the ball of a row."""
    return f"{row['norm']} {row['eps']:g}"


if __name__ == "__main__":
    main()
