"""TRADES as an objective of one's own: Zhang et al., "Theoretically principled trade-off between
robustness and accuracy", ICML 2019.

(1/N) Σᵢ [ l(xᵢ, yᵢ; θ) + β · max_{‖x′ − xᵢ‖∞ ≤ ε} KL(p(xᵢ) ‖ p(x′)) ], p the softmax of the logits.

    fedrobust run examples/trades.yaml
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F


def kl(clean, moved):
    """Return KL(p(x) ‖ p(x′)) from the logits of both, summed over the batch."""
    return F.kl_div(F.log_softmax(moved, dim=1), F.softmax(clean, dim=1), reduction="sum")


@dataclass(frozen=True)
class Trades:
    """Every example is moved to where the answer changes most, and the loss has both terms."""

    eps: float
    step_size: float
    steps: int
    beta: float = 6.0

    def perturbed(self, examples, round):
        """Move every example of a batch."""
        return examples

    def draw(self, x, generator):
        """Return the noise of the start, since KL has no slope at x itself."""
        return 0.001 * torch.randn(x.shape, generator=generator).to(x)

    def maximize(self, model, x, y, draw, *, batch=None):
        """Climb KL(p(x) ‖ p(x′)) by steps of the sign of its gradient."""
        with torch.no_grad():
            clean = model(x)
        at = x + draw()
        for _ in range(self.steps):
            at = at.detach().requires_grad_(True)
            with torch.enable_grad():
                (slope,) = torch.autograd.grad(kl(clean, model(at)), at)
            at = at.detach() + self.step_size * slope.sign()
            at = at.clamp(x - self.eps, x + self.eps).clamp(0, 1)
        return at

    def loss(self, model, x, perturbed, y, context):
        """Return the cross-entropy at x, and β times the mean divergence at x′."""
        clean = model(x)
        return F.cross_entropy(clean, y) + self.beta * kl(clean, model(perturbed)) / len(x)
