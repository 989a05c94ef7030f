"""Where the committed experiments and published figures lie that come with fedrobust."""

from pathlib import Path

_PACKAGED = Path(__file__).parents[1] / "shelf"
_CHECKOUT = Path(__file__).parents[3]


def shelf(*below: str) -> Path:
    """Return a path below the committed experiments and results that come with fedrobust.

    In an installed package they lie in its folder ``shelf``, and in a checkout at its root.
    """
    root = _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT
    return root.joinpath(*below)
