"""The decision boundaries of a sweep's models, if their data are points of a plane."""

from dataclasses import dataclass

import numpy as np
import torch
from contourpy import contour_generator
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from numpy.typing import NDArray

from fedrobust.compute.network import batched_logits, evaluating
from fedrobust.compute.randomness import Streams
from fedrobust.config.component import component, from_record
from fedrobust.config.trust import Trusted, UntrustedError
from fedrobust.data import AnyData
from fedrobust.errors import ConfigError
from fedrobust.models import LOCAL, AnyModel, BatchNorm, build_model
from fedrobust.records.reading import broken, fill
from fedrobust.report.style import printable
from fedrobust.report.sweep.figures import curve_name, grid, legend, panels, styles
from fedrobust.report.sweep.records import Group, SweepCell, SweepRecords

Array = NDArray[np.float64]
_SIDE, _COARSE, _FEW = 241, 121, 40
"""The number of points along each side of a panel at which the model is evaluated: of a few models
more than of many, whose lines are small.
"""
_REACH = 4.0
_POINTS = 1200
_DATA = ("#8fb8d8", "#f2b27a")


def plane(records: SweepRecords) -> bool:
    """Whether every cell has points of a plane in two classes, and one model for all clients."""
    return all(
        cell.config["data"].get("name") == "synthetic-ring"
        and cell.config.get("batch_norm") not in LOCAL
        for group in records.groups
        for cell in group.cells
    )


def refused(records: SweepRecords, trusted: Trusted) -> str:
    """Return which model is code that is not trusted; empty where all models can be made."""
    for group in records.groups:
        try:
            _recorded(group.cells[0], trusted)
        except UntrustedError as error:
            return f"Cell {group.cells[0].name}: {error}"
    return ""


@dataclass(frozen=True)
class Plane:
    """The panels of a sweep on a plane: some training points of each class, and the boundaries.

    The boundary of a group is a list of lines [n, 2]. It is of the first seed's model after the
    last round, and is empty where the model gives one answer everywhere.
    """

    groups: dict[str, list[Group]]
    points: tuple[Array, Array]
    lines: dict[tuple[str, ...], list[Array]]

    @classmethod
    def of(cls, records: SweepRecords, trusted: Trusted) -> "Plane":
        """Evaluate every model on the plane. Raises: ``RecordError`` and ``UntrustedError``."""
        train = _recorded(records.groups[0].cells[0], trusted).data.load().train
        x, labels = train.x[:_POINTS].numpy(), train.y[:_POINTS].numpy()
        x, labels = x[abs(x).max(1) < _REACH], labels[abs(x).max(1) < _REACH]
        points = _SIDE if len(records.groups) <= _FEW else _COARSE
        side = np.linspace(-_REACH, _REACH, points)
        lines = {g.labels: _line(_margin(g.cells[0], side, trusted), side) for g in records.groups}
        return cls(panels(records), (x[labels == 0], x[labels == 1]), lines)

    def constant(self) -> str:
        """Name the models that give the same answer everywhere, panel by panel."""
        found = []
        for title, members in self.groups.items():
            names = [curve_name(group) for group in members if not self.lines[group.labels]]
            if names:
                found.append(f"{title or 'here'}: {', '.join(names)}")
        return "; ".join(found)


def boundaries(plane: Plane, records: SweepRecords, width: float) -> Figure:
    """Draw the decision boundaries, with one panel per defence and one colour per attack."""
    figure, axes = grid(plane.groups, width, 3.4, square=True)
    drawn = styles(records)
    for panel, (title, members) in zip(axes, plane.groups.items(), strict=True):
        panel.set_title(printable(title, 30))
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
    """Draw all points as one outline of short strokes with round ends, which makes a small file."""
    ordered = points[np.lexsort((points[:, 1], np.round(points[:, 0] * 8)))]
    ends = np.repeat(ordered, 2, axis=0)
    ends[1::2, 0] += 1e-3
    strokes = Path(ends, np.tile([Path.MOVETO, Path.LINETO], len(points)))
    strokes.should_simplify = False
    dots = PathPatch(strokes, fill=False, color=colour, lw=1.7, capstyle="round", clip_on=False)
    dots.set_snap(False)  # at whole pixels, the two ends of a stroke would coincide
    panel.add_patch(dots)


def _line(margin: Array, side: Array) -> list[Array]:
    if not margin.min() < 0 < margin.max():
        return []
    return [np.asarray(line) for line in contour_generator(side, side, margin).lines(0.0)]


@component
class _Recorded:
    """The part of a cell's config that is needed. The rest is not read: it may name code."""

    data: AnyData
    model: AnyModel
    batch_norm: BatchNorm = "refuse"


def _recorded(cell: SweepCell, trusted: Trusted) -> _Recorded:
    """Read a cell's data and model.

    Raises: ``UntrustedError``, and ``RecordError`` where the cell's config is broken.
    """
    fields = ("data", "model", "batch_norm")
    needed = {key: cell.config[key] for key in fields if key in cell.config}
    try:
        found: _Recorded = from_record(_Recorded, needed, trusted)
    except UntrustedError:
        raise
    except ConfigError as error:
        raise broken(cell.path / "config.yaml", error) from error
    return found


def _margin(cell: SweepCell, side: Array, trusted: Trusted) -> Array:
    """Return the logit of class 1 minus the logit of class 0 over the plane."""
    known, draw = _recorded(cell, trusted), Streams(0).generator("any")
    model = build_model(known.model, (2,), 2, draw, batch_norm=known.batch_norm)
    fill(model, cell.path / "model.safetensors")
    across, up = np.meshgrid(side, side)
    x = torch.tensor(np.stack([across.ravel(), up.ravel()], axis=1), dtype=torch.float32)
    with evaluating(model):
        found = batched_logits(model, x, len(x))
    margin: Array = (found[:, 1] - found[:, 0]).numpy().reshape(across.shape)
    return margin
