"""The page of the paper's attack, from ``fedrobust.attacks.learned.paper``."""

from pathlib import Path
from typing import Any

from fedrobust.attacks.learned.paper import DEVIATIONS, LIBRARY, SETTINGS, Setting, value

_HEAD = """\
# The paper’s attack, setting by setting

Made by `make docs` from `fedrobust.attacks.learned.PAPER`: the settings of the attack of the DRFL
paper on the ring (Figure 2) and on MNIST (Figure 3).
[`ring-paper.yaml`](../experiments/drfl/ring-paper.yaml) spells them out as a config.

| setting | the paper | here | source |
|---|---|---|---|
"""


def paper_page(here: Path) -> dict[Path, str]:
    """Return the page, by its path."""
    rows = "".join(_row(setting) for setting in SETTINGS)
    numbered = "\n".join(f"{number}. {text}" for number, text in DEVIATIONS.items())
    text = f"{_HEAD}{rows}\n**The library** is {LIBRARY}\n\n## Differences\n\n{numbered}\n"
    return {here / "learned-paper.md": text}


def _row(setting: Setting) -> str:
    ours = value(setting, "mnist" if setting.figure == "mnist" else "ring")
    shown = f"`{setting.field}: {_written(ours)}`" if setting.field else "the same"
    number = f" ({setting.deviation})" if setting.deviation else ""
    return f"| {setting.what} | {setting.paper} | {shown}{number} | {setting.source} |\n"


def _written(found: Any) -> str:
    """Write a value as in a config."""
    if isinstance(found, bool):
        return str(found).lower()
    if isinstance(found, dict):
        return "{" + ", ".join(f"{key}: {_written(item)}" for key, item in found.items()) + "}"
    return str(found)
