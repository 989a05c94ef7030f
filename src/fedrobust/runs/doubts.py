"""Settings of an experiment that are allowed, but may be a mistake."""

from collections.abc import Iterator

from fedrobust.config.kind import name_of
from fedrobust.experiment import Experiment
from fedrobust.federation.attack import Requirements, requirements
from fedrobust.federation.server import rooted
from fedrobust.perturb import Pgd

UNATTACKED = "an attack is configured, but malicious is 0: nobody attacks"


def _tolerated(rule: object) -> Iterator[tuple[str, int]]:
    """Yield each rule that is told f with its f: the server's, and those that it goes around."""
    name = "the rule"
    while rule is not None:
        if isinstance(f := getattr(rule, "f", None), int):
            yield name, f
        rule = getattr(rule, "rule", None)
        name = f"{name_of(type(rule))} inside it"


def _late(attack: Requirements, rounds: int) -> Iterator[str]:
    """Yield a note where the attack acts in few of the rounds, or in none."""
    first = attack.first_round
    latest = max(first, attack.latest_start or first)
    if first > rounds:
        yield (
            f"the attack cannot act before round {first}, and the run ends with round {rounds}: "
            "nobody attacks"
        )
    elif latest > rounds:
        yield (
            f"the attack may wait until round {latest} before it acts, and the run ends with round "
            f"{rounds}: it may never act"
        )
    elif (left := rounds - latest + 1) < rounds / 10:
        acts = "acts from" if latest == first else "may wait until"
        yield f"the attack {acts} round {latest}: this leaves it {left} of the {rounds} rounds"


def doubts(experiment: Experiment, held_out: int) -> list[str]:
    """Return a note about each; ``held_out`` examples are there to choose the round."""
    notes = []
    malicious = experiment.malicious
    for rule, f in _tolerated(experiment.aggregator):
        if malicious > f:
            notes.append(f"{malicious} clients are malicious, but {rule} tolerates f = {f}")
    if experiment.server.root and not rooted(experiment.aggregator):
        notes.append("server.root is set, but the rule makes no use of the server's own update")
    if experiment.attack is not None and malicious == 0:
        notes.append(UNATTACKED)
    if experiment.attack is not None and malicious:
        notes += _late(requirements(experiment.attack), experiment.rounds)
    judge = experiment.evaluation.attack
    if isinstance(judge, Pgd) and judge.steps * judge.step_size < judge.eps * (1 - 1e-9):
        notes.append(
            f"evaluation.attack goes at most {judge.steps} × {judge.step_size:.4g} = "
            f"{judge.steps * judge.step_size:.4g} in a ball of {judge.eps:.4g}, so that robust "
            "accuracy will look too high: take more or longer steps"
        )
    wanted = experiment.evaluation.samples
    if wanted is not None and wanted > held_out:
        notes.append(f"evaluation.samples is {wanted:,}, but {held_out:,} examples are held out")
    return notes
