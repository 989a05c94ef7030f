"""Optimisers of a user's own that keep more than tensors of the parameters' shape."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor


class Own(torch.optim.SGD):
    """Moves each parameter against what ``direction`` makes of its gradient."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                found = self.direction(parameter.grad, self.state[parameter], group)
                parameter.sub_(found, alpha=group["lr"])

    @abstractmethod
    def direction(self, slope: Tensor, kept: dict[str, Any], group: dict[str, Any]) -> Tensor: ...


class Listing(Own):
    """Keeps a list of numbers and a nested tensor beside the parameters."""

    def direction(self, slope: Tensor, kept: dict[str, Any], group: dict[str, Any]) -> Tensor:
        kept.setdefault("seen", []).append(len(kept["seen"]))
        kept.setdefault("moments", {"first": torch.zeros_like(slope)})
        return kept["moments"]["first"].mul_(0.5).add_(slope)


class Warming(Own):
    """Counts its steps in its parameter group, and starts at a small rate."""

    def direction(self, slope: Tensor, kept: dict[str, Any], group: dict[str, Any]) -> Tensor:
        group["steps"] = group.get("steps", 0) + 1
        return slope * min(1, group["steps"] / 4)


class Viewing(Own):
    """Keeps one buffer and two views of it."""

    def direction(self, slope: Tensor, kept: dict[str, Any], group: dict[str, Any]) -> Tensor:
        if not kept:
            both = torch.zeros(2, *slope.shape, dtype=slope.dtype)
            kept |= {"both": both, "first": both[0], "second": both[1]}
        kept["both"].mul_(0.5)
        kept["first"].add_(slope)
        return kept["first"] + kept["second"]


class Filling(Own):
    """Fills in a constant of its parameter group at the first step."""

    def direction(self, slope: Tensor, kept: dict[str, Any], group: dict[str, Any]) -> Tensor:
        group.setdefault("damping", 0.1)
        return slope
