"""What happened in a round."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedrobust.federation.server import Outcome


@dataclass(frozen=True)
class RoundLog:
    """What happened in a round. The client ids are computed only when they are read."""

    round: int
    participants: tuple[int, ...]
    malicious: tuple[int, ...]
    outcome: Outcome
    refused: Mapping[int, str] = field(default_factory=dict)
    """Why what a client sent is no row, by client: its shape, or what a backend said of it. These
    clients are ``dropped`` too."""
    acted: bool | None = None
    """Whether what any malicious client sent differs from its honest update, also where the server
    then drops it. None where no attack crafts rows, where malicious clients do not train, and where
    the attack changes their data."""

    @property
    def kept(self) -> tuple[int, ...] | None:
        """The clients whose rows the rule selected; None for a rule that does not select."""
        if self.outcome.kept is None:
            return None
        return tuple(self.participants[i] for i in self.outcome.kept.tolist())

    @property
    def dropped(self) -> tuple[int, ...]:
        """The clients whose rows the server refused."""
        return tuple(self.participants[i] for i in self.outcome.dropped)

    @property
    def reasons(self) -> dict[int, str]:
        """Why the server refused each of the ``dropped`` rows, by client."""
        return {each: self.refused.get(each, "its row is not finite") for each in self.dropped}
