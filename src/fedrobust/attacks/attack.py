"""What an attack is."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, get_args, runtime_checkable

import torch

from fedrobust.config.arguments import told
from fedrobust.config.component import name_of
from fedrobust.data import Split
from fedrobust.errors import ConfigError
from fedrobust.federation.threat import Knowledge, View
from fedrobust.typing import Images, Labels, Updates

_KNOWLEDGE: frozenset[str] = frozenset(get_args(Knowledge))


class Attack(Protocol):
    """Turns what the malicious clients see into the updates that they send.

    ``needs`` is the knowledge without which it cannot work; a run whose threat model does not grant
    it is refused. ``least`` is how many malicious clients it takes to estimate what the threat
    model does not grant. ``trains`` says whether it uses the malicious clients' honest updates;
    where it does not, they are not computed and ``view.own`` is empty [0, d]. ``memory`` is how
    many earlier broadcast parameter vectors it wants in ``view.history``. It may say in
    ``begins`` which is the first round in which it can act, where that is not round 1. It may have
    a method ``report(state, truth)``, whose mapping goes into the run's summary, its ``troubles``
    among the run's, and ``pictures(state, truth)``, whose arrays go into attack.npz.
    """

    @property
    def needs(self) -> frozenset[Knowledge]:
        """The knowledge it cannot do without."""
        ...

    @property
    def least(self) -> int:
        """How many honest updates of malicious clients it needs without benign ones."""
        ...

    @property
    def trains(self) -> bool:
        """Whether it uses honest updates."""
        ...

    @property
    def memory(self) -> int:
        """The length of the history it wants."""
        ...

    def init(self) -> Any:
        """Its state before the first round: tensors, numbers, and containers of these."""
        ...

    def craft(self, state: Any, view: View, rng: torch.Generator) -> tuple[Updates, Any]:
        """The malicious updates [m, d] of a round, m = ``view.rows``, and its next state."""
        ...


@runtime_checkable
class Poisons(Protocol):
    """An attack that also changes the data on which malicious clients train."""

    def poison(self, x: Images, y: Labels, classes: int) -> tuple[Images, Labels]:
        """The batch that a malicious client trains on instead of (x, y)."""
        ...


def poisons(attack: object) -> bool:
    """Whether ``attack`` changes data: it has the method, and does not say ``poisons = False``.

    A wrapper has the method for whatever it holds, and says whether that makes use of it.
    """
    return isinstance(attack, Poisons) and bool(getattr(attack, "poisons", True))


@dataclass(frozen=True)
class Truth:
    """What a run knows of the data when it ends, and its attacker does not; it knows ``own``."""

    train: Split
    own: Split
    classes: int


@dataclass(frozen=True)
class Traits:
    """What an attack says of itself, with what is assumed of a user's object that says nothing."""

    needs: frozenset[Knowledge]
    least: int
    trains: bool
    memory: int
    begins: int
    init: Callable[[], Any]
    report: Callable[[Any, Truth], dict[str, Any] | None]
    pictures: Callable[[Any, Truth], dict[str, Any] | None]


def traits(attack: Attack) -> Traits:
    """The traits of ``attack``. Only ``craft`` is required of a user's own object.

    Its ``begins`` may be None, or a method, which then is about something else.

    Raises: ``ConfigError`` that names a trait which is none, and says what it can be.
    """
    begins = getattr(attack, "begins", 1)
    found = Traits(
        needs=getattr(attack, "needs", frozenset()),
        least=getattr(attack, "least", 1),
        trains=getattr(attack, "trains", True),
        memory=getattr(attack, "memory", 0),
        begins=1 if begins is None or callable(begins) else begins,
        init=getattr(attack, "init", lambda: None),
        report=getattr(attack, "report", lambda state, truth: None),
        pictures=getattr(attack, "pictures", lambda state, truth: None),
    )
    needs: Any = found.needs
    if isinstance(needs, set | list | tuple) and all(isinstance(what, str) for what in needs):
        needs = frozenset(needs)
    if not isinstance(needs, frozenset) or not needs <= _KNOWLEDGE:
        raise _no_trait(attack, "needs", f"a set of {', '.join(sorted(_KNOWLEDGE))}")
    for name, least in (("least", 1), ("memory", 0), ("begins", 1)):
        value = getattr(found, name)
        if type(value) is not int or value < least:
            raise _no_trait(attack, name, f"a whole number from {least} on")
    if type(found.trains) is not bool:
        raise _no_trait(attack, "trains", "true or false")
    for name in ("init", "report", "pictures"):
        if not callable(getattr(found, name)):
            raise _no_trait(attack, name, "a method")
    return found if needs is found.needs else replace(found, needs=needs)


def _no_trait(attack: Attack, name: str, wanted: str) -> ConfigError:
    given = getattr(attack, name)
    if isinstance(given, set | frozenset | list | tuple):
        given = ", ".join(map(str, given))
    return ConfigError(
        f"{name} of the attack {name_of(type(attack))} must be {wanted}; it is {told(given)}"
    )
