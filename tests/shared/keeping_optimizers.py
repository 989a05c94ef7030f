"""Optimisers of a user's own that keep more than tensors of the parameters' shape."""

from typing import Any

import torch


class Listing(torch.optim.SGD):
    """Keeps a list of numbers and a nested tensor beside the parameters."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                kept = self.state[parameter]
                kept.setdefault("seen", []).append(len(kept["seen"]))
                kept.setdefault("moments", {"first": torch.zeros_like(parameter)})
                kept["moments"]["first"].mul_(0.5).add_(parameter.grad)
                parameter.sub_(kept["moments"]["first"], alpha=group["lr"])


class Warming(torch.optim.SGD):
    """Counts its steps in its parameter group, and starts at a small rate."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            group["steps"] = group.get("steps", 0) + 1
            for parameter in group["params"]:
                parameter.sub_(parameter.grad, alpha=group["lr"] * min(1, group["steps"] / 4))


class Viewing(torch.optim.SGD):
    """Keeps one buffer and two views of it."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                kept = self.state[parameter]
                if not kept:
                    both = torch.zeros(2, *parameter.shape, dtype=parameter.dtype)
                    kept |= {"both": both, "first": both[0], "second": both[1]}
                kept["both"].mul_(0.5)
                kept["first"].add_(parameter.grad)
                parameter.sub_(kept["first"] + kept["second"], alpha=group["lr"])


class Filling(torch.optim.SGD):
    """Fills in a constant of its parameter group at the first step."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            group.setdefault("damping", 0.1)
            for parameter in group["params"]:
                parameter.sub_(parameter.grad, alpha=group["lr"])
