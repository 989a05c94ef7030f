"""Parts of a component's docstring that other places show."""

import inspect
import re

from fedrobust.config.kind import name_of, required_fields

_ROLE = re.compile(r":[a-z]+:`(~?)([\w.]+)`")


def text(cls: type) -> str:
    """Return the docstring of ``cls`` for a terminal: code in single backquotes, and no roles."""
    doc = inspect.cleandoc(cls.__doc__ or "").replace("``", "`")
    return _ROLE.sub(lambda role: f"`{role[2].rpartition('.')[2] if role[1] else role[2]}`", doc)


def paragraph(cls: type, title: str) -> str:
    """Return the paragraph of the docstring of ``cls`` that begins with ``title:``, without it.

    Raises: ``ValueError`` where there is none.
    """
    for each in inspect.cleandoc(cls.__doc__ or "").split("\n\n"):
        if each.startswith(f"{title}: "):
            return " ".join(each.split()).removeprefix(f"{title}: ")
    raise ValueError(f"the docstring of {cls.__name__} lacks a paragraph '{title}: ...'")


def example(cls: type, **numbers: int) -> str:
    """Return a component as its docstring writes it in a config, with these ``numbers`` in it.

    A number is that of a field of this name in the example. A name that the example lacks is
    passed over. Where the docstring has no example, the required fields are left open.
    """
    if "\n\nExample: " not in inspect.cleandoc(cls.__doc__ or ""):
        lacking = [f"{key}: ..." for key in required_fields(cls)]
        return f"{{{', '.join([f'name: {name_of(cls)}', *lacking])}}}"
    written = paragraph(cls, "Example").split("``")[1]
    for field, number in numbers.items():
        written = re.sub(rf"\b{field}: \d+", f"{field}: {number}", written)
    return written
