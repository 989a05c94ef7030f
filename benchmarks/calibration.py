"""Measure the signs of an audit on models that are known to be honest or known to be masked.

    python benchmarks/calibration.py --out results/benchmarks/calibration.json

This command trains networks on MNIST and Fashion-MNIST, masks some of them, and audits each on
validation examples with the budget ``full``. The limits of
``fedrobust.evaluation.auditing.indicators`` lie between the two groups. The tests check them on
other models, of digits. Models and finished audits are kept in ``--work``, so that a second call
goes on where the first ended.

``--table FILE`` prints the table of a stored file, and measures nothing.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fedrobust.data import FashionMnist
from fedrobust.evaluation import audit
from fedrobust.evaluation.auditing.indicators import LIMITS
from fedrobust.perturb import Pgd
from fedrobust.perturb.geometry import Norm
from fedrobust.runs.provenance import commit
from subjects import Recipe, splits, trained

SEED = 0
NATURAL = Recipe(seed=11, steps=1000, lr=0.001)
HARD = Pgd(eps=0.3, step_size=0.1, steps=7)
SOFT = Pgd(eps=0.1, step_size=0.03, steps=7)
RECIPES = {
    "natural": NATURAL,
    "natural, other seed": replace(NATURAL, seed=12),
    "natural, fashion": replace(NATURAL, seed=13, data=FashionMnist()),
    "robust in 0.3": Recipe(seed=14, steps=2000, lr=0.001, batch=64, attack=HARD, ramp=800),
    "robust in 0.1": Recipe(seed=15, steps=1000, lr=0.001, batch=64, attack=SOFT),
    "robust in 0.1, fashion": Recipe(
        seed=16, steps=1000, lr=0.001, batch=64, attack=SOFT, data=FashionMnist()
    ),
    "young": replace(NATURAL, seed=19, steps=40),
    "distilled at 100": Recipe(seed=17, steps=1500, lr=0.003, temperature=100.0),
    "distilled at 40": Recipe(seed=18, steps=1500, lr=0.003, temperature=40.0),
}


class Masked(nn.Module):
    """``model`` with a function before it, on its input, and one after it, on its logits."""

    def __init__(
        self,
        model: nn.Module,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor], Tensor] = lambda z: z,
    ) -> None:
        super().__init__()
        self.model, self.before, self.after = model, before, after

    def forward(self, x: Tensor) -> Tensor:
        """Return the changed logits [b, classes]."""
        return self.after(self.model(self.before(x)))


@dataclass(frozen=True)
class Case:
    """A model, the mask that hides it, if any, and the ball of its audit."""

    recipe: str
    eps: float
    mask: Callable[[nn.Module], nn.Module] | None = None
    norm: Norm = "linf"


def louder(factor: float) -> Callable[[nn.Module], nn.Module]:
    """Return a mask that multiplies logits by ``factor``."""
    return lambda model: Masked(model, after=lambda z: factor * z)


def noisy(model: nn.Module) -> nn.Module:
    """Add fresh noise to the input in each call."""
    return Masked(model, before=lambda x: (x + 0.25 * torch.randn_like(x)).clamp(0, 1))


CASES = {
    "honest": {
        "natural": Case("natural", 0.05),
        "natural, wide ball": Case("natural", 0.3),
        "natural, other seed": Case("natural, other seed", 0.1),
        "natural, fashion": Case("natural, fashion", 0.03),
        "robust in 0.3": Case("robust in 0.3", 0.3),
        "robust in 0.3, small ball": Case("robust in 0.3", 0.1),
        "robust in 0.1": Case("robust in 0.1", 0.1),
        "robust in 0.1, fashion": Case("robust in 0.1, fashion", 0.1),
        "natural, l2": Case("natural, other seed", 1.0, norm="l2"),
        "robust in 0.1, l2": Case("robust in 0.1", 1.0, norm="l2"),
        "young": Case("young", 0.1),
        "robust, logits x 0.01": Case("robust in 0.1", 0.1, louder(0.01)),
    },
    "masked": {
        "natural, logits x 30": Case("natural", 0.1, louder(30)),
        "natural, logits x 1,000": Case("natural", 0.1, louder(1000)),
        "robust, logits x 100": Case("robust in 0.1", 0.1, louder(100)),
        "fashion, logits x 100": Case("natural, fashion", 0.03, louder(100)),
        "distilled at 100": Case("distilled at 100", 0.1, lambda model: model),
        "distilled at 40": Case("distilled at 40", 0.1, lambda model: model),
        "rounded to ninths": Case(
            "natural", 0.1, lambda m: Masked(m, before=lambda x: torch.round(x * 8) / 8)
        ),
        "no gradient": Case("natural", 0.1, lambda m: Masked(m, before=lambda x: x.detach())),
        "noise of 0.25": Case("natural, other seed", 0.1, noisy),
        "softmax of 100 z": Case(
            "natural", 0.1, lambda m: Masked(m, after=lambda z: (100 * z).softmax(dim=1))
        ),
    },
}


def main() -> None:
    """Parse the arguments, measure or load, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("runs/calibration"))
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=tuple(CASES), help="one kind, beside a second process")
    parser.add_argument("--out", type=Path, help="where to store the results as JSON")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the table of FILE")
    options = parser.parse_args()
    if options.table:
        print(table(json.loads(options.table.read_text())))
        return
    torch.set_num_threads(options.threads)
    kinds = (options.only,) if options.only else tuple(CASES)
    found = measured(options.work, options.samples, kinds)
    print(table(found))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=1) + "\n")


