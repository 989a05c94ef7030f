"""Whether the parts of a federation fit each other."""

from fedrobust.aggregators import Aggregator
from fedrobust.aggregators.aggregator import check
from fedrobust.config.kind import name_of
from fedrobust.config.own import asking
from fedrobust.config.text import quoted
from fedrobust.federation.attack import Attack, requirements
from fedrobust.federation.participation import Participation
from fedrobust.federation.server import Server, rooted
from fedrobust.federation.threat import ThreatModel, in_words
from fedrobust.models import LOCAL, BatchNorm


def require_parts(
    attack: Attack | None,
    malicious: int,
    threat: ThreatModel,
    aggregator: Aggregator,
    server: Server,
) -> None:
    """Check attack, threat model, rule and server against each other. Raises: ``ValueError``."""
    if attack is None and malicious > 0:
        raise ValueError(f"malicious is {malicious}, but there is no attack to play")
    if attack is not None and malicious > 0:
        with asking("the attack, asked what it needs,"):
            asked = requirements(attack)
        if lacking := threat.lacks(asked.knowledge):
            cure = ", ".join(f"{what}: true" for what in lacking)
            raise ValueError(
                f"attack {name_of(type(attack))} needs {in_words(lacking)}, which the threat model "
                f"does not grant: grant it by threat: {{{cure}}}"
            )
        if malicious < asked.min_colluders and not threat.benign:
            raise ValueError(
                f"attack {name_of(type(attack))} needs {asked.min_colluders} malicious "
                f"clients, or threat.benign: true; malicious is {malicious}"
            )
        if "rule" in asked.knowledge:
            _require_rows_to_try(attack, threat, aggregator)
    if rooted(aggregator) and server.root is None:
        raise ValueError(
            f"the rule {name_of(type(aggregator))} trusts an update of the server's own: "
            "set server.root to the number of training examples that the server holds"
        )


def require_one_model(batch_norm: BatchNorm, attack: Attack | None, malicious: int) -> None:
    """Refuse an attack that asks for the model, where there is none. Raises: ``ValueError``."""
    if batch_norm in LOCAL and attack is not None and malicious and requirements(attack).uses_model:
        raise ValueError(
            f"attack {name_of(type(attack))} works on the whole model, and with batch_norm: "
            f"{batch_norm} each client has a model of its own: use another attack, or "
            "to_group_norm"
        )


def _require_rows_to_try(attack: Attack, threat: ThreatModel, aggregator: Aggregator) -> None:
    """Refuse a rule that does not take ``threat.clients`` rows, for an attack that tries it.

    Such an attack applies the rule to as many rows as it knows to be sent.
    """
    bound = threat.clients
    if threat.benign or isinstance(bound, bool):
        return
    try:
        with asking(f"the rule, asked whether it takes {bound} rows,"):
            check(aggregator, bound)
    except ValueError as error:
        raise ValueError(
            f"attack {name_of(type(attack))} tries the rule on threat.clients = {bound} rows, "
            f"too few: {error}"
        ) from error


def require_clients(
    clients: int,
    malicious: int,
    threat: ThreatModel,
    participation: Participation,
    aggregator: Aggregator,
) -> None:
    """Check the settings against this number of clients. Raises: ``ValueError``."""
    if malicious > clients:
        raise ValueError(f"malicious is {malicious}, but there are {clients} clients")
    if malicious == clients:
        raise ValueError(
            f"malicious is {malicious} of {clients} clients, so nobody trains honestly: leave at "
            "least one benign client"
        )
    if threat.data > clients - malicious:
        raise ValueError(
            f"threat.data is {threat.data}, but {clients - malicious} of {clients} "
            "clients are benign"
        )
    with asking(f"participation.size({clients})"):
        size = participation.size(clients)
    if type(size) is not int or not 1 <= size <= clients:
        raise ValueError(
            f"participation.size({clients}) must be a whole number from 1 to {clients}; "
            f"it is {quoted(size)}"
        )
    bound = threat.clients
    if bound is not True and bound > size:
        raise ValueError(
            f"threat.clients is {bound}, but {size} clients take part in a round: "
            "it must be a lower bound on that number"
        )
    with asking(f"the rule, asked whether it takes {size} rows,"):
        check(aggregator, size)
