"""Pages without the work of their figures: in the place of ``fedrobust.report.page.render``."""

from collections.abc import Callable

from fedrobust.report.style import WIDE, Drawing


def made(draw: Callable[[float], object], narrow: bool = True, pdf: float | None = None) -> Drawing:
    """The figure is made, so that its faults show, but neither laid out nor written."""
    draw(WIDE)
    return Drawing("<svg></svg>", "<svg></svg>", b"", None if pdf is None else b"%PDF")


def blank(draw: Callable[[float], object], *how: bool) -> Drawing:
    """The figure is not even made; its file has some length."""
    return Drawing("<svg></svg>", "<svg></svg>", bytes(20_000))