def measured(work: Path, samples: int, kinds: Sequence[str]) -> dict[str, Any]:
    """Return the signs of every case. Cases that ``work`` already holds are not repeated."""
    rows = []
    for kind in kinds:
        for name, case in CASES[kind].items():
            kept = work / f"{kind}-{name}-{samples}.json".replace(" ", "-")
            if not kept.exists():
                row = looked(case, work, samples, work / "progress" / kept.name)
                work.mkdir(parents=True, exist_ok=True)
                told = {"case": name, "kind": kind, "commit": commit()} | row
                kept.write_text(json.dumps(told) + "\n")
            rows.append(json.loads(kept.read_text()))
            print(rows[-1]["case"], rows[-1]["verdict"], flush=True)
    return {"examples": samples, "seed": SEED, "rows": rows}


def looked(case: Case, work: Path, samples: int, journal: Path) -> dict[str, Any]:
    """Audit one case, with a surrogate of the same data and another seed."""
    recipe = RECIPES[case.recipe]
    model, _ = trained(case.recipe, recipe, work / "models")
    other = replace(NATURAL, seed=21, data=recipe.data)
    surrogate, _ = trained(f"surrogate {type(recipe.data).__name__}", other, work / "models")
    _, held_out = splits(recipe.data)
    x, y = held_out.images(torch.arange(samples)), held_out.y[:samples]
    torch.manual_seed(SEED)
    found = audit(
        model if case.mask is None else case.mask(model),
        x,
        y,
        eps=case.eps,
        norm=case.norm,
        budget="full",
        surrogates=[surrogate],
        seed=SEED,
        journal=journal,
    )
    content = found.to_json()
    return {
        name: content[name] for name in ("verdict", "clean", "claimed", "robust", "notes", "signs")
    } | {"eps": case.eps, "norm": case.norm}


def table(found: dict[str, Any]) -> str:
    """Return every case, and each sign on the honest and on the masked models, as Markdown."""
    shows = {sign["name"] for row in found["rows"] for sign in row["signs"]}
    names = [name for name in LIMITS if name in shows]  # an old record may lack newer signs
    lines = ["| case | ball | clean | claimed | robust | verdict | beyond the limit |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for row in found["rows"]:
        shares = [f"{100 * row[name]:.1f}" for name in ("clean", "claimed", "robust")]
        beyond = (
            ", ".join(
                sign["name"] for sign in row["signs"] if sign["word"] not in ("fine", "unsure")
            )
            or "–"
        )
        cells = [f"{row['kind']}: {row['case']}", f"{row['norm']} {row['eps']:g}", *shares]
        cells.append(row["verdict"])
        lines.append("| " + " | ".join([*cells, beyond]) + " |")
    lines += [
        "",
        "| sign | honest, the most (upper end) | limit | masked, beyond it |",
        "|---|---|---|---|",
    ]
    for name in names:
        shown: dict[str, list[dict[str, float]]] = {"honest": [], "masked": []}
        for row in found["rows"]:
            shown[row["kind"]] += [sign for sign in row["signs"] if sign["name"] == name]
        most = [
            100 * max((s[end] for s in shown["honest"]), default=0) for end in ("value", "high")
        ]
        beyond = sum(s["floor"] > LIMITS[name] for s in shown["masked"])
        cells = [name, f"{most[0]:.1f} % ({most[1]:.1f})", f"{100 * LIMITS[name]:.3g} %"]
        lines.append("| " + " | ".join([*cells, f"{beyond} of {len(shown['masked'])}"]) + " |")
    commits = ", ".join(sorted({str(row["commit"])[:9] for row in found["rows"]}))
    lines += [
        "",
        f"{found['examples']} validation examples, seed {found['seed']}, commit {commits}.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
