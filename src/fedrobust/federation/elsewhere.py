"""What is kept of a client, while it lies in the object store of a cluster."""

from collections.abc import Mapping
from typing import Any, NoReturn

from fedrobust.errors import ResourceError


class Elsewhere(dict[str, Any]):
    """Stands in ``state.store`` for what is kept of a client and lies elsewhere.

    Whoever reads it is told to fetch it: an empty state would be a new optimiser.
    """

    def __init__(self, ref: Any) -> None:
        """``ref`` refers to what is kept, as it was sent."""
        super().__init__()
        self.ref = ref

    def __deepcopy__(self, memo: object) -> "Elsewhere":
        """Return it as it is: what lies in the object store never changes."""
        return self

    def _refused(self, *_: object, **__: object) -> NoReturn:
        raise ResourceError(
            "what is kept of this client lies in the object store of a cluster: call "
            "backend.settle(state) before the connection ends, and before another backend goes on"
        )

    __getitem__ = __setitem__ = __delitem__ = __iter__ = __len__ = _refused
    __contains__ = __eq__ = __reduce_ex__ = _refused
    get = keys = values = items = pop = copy = update = setdefault = _refused


def here(store: Mapping[int, Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    """Return what is kept of those clients of which it is not elsewhere."""
    return {client: kept for client, kept in store.items() if not isinstance(kept, Elsewhere)}
