"""The words of the report: names, numbers, the verdict, the warnings."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fedrobust.config.text import shortened
from fedrobust.evaluation.intervals import bounds
from fedrobust.records.own_code import changed_code
from fedrobust.records.reading import shaped
from fedrobust.records.schema.run import Computed
from fedrobust.report.run_records import Audited, Evaluation, ReportRun, Round, Score

NARROW_SPACE = "\u202f"  # neither this space nor the next one breaks a line
SPACE = "\u00a0"
_REFUSALS = 8
"""The most refusals of real clients that a page tells one by one."""
_OF_ROUNDS = re.compile(
    r"rows of clients? .* were refused in |\d+ rounds? made no step, the first "
)
"""The troubles of a summary that a page tells from the rounds themselves, and in more detail."""

_UPPER = ("apgd", "cnn", "dro", "erm", "femnist", "mnist", "pgd", "sgd")
_SPELLED = {word: word.upper() for word in _UPPER} | {"cifar10": "CIFAR-10", "iid": "iid"}


def percent(share: float) -> str:
    """Write 0.713 as ``71.3 %``."""
    return f"{100 * share:.1f}{NARROW_SPACE}%"


def interval(share: float, examples: int) -> str:
    """Write Wilson's 95 % interval of a share of ``examples`` independent examples in words."""
    low, high = bounds(share, examples)
    return f"{100 * low:.1f} to {percent(high)}"


def duration(seconds: float) -> str:
    """Write seconds in a readable unit: s, min or h."""
    if seconds < 100:
        return f"{seconds:.0f}{NARROW_SPACE}s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes}{NARROW_SPACE}min"
    return f"{minutes // 60}{NARROW_SPACE}h {minutes % 60:02d}{NARROW_SPACE}min"


def number(value: object) -> str:
    """Write a config's value in short form; a pixel length such as 8/255 stays a fraction."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    steps = value * 255
    whole = 1 <= round(steps) <= 32 if math.isfinite(value) else False
    if float(f"{value:.4g}") != value and whole and abs(steps - round(steps)) < 1e-9:
        return f"{round(steps)}/255"
    return f"{value:.4g}".replace("-", "−")


def title(name: object) -> str:
    """Write a component's tag as a name: ``a-little-is-enough`` is A Little Is Enough."""
    words = str(name).rpartition(":")[2].split("-")
    return " ".join(_SPELLED.get(w, w[:1].upper() + w[1:]) for w in words)


def called(node: Mapping[str, Any]) -> str:
    """Return the name of a component, from its tag, or from its class if no file can rebuild it."""
    return title(node.get("name", node.get("opaque", "unnamed")))


def whole_name(node: Mapping[str, Any]) -> str:
    """Return the name of an attack or a rule with the one inside it: ``Delayed (Sign Flip)``."""
    inside = (node.get(key) for key in ("attack", "rule"))
    names = [whole_name(inner) for inner in inside if isinstance(inner, Mapping)]
    return f"{called(node)} ({', '.join(names)})" if names else called(node)


def component(node: object) -> str:
    """Write a component in one line, such as ``Bulyan, f 12``; any other value as it stands."""
    if isinstance(node, Mapping):
        head = [called(node)] if {"name", "opaque"} & node.keys() else []
        rest = (
            f"{str(key).replace('_', ' ')} "
            + (f"({component(value)})" if isinstance(value, Mapping) else component(value))
            for key, value in node.items()
            if key not in ("name", "opaque") and value is not None and value != {}
        )
        return ", ".join([*head, *rest])
    if isinstance(node, list):
        return ", ".join(component(item) for item in node)
    return number(node)


def measure(evaluation: Mapping[str, Any]) -> str:
    """Describe the attack that measures robust accuracy: ``PGD ℓ∞, ε 0.3, 40 × 0.01``."""
    attack = evaluation.get("attack")
    if (
        not isinstance(attack, Mapping)
        or not {"norm", "eps", "steps", "step_size"} <= attack.keys()
    ):
        return component(attack)
    norm = {"linf": "ℓ∞", "l2": "ℓ2"}.get(str(attack["norm"]), str(attack["norm"]))
    restarts = attack.get("restarts", 1)
    return (
        f"{called(attack)}{SPACE}{norm}, ε{SPACE}{number(attack['eps'])}, "
        f"{attack['steps']}{SPACE}×{SPACE}{number(attack['step_size'])}"
        + (f", {restarts}{SPACE}restarts" if restarts != 1 else "")
    )


