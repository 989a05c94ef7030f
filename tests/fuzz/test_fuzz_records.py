"""Whatever becomes of a record, its readers show it, or say what is wrong with which file.

They never end in a traceback, change nothing where they refuse, and go on to the same results where
they can.
"""

import os
import random
import re
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cells_here import in_this_process
from damages import Damage, damages
from demo import demo_config
from matplotlib.figure import Figure
from run_contents import contents
from undrawn import made

import fedrobust
import records
from fedrobust import Run, run
from fedrobust.attacks.learned.policy_files import load_policy
from fedrobust.config.component import from_config
from fedrobust.errors import UserError
from fedrobust.experiment import Experiment
from fedrobust.report import page as page_module
from fedrobust.report import write_report
from fedrobust.report.style import Drawing, render
from fedrobust.results.sweep import Sweep
from fedrobust.runs.audit import audited
from fedrobust.runs.grid import load_sweep
from fedrobust.runs.learn_policy import learn_policy
from fedrobust.runs.sweep import run_sweep
from records import RING, Originals, asked, copied, digest

pytestmark = pytest.mark.long

COUNT = int(os.environ.get("FEDROBUST_FUZZ", "40"))
"""How many damages are tried: 40, or as many as the environment says."""
SEED = int(os.environ.get("FEDROBUST_FUZZ_SEED", "0"))
LONGEST = 2000
EVERY = 25
"""One page in so many is drawn in full, which takes seconds."""


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Originals:
    torch.set_num_threads(1)
    return records.make(tmp_path_factory.mktemp("records"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Figures are made, and laid out and written only where it is asked for."""
    whole = False

    def drawn(draw: Callable[[float], Figure], *how: bool) -> Drawing:
        return render(draw, *how) if whole else made(draw, *how)

    def switch(to: bool) -> None:
        nonlocal whole
        whole = to

    monkeypatch.setattr(page_module, "render", drawn)
    return switch


def shown(folder: Path) -> str:
    """The page of a record, without its figures and the name of its folder."""
    out = folder.with_name("page")
    page = write_report([folder], out).read_text()
    page = re.sub("<svg.*?</svg>", "", page, flags=re.DOTALL).replace(folder.name, "")
    return re.sub(r"\s+(?=<)", "", page)


def tiny() -> Experiment:
    changes: dict[str, Any] = {"rounds": 3, "evaluation": records.demo_evaluation()}
    return from_config(Experiment, demo_config(**changes))


def went_on(folder: Path, damage: Damage, originals: Originals) -> None:
    run(tiny(), folder, resume=True, progress=records.silent())
    if damage.telling:
        assert contents(folder) == contents(originals.run)


def swept_on(folder: Path, damage: Damage, originals: Originals) -> None:
    sweep = load_sweep(originals.folder / "sweep.yaml")
    with in_this_process():
        failed = run_sweep(sweep, folder, resume=True, jobs=1)
    for name, reason in failed.items():
        raise UserError(f"{folder / 'cells' / name}: {reason}")
    if damage.telling:
        for cell in sweep.cells:
            there = originals.folder / "sweep" / "cells" / cell.name
            wanted = plane(there)
            assert plane(folder / "cells" / cell.name) == wanted


def plane(folder: Path) -> dict[str, Any]:
    """The contents of a run on points of a plane, which has no examples to show."""
    placeholder = folder / "examples.npz"
    if placeholder.exists():
        return contents(folder)
    import numpy as np

    np.savez(placeholder)
    try:
        return contents(folder)
    finally:
        placeholder.unlink()


def looked_at(folder: Path, damage: Damage, originals: Originals) -> None:
    found = fedrobust.open(folder)
    assert len(repr(found)) < LONGEST
    if isinstance(found, Run):
        assert found.metrics == [] or found.figures
        assert found.experiment.name == "tiny" or damage.telling is False
        if found.finished:
            wanted = fedrobust.open(originals.run)
            assert torch.equal(found.best, wanted.best) or not damage.telling
            assert found.summary.rounds == found.state.round
    elif isinstance(found, Sweep):
        assert found.to_pandas().shape[0] == len(found.cells) - len(found.missing)
    else:
        assert found.figures


def audited_run(folder: Path, damage: Damage, originals: Originals) -> None:
    audited(asked(folder, None, resume=False))


def audited_on(folder: Path, damage: Damage, originals: Originals) -> None:
    found = audited(asked(originals.run, folder, resume=True)).to_json()
    if damage.telling:
        wanted = audited(asked(originals.run, originals.audit, resume=True)).to_json()
        for content in (found, wanted):
            for taken in content["taken"]:
                del taken["seconds"]
        assert found == wanted


def used(folder: Path, damage: Damage, originals: Originals) -> None:
    policy, about = load_policy(folder / "p.safetensors")
    wanted, told = load_policy(originals.policy / "p.safetensors")
    assert about == told, "a policy was read that is not what was written"
    assert all(torch.equal(t, wanted.tensors()[name]) for name, t in policy.tensors().items())


def configured(folder: Path, damage: Damage, originals: Originals) -> None:
    attack = RING["attack"] | {"policy": str(folder / "p.safetensors")}
    from_config(Experiment, RING | {"attack": attack})


def learned_on(folder: Path, damage: Damage, originals: Originals) -> None:
    out = folder / "p.safetensors"
    learn_policy(from_config(Experiment, RING), out, resume=True, progress=records.silent())
    policy, _ = load_policy(out)
    wanted, _ = load_policy(originals.policy / "p.safetensors")
    for name, tensor in policy.tensors().items():
        assert torch.equal(tensor, wanted.tensors()[name])


def reported(folder: Path, damage: Damage, originals: Originals) -> None:
    page = shown(folder)
    if damage.telling and Path(damage.file).name not in ("checkpoint.pt", "best.safetensors"):
        told = ("is missing", "not finished", "This run has not finished")
        without = damage.kind == "removed" and damage.file.endswith(".npz")
        said = page == PAGES[damage.record] or any(text in page for text in told) or without
        assert said, "the page shows what is broken"


PAGES: dict[str, str] = {}
READERS: dict[str, tuple[Callable[[Path, Damage, Originals], None], ...]] = {
    "run": (reported, went_on, audited_run, looked_at),
    "begun": (reported, went_on, looked_at),
    "sweep": (reported, swept_on, looked_at),
    "audit": (reported, audited_on, looked_at),
    "progress": (audited_on,),
    "policy": (used, configured),
    "training": (learned_on,),
}


def tried(
    reader: Callable[[Path, Damage, Originals], None],
    folder: Path,
    damage: Damage,
    originals: Originals,
) -> str:
    """What is wrong with what a reader does about a damage; empty where all is well."""
    before, refusal = digest(folder), ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader(folder, damage, originals)
    except UserError as error:
        refusal = str(error)
    except Exception:
        return traceback.format_exc()
    after = digest(folder)
    if not refusal:
        mine = [before[name] for name in before if Path(name).name == "mine.txt"]
        return "" if set(mine) <= set(after.values()) else "a user's own file is lost"
    if len(refusal) > LONGEST:
        return f"a message of {len(refusal)} characters: {refusal[:300]}"
    if Path(damage.file).name not in refusal and "another config" not in refusal:
        return f"the file is not named: {refusal}"
    if after != before:
        changed = [n for n in {**before, **after} if before.get(n) != after.get(n)]
        cells = reader is swept_on  # whose other cells are played whatever happens to one
        if not cells:
            return f"refused, and yet changed {changed}: {refusal}"
    return ""


def test_damaged_records_are_read_or_refused_by_name(
    originals: Originals, tmp_path: Path, quick: Callable[[bool], None]
) -> None:
    for record in ("run", "begun", "sweep", "audit"):
        PAGES[record] = shown(copied(originals, record, tmp_path / "damaged"))
    problems: list[str] = []
    for number in range(SEED, SEED + COUNT):
        chance = random.Random(number)
        damage = damages(originals, chance)
        quick(number % EVERY == 0)
        reader = chance.choice(READERS[damage.record])
        folder = copied(originals, damage.record, tmp_path / "damaged")
        damage.do(folder / damage.file)
        problem = tried(reader, folder, damage, originals)
        if problem:
            told = f"{number}: {damage.record}/{damage.file} {damage.kind}, {reader.__name__}"
            problems.append(f"{told}: {problem}")
    assert not problems, f"{len(problems)} problems\n\n" + "\n\n".join(problems[:40])
