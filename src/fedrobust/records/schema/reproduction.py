"""The record of a reproduction."""

import json
from dataclasses import asdict
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass as checked

from fedrobust.records.schema.figures import OPEN, Unread
from fedrobust.records.schema.formats import with_format

FILE = "reproduction.json"
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""A name that is a file's or a folder's, and leads nowhere else."""


@checked(frozen=True, config=OPEN)
class ReproductionRecord:
    """The contents of reproduction.json: what is reproduced, and the sweeps beside the file.

    ``settings`` are the user's own, dotted.key=value, which changed every cell.
    """

    name: str
    scale: str
    title: str
    paper: Name
    table: str
    sweeps: tuple[Name, ...]
    cost: str = ""
    deviations: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    format: Unread = None


def text_of(record: ReproductionRecord) -> str:
    """Return the record as it is written."""
    content = {key: value for key, value in asdict(record).items() if key != "format"}
    return json.dumps(with_format(FILE, content), indent=1, ensure_ascii=False) + "\n"
