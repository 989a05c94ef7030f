"""The state of a run, in memory and in its run directory."""

from dataclasses import asdict, dataclass, field

from fedrobust.attacks.learned.rollout_cache import JOURNALS
from fedrobust.config.component import to_config
from fedrobust.federation.state import FederationState
from fedrobust.records.plain import attack_pictures, plain_json
from fedrobust.runs import measure
from fedrobust.runs.directory import RunDirectory
from fedrobust.runs.prepare import Prepared
from fedrobust.runs.rounds_log import RoundsLog
from fedrobust.runs.tally import Tally
from fedrobust.runs.times import Times
from fedrobust.runs.weights import Weights
from fedrobust.typing import Json

FORMAT = 2
"""The format of a checkpoint. The first format had no number and held all rounds itself."""


@dataclass
class RunState:
    """The state of a run: the federation, the records so far, and the chosen weights.

    ``rounds`` is the number of rounds of the recorded run. It is smaller than the experiment's
    until the run is extended. ``log`` has the rounds that were played; it is None for a run that
    keeps no records. ``earlier`` are the weights that were chosen before the last evaluation. It
    is None unless that evaluation changed them, and a longer run would lack it. ``times`` are the
    seconds that each part of the run took; they are not whole, and so never recorded, for a run
    that an earlier version began.
    """

    state: FederationState
    metrics: list[Json]
    best: Weights
    rounds: int
    seconds: float = 0.0
    tally: Tally = field(default_factory=Tally)
    log: RoundsLog | None = None
    earlier: Weights | None = None
    times: Times = field(default_factory=Times)
    times_whole: bool = True

    @classmethod
    def start(cls, run: Prepared, log: RoundsLog | None = None) -> "RunState":
        """Return the state of a run before its first round."""
        state = run.federation.start(run.start, run.streams)
        return cls(state, [], Weights(run.start), run.experiment.rounds, log=log)

    def models(self) -> list[tuple[str, Weights]]:
        """Return the weights that a run leaves, by the names of their files."""
        return [("model", Weights.of(self.state)), ("best", self.best)]

    def played(self, line: Json) -> None:
        """Record a round."""
        self.tally.add(line)
        if self.log is not None:
            self.log.add(line)

    def choose(self, *, longer_lacks_it: bool) -> None:
        """Choose the present weights, after an evaluation that a longer run may lack."""
        self.earlier = self.best if longer_lacks_it and self.metrics else None
        self.best = Weights.of(self.state)


def save(run: Prepared, directory: RunDirectory, run_state: RunState) -> list[str]:
    """Write the log of rounds, the checkpoint, and then the file that is made from it.

    The checkpoint holds the results of an attack's trainings, so their journals are removed.

    Returns: a text about each file that was made again because somebody had changed it.

    Raises: ``WriteError`` where it cannot be written; the last checkpoint is then still there.
    """
    assert run_state.log is not None
    said = run_state.log.write(directory.path, directory.set_aside)
    write_checkpoint(run, directory, run_state)
    directory.drop(JOURNALS)
    return said


def write_checkpoint(run: Prepared, directory: RunDirectory, run_state: RunState) -> None:
    """Write the checkpoint of a state whose log is written, and the file that is made from it.

    Raises: ``WriteError`` where it cannot be written; the last checkpoint is then still there.
    """
    assert run_state.log is not None
    content = {
        "format": FORMAT,
        "digest": run.digest,
        "state": {k: v for k, v in vars(run_state.state).items() if k != "played"},
        "metrics": run_state.metrics,
        "log": run_state.log.extent.plain(),
        "tally": asdict(run_state.tally),
        "best": run_state.best.parameters,
        "seconds": run_state.seconds,
        "config": to_config(run.experiment) | {"rounds": run_state.rounds},
    }
    if run_state.times_whole:
        content["times"] = run_state.times.record()
    if run_state.best.store:
        content["best_store"] = run_state.best.store
    if run_state.earlier is not None:
        content["earlier"] = run_state.earlier.parameters
        content |= {"earlier_store": run_state.earlier.store} if run_state.earlier.store else {}
    directory.save_checkpoint(content)
    directory.write_lines("metrics.jsonl", run_state.metrics)


def save_end(run: Prepared, directory: RunDirectory, run_state: RunState, summary: Json) -> None:
    """Write the models and the data of a report, and last the summary, which marks the end.

    Values that no file can hold are left out. ``summary`` is changed in place and names them among
    its ``troubles``.
    """
    directory.write_lines("metrics.jsonl", run_state.metrics)
    for name, weights in run_state.models():
        tensors = weights.tensors(run.model, run.federation.local.own)
        directory.write_model(f"{name}.safetensors", tensors)
    images = measure.strip(run, run_state.best)
    if images is not None:
        directory.write_arrays("examples.npz", images)
    state = run_state.state.attack
    shown, left_out = attack_pictures(lambda: measure.on_attack(run, state, "pictures"))
    if shown is not None:
        directory.write_arrays("attack.npz", shown)
    plain, lost = plain_json(summary, "the summary")
    summary.clear()
    summary.update(plain)
    told_of = [*(f"the attack: {text}" for text in left_out), *lost]
    if told_of:
        summary["troubles"] = [*summary.get("troubles", []), *told_of]
    directory.write_json("summary.json", summary)
