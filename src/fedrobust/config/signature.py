"""Whether a user's function takes the arguments that it will be called with.

It is asked before the call. An error that the user's own code raises is therefore never taken for
one of the call, and keeps its traceback.
"""

import inspect
from collections.abc import Callable
from typing import Any


def misfit(function: Callable[..., Any], name: str, arguments: str) -> str:
    """Return why ``function`` cannot be called as ``name(arguments)``; empty where it can.

    ``arguments`` are names, as "state, view, rng". Those after "*" are given by name.

    >>> misfit(lambda rows: rows, "craft", "state, view, rng")
    'takes (rows), but is called as craft(state, view, rng)'
    """
    before, _, after = arguments.partition("*")
    values, named = _names(before), dict.fromkeys(_names(after))
    whole = function.__func__ if inspect.ismethod(function) else None
    bare = inspect.isfunction(whole) and not _signature(whole).parameters
    try:
        signature = inspect.Signature() if bare else _signature(function)
    except Exception:  # some of C's have none, and a user's attribute may fail in any way
        return ""
    if _takes(signature, values, named) and not bare:
        return ""
    plain = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
    taken = signature.replace(parameters=plain, return_annotation=signature.empty)
    selfless = inspect.isfunction(whole) and _takes(_signature(whole), values, named)
    cure = ": the first parameter of a method must be self" if bare or selfless else ""
    return f"takes {taken}, but is called as {name}({arguments}){cure}"


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """Return what ``function`` itself takes: a decorator may give more to what is inside it."""
    return inspect.signature(function, follow_wrapped=False)


def _names(listed: str) -> list[str]:
    return [each.strip() for each in listed.split(",") if each.strip()]


def _takes(signature: inspect.Signature, values: list[str], named: dict[str, Any]) -> bool:
    try:
        signature.bind(*values, **named)
    except TypeError:
        return False
    return True
