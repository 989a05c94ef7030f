"""What the adversary takes for the rest of the round: seen where granted, else estimated."""

import torch

from fedrobust.aggregators.checks import finite_rows
from fedrobust.attacks.moments import moments
from fedrobust.config.arguments import tensor
from fedrobust.federation.threat import View
from fedrobust.typing import Updates, Vector


def honest(view: View) -> Updates:
    """The rows that statistics of honest updates are taken over.

    The benign ones where they are granted, else the colluders' own; these too in a round in which
    no benign client takes part. Rows that are not finite, which the server will drop, count only
    where there are no others.
    """
    return finite(view.own if view.benign is None or len(view.benign) == 0 else view.benign)


def finite(rows: Updates) -> Updates:
    """The rows that are finite, without autograd history; all of them where none is."""
    rows = rows.detach()
    fit = finite_rows(rows)
    kept = [i for i, finite in enumerate(fit) if finite]
    return rows[kept] if 0 < len(kept) < len(fit) else rows


def sees_benign(view: View) -> bool:
    """Whether the statistics of :func:`honest` are the truth and no estimate."""
    return view.benign is not None and len(view.benign) > 0


def clients(view: View) -> int | None:
    """How many clients take part, or the best lower bound on it; None where there is none.

    Who sees the benign updates can count them, and nobody believes in fewer clients than attack.
    """
    if view.clients is None and view.benign is None:
        return None
    seen = view.rows + (0 if view.benign is None else len(view.benign))
    return max(view.clients or 0, seen)


def expected_benign(view: View, total: int, rng: torch.Generator) -> Updates:
    """The benign rows that ``total`` clients send beside the malicious: seen, else simulated.

    The colluders' own honest updates stand for benign ones. Where there are more benign clients
    than colluders, the others are drawn from N(μ, σ²) of those, coordinate by coordinate, σ with
    divisor m - 1: copies would lie at distance 0 from each other, which no rule that looks at
    distances would take for honest.
    """
    if sees_benign(view):
        return honest(view)
    own, wanted = finite(view.own), max(1, total - view.rows)
    if wanted <= len(own):
        return own[:wanted]
    shape = (wanted - len(own), own.shape[1])
    noise = torch.randn(shape, generator=rng, dtype=own.dtype).to(own.device)
    deviation, mean = moments(own, correction=1)
    return torch.cat([own, mean + noise * deviation])


def answer(view: View, rows: Updates) -> Vector:
    """What the server's rule, which the view grants, makes of ``rows``.

    Raises: ``ValueError`` as the rule does, or where the view's function gives no vector [d].
    """
    assert view.rule is not None
    found = tensor(view.rule(rows), "the answer of the view's rule")
    if found.shape != rows.shape[1:]:
        raise ValueError(
            f"the view's rule must give one vector {list(rows.shape[1:])}; it gave "
            f"{list(found.shape)}"
        )
    return found.detach()
