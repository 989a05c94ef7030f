"""Reproduce a published table or figure: sweeps from committed configs, one after another."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from fedrobust.config.explain import shown
from fedrobust.config.shelf import shelf
from fedrobust.config.text import quoted, suggestion
from fedrobust.errors import ConfigError, RecordError
from fedrobust.experiment import read_yaml
from fedrobust.files import LOCK, held, listing, written
from fedrobust.progress import CELLS, UNWATCHED, Progress
from fedrobust.records.reading import json_of, present
from fedrobust.records.schema.reproduction import FILE, Name, ReproductionRecord, text_of
from fedrobust.runs.grid import Sweep, load_sweep
from fedrobust.runs.launchers.launcher import Launcher
from fedrobust.runs.sweep import run_sweep

Scale = Literal["smoke", "cpu", "paper"]
SCALES: tuple[Scale, ...] = get_args(Scale)


@checked(frozen=True)
class Part:
    """One scale of a reproduction: its sweeps by name, as files beside the definition.

    ``cost`` says how long it takes, and on what. ``deviations`` are what differs from the paper
    beyond the settings that are compared key by key.
    """

    sweeps: dict[Name, str]
    cost: str
    deviations: tuple[str, ...] = ()


@checked(frozen=True)
class Definition:
    """What a reproduction is: a title, the published table, and its scales."""

    title: str
    paper: Name
    table: str
    scales: dict[Scale, Part]


@dataclass(frozen=True)
class Reproduction:
    """A published table or figure at one scale, ready to be played."""

    name: str
    scale: Scale
    definition: Definition
    sweeps: Mapping[str, Sweep]
    settings: tuple[str, ...] = ()

    @property
    def part(self) -> Part:
        """The scale's part of the definition."""
        return self.definition.scales[self.scale]

    def record(self) -> ReproductionRecord:
        """Return what the record of its folder holds."""
        return ReproductionRecord(
            name=self.name,
            scale=self.scale,
            title=self.definition.title,
            paper=self.definition.paper,
            table=self.definition.table,
            sweeps=tuple(self.sweeps),
            cost=self.part.cost,
            deviations=self.part.deviations,
            settings=self.settings,
        )


def known() -> dict[str, Definition]:
    """Return all reproductions by name. Raises: ``ConfigError`` for a definition that is broken."""
    found = dict[str, Definition]()
    for path in sorted(shelf("experiments").glob("*/reproductions.yaml")):
        content = _mapping(path)
        for name, value in content.items():
            if isinstance(value, str):
                if not isinstance(content.get(value), dict):
                    raise ConfigError(f"{path}: {name}: there is no reproduction {quoted(value)}")
                continue
            try:
                found[name] = TypeAdapter(Definition).validate_python(value)
            except ValidationError as error:
                raise ConfigError(f"{path}: {name}: {error.errors()[0]['msg']}") from error
    return found


def figures() -> dict[str, str]:
    """Return the published figures by name, each with the reproduction whose page shows it."""
    found = dict[str, str]()
    for path in sorted(shelf("experiments").glob("*/reproductions.yaml")):
        found |= {name: on for name, on in _mapping(path).items() if isinstance(on, str)}
    return found


def _mapping(path: Path) -> dict[str, Any]:
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: it must map names to reproductions; it is {shown(content)}")
    return content


def load_reproduction(name: str, scale: str, overrides: Sequence[str] = ()) -> Reproduction:
    """Return a reproduction at a scale. ``overrides`` change every cell of its sweeps.

    The name of a figure stands for the reproduction whose page shows it.

    Raises: ``ConfigError`` for an unknown name or scale, with what there is and what it costs.
    """
    definitions = known()
    name = figures().get(name, name)
    if name not in definitions:
        raise ConfigError(
            f"there is no reproduction {quoted(name)}{suggestion(name, list(definitions))}; there "
            f"are:\n{told(definitions)}"
        )
    definition = definitions[name]
    part = definition.scales.get(scale)  # type: ignore[call-overload]
    if part is None:
        raise ConfigError(
            f"{name} has no scale {quoted(scale)}; it has:\n{told({name: definition})}"
        )
    folder = shelf("experiments", definition.paper)
    sweeps = {key: load_sweep(folder / file, overrides) for key, file in part.sweeps.items()}
    chosen = next(each for each in SCALES if each == scale)
    return Reproduction(name, chosen, definition, sweeps, tuple(overrides))


def told(definitions: Mapping[str, Definition]) -> str:
    """Return a line for each scale of each reproduction, with its cost, and the figures on it."""
    lines = list[str]()
    for name, definition in definitions.items():
        lines += [
            f"  {name} --scale {scale}: {definition.title} ({definition.scales[scale].cost})"
            for scale in SCALES
            if scale in definition.scales
        ]
        if also := [figure for figure, on in figures().items() if on == name]:
            lines.append(f"  {', '.join(also)}: on the page of {name}")
    return "\n".join(lines)


def reproduce(
    reproduction: Reproduction,
    out: Path | str,
    *,
    jobs: int | None = None,
    other_processor: bool = False,
    progress: Progress | None = None,
    on: Launcher | None = None,
) -> dict[str, str]:
    """Play every cell that is not finished, in processes or ``on`` a cluster.

    Returns: the failed cells and why.

    ``out`` holds reproduction.json, and one sweep's folder for each of ``reproduction.sweeps``. It
    may hold a part of the same reproduction: finished cells are kept and begun cells go on.

    Raises: ``RecordError`` where ``out`` holds something else.
    """
    out, failed, seen = Path(out), dict[str, str](), progress or UNWATCHED
    _refuse_foreign(reproduction, out)
    before, whole = 0, sum(len(sweep.cells) for sweep in reproduction.sweeps.values())
    with held(out, f"another process is reproducing in {out}"):
        if not present(out / FILE):
            written(out / FILE, text_of(reproduction.record()))
        for name, sweep in reproduction.sweeps.items():
            found = run_sweep(
                sweep,
                out / name,
                resume=True,
                jobs=jobs,
                other_processor=other_processor,
                progress=replace(seen, moved=_within(seen, before, whole)),
                on=on,
            )
            before += len(sweep.cells)
            failed |= {f"{name}/{cell}": why for cell, why in found.items()}
        # Only now: a sweep refuses a folder whose cells are those of other settings.
        written(out / FILE, text_of(reproduction.record()))
    return failed


def _within(seen: Progress, before: int, whole: int) -> Callable[[str, int, int], object]:
    """Return ``seen.moved`` for a sweep that ``before`` of ``whole`` cells come before."""

    def moved(name: str, done: int, total: int) -> object:
        if name == CELLS:
            return seen.moved(name, before + done, whole)
        return seen.moved(name, done, total)

    return moved


def _refuse_foreign(reproduction: Reproduction, out: Path) -> None:
    """Refuse an ``out`` that holds something else. Raises: ``RecordError``."""
    if present(out / FILE):
        stored = json_of(out / FILE, ReproductionRecord)
        if (stored.name, stored.scale) != (reproduction.name, reproduction.scale):
            raise RecordError(
                f"{out} holds {stored.name} at scale {stored.scale}: choose another --out"
            )
    elif out.is_dir() and (there := [name for name in listing(out) if name != LOCK]):
        raise RecordError(f"{out} is not empty ({there[0]}, ...): choose another --out")
    for name in reproduction.sweeps:
        if (path := out / name).is_symlink():
            raise RecordError(
                f"{path} is a link, and a reproduction writes into its own folder alone: put the "
                "folder itself there, or choose another --out"
            )
