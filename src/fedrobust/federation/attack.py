"""The interface of an attack: what it requires, what it sends in a round, what it reports."""

from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol, TypeAlias, get_args

import torch

from fedrobust.clients.poisoning import Poisons
from fedrobust.config.arguments import told
from fedrobust.config.kind import Kind, name_of
from fedrobust.data import Split
from fedrobust.errors import ConfigError
from fedrobust.federation.threat import Knowledge, View
from fedrobust.typing import Updates

_KNOWLEDGE: frozenset[str] = frozenset(get_args(Knowledge))
_FORMER = ("needs", "least", "trains", "begins", "poisons")
"""How attacks declared their requirements before ``requires``: to ignore them would be silent."""


@dataclass(frozen=True)
class Requirements:
    """What an attack requires of a federation, and when it acts.

    ``knowledge`` is what the threat model must grant; a run whose threat model does not is refused.
    ``min_colluders`` is the number of malicious clients that the attack needs to estimate what it
    is not granted. With ``uses_honest_updates`` the malicious clients train; without it they do
    not, and ``view.own`` has no rows, [0, d]. ``history`` is the number of earlier broadcast
    parameter vectors in ``view.history``. ``first_round`` is the first round in which the attack
    can act, and ``latest_start`` the last one in which it may still begin to, where this is another
    round. ``start_field`` names the field of the attack that delays it, where it has one.
    ``poisons_data`` says whether the attack changes the data of malicious clients; None means that
    it does where it has a method ``poison``. ``uses_model`` says whether it asks for
    ``view.model()``, which is not there where each client has a model of its own. ``uses_rounds``
    says whether what it does depends on ``view.rounds``; a run with such an attack is not extended.
    ``simulates`` says whether it plays the federation with its own rows before it sends them, so
    that no wrapper may cut these.

    Raises: ``ValueError`` for a field of the wrong kind.
    """

    knowledge: Set[Knowledge] = frozenset()
    min_colluders: int = 1
    uses_honest_updates: bool = True
    history: int = 0
    first_round: int = 1
    latest_start: int | None = None
    start_field: str | None = None
    poisons_data: bool | None = None
    uses_model: bool = False
    uses_rounds: bool = False
    simulates: bool = False

    def __post_init__(self) -> None:
        given: Any = self.knowledge
        if isinstance(given, set | list | tuple) and all(isinstance(each, str) for each in given):
            given = frozenset(given)
        if not isinstance(given, frozenset) or not given <= _KNOWLEDGE:
            raise _unfit("knowledge", f"a set of {', '.join(sorted(_KNOWLEDGE))}", given)
        object.__setattr__(self, "knowledge", given)
        for name, least in (("min_colluders", 1), ("history", 0), ("first_round", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise _unfit(name, f"a whole number from {least} on", value)
        late = self.latest_start
        if late is not None and (type(late) is not int or late < 1):
            raise _unfit("latest_start", "a whole number from 1 on, or None", late)
        for name in ("uses_honest_updates", "uses_model", "uses_rounds", "simulates"):
            if type(getattr(self, name)) is not bool:
                raise _unfit(name, "true or false", getattr(self, name))
        if self.poisons_data is not None and type(self.poisons_data) is not bool:
            raise _unfit("poisons_data", "true, false or None", self.poisons_data)
        if not isinstance(self.start_field, str | None):
            raise _unfit("start_field", "the name of a field or None", self.start_field)


def _unfit(name: str, wanted: str, given: object) -> ValueError:
    if isinstance(given, set | frozenset | list | tuple):
        given = ", ".join(map(str, given))
    return ValueError(
        f"{name} of the requirements of an attack must be {wanted}; it is {told(given)}"
    )


class Attack(Protocol):
    """Turns what the malicious clients see into the updates that they send.

    An attack may also have the methods ``poison`` (:class:`~fedrobust.clients.poisoning.Poisons`),
    ``report(state, truth)`` and ``pictures(state, truth)``. The mapping of ``report`` goes into the
    run's summary, and its ``troubles`` are added to the run's. The arrays of ``pictures`` go into
    attack.npz. A user's own object only needs ``craft``.
    """

    @property
    def requires(self) -> Requirements:
        """What it requires of a federation, and when it acts."""
        ...

    def init(self) -> Any:
        """Return its state before the first round: tensors, numbers, and containers of these."""
        ...

    def craft(self, state: Any, view: View, rng: torch.Generator) -> tuple[Updates, Any]:
        """Return the malicious updates [m, d] of a round, m = ``view.rows``, and its next state."""
        ...


ATTACK = Kind(
    "attack",
    has=("craft",),
    calls={
        "craft": "state, view, rng",
        "init": "",
        "poison": "x, y, classes",
        "report": "state, truth",
        "pictures": "state, truth",
    },
)
AnyAttack: TypeAlias = Annotated[Attack, ATTACK]


@dataclass(frozen=True)
class Truth:
    """What a run knows of the data at its end.

    ``own`` are the examples of the attacker's clients, ``others`` those of the clients whose data
    it does not have.
    """

    others: Split
    own: Split
    classes: int


def requirements(attack: object) -> Requirements:
    """Return the requirements of ``attack``; the defaults for an object that declares none.

    Raises: ``ConfigError`` where ``requires`` is not a :class:`Requirements`, or where an optional
    method is something else.
    """
    for name in ("init", "report", "pictures"):
        _method(attack, name)
    found = getattr(attack, "requires", None)
    if found is None:
        if old := [name for name in _FORMER if hasattr(attack, name)]:
            raise ConfigError(
                f"the attack {name_of(type(attack))} has {' and '.join(old)}: declare requires = "
                "fedrobust.attacks.Requirements(...) instead"
            )
        return Requirements()
    if not isinstance(found, Requirements):
        raise ConfigError(
            f"requires of the attack {name_of(type(attack))} must be a "
            f"fedrobust.attacks.Requirements; it is {told(found)}"
        )
    return found


def poisons(attack: object) -> bool:
    """Whether ``attack`` changes data: it has the method, and does not declare otherwise.

    A wrapper always has the method, and declares whether its inner attack uses it.
    """
    return isinstance(attack, Poisons) and requirements(attack).poisons_data is not False


def initial_state(attack: object) -> Any:
    """Return the state of ``attack`` before the first round: None where it has no ``init``."""
    init = _method(attack, "init")
    return None if init is None else init()


def account(
    attack: object, what: Literal["report", "pictures"], state: Any, truth: Truth
) -> dict[str, Any] | None:
    """Return the report or the pictures of ``attack`` at the end of a run; None without any."""
    method = _method(attack, what)
    found: dict[str, Any] | None = None if method is None else method(state, truth)
    return found


def _method(attack: object, name: str) -> Callable[..., Any] | None:
    """Return an optional method of an attack. Raises: ``ConfigError`` where it is not a method."""
    found = getattr(attack, name, None)
    if found is not None and not callable(found):
        raise ConfigError(
            f"{name} of the attack {name_of(type(attack))} must be a method; it is {told(found)}"
        )
    return found
