"""The records in a run directory."""

from dataclasses import field
from typing import Any, Literal

from pydantic.dataclasses import dataclass as checked

from fedrobust.config.scalars import Count, Flag, Fraction, Size
from fedrobust.records.schema.figures import OPEN, WHOLE, Figure, Keyed, Maybe, Unread, Verdict


@checked(frozen=True, repr=False, config=WHOLE)
class PerUser(Keyed):
    """Scores by id: of each user of the data, or of each client's own part of the test set."""

    accuracy: dict[str, Fraction]
    robust_accuracy: dict[str, Fraction]
    examples: dict[str, Size]

    def __post_init__(self) -> None:
        if not self.accuracy.keys() == self.robust_accuracy.keys() == self.examples.keys():
            raise ValueError("accuracy, robust_accuracy and examples name different users")
        if not self.accuracy:
            raise ValueError("there are no users; leave per_user out")


@checked(frozen=True, repr=False, config=WHOLE)
class OfClass(Keyed):
    """The part that is read of the certificate of one class."""

    examples: Size


@checked(frozen=True, repr=False, config=WHOLE)
class Robustness(Keyed):
    """The Wasserstein certificate of one model."""

    gamma: Maybe
    rho: Maybe
    worst_case_loss: Maybe
    certified: Flag
    surrogate: Maybe = None
    gap: Maybe = None
    answers: tuple[Fraction, ...] | None = None
    by_class: dict[str, OfClass] | None = None


@checked(frozen=True, repr=False, config=WHOLE)
class Shift(Keyed):
    """One model's error and loss on examples moved to a level ρ."""

    method: Literal["wrm", "pgd"]
    rho: Figure
    reached: Maybe
    loss: Maybe
    error: Fraction


@checked(frozen=True, repr=False, config=WHOLE)
class Audited(Keyed):
    """The result of an audit of one model."""

    verdict: Verdict
    claimed: Fraction
    robust: Fraction
    examples: Count
    masked: tuple[str, ...] = ()
    under: dict[str, Fraction] = field(default_factory=dict)
    """The accuracy under each attack that ran on every example, alone."""
    budget: str | None = None
    attacks: Count | None = None
    """How many attacks the audit ran; None in records of earlier versions."""


@checked(frozen=True, repr=False, config=WHOLE)
class Under(Keyed):
    """Robust accuracies by attack, each alone, on the same ``examples`` test examples."""

    examples: Count
    robust_accuracy: dict[str, Fraction]


@checked(frozen=True, repr=False, config=WHOLE)
class ClientsScore(Keyed):
    """The shares of right answers over the test ``examples`` that are some client's own.

    So every client counts by the number of its test examples, as in FAT's Table 2.
    """

    examples: Count
    accuracy: Fraction
    robust_accuracy: Fraction


@checked(frozen=True, repr=False, config=WHOLE)
class Score(Keyed):
    """The shares of right answers of one model, over ``examples`` held-out examples."""

    accuracy: Fraction
    robust_accuracy: Fraction
    examples: Count
    per_user: PerUser | None = None
    per_client: PerUser | None = None
    wasserstein: Robustness | None = None
    training_wasserstein: Robustness | None = None
    shift: tuple[Shift, ...] | None = None
    audit: Audited | None = None
    under: Under | None = None
    round: Unread = None
    loss: Unread = None
    clients: ClientsScore | None = None
    not_finite: Unread = None
    refused_points: Unread = None


@checked(frozen=True, config=OPEN)
class Evaluation:
    """One line of ``metrics.jsonl``: the score after a round. ``seconds`` is the training time."""

    round: Size
    split: str
    seconds: Figure
    accuracy: Fraction
    robust_accuracy: Fraction
    examples: Count
    per_user: PerUser | None = None
    per_client: Unread = None
    audit: Audited | None = None
    loss: Unread = None
    wasserstein: Unread = None
    kept: Unread = None
    malicious_kept: Unread = None
    applied: Unread = None
    before_attack: Flag = False
    not_finite: Unread = None
    refused_points: Unread = None


@checked(frozen=True, config=OPEN)
class Round:
    """One line of ``rounds.jsonl``; ``participants`` is None where everyone took part."""

    round: Count
    participants: frozenset[Size] | None
    malicious: frozenset[Size]
    kept: frozenset[Size] | None
    dropped: tuple[Size, ...]
    applied: Flag
    reason: str | None = None
    projected: Unread = None
    acted: Flag | None = None
    """Whether any malicious row differed from the honest one, where both are known."""
    refused: dict[str, str] = field(default_factory=dict)
    """Why what a client sent is no row, by client; those clients are ``dropped`` too."""


@checked(frozen=True, config=OPEN)
class Extension:
    """A run of ``from_rounds`` was extended. ``test_read``: its test examples had been read."""

    from_rounds: Count
    to_rounds: Count
    after_round: Size
    test_read: Flag


@checked(frozen=True, config=OPEN)
class Resumed:
    """The part that is read of an entry of ``resumed`` in ``environment.json``."""

    extended: Extension | None = None
    code: dict[str, str] = field(default_factory=dict)


@checked(frozen=True, config=OPEN)
class Computed:
    """The part of ``environment.json`` that is read; the rest is shown as it is."""

    resumed: tuple[Resumed, ...] = ()
    code: dict[str, str] = field(default_factory=dict)
    """The versions of a user's own modules."""


@checked(frozen=True, repr=False, config=WHOLE)
class Test(Keyed):
    """The scores on the test split: of the model that validation chose, and of the last one."""

    best: Score
    final: Score


@checked(frozen=True, repr=False, config=WHOLE)
class Chosen(Keyed):
    """The evaluations that a summary repeats: the one that validation chose, and the last one."""

    best: dict[str, Any]
    final: dict[str, Any]


@checked(frozen=True, config=OPEN)
class Troubles:
    """The part that the report of any attack may hold."""

    troubles: tuple[str, ...] = ()


@checked(frozen=True, repr=False, config=WHOLE)
class Spent(Keyed):
    """The time that one part of a run took."""

    seconds: Figure


@checked(frozen=True, repr=False, config=WHOLE)
class Times(Keyed):
    """Where the time of a run went. ``evaluations`` are without their ``audits``."""

    rounds: Spent
    evaluations: Spent
    audits: Spent


@checked(frozen=True, repr=False, config=WHOLE)
class Summary(Keyed):
    """The summary of a finished run. ``times`` is None in records of earlier versions."""

    rounds: Count
    clients: Count
    parameters: Count
    best_round: Size
    seconds: Figure
    notes: tuple[str, ...] = ()
    threat: str | None = None
    test: Test | None = None
    validation: Chosen | None = None
    attack: dict[str, Any] | None = None
    troubles: tuple[str, ...] = ()
    malicious_kept: Fraction | None = None
    attack_acted: Fraction | None = None
    times: Times | None = None
    format: Unread = None
    name: str | None = None
    malicious: tuple[Size, ...] | None = None
    users: Unread = None
