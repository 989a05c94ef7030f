"""Parts of a component's docstring that other places show."""

import inspect


def paragraph(cls: type, title: str) -> str:
    """Return the paragraph of the docstring of ``cls`` that begins with ``title:``, without it.

    Raises: ``ValueError`` where there is none.
    """
    for each in inspect.cleandoc(cls.__doc__ or "").split("\n\n"):
        if each.startswith(f"{title}: "):
            return " ".join(each.split()).removeprefix(f"{title}: ")
    raise ValueError(f"the docstring of {cls.__name__} lacks a paragraph '{title}: ...'")
