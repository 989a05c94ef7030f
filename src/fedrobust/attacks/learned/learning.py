"""Learning a policy once, to use it often."""

from collections.abc import Callable
from typing import Any

from fedrobust.aggregators.rule import Context, apply
from fedrobust.attacks.learned.attack import Learned
from fedrobust.attacks.learned.policy import Policy
from fedrobust.attacks.learned.simulation import answers
from fedrobust.component import to_config
from fedrobust.errors import ConfigError
from fedrobust.experiment import Experiment
from fedrobust.federation import run_round
from fedrobust.prepare import Prepared, prepare
from fedrobust.server import rooted
from fedrobust.typing import Updates, Vector


def learn_policy(
    experiment: Experiment, played: Callable[[int], object] = lambda round: None
) -> tuple[Policy, dict[str, Any]]:
    """Play ``experiment`` until its learned attack has trained a policy; nothing is evaluated.

    Returns the policy, and how it came about: the attack, the threat model, and its report.

    Raises: ``ConfigError`` where the experiment's attack does not learn, or came to no policy.
    """
    attack = experiment.attack
    if not isinstance(attack, Learned) or not experiment.malicious:
        raise ConfigError("attack learn needs attack: {name: learned} and malicious: 1 or more")
    if attack.training.algorithm in ("cross-entropy", "gradient"):
        raise ConfigError(
            f"training.algorithm: {attack.training.algorithm} makes a plan for the rounds right "
            "after it, not a policy to keep: use ddpg, td3, sac or constant"
        )
    if attack.policy is not None:
        raise ConfigError("attack.policy names a policy that is there already: leave it out")
    if not experiment.threat.colluders and experiment.malicious > 1:
        raise ConfigError("each of several attackers would learn its own: set threat.colluders")
    prepared = prepare(experiment)
    state = prepared.federation.start(prepared.start)
    with prepared.plan.active():
        while state.round < experiment.rounds:
            state, log = run_round(
                state, prepared.federation, prepared.streams, backend=prepared.backend
            )
            played(log.round)
            known = (
                state.attack
                if experiment.threat.colluders
                else next(iter(state.attack.values()), {})
            )
            if known.get("policy") is not None:
                about = {
                    "attack": to_config(attack),
                    "threat": str(experiment.threat),
                    "parameters": prepared.layout.size,
                    "rule": _rule(prepared),
                    "round": log.round,
                    "report": attack.report(known),
                }
                return Policy.of(known["policy"]), about
            if known.get("over"):
                break
    reasons = "; ".join(attack.report(known)["troubles"])
    raise ConfigError(f"no policy was trained in {state.round} rounds: {reasons}")


def _rule(prepared: Prepared) -> dict[str, Any] | None:
    """What tells the rule that was trained against, where it was known; None where it changes."""
    federation = prepared.federation
    if not federation.threat.rule:
        return None
    clients = federation.participation.size(federation.clients)
    rule, memories = federation.aggregator, list[object]()

    def answer(rows: Updates) -> Vector:
        found = apply(rule, rows, Context())
        memories.append(found.memory)
        return found.vector

    found = answers(answer, prepared.start, clients)
    changes = any(memory is not None for memory in memories) or rooted(rule)
    return {"clients": clients, "answers": found} if found and not changes else None
