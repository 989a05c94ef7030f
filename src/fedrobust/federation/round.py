"""One federated round, and everything that it changes.

The steps of a round: choose clients → local updates → malicious rows → aggregate → apply. The
trainer, a simulating attacker and any distributed backend call :func:`run_round`; none has its own
copy.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace

from torch import Tensor

from fedrobust.aggregators import Context
from fedrobust.clients.poisoning import Poisons
from fedrobust.compute.own_draws import own_draws
from fedrobust.compute.randomness import Streams
from fedrobust.config.arguments import told, unfit
from fedrobust.federation.adversary import attacked
from fedrobust.federation.backends import LOCAL, Backend, Received
from fedrobust.federation.columns import Merged, require_columns
from fedrobust.federation.malicious_rows import tensor_of_rows
from fedrobust.federation.round_log import RoundLog
from fedrobust.federation.server import Outcome, aggregate, aggregate_columns, place
from fedrobust.federation.state import Federation, FederationState
from fedrobust.progress import ALONE, Host
from fedrobust.typing import Updates, Vector


def run_round(
    state: FederationState,
    federation: Federation,
    rng: Streams,
    *,
    backend: Backend = LOCAL,
    action: Updates | None = None,
    host: Host = ALONE,
) -> tuple[FederationState, RoundLog]:
    """Play one round and return the state after it, with what happened.

    ``state`` is consumed, also by a round that fails: to keep it, make a copy, ``state.clone()``,
    before the round. ``action``, where given, holds the rows [m, d] that the round's malicious
    clients send instead of the attack's rows. ``host`` receives messages of the attack and gives it
    a place for files.

    Raises: ``ConfigError`` where a user's own rule, attack, participation or projection gives an
    invalid answer; ``ValueError`` for arguments of the wrong kind, and for a ``state`` from which a
    round was begun before.
    """
    _check(state, federation, rng)
    if state.played is not False:
        raise ValueError(_used(state))
    if action is not None:
        if not federation.malicious:
            raise ValueError("action is given, but no client of the federation is malicious")
        tensor_of_rows(action, "action, the malicious clients' rows,")
    given = state
    if not federation.graph and state.parameters.requires_grad:
        state = replace(state, parameters=state.parameters.detach())
    number = state.round + 1
    participants = federation.chosen(number, rng)
    malicious = tuple(c for c in participants if c in federation.malicious)
    requires = federation.requires

    given.played = None
    rows, refusals = _honest_rows(state, federation, participants, malicious, rng, backend)
    bad = [i for i, client in enumerate(participants) if client in federation.malicious]
    attack = state.attack
    refused: dict[int, str] = {}
    acted = None
    root = _root_update(state, federation, rng)
    at: Sequence[int] = range(len(participants))
    if isinstance(rows, Tensor):
        here, own = rows, bad
    else:
        crafts = bool(bad) and action is None and requires is not None
        require_columns(federation.aggregator, rows, crafts, federation.threat)
        # Of rows that lie elsewhere, only those of malicious clients are here as a matrix.
        here, at, own = rows.rows, bad, list(range(len(bad)))
    if bad and action is not None:
        if why := place(here, own, action, graph=federation.graph):
            refused = dict.fromkeys(own, f"the action is {why}")
    elif bad and requires is not None:
        ids, n = [participants[i] for i in at], len(participants)
        refused, attack, acted = attacked(state, federation, here, root, ids, own, rng, host, n)
    unplaced = {at[k]: why for k, why in refused.items()}

    counts = federation.local.counts[list(participants)]
    context = Context(
        counts=counts.to(here.device),
        # A user's own rule may write to its memory in a round that then makes no step.
        memory=deepcopy(state.memory) if federation.own_rule else state.memory,
        root=root,
        generator=rng.generator("aggregation", number),
    )
    with own_draws(federation.own_rule, rng, "rule", number):
        outcome = _outcome(federation, rows, context, tuple(unplaced))
    with own_draws(federation.own_server, rng, "projection", number):
        parameters, outcome, slots = federation.server.step(state.parameters, outcome, state.server)

    keep = requires.history if requires is not None else 0
    history = (*state.history, state.parameters)[-keep:] if keep else ()
    memory = state.memory if outcome.vector is None else outcome.memory
    after = FederationState(
        parameters, number, state.store, state.root, attack, memory, history, slots
    )
    told = {**refusals, **{participants[i]: why for i, why in unplaced.items()}}
    # An attack may send a row for a client whose own answer was refused.
    dropped = {participants[i] for i in outcome.dropped}
    told = {client: why for client, why in told.items() if client in dropped}
    given.played = True
    return after, RoundLog(number, participants, malicious, outcome, told, acted)


def _used(state: FederationState) -> str:
    """Return why no round can be played from a state that was used."""
    this = f"this state, which is of round {state.round}"
    if state.played:
        told = f"a round was played from {this}, before: go on from the state that it returned"
    else:
        told = f"a round from {this}, did not end: begin again from federation.start()"
    return (
        f"{told}, or from a copy, state.clone(), that was made before the round. One that is made "
        "after it is refused too, since a round changes what its state holds"
    )


def _check(state: object, federation: object, rng: object) -> None:
    """Refuse anything but a state, a federation and streams. Raises: ``ValueError``."""
    for name, value, kind in (
        ("state", state, FederationState),
        ("federation", federation, Federation),
        ("rng", rng, Streams),
    ):
        if not isinstance(value, kind):
            raise ValueError(f"{name} must be a {kind.__name__}; got {told(value)}")
    assert isinstance(state, FederationState)
    at = state.parameters
    if not isinstance(at, Tensor) or unfit(at) or at.ndim != 1 or not at.is_floating_point():
        raise ValueError(f"state.parameters must be one floating-point vector [d]; got {told(at)}")


def _honest_rows(
    state: FederationState,
    federation: Federation,
    participants: Sequence[int],
    malicious: Sequence[int],
    rng: Streams,
    backend: Backend,
) -> tuple[Updates | Merged, Mapping[int, str]]:
    """Return every participant's honest update [n, d], and why a backend refused some of them.

    Rows that no attack reads stay zero. Where the backend keeps the rows elsewhere, those of
    malicious clients are fetched.
    """
    poison: dict[int, Poisons] = {}
    if federation.poisons:
        assert isinstance(federation.attack, Poisons)
        poison = dict.fromkeys(malicious, federation.attack)
    requires = federation.requires
    idle = set() if requires is None or requires.uses_honest_updates else set(malicious)
    working = [i for i, client in enumerate(participants) if client not in idle]
    found = backend.local_updates(
        federation, state, [participants[i] for i in working], rng, poison
    )
    if not isinstance(found, Tensor | Received):
        return Merged.of(found, participants, malicious, working, state.parameters), {}
    back = found if isinstance(found, Received) else Received(found, {})
    trained, reasons = back.rows, back.refused
    if not federation.graph:
        trained = trained.detach()
    if not idle:
        return trained, reasons
    rows = trained.new_zeros(len(participants), trained.shape[1])
    rows[working] = trained
    return rows, reasons


def _outcome(
    federation: Federation, rows: Updates | Merged, context: Context, refused: tuple[int, ...]
) -> Outcome:
    rule = federation.aggregator
    if isinstance(rows, Tensor):
        return aggregate(rule, rows, context, refused, graph=federation.graph)
    return aggregate_columns(rule, rows, context, refused)


def _root_update(state: FederationState, federation: Federation, rng: Streams) -> Vector | None:
    """Return the update from the server's own data [d]; None where it holds no data."""
    if federation.root is None:
        return None
    own = rng.child("root")
    return federation.root.updates(state.parameters, state.root, [0], own, state.round + 1)[0]
