"""The words of messages. Whatever a message quotes may be long or strange, so all is bounded.

Nothing heavy is imported here: the command line needs these words before it needs PyTorch.
"""

import difflib
import unicodedata
from collections.abc import Iterable

LINES = 20
"""The most lines of a message."""
_LINE, _MESSAGE = 700, 3000
"""The most characters of a line, and of a message in all."""
_WORD = 60
"""The longest word for which a similar word is searched; the search takes time."""


OPAQUE = "which no file can rebuild"
"""What messages say of an object in a config that has only its description there."""


def shortened(text: str, most: int = 80) -> str:
    """Return ``text``, cut to at most ``most`` characters so that it fits into a message."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def quoted(value: object, most: int = 80) -> str:
    """Return ``value`` as Python writes it, cut to at most ``most`` characters."""
    try:
        return shortened(repr(value), most)
    except Exception:  # an integer of 5,000 digits, or a user's object
        return f"a value of type {type(value).__name__}"


def reason(error: BaseException) -> str:
    """Return the type and the message of an exception, in a bounded text."""
    try:
        said = str(error)
    except Exception:  # a user's exception
        said = ""
    return shortened(f"{type(error).__name__}: {said}", 400)


def listed(lines: Iterable[str], what: str, more: int = 0) -> str:
    """Join the first of ``lines``, without repetition, and count the rest as "N ``what`` more".

    ``more`` is the number of further items that are not among ``lines``.
    """
    unique = list(dict.fromkeys(shortened(line, _LINE) for line in lines))
    shown: list[str] = []
    for line in unique[:LINES]:
        if shown and sum(map(len, shown)) + len(line) > _MESSAGE:
            break
        shown.append(line)
    if more := more + len(unique) - len(shown):
        shown.append(f"and {more:,} {what} more")
    return "\n".join(shown)


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'krum'?)`` where a known word is similar, else an empty text."""
    near = difflib.get_close_matches(word, list(known), n=1) if len(word) <= _WORD else []
    return f" (did you mean {near[0]!r}?)" if near else ""


def printable(text: str, keep: str = "\n\t") -> str:
    """Return ``text`` with control characters written as codes, since a terminal obeys them.

    The characters in ``keep`` stay.
    """
    return "".join(
        ascii(c)[1:-1] if unicodedata.category(c)[0] == "C" and c not in keep else c for c in text
    )
