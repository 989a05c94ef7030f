"""What the adversary knows: declared in a :class:`ThreatModel`, enforced by a :class:`View`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import model_validator
from torch import nn

from fedrobust.component import Count, Flag, Size, component, name_of
from fedrobust.data import Split
from fedrobust.typing import Updates, Vector

if TYPE_CHECKING:
    from fedrobust.client import Client
    from fedrobust.objectives import Objective
    from fedrobust.projection import Projection

Knowledge: TypeAlias = Literal["colluders", "benign", "rule", "clients"]
"""What a threat model can grant beyond what any client has."""

_WORDS: dict[Knowledge, str] = {
    "colluders": "the colluders' honest updates",
    "benign": "benign updates",
    "rule": "the rule",
    "clients": "the number of clients",
}


@component
class ThreatModel:
    """What malicious clients know beyond what any client knows.

    Any client has the broadcast parameters, the model, the objective, how clients train, the
    server's learning rate and Θ, its own data and its own honest update. ``colluders``: malicious
    clients see each other's honest updates and act as one; ``benign``: the updates of the benign
    clients of the round; ``rule``: the server's aggregation rule, as a function; ``clients``: how
    many clients take part, or, as a number, only a lower bound on it; ``data``: the training
    examples of so many benign clients. With ``classes``, malicious clients have examples of these
    classes only, repeated until they are as many as they would have been.
    """

    colluders: Flag = True
    benign: Flag = False
    rule: Flag = False
    clients: Flag | Count = False
    data: Size = 0
    classes: tuple[Size, ...] | None = None

    @model_validator(mode="after")
    def _some_class(self) -> "ThreatModel":
        if self.classes is not None and len(set(self.classes)) != max(1, len(self.classes)):
            raise ValueError(f"classes must be one or more, each once; got {list(self.classes)}")
        return self

    def knows(self, what: Knowledge) -> bool:
        """Whether ``what`` is granted. Who sees all benign updates can count the clients."""
        return getattr(self, what) is not False or (what == "clients" and self.benign)

    def lacks(self, needs: frozenset[Knowledge]) -> tuple[str, ...]:
        """What of ``needs`` is not granted, in words."""
        return tuple(_WORDS[what] for what in _WORDS if what in needs and not self.knows(what))

    def __str__(self) -> str:
        words = dict(_WORDS)
        if type(self.clients) is int:
            words["clients"] = f"that there are at least {self.clients} clients"
        of = "" if self.classes is None else f" of classes {', '.join(map(str, self.classes))} only"
        known = [f"own data{of}", *(text for what, text in words.items() if self.knows(what))]
        if self.data:
            known.append(f"the data of {self.data} benign clients")
        hidden = [text for what, text in words.items() if not self.knows(what)]
        tail = f"; does not know: {', '.join(hidden)}" if hidden else ""
        return f"knows: {', '.join(known)}{tail}"


def not_granted(attack: object, what: Knowledge) -> ValueError:
    """The refusal of an attack whose view does not hold ``what``."""
    name = name_of(type(attack))
    return ValueError(f"attack {name} needs {_WORDS[what]}, which its view does not hold")


@dataclass(frozen=True)
class View:
    """Everything that the adversary may see in one round, and nothing else.

    ``rows`` is m, how many malicious clients act together and so how many updates they send;
    ``own`` are their honest updates [m, d]; ``data()`` are the examples of each, ``others()`` those
    of each benign client whose data are known; ``model()`` is a copy of the broadcast model;
    ``client`` is how every client trains, ``projection`` Θ. ``benign`` [b, d] are the rows of the
    clients ``benign_clients``; ``rule`` is the server's rule as it stands in this round, with its
    memory and root update, and refuses unfit rows as the rule itself does. ``clients`` is their
    number in this round, or, unless ``clients_exactly``, a lower bound on it. What the threat model
    does not grant is None.
    """

    round: int
    parameters: Vector
    history: tuple[Vector, ...]
    model: Callable[[], nn.Module]
    objective: "Objective"
    client: "Client"
    classes: int
    server_lr: float
    projection: "Projection"
    rows: int
    data: Callable[[], tuple[Split, ...]]
    own: Updates
    benign: Updates | None = None
    benign_clients: tuple[int, ...] | None = None
    rule: Callable[[Updates], Vector] | None = None
    clients: int | None = None
    clients_exactly: bool = True
    others: Callable[[], tuple[Split, ...]] = tuple
