"""The Mimic attack: all colluders copy one benign client."""

from typing import Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor

from fedrobust.aggregators.checks import finite_rows
from fedrobust.attacks.checks import validate
from fedrobust.attacks.moments import mean
from fedrobust.config.arguments import told
from fedrobust.config.component import component
from fedrobust.config.scalars import Count
from fedrobust.federation.attack import Requirements
from fedrobust.federation.one_call import on_rows
from fedrobust.federation.threat import View, not_granted
from fedrobust.typing import Updates

State: TypeAlias = dict[str, Any] | None
"""``rounds`` of learning, ``mean`` [d], direction ``z`` [d], each client's ``sums`` of ⟨z, x⟩."""


@component
class Mimic:
    """All colluders copy one benign client: their rows look honest and outweigh other clients.

    In the first ``warmup`` rounds, t = 0, 1, …, the attack learns the direction z in which the
    benign updates x differ most. It uses Oja's streaming rule around the running mean μ, with
    ‖z‖ = 1 after each round:

        μ ← (t μ + mean(x)) / (1 + t),  z ∝ (t z + c / ‖c‖) / (1 + t),  c = Σᵢ (xᵢ - μ)⟨xᵢ - μ, z⟩

    It also adds up each client's |Σ ⟨z, xᵢ⟩|. The attack copies the client with the largest sum. It
    does so already during the warm-up; after the warm-up the sums stay fixed. Where this client
    does not take part, the attack copies the participant with the largest sum. In a round without
    benign clients it sends honest updates.

    Reference: Karimireddy et al., "Byzantine-robust learning on heterogeneous datasets via
    bucketing", ICLR 2022. Differences from the paper: the vector c is normalised, as in the
    authors' code; otherwise z hardly moves for small updates. The projections use the z of their
    round, not the last z, because that would need all updates of the warm-up. The warm-up is
    counted in rounds; the paper uses the first epoch.

    Cost: O(b·d) for b benign rows.

    Example: ``{name: mimic}``
    """

    warmup: Count = 20
    name: Literal["mimic"] = "mimic"
    __call__ = on_rows

    requires: ClassVar[Requirements] = Requirements(knowledge={"colluders", "benign"})

    def init(self) -> None:
        """Return None: the attack learns from the first round on."""

    def craft(self, state: State, view: View, rng: torch.Generator) -> tuple[Updates, State]:
        """Return the row of the chosen client, repeated for all malicious clients [m, d]."""
        validate(self, view, rng)
        if view.benign is None or view.benign_clients is None:
            raise not_granted(self, "benign")
        _require_own(state, len(view.parameters))
        # A row that is not finite would spoil the learned state for good.
        fit = finite_rows(view.benign)
        there = [i for i, finite in enumerate(fit) if finite]
        if not there:
            return view.own, state
        benign, clients = view.benign, view.benign_clients
        if len(there) < len(fit):
            benign, clients = benign[there], tuple(clients[i] for i in there)
        if state is None or state["rounds"] < self.warmup:
            state = _learn(state, benign, clients, rng)
        sums = [abs(state["sums"].get(client, 0.0)) for client in clients]
        return benign[sums.index(max(sums))].expand(view.rows, -1), state


def _require_own(state: object, size: int) -> None:
    """Refuse a state that is not the attack's own, or of another model. Raises: ``ValueError``."""
    if state is None:
        return
    keys = {"rounds", "mean", "z", "sums"}
    if not isinstance(state, dict) or set(state) != keys:
        raise ValueError(
            f"attack {Mimic.name}: state must be what its last craft returned, or None in the "
            f"first round; got {told(state)}"
        )
    if type(state["rounds"]) is not int or not isinstance(state["sums"], dict):
        raise ValueError(
            f"attack {Mimic.name}: the state's rounds must be a whole number and its sums a "
            f"mapping; got {told(state['rounds'])} and {told(state['sums'])}"
        )
    for name in ("mean", "z"):
        if not isinstance(state[name], Tensor) or state[name].shape != (size,):
            raise ValueError(
                f"attack {Mimic.name}: the state's {name} must be a vector [{size}]; got "
                f"{told(state[name])}"
            )


def _learn(
    state: State, benign: Updates, clients: tuple[int, ...], rng: torch.Generator
) -> dict[str, Any]:
    middle = mean(benign)
    if state is None:
        t, sums = 0, {}
        z = torch.randn(len(middle), generator=rng, dtype=middle.dtype).to(middle.device)
    else:
        t, sums, z = state["rounds"], state["sums"], state["z"].to(middle)
        middle = (t * state["mean"].to(middle) + middle) / (1 + t)
    centred = _in_units(benign - middle)
    pull = (centred @ z) @ centred
    if pull.norm() > 0:  # else all rows are equal, and no direction is better than z
        z = (t * z + pull / pull.norm()) / (1 + t)
    z = z / z.norm()
    found = {c: sums.get(c, 0.0) + p for c, p in zip(clients, (benign @ z).tolist(), strict=True)}
    return {"rounds": t + 1, "mean": middle, "z": z, "sums": sums | found}


def _in_units(rows: Updates) -> Updates:
    """Return ``rows`` divided by a power of two near their greatest entry, which rounds nothing.

    Only the direction matters, and in float32 their products would overflow from 1e13 on.
    """
    greatest = rows.abs().amax().double()
    return rows / torch.ldexp(
        torch.ones_like(greatest), torch.frexp(greatest).exponent.clamp(-1000, 1000)
    )
