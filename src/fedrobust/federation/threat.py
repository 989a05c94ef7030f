"""What the adversary knows: declared in a :class:`ThreatModel`, enforced by a :class:`View`."""

import math
from collections.abc import Callable, Iterable, Sequence, Set
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from pydantic import model_validator
from torch import Tensor, nn

from fedrobust.clients.client import Client
from fedrobust.compute.parameters import read, write
from fedrobust.config.arguments import real, told, unfit, whole
from fedrobust.config.component import component
from fedrobust.config.kind import name_of
from fedrobust.config.scalars import Count, Flag, Size
from fedrobust.data import Split
from fedrobust.federation.projection import NoProjection, Projection
from fedrobust.federation.server_optimizer import Plain, ServerOptimizer, Slots
from fedrobust.objectives import ERM, Objective
from fedrobust.progress import ALONE, Host
from fedrobust.typing import Updates, Vector

Knowledge: TypeAlias = Literal["colluders", "benign", "rule", "clients"]
"""What a threat model can grant beyond what any client has."""

_WORDS: dict[Knowledge, str] = {
    "colluders": "the colluders' honest updates",
    "benign": "benign updates",
    "rule": "the rule",
    "clients": "the number of clients",
}


_PLAIN = Plain()


@component
class ThreatModel:
    """What malicious clients know beyond what any client knows.

    Any client has the broadcast parameters, the model, the objective, how clients train, the
    server's learning rate and Θ, its own data and its own honest update. The fields grant more.
    ``colluders``: malicious clients see each other's honest updates and act as one. ``benign``: the
    updates of the benign clients of the round. ``rule``: the server's aggregation rule, as a
    function, and the state of its optimiser. ``clients``: how many clients take part, or, as a
    number, only a lower bound on it. ``data``: the training examples of this many benign clients.
    With ``classes``, malicious clients have only examples of these classes, repeated until their
    number is the same as before.
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
        """Whether ``what`` is granted; whoever sees all benign updates can count the clients."""
        return getattr(self, what) is not False or (what == "clients" and self.benign)

    def lacks(self, needs: Set[Knowledge]) -> tuple[Knowledge, ...]:
        """Return which of ``needs`` are not granted."""
        return tuple(what for what in _WORDS if what in needs and not self.knows(what))

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


def in_words(needs: Iterable[Knowledge], between: str = " and ") -> str:
    """Return ``needs`` in words."""
    return between.join(_WORDS[what] for what in needs)


def not_granted(attack: object, what: Knowledge) -> ValueError:
    """Return the error of an attack whose view does not contain ``what``."""
    name = name_of(type(attack))
    return ValueError(f"attack {name} needs {_WORDS[what]}, which its view does not contain")


@dataclass(frozen=True)
class View:
    """Everything that the adversary may see in one round, and nothing else.

    ``rows`` is m, the number of malicious clients that act together, and so the number of updates
    that they send. ``own`` are their honest updates [m, d]. ``data()`` gives the examples of each,
    and ``others()`` those of each benign client whose data are known. ``model()`` gives a copy of
    the broadcast model. ``client`` says how every client trains; ``projection`` is Θ, and
    ``server_optimizer`` makes the server's step of what was aggregated. ``benign`` [b, d] are the
    rows of the clients ``benign_clients``. ``rule`` is the server's rule as it stands in this
    round, with its memory and root update; it refuses invalid rows as the rule itself does.
    ``server_slots`` is then the state of the server's optimiser. ``clients`` is the number of
    clients in this round, or, unless ``clients_exactly``, a lower bound on it. What the threat
    model does not grant is None. An attack that does not train gets ``own`` without rows, [0, d].
    ``rounds`` is T, the number of rounds that the server has announced; None where it has not.
    ``host`` is what the run lends the attack. The files in its folder are not part of the view, but
    nothing keeps a user's own code from reading files.

    Raises: ``ValueError`` that names the field, where it is of the wrong kind or does not fit the
    others. Numbers need not be finite: a client's training may blow up.
    """

    round: int
    parameters: Vector
    history: tuple[Vector, ...]
    model: Callable[[], nn.Module]
    objective: Objective
    client: Client
    classes: int
    server_lr: float
    projection: Projection
    rows: int
    data: Callable[[], tuple[Split, ...]]
    own: Updates
    benign: Updates | None = None
    benign_clients: tuple[int, ...] | None = None
    rule: Callable[[Updates], Vector] | None = None
    server_slots: Slots | None = None
    clients: int | None = None
    clients_exactly: bool = True
    others: Callable[[], tuple[Split, ...]] = tuple
    host: Host = ALONE
    server_optimizer: ServerOptimizer = _PLAIN
    rounds: int | None = None
    assumed: Vector | None = None
    """The zeros that :meth:`of` takes for ``parameters`` where it is told no values."""

    @classmethod
    def of(
        cls,
        own: Updates,
        *,
        parameters: Vector | None = None,
        model: nn.Module | None = None,
        data: Sequence[Split] | None = None,
        objective: Objective | None = None,
        client: Client | None = None,
        classes: int = 1,
        server_lr: float = 1.0,
        projection: Projection | None = None,
        server_optimizer: ServerOptimizer | None = None,
        round: int = 1,
        history: tuple[Vector, ...] = (),
        **granted: Any,
    ) -> "View":
        """Return the view of clients with the honest updates ``own`` [m, d], outside of a run.

        ``parameters`` are those of ``model`` if left out, or zeros without one. ``granted`` are
        what a threat model would grant, by the names of the fields. An attack that asks for a model
        or for data that were not given is told so, as is one that works on the parameters' values.

        Raises: ``ValueError`` that names the field which does not fit.
        """
        own = _floats("own", own, 2)
        assumed = parameters is None and model is None
        if parameters is None:
            parameters = own.new_zeros(own.shape[1]) if model is None else read(model)

        def network() -> nn.Module:
            if model is None:
                raise ValueError("this attack trains: pass model=, the clients' network")
            copy = deepcopy(model)
            write(copy, parameters)
            return copy

        def examples() -> tuple[Split, ...]:
            if data is None:
                raise ValueError("this attack trains: pass data=, a Split of examples for each")
            return tuple(data)

        return cls(
            round=round,
            parameters=parameters,
            history=history,
            model=network,
            objective=objective or ERM(),
            client=client or Client(batches=1),
            classes=classes,
            server_lr=server_lr,
            projection=projection or NoProjection(),
            server_optimizer=server_optimizer or Plain(),
            rows=len(own),
            data=examples,
            own=own,
            assumed=parameters if assumed else None,
            **granted,
        )

    def __post_init__(self) -> None:
        # A view is made in each simulated round, so all these checks must take only microseconds.
        _floats("parameters", self.parameters, 1)
        size = self.parameters.shape[0]
        if size == 0:
            raise ValueError("the view's parameters are empty: d = 0")
        _whole("rows", self.rows, 1)
        own = _floats("own", self.own, 2).shape
        if own[1] != size or own[0] not in (0, self.rows):
            raise ValueError(
                f"the view's own updates must be [{self.rows}, {size}], or [0, {size}] without "
                f"any; got {list(own)}"
            )
        self._check_the_rest(size)
        if self.benign is not None:
            self._check_benign(self.benign, size)

    def _check_the_rest(self, size: int) -> None:
        _whole("round", self.round, 1)
        _whole("classes", self.classes, 1)
        if self.clients is not None:
            _whole("clients", self.clients, 1)
        if self.rounds is not None:
            _whole("rounds", self.rounds, 1)
        if type(value := self.clients_exactly) is not bool:
            raise ValueError(f"the view's clients_exactly must be true or false; got {told(value)}")
        if type(self.server_lr) is not float or not 0 < self.server_lr < math.inf:
            real("the view's server_lr", self.server_lr, above=0)
        slots = () if self.server_slots is None else self.server_slots
        for name, vectors in (("history", self.history), ("server_slots", slots)):
            if type(vectors) is not tuple:
                raise ValueError(f"the view's {name} must be a tuple; got {told(vectors)}")
            for vector in vectors:
                if _floats(name, vector, 1).shape[0] != size:
                    given = list(vector.shape)
                    raise ValueError(f"the view's {name} must hold vectors [{size}]; got {given}")
        for name in _CALLABLE:
            if not callable(getattr(self, name)):
                raise ValueError(
                    f"the view's {name} must be a function; got {told(getattr(self, name))}"
                )
        if self.rule is not None and not callable(self.rule):
            raise ValueError(f"the view's rule must be a function or None; got {told(self.rule)}")
        if not isinstance(self.host, Host):
            raise ValueError(f"the view's host must be a Host; got {told(self.host)}")
        if not hasattr(self.projection, "project"):
            raise ValueError(
                f"the view's projection must have a method project; got {told(self.projection)}"
            )

    def _check_benign(self, benign: Updates, size: int) -> None:
        rows = _floats("benign", benign, 2).shape
        if rows[1] != size:
            raise ValueError(f"the view's benign rows must be [b, {size}]; got {list(rows)}")
        names = self.benign_clients
        if names is not None and (not isinstance(names, tuple) or len(names) != rows[0]):
            given = f"{len(names)} of them" if isinstance(names, tuple) else told(names)
            raise ValueError(
                f"the view's benign_clients must be a tuple that names the client of each of the "
                f"{rows[0]} benign rows; got {given}"
            )


_CALLABLE = ("model", "data", "others")
_FLOATS = frozenset({torch.float32, torch.float64, torch.float16, torch.bfloat16})


def _whole(name: str, value: object, least: int) -> None:
    if type(value) is not int or value < least:
        whole(f"the view's {name}", value, least)


def _floats(name: str, value: object, dimensions: int) -> Tensor:
    """Return ``value``. Raises: ``ValueError`` where it is no dense tensor of ``dimensions``."""
    if not isinstance(value, Tensor):
        raise ValueError(f"the view's {name} must be a tensor; got {told(value)}")
    if why := unfit(value):
        raise ValueError(
            f"the view's {name} must be a dense tensor of plain numbers; this one is {why}"
        )
    if value.dtype not in _FLOATS:
        raise ValueError(f"the view's {name} must be floating point; got {value.dtype}")
    if value.ndim != dimensions:
        wanted = "[d]" if dimensions == 1 else "[rows, d]"
        raise ValueError(f"the view's {name} must be {wanted}; got shape {list(value.shape)}")
    return value
