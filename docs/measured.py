"""Write the pages about benchmarks, from their stored records."""

import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from fedrobust.bench.table import page

BENCHMARKS = Path(__file__).parent.parent / "results" / "benchmarks"
SPEED = """Made by `python benchmarks/aggregators.py --out results/benchmarks/aggregators.json` and
`make docs`. All rules get the same matrix: normal rows of width 1e-3 about an offset of 1e3, which
float32 products cannot tell apart. *× copy* is the time divided by the time of copying the updates
into an existing matrix. *× product* is the time divided by the time of their float32 product with
their transpose. Both are taken turn by turn. *memory* is the peak beyond the process's memory
before, in copies of the updates. *error* is the largest of all coordinates, in widths, against the
same rule in float64. *plain* is the obvious few lines of PyTorch."""
OTHERS = """## Beside ByzFL and Flower

They run in an environment of their own (`python benchmarks/aggregators.py --help` says how to make
it). The machine was busier than above, so compare only the rows of the same rule. FLTrust took
0.09 s above and 5 s here: the threads of its operations waited for each other. Its columns are
shared among workers since then, and both tables are of before."""
AGREEMENT = """Made by `python benchmarks/agreement.py --out results/benchmarks/agreement.json` and
`make docs`. Three `mnist-cnn-small` networks are attacked by our attacks and by others' attacks on
the same test images at equal settings: ART's attacks from the same five random starts, AutoAttack
from its own. The last table lists the networks, with their robust accuracy under PGD 40 × 0.01 on
validation examples. *Ours* and *theirs* are robust accuracies. *Points* are ours minus theirs (in
brackets over the starts); above 0 our attack is the weaker one. *Fell to one alone* counts the
examples, of all starts, that only our attack takes, and those that only theirs takes. *CPU s* are
ours / theirs on one thread."""

PERFORMANCE = """Made by `fedrobust bench --json results/benchmarks/bench.json`,
`python benchmarks/growth.py --out results/benchmarks/growth.json` and `make docs`.

Local work is cut into units: a few neighbouring clients of a round, or a few examples of an
evaluation. One worker computes a unit, in one thread. So any number of workers gives the same
bits, and two workers share the work almost evenly. A unit's inner maximisation runs on a compiled
form of the network where there is one: its backward pass goes to the input alone and is written
out, strided first layers work on blocks of pixels, pooling comes before ReLU, and activations are
overwritten (`compute/frozen.py`).

*plain / ours* is the time of a careful script over ours, turn by turn in one process
(`bench/plain.py`). The script uses all cores as PyTorch's threads, and ours uses them as workers.
*of the product* is our rate of floating-point operations over that of a 2048³ float32 product on
as many cores, in the same turn. The operations are those of the layers as they are written.
*memory* is the peak beyond the memory before."""

OPERATORS = """By `python benchmarks/operators.py --out results/benchmarks/operators.json`, with
PyTorch's profiler. An operator's time is without that of the operators which it calls."""

LEARNED = """By `python benchmarks/learned_attack.py --out results/benchmarks/learned-attack.json`,
with and without `--mnist`, and with `--samples` and `--paper`. An environment step is one
simulated round with an action; with `basis` it includes the gradient of the harm. On the ring,
clients' ascents and gradients are one compiled loop, and *ratio* is against autograd. On MNIST,
*ratio* is bfloat16 against float32, on a processor that has instructions for both. The policy is
trained with the default settings, checks included. The last table is of one and the same episode
under the median: how much its return depends on the examples that ρ̂ is measured on. D is the
relative mismatch of the gradients, with the soft labels that an inversion moves."""

CALIBRATION = """Made by `python benchmarks/calibration.py --out
results/benchmarks/calibration.json` and `make docs`. `mnist-cnn-small` networks for MNIST and
Fashion-MNIST that are known to be honest, and such networks with a mask, are audited on
validation examples with the budget `full` and one surrogate. The limits of the signs lie between
the two groups. A sign counts where the lower end of its 99.75 % interval
lies above the limit."""

ASCENT = """Made by `python benchmarks/ascent.py --out results/benchmarks/ascent.json` and
`make docs`. The ascent is x ← x + (s/2γ)(∇l − 2γ(x − x₀)), with the step s of size `size`:
*constant*; *decaying*, s/√t in step t; or *backtracking*. The ring is trained for 1,500 rounds; the
quarter-width network for four epochs of `experiments/drfl/mnist.yaml` without an attack. The times
are on one thread."""

