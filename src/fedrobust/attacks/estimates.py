"""What the adversary assumes about the other clients: seen where granted, else estimated."""

import torch

from fedrobust.aggregators.checks import finite_rows
from fedrobust.attacks.moments import moments
from fedrobust.config.arguments import tensor
from fedrobust.federation.threat import View
from fedrobust.typing import Updates, Vector


def honest(view: View) -> Updates:
    """Return the rows from which statistics of honest updates are computed.

    These are the benign rows where they are granted, else the colluders' own rows. In a round
    without benign clients they are also the colluders' own. Rows that are not finite, which the
    server will drop, count only where there are no others.
    """
    return finite(view.own if view.benign is None or len(view.benign) == 0 else view.benign)


def finite(rows: Updates) -> Updates:
    """Return the finite rows, without autograd history; return all rows where none is finite."""
    rows = rows.detach()
    fit = finite_rows(rows)
    kept = [i for i, finite in enumerate(fit) if finite]
    return rows[kept] if 0 < len(kept) < len(fit) else rows


def sees_benign(view: View) -> bool:
    """Whether the statistics of :func:`honest` are exact and not estimated."""
    return view.benign is not None and len(view.benign) > 0


def clients(view: View) -> int | None:
    """Return how many clients take part, or the best lower bound known, or None.

    An adversary that sees the benign updates can count them. The number is never below the number
    of attackers.
    """
    if view.clients is None and view.benign is None:
        return None
    seen = view.rows + (0 if view.benign is None else len(view.benign))
    return max(view.clients or 0, seen)


def expected_benign(view: View, total: int, rng: torch.Generator) -> Updates:
    """Return the benign rows that ``total`` clients send: seen where granted, else simulated.

    In a simulation the colluders' own honest updates stand for benign ones. Where there are more
    benign clients than colluders, the others are drawn from N(μ, σ²) of the colluders' rows,
    coordinate by coordinate, with divisor m - 1 for σ. Copies would not do: they would lie at
    distance 0 from each other, and no rule that uses distances would take them for honest rows.
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
    """Return the answer of the server's rule, which the view grants, for ``rows``.

    Raises: ``ValueError`` where the rule raises it, or where the view's function gives no vector
    [d].
    """
    assert view.rule is not None
    found = tensor(view.rule(rows), "the answer of the view's rule")
    if found.shape != rows.shape[1:]:
        raise ValueError(
            f"the view's rule must give one vector {list(rows.shape[1:])}; it gave "
            f"{list(found.shape)}"
        )
    return found.detach()
