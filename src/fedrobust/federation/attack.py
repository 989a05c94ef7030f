"""What an attack is: what it requires, what it does in a round, what it says at the end."""

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


@dataclass(frozen=True)
class Requirements:
    """What an attack requires of a federation, and when it acts.

    ``knowledge`` is what the threat model must grant; a run whose threat model does not is refused.
    ``min_colluders`` is the number of malicious clients that the attack needs to estimate what it
    is not granted. With ``uses_honest_updates`` the malicious clients train; without it they do
    not, and ``view.own`` has no rows, [0, d]. ``history`` is the number of earlier broadcast
    parameter vectors in ``view.history``. ``first_round`` is the first round in which the attack
    can act. ``start_field`` names the field of the attack that delays it, where it has one.
    ``poisons_data`` says whether the attack changes the data of malicious clients; None means that
    it does where it has a method ``poison``.

    Raises: ``ValueError`` for a field of another kind.
    """

    knowledge: Set[Knowledge] = frozenset()
    min_colluders: int = 1
    uses_honest_updates: bool = True
    history: int = 0
    first_round: int = 1
    start_field: str | None = None
    poisons_data: bool | None = None

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
        if type(self.uses_honest_updates) is not bool:
            raise _unfit("uses_honest_updates", "true or false", self.uses_honest_updates)
        if self.poisons_data not in (None, True, False):
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

    It may also have the methods ``poison`` (:class:`~fedrobust.clients.poisoning.Poisons`),
    ``report(state, truth)``, whose mapping goes into the run's summary, its ``troubles`` among the
    run's, and ``pictures(state, truth)``, whose arrays go into attack.npz. Only ``craft`` is
    required of a user's own object.
    """

    @property
    def requires(self) -> Requirements:
        """What it requires of a federation, and when it acts."""
        ...

    def init(self) -> Any:
        """Its state before the first round: tensors, numbers, and containers of these."""
        ...

    def craft(self, state: Any, view: View, rng: torch.Generator) -> tuple[Updates, Any]:
        """The malicious updates [m, d] of a round, m = ``view.rows``, and its next state."""
        ...


ATTACK = Kind("attack", has=("craft",))
AnyAttack: TypeAlias = Annotated[Attack, ATTACK]


@dataclass(frozen=True)
class Truth:
    """What a run knows of the data when it ends, and its attacker does not; it knows ``own``."""

    train: Split
    own: Split
    classes: int


def requirements(attack: object) -> Requirements:
    """The requirements of ``attack``; the defaults for a user's object that declares none.

    Raises: ``ConfigError`` for a ``requires`` that is no :class:`Requirements`.
    """
    found = getattr(attack, "requires", None)
    if found is None:
        return Requirements()
    if not isinstance(found, Requirements):
        raise ConfigError(
            f"requires of the attack {name_of(type(attack))} must be a "
            f"fedrobust.attacks.Requirements; it is {told(found)}"
        )
    return found


def poisons(attack: object) -> bool:
    """Whether ``attack`` changes data: it has the method, and does not declare that it does not.

    A wrapper has the method for whatever it holds, and declares whether that makes use of it.
    """
    return isinstance(attack, Poisons) and requirements(attack).poisons_data is not False


def initial_state(attack: object) -> Any:
    """The state of ``attack`` before the first round: None where it has no ``init``."""
    init = _method(attack, "init")
    return None if init is None else init()


def account(
    attack: object, what: Literal["report", "pictures"], state: Any, truth: Truth
) -> dict[str, Any] | None:
    """What ``attack`` says, or shows, of itself at the end of a run; None where it does not."""
    method = _method(attack, what)
    found: dict[str, Any] | None = None if method is None else method(state, truth)
    return found


def _method(attack: object, name: str) -> Callable[..., Any] | None:
    """An optional method of an attack. Raises: ``ConfigError`` where it is something else."""
    found = getattr(attack, name, None)
    if found is not None and not callable(found):
        raise ConfigError(
            f"{name} of the attack {name_of(type(attack))} must be a method; it is {told(found)}"
        )
    return found