RAY = """Made by `python benchmarks/ray_rounds.py --turns 3 --out
results/benchmarks/ray_rounds.json` and `make docs`. FAT's MNIST setting on made-up images: 51
clients, batches of 64, the small network, half of the examples attacked, Adam's state kept. The
raylets of one machine are the nodes, with one worker each. *× one thread* and *× two threads* are
the time of a round in one process over the time on Ray, turn by turn. Above 1 Ray is faster. The
first table has 4 steps of PGD."""

BLOCKS = """## The rule in blocks

Made by `python benchmarks/rule_in_blocks.py --out results/benchmarks/rule_in_blocks.json` and
`make docs`. Blocks are drawn when they are asked for, and *seconds* are without the drawing.
*memory* is the peak of the process. Each case was measured once, beside other work."""


def measured_pages(folder: Path) -> dict[Path, str]:
    """Return the pages, by path, of the records that exist."""
    made: dict[Path, str] = {}
    if (BENCHMARKS / "aggregators.json").exists():
        made[folder / "speed.md"] = speed()
    if (BENCHMARKS / "bench.json").exists():
        made[folder / "performance.md"] = performance()
    if (BENCHMARKS / "agreement.json").exists():
        made[folder / "agreement.md"] = noted(
            "agreement", "Do others find what we find?", AGREEMENT
        )
    if (BENCHMARKS / "calibration.json").exists():
        head = "Where the limits of an audit come from"
        made[folder / "calibration.md"] = noted("calibration", head, CALIBRATION)
    if (BENCHMARKS / "ascent.json").exists():
        made[folder / "ascent.md"] = noted("ascent", "How far the ascent comes", ASCENT)
    if (BENCHMARKS / "ray_rounds.json").exists():
        made[folder / "cluster-speed.md"] = cluster_speed()
    return made


def measured(cls: type) -> str:
    """Return a sentence with the benchmark's figure for a rule; empty without one."""
    record = BENCHMARKS / "aggregators.json"
    if not record.exists():
        return ""
    rows = json.loads(record.read_text("utf-8"))["rows"]
    own = (r for r in rows if r["by"] == "fedrobust" and r["rule"].startswith(f"{cls.__name__}("))
    found = next(own, None)
    if found is None:
        return ""
    return (
        f" On 51 × 1,000,000 float32 values `{found['rule']}` takes {found['copy']:.1f} times as "
        "long as copying them, on 2 cores ([all of them](../speed.md))."
    )


def speed() -> str:
    """Return the page of the rules' benchmark, with the tables that its script prints."""
    own, beside = (
        printed("aggregators.py", BENCHMARKS / name)
        for name in ("aggregators.json", "aggregators-others.json")
    )
    return f"# How fast the rules are\n\n{SPEED}\n\n{own}\n\n{OTHERS}\n\n{beside}\n"


def performance() -> str:
    """Return the page of all hot paths, of how rounds grow, and of where their time goes."""
    paths = page(json.loads((BENCHMARKS / "bench.json").read_text("utf-8")))
    grown = printed("growth.py", BENCHMARKS / "growth.json")
    spent = printed("operators.py", BENCHMARKS / "operators.json")
    learned = printed("learned_attack.py", BENCHMARKS / "learned-attack.json")
    notes = (BENCHMARKS / "performance.md").read_text("utf-8")
    return (
        f"# Performance\n\n{PERFORMANCE}\n\n{paths}\n\n## How a round grows\n\n{grown}\n\n"
        f"## Where the time goes\n\n{OPERATORS}\n\n{spent}\n\n"
        f"## The learned attack\n\n{LEARNED}\n\n{learned}\n\n{notes}"
    )


def cluster_speed() -> str:
    """Return the page of rounds on Ray, and of the rule in blocks."""
    rule = printed("rule_in_blocks.py", BENCHMARKS / "rule_in_blocks.json")
    return f"{noted('ray_rounds', 'Rounds on Ray, measured', RAY)}\n{BLOCKS}\n\n{rule}\n"


def noted(name: str, title: str, head: str) -> str:
    """Return a page with the tables that a benchmark's script prints, and the notes beside it."""
    path = BENCHMARKS / f"{name}.json"
    notes = path.with_suffix(".md").read_text("utf-8")
    return f"# {title}\n\n{head}\n\n{printed(f'{name}.py', path)}\n\n{notes}"


def printed(script: str, path: Path) -> str:
    """Return the tables that a benchmark's script prints from its stored record."""
    folder = str(BENCHMARKS.parents[1] / "benchmarks")
    if folder not in sys.path:
        sys.path.append(folder)
    main: Callable[[], None] = import_module(script.removesuffix(".py")).main
    told = StringIO()
    with patch.object(sys, "argv", [script, "--table", str(path)]), redirect_stdout(told):
        main()
    return told.getvalue().strip()
