"""Learn a policy once and store it, so that many runs can use it."""

from pathlib import Path
from typing import Any

from fedrobust.aggregators.aggregator import Context, apply
from fedrobust.attacks.learned.attack import Learned
from fedrobust.attacks.learned.policy import Policy
from fedrobust.attacks.learned.policy_files import load_policy, save_policy
from fedrobust.attacks.learned.rollout_cache import JOURNALS
from fedrobust.attacks.learned.simulation import answers
from fedrobust.attacks.learned.task import price
from fedrobust.config.component import to_config
from fedrobust.errors import ConfigError, RecordError
from fedrobust.experiment import Experiment
from fedrobust.federation.server import rooted
from fedrobust.files import held, is_leftover, require_new
from fedrobust.progress import UNWATCHED, Progress
from fedrobust.runs.loop import Playing, opened
from fedrobust.runs.older_configs import completed
from fedrobust.runs.prepare import Prepared
from fedrobust.runs.rounds_log import KEPT, SHOWN
from fedrobust.runs.state import RunState
from fedrobust.typing import Updates, Vector

_OURS = ("config.yaml", "environment.json", "checkpoint.pt", "metrics.jsonl", KEPT, SHOWN)

Learnt = tuple[Policy, dict[str, Any]]
"""A policy, and how it was learned: the attack, the threat model, and the attack's report."""


def learn_policy(
    experiment: Experiment,
    out: Path | None = None,
    resume: bool = False,
    *,
    other_processor: bool = False,
    progress: Progress | None = None,
) -> Learnt:
    """Play ``experiment`` until its learned attack has trained a policy; nothing is evaluated.

    ``out`` is the file to write. Until it is written, a folder beside it, named ``out`` with
    ``.learning`` at the end, holds a checkpoint of the federation and the journal of the training.
    After a kill, ``resume`` goes on from there to the same policy; with ``other_processor`` also on
    another kind of processor. With ``resume`` a finished policy is read.

    Raises: ``ConfigError`` where the experiment's attack does not learn, where it learned no
    policy, or where ``out`` exists; ``RecordError`` where the folder holds another experiment.
    """
    _require_learning(experiment)
    watch = progress or UNWATCHED
    folder = out.with_name(f"{out.name}.learning") if out is not None else None
    if out is not None and folder is not None:
        if folder.is_symlink():
            raise RecordError(f"{folder} is a link, and nothing is written there: remove it")
        if resume and out.is_file():
            return _finished(experiment, out, folder)
        require_new(out)
    with opened(experiment, folder, resume, other_processor=other_processor) as playing:
        known, directory = _played(playing, watch), playing.directory
        try:
            policy, about = _learnt(playing.run, playing.run_state, known)
        except ConfigError:
            if directory is not None:
                _remove(directory.path)  # there is nothing to resume in it
            raise
        if out is not None:
            save_policy(policy, out, about)
        if directory is not None:
            _remove(directory.path)
    return policy, about


def _finished(experiment: Experiment, out: Path, folder: Path) -> Learnt:
    """Return the policy in ``out``. Raises: ``ConfigError`` if it is of another experiment."""
    policy, about = load_policy(out)
    asked = {"attack": experiment.attack, "threat": experiment.threat}
    plain = {key: to_config(value) for key, value in asked.items()}
    stored = completed({key: about[key] for key in asked if key in about}, like=plain)
    if any(stored.get(key) != value for key, value in plain.items()):
        raise ConfigError(f"{out} exists, and is a policy of another config: choose another file")
    if folder.is_dir():
        with held(folder, f"another process is learning in {folder}"):
            _remove(folder)  # a kill left it after the policy was written
    return policy, about


def _remove(folder: Path) -> None:
    """Remove the files of a training, and the folder if it is then empty.

    Raises: ``RecordError`` where that fails.
    """
    try:
        for path in folder.iterdir():
            ours = path.name in _OURS or path.match(JOURNALS) or is_leftover(path.name)
            if ours and (path.is_file() or path.is_symlink()):
                path.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()
    except OSError as error:
        raise RecordError(f"cannot remove {folder}, which is of no more use: {error}") from error


def _require_learning(experiment: Experiment) -> None:
    attack = experiment.attack
    if not isinstance(attack, Learned) or not experiment.malicious:
        raise ConfigError("attack learn needs attack: {name: learned} and malicious: 1 or more")
    if attack.training.algorithm in ("cross-entropy", "gradient"):
        raise ConfigError(
            f"training.algorithm: {attack.training.algorithm} makes a plan for the rounds right "
            "after it, not a policy to keep: use ddpg, td3, sac, evolution or constant"
        )
    if attack.policy is not None:
        raise ConfigError("attack.policy names a policy that is there already: leave it out")
    if not experiment.threat.colluders and experiment.malicious > 1:
        raise ConfigError("each of several attackers would learn its own: set threat.colluders")


def _played(playing: Playing, watch: Progress) -> dict[str, Any]:
    """Play until the attacker has trained or the rounds are over; return the attacker's state."""
    run, run_state = playing.run, playing.run_state

    def over() -> bool:
        return bool(_carried(run, run_state).get("over"))

    playing.rounds(watch, lambda log: over(), over)
    return _carried(run, run_state)


def _carried(run: Prepared, run_state: RunState) -> dict[str, Any]:
    """Return the state of one attacker; empty where it has taken part in no round yet."""
    states: dict[str, Any] = run_state.state.attack or {}
    if run.experiment.threat.colluders:
        return states
    return next(iter(states.values()), {})  # the keys are the attackers' numbers


def _learnt(run: Prepared, run_state: RunState, known: dict[str, Any]) -> Learnt:
    attack = run.experiment.attack
    assert isinstance(attack, Learned)
    report = attack.report(known)
    if known.get("policy") is None:
        reasons = "; ".join(report["troubles"])
        raise ConfigError(f"after {run_state.state.round} rounds: {reasons}")
    about = {
        "attack": to_config(attack),
        "threat": to_config(run.experiment.threat),
        "gamma": price(attack, run.federation.local.objective),
        "parameters": run.layout.size,
        "rule": _rule(run),
        "round": known["trained"],
        "report": report,
    }
    return Policy.of(known["policy"]), about


def _rule(prepared: Prepared) -> dict[str, Any] | None:
    """Return a fingerprint of the rule in training; None where it is unknown or has memory."""
    federation = prepared.federation
    if not federation.threat.rule:
        return None
    bound = federation.threat.clients
    known = bound if type(bound) is int else federation.participation.size(federation.clients)
    rule, memories = federation.aggregator, list[object]()

    def answer(rows: Updates) -> Vector:
        found = apply(rule, rows, Context())
        memories.append(found.memory)
        return found.vector

    found = answers(answer, prepared.start, known)
    changes = any(memory is not None for memory in memories) or rooted(rule)
    return {"clients": known, "answers": found} if found and not changes else None
