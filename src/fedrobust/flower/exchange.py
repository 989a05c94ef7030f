"""Send one message to each client, and collect the replies until a time is over."""

import time
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import httpx
from flwr.app import Message
from flwr.serverapp import Grid

from fedrobust.config.text import printable, shortened

_PAUSES = (0.2, 3.0)
"""The first and the longest seconds between two looks for replies."""


class Reply(NamedTuple):
    """What came back from one client: a message, or why there is none."""

    client: int
    message: "Message | str"


Replies: TypeAlias = list[Reply]


def exchanged(grid: Grid, messages: Mapping[int, Message], timeout: float) -> Replies:
    """Send each client its message and return the replies, in no particular order.

    Replies are pulled one by one: a reply that Flower itself cannot read is one client's fault, and
    must not take those of others with it. A client whose reply is not there after ``timeout``
    seconds has none.

    Raises: Flower's errors, where the SuperLink cannot be reached.
    """
    ids = list(grid.push_messages(list(messages.values()))) if messages else []
    ids += [""] * (len(messages) - len(ids))
    waiting = {client: name for client, name in zip(messages, ids, strict=True) if name}
    found = [Reply(c, "the message could not be sent") for c in messages if c not in waiting]
    end, pause = time.monotonic() + timeout, _PAUSES[0]
    while waiting:
        for client, name in list(waiting.items()):
            replies = _pulled(grid, client, name)
            found += replies
            if replies:
                del waiting[client]
        left = end - time.monotonic()
        if not waiting or left <= 0:
            break
        time.sleep(min(pause, left))
        pause = min(1.5 * pause, _PAUSES[1])
    return [*found, *(Reply(c, f"no reply within {timeout:g} seconds") for c in waiting)]


def _pulled(grid: Grid, client: int, name: str) -> Replies:
    try:
        return [Reply(client, message) for message in grid.pull_messages([name])]
    except httpx.HTTPError:
        raise
    except Exception as error:  # what a client sent may fail in any way when Flower reads it
        return [Reply(client, f"its reply cannot be read: {told(error)}")]


def told(error: object) -> str:
    """Return an error, or a text from the network, in one printable line of bounded length."""
    said = f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else str(error)
    return shortened(printable(" ".join(said.split()), keep=""), 300)
