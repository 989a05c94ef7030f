"""Where the models of a sweep change their answer, where their data are points of a plane."""

from dataclasses import dataclass

import numpy as np
import torch
from contourpy import contour_generator
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from numpy.typing import NDArray

from fedrobust.compute.randomness import Streams
from fedrobust.config.component import component, from_record
from fedrobust.config.trust import Trusted, UntrustedError
from fedrobust.data import AnyData
from fedrobust.errors import ConfigError
from fedrobust.models import AnyModel, build_model
from fedrobust.records.reading import broken, fill
from fedrobust.report.style import printable
from fedrobust.report.sweep.figures import curve_name, grid, legend, panels, styles
from fedrobust.report.sweep.records import Group, SweepCell, SweepRecords

Array = NDArray[np.float64]
_SIDE = 241
"""Points along each side of a panel, where the model is asked."""
_REACH = 4.0
_POINTS = 1200
_DATA = ("#8fb8d8", "#f2b27a")


def plane(records: SweepRecords) -> bool:
    """Whether every cell's data are points of a plane in two classes, so that regions show."""
    return all(
        cell.config["data"].get("name") == "synthetic-ring"
        for group in records.groups
        for cell in group.cells
    )


def refused(records: SweepRecords, trusted: Trusted) -> str:
    """Why a model of :class:`Plane` cannot be made, as it is code that is not trusted."""
    for group in records.groups:
        try:
            _recorded(group.cells[0], trusted)
        except UntrustedError as error:
            return f"Cell {group.cells[0].name}: {error}"
    return ""


@dataclass(frozen=True)
class Plane:
    """The panels of a sweep on a plane: some training points of each class, and the boundaries.

    A group's boundary is a list of lines [n, 2], of its first seed after the last round; it is
    empty where the model gives one answer everywhere.
    """

    groups: dict[str, list[Group]]
    points: tuple[Array, Array]
    lines: dict[tuple[str, ...], list[Array]]

    @classmethod
    def of(cls, records: SweepRecords, trusted: Trusted) -> "Plane":
        """Ask every model. Raises: ``RecordError`` and ``UntrustedError``."""
        train = _recorded(records.groups[0].cells[0], trusted).data.load().train
        x, labels = train.x[:_POINTS].numpy(), train.y[:_POINTS].numpy()
        x, labels = x[abs(x).max(1) < _REACH], labels[abs(x).max(1) < _REACH]
        side = np.linspace(-_REACH, _REACH, _SIDE)
        lines = {g.labels: _line(_margin(g.cells[0], side, trusted), side) for g in records.groups}
        return cls(panels(records), (x[labels == 0], x[labels == 1]), lines)

    def constant(self) -> str:
        """Which models give the same answer everywhere, panel by panel."""
        found = []
        for title, members in self.groups.items():
            names = [curve_name(group) for group in members if not self.lines[group.labels]]
            if names:
                found.append(f"{title or 'here'}: {', '.join(names)}")
        return "; ".join(found)


def boundaries(plane: Plane, records: SweepRecords, width: float) -> Figure:
    """Where each model changes its answer; one panel a defence, one colour an attack."""
    figure, axes = grid(plane.groups, width, 3.4, square=True)
    drawn = styles(records)
    for panel, (title, members) in zip(axes, plane.groups.items(), strict=True):
        panel.set_title(printable(title, 40))
        for points, colour in zip(plane.points, _DATA, strict=True):
            _dots(panel, points, colour)
        for group in members:
            style = drawn[curve_name(group)]
            for line in plane.lines[group.labels]:
                panel.plot(line[:, 0], line[:, 1], color=style.colour, ls=style.dash)
        panel.set(
            xlim=(-_REACH, _REACH), ylim=(-_REACH, _REACH), aspect="equal", xticks=[], yticks=[]
        )
        panel.grid(visible=False)
        panel.spines["bottom"].set_visible(False)
    legend(figure, drawn, width, dashed=True)
    return figure


def _dots(panel: Axes, points: Array, colour: str) -> None:
    """All points as one outline of short strokes with round ends: small, and sharp at any size."""
    ordered = points[np.lexsort((points[:, 1], np.round(points[:, 0] * 8)))]
    ends = np.repeat(ordered, 2, axis=0)
    ends[1::2, 0] += 1e-3
    strokes = Path(ends, np.tile([Path.MOVETO, Path.LINETO], len(points)))
    strokes.should_simplify = False
    dots = PathPatch(strokes, fill=False, color=colour, lw=1.7, capstyle="round", clip_on=False)
    dots.set_snap(False)  # to whole pixels, where the ends of a stroke would fall together
    panel.add_patch(dots)


def _line(margin: Array, side: Array) -> list[Array]:
    if not margin.min() < 0 < margin.max():
        return []
    return [np.asarray(line) for line in contour_generator(side, side, margin).lines(0.0)]


@component
class _Recorded:
    """What is needed of a cell's config. The rest is never looked at: it may name code."""

    data: AnyData
    model: AnyModel


def _recorded(cell: SweepCell, trusted: Trusted) -> _Recorded:
    """Raises: ``UntrustedError``, and ``RecordError`` where the cell's config is none."""
    needed = {key: cell.config[key] for key in ("data", "model") if key in cell.config}
    try:
        found: _Recorded = from_record(_Recorded, needed, trusted)
    except UntrustedError:
        raise
    except ConfigError as error:
        raise broken(cell.path / "config.yaml", error) from error
    return found


def _margin(cell: SweepCell, side: Array, trusted: Trusted) -> Array:
    """The logit of class 1 less that of class 0 over the plane."""
    model = build_model(_recorded(cell, trusted).model, (2,), 2, Streams(0).generator("any"))
    fill(model, cell.path / "model.safetensors")
    across, up = np.meshgrid(side, side)
    x = torch.tensor(np.stack([across.ravel(), up.ravel()], axis=1), dtype=torch.float32)
    with torch.no_grad():
        logits = model.eval()(x)
    margin: Array = (logits[:, 1] - logits[:, 0]).numpy().reshape(across.shape)
    return margin