def threat(run: ReportRun) -> str | None:
    """Describe the adversary's knowledge in a sentence; None without an adversary."""
    if not run.config["malicious"]:
        return None
    if run.summary and run.summary.threat:
        known = run.summary.threat.replace("; does not know", "; it does not know")
        return f"The adversary {known.rstrip('.')}."
    configured = run.config.get("threat")
    return f"As configured: {component(configured)}." if configured else None


def adversary(run: ReportRun) -> str:
    """Return ``A Little Is Enough from 12 of 51 clients``, or an empty text without an attack."""
    malicious, attack = run.config["malicious"], run.config.get("attack")
    if not malicious or not isinstance(attack, Mapping):
        return ""
    of = f"{malicious} of {run.clients}" if run.clients else str(malicious)
    return f"{whole_name(attack)} from {of} clients"


def extensions(run: ReportRun) -> list[str]:
    """Tell of each extension of the run whether its test scores were known by then."""
    read = "Its test examples had been read by then, so this decision may rest on its test scores."
    return [
        f"A run of {part.from_rounds:,} rounds was extended to {part.to_rounds:,} after round "
        f"{part.after_round:,}. {read if part.test_read else 'It had not read its test examples.'}"
        for part in run.extensions
    ]


def verdict(run: ReportRun) -> str:
    """Describe the run in a sentence, with a second one if the chosen model is not the last."""
    score: Score | Evaluation = run.test.best if run.test else run.chosen
    last, whole = run.evaluations[-1].round, run.config["rounds"]
    rounds = (
        f"After {run.summary.rounds:,}" if run.summary else f"So far, after {last:,} of {whole:,}"
    )
    attacked = adversary(run)
    setting = f" under {attacked}" if attacked else ""
    if not attacked and run.clients:
        setting = f" with {run.clients} honest clients"
    split = "test" if run.test else run.chosen.split
    early = run.test is not None and run.chosen_round < last
    return (
        f"{rounds} rounds{setting}, {whole_name(run.config['aggregator'])}’s model"
        f"{f' of round {run.chosen_round:,}, which {chooser(run)} chose,' if early else ''} is "
        f"{percent(score.accuracy)} accurate and {percent(score.robust_accuracy)} robust "
        f"on the {split} set ({measure(run.config['evaluation'])})." + _under_audit(score)
    ) + (_last(run.test.final) if run.test is not None and early else "")


def chooser(run: ReportRun) -> str:
    """Return which examples chose the round."""
    return "validation" if run.chosen.split == "validation" else f"the {run.chosen.split} split"


def _under_audit(score: Score | Evaluation) -> str:
    if score.audit is None:
        return ""
    found = score.audit
    return (
        f" The audit calls this {found.verdict}: {percent(found.robust)} of {found.examples:,} "
        "examples withstand all its attacks."
    )


def _last(score: Score) -> str:
    accurate, robust = percent(score.accuracy), percent(score.robust_accuracy)
    told = f" The model of the last round is {accurate} accurate and {robust} robust."
    if score.audit is None:
        return told
    found = score.audit
    return f"{told} The audit calls that {found.verdict}: {percent(found.robust)} withstand it."


def audit(found: Audited) -> str:
    """Describe an audit in a few words."""
    return f"{found.verdict}: {percent(found.claimed)} claimed, {percent(found.robust)} robust"


