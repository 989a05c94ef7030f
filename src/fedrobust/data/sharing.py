"""Share out a data set among clients, by a partition of fedrobust or of a user."""

from dataclasses import replace

import torch
from torch import Tensor

from fedrobust.compute.own_draws import own_draws
from fedrobust.compute.randomness import Streams
from fedrobust.config.arguments import told, unfit
from fedrobust.config.fingerprint import foreign
from fedrobust.config.text import shortened
from fedrobust.data.partition import Partition, Partitioner
from fedrobust.data.split import Split
from fedrobust.errors import ConfigError, UserError


def shared_out(spec: Partitioner, train: Split, test: Split, streams: Streams) -> Partition:
    """Return the examples of each client.

    A user's own partition gets copies of the labels, and its draws from a global generator come
    from ``streams``.

    Raises: ``DataError`` where the partition raises it; ``ConfigError`` where a user's own
    partition fails, or gives anything but indices of different examples.
    """
    draw = streams.generator("partition")
    if not foreign(spec):
        return spec.split(train, test, draw)
    name = type(spec).__name__
    try:
        with own_draws(True, streams, "partition"):
            mine, held = (replace(split, y=split.y.clone()) for split in (train, test))
            found: object = spec.split(mine, held, draw)
    except UserError:
        raise
    except Exception as error:  # a user's own may fail in any way
        reason = shortened(f"{type(error).__name__}: {error}", 300)
        raise ConfigError(f"the partition {name} failed: {reason}") from error
    if not isinstance(found, Partition):
        raise ConfigError(
            f"split of the partition {name} must give a Partition; it gave {told(found)}"
        )
    for part, split in (("train", train), ("test", test)):
        _require_parts(f"{part} of the partition {name}", getattr(found, part), len(split))
    if len(found.test) not in (0, len(found.train)):
        raise ConfigError(
            f"the partition {name} has train parts for {len(found.train)} clients and test parts "
            f"for {len(found.test)}: give a test part to each client, which may be empty, or none"
        )
    return found


def _require_parts(what: str, parts: object, examples: int) -> None:
    """Refuse anything but different indices below ``examples``. Raises: ``ConfigError``."""
    if not isinstance(parts, tuple | list):
        raise ConfigError(
            f"{what} must be a tuple with a tensor for each client; it is {told(parts)}"
        )
    taken = torch.zeros(examples, dtype=torch.bool)
    for client, part in enumerate(parts):
        whole = isinstance(part, Tensor) and not unfit(part) and part.dtype == torch.int64
        if not whole or part.dim() != 1:
            raise ConfigError(
                f"{what} must hold indices, torch.int64 [k], for client {client}; it holds "
                f"{told(part)}"
            )
        if len(part) and not 0 <= int(part.min()) <= int(part.max()) < examples:
            raise ConfigError(
                f"{what} must hold indices from 0 to {examples - 1}; client {client} has "
                f"{int(part.min())} to {int(part.max())}"
            )
        if bool(taken[part].any()) or len(torch.unique(part)) < len(part):
            raise ConfigError(f"{what} gives an example to client {client} that is already taken")
        taken[part] = True
