"""Examples with labels."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedrobust.typing import Images, Indices, Labels


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Examples with labels, and, where it is known, the user who made each example.

    ``x`` is uint8 [N, c, h, w], kept as bytes because they take a quarter of the memory, or float32
    [N, ...]. ``y`` and ``user`` are int64 [N].
    """

    x: Tensor
    y: Labels
    user: Tensor | None = None

    def __repr__(self) -> str:
        kind = str(self.x.dtype).removeprefix("torch.")
        users = "" if self.user is None else f", {len(torch.unique(self.user))} users"
        return f"<Split: {len(self):,} examples {list(self.x.shape[1:])} {kind}{users}>"

    def __len__(self) -> int:
        return len(self.y)

    def images(self, index: Indices) -> Images:
        """Return the examples at ``index`` as float32: bytes become pixels in [0, 1]."""
        x = self.x[index]
        return x.float() / 255 if x.dtype == torch.uint8 else x

    def take(self, index: Indices) -> "Split":
        """Return the split of the examples at ``index``, in this order."""
        user = None if self.user is None else self.user[index]
        return Split(self.x[index], self.y[index], user)