def warnings(run: ReportRun) -> list[str]:
    """Return what a reader must know before trusting the numbers."""
    found = []
    if run.summary is None:
        found.append(
            "This run has not finished: nothing has been read from the test split, and the "
            f"figures are from the {run.chosen.split} split, which also chooses the round."
        )
    elif run.test is None:
        found.append(
            "This run did not read the test split; the figures are from the split it watched."
        )
    found += [
        f"{module} changed while this run was played: its rounds are of both versions."
        for module in changed_code(shaped(Computed, run.environment))
    ]
    audits = [(e.round, e.audit) for e in run.evaluations if e.audit is not None]
    masked = [(at, audit) for at, audit in audits if audit.verdict == "masked"]
    models = []
    if run.test:
        models = [("chosen", run.test.best), ("last", run.test.final)]
        models = models[run.test.best.round == run.test.final.round :]
    for name, score in models:
        if score.audit and score.audit.verdict == "masked":
            found.append(
                f"The {name} model's robust accuracy is not real: an audit of "
                f"{score.audit.examples:,} test examples calls it {audit(score.audit)}."
            )
    if masked:
        at, worst = max(masked, key=lambda found: found[1].claimed - found[1].robust)
        found.append(
            "The robust accuracy is not real: an audit calls the model masked in "
            f"{_rounds([at for at, _ in masked])}. In round {at:,} plain PGD leaves "
            f"{percent(worst.claimed)} standing, the audit {percent(worst.robust)}."
        )
    idle: dict[str, list[int]] = {}
    for r in run.rounds:
        if not r.applied:
            idle.setdefault(r.reason or "no reason recorded", []).append(r.round)
    for reason, rounds in idle.items():
        found.append(f"No step was applied in {_rounds(rounds)}: {reason.rstrip('.')}.")
    found += _refused(run.rounds)
    dropped = [(r.round, c) for r in run.rounds for c in r.dropped if str(c) not in r.refused]
    if dropped:
        clients = sorted({client for _, client in dropped})
        found.append(
            f"{len(dropped)} {'row was' if len(dropped) == 1 else 'rows were'} dropped because "
            "they were not finite or had another shape, in "
            f"{_rounds(sorted({r for r, _ in dropped}))} "
            f"(client{'s' * (len(clients) > 1)} {_short(clients)})."
        )
    # The summary has the rest. That of an earlier version lacks what its attack told.
    others = list(run.summary.troubles) if run.summary else []
    attack = (run.summary.attack if run.summary else None) or {}
    others += [f"the attack: {text}" for text in attack.get("troubles", [])]
    fresh = dict.fromkeys(text for text in others if not _OF_ROUNDS.match(text))
    found += [f"{text[0].upper()}{text[1:].rstrip('.')}." for text in fresh if text]
    return found


def _refused(rounds: Sequence[Round]) -> list[str]:
    """Return which answers of real clients were refused, and why."""
    cases: dict[tuple[str, str], list[int]] = {}
    for r in rounds:
        dropped = {*map(str, r.dropped)}  # an earlier version also told of rows that were used
        for client, why in r.refused.items():
            if client in dropped:
                cases.setdefault((client, shortened(why, 200)), []).append(r.round)
    found = [
        f"Nothing of client {client} was used in {_rounds(numbers)}: {why.rstrip('.')}."
        for (client, why), numbers in list(cases.items())[:_REFUSALS]
    ]
    if more := len(cases) - _REFUSALS:
        found += [f"{more:,} more refusals are in rounds.jsonl."] if more > 0 else []
    return found


def _rounds(rounds: list[int]) -> str:
    plural = "s" if len(rounds) > 1 else ""
    count = f"{len(rounds)} rounds, " if len(rounds) > 4 else f"round{plural} "
    return count + _short(rounds)


def _short(numbers: list[int]) -> str:
    """Write numbers as ``1, 4 to 6, 9``, with at most eight parts."""
    parts: list[list[int]] = []
    for n in numbers:
        if parts and n == parts[-1][-1] + 1:
            parts[-1].append(n)
        else:
            parts.append([n])
    texts = [f"{p[0]} to {p[-1]}" if len(p) > 2 else ", ".join(map(str, p)) for p in parts]
    return ", ".join(texts[:8]) + (" …" if len(texts) > 8 else "")


def slug(text: str) -> str:
    """Return ``text`` as a part of a file's name: small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "run"
