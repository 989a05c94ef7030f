"""The pictures that a run or its attack leaves, with their labels, checked before shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrobust.records.reading import arrays_of, broken

NO_ANSWER = -1
"""The answer of a model whose logits are NaN."""
_LARGEST = 4096
"""The longest side of a picture, and the largest number of pictures, that a page shows."""
_MOST = 2**25
"""The largest count of numbers in all pictures of a page."""
_LABELS = 2**31
"""A number of classes that no data set has."""


@dataclass(frozen=True)
class Examples:
    """Pictures ``[b, c, h, w]`` in [0, 1], their labels, and the model's answers."""

    clean: NDArray[np.float32]
    adversarial: NDArray[np.float32]
    labels: NDArray[np.int64]
    clean_answers: NDArray[np.int64]
    adversarial_answers: NDArray[np.int64]


def examples_of(path: Path) -> Examples:
    """Return the examples of a run. Raises: ``RecordError``."""
    found = Examples(**arrays_of(path, *Examples.__dataclass_fields__))
    answers = (found.clean_answers, found.adversarial_answers)
    require_pictures(path, (found.clean, found.adversarial), (found.labels,), answers)
    return found


def answer_text(answer: int) -> str:
    """Return an answer as a page shows it."""
    return "none" if answer == NO_ANSWER else str(answer)


def require_pictures(
    path: Path,
    pictures: Sequence[NDArray[Any]],
    labels: Sequence[NDArray[Any]],
    answers: Sequence[NDArray[Any]] = (),
) -> None:
    """Check that arrays are [b, c, h, w] each, with labels and answers [b] each.

    Raises: ``RecordError``.
    """
    shape = pictures[0].shape
    if (
        len(shape) != 4
        or not all(0 < length <= _LARGEST for length in shape)
        or any(found.shape != shape or found.dtype.kind != "f" for found in pictures)
        or any(a.shape != shape[:1] or a.dtype.kind not in "iu" for a in (*labels, *answers))
    ):
        raise broken(path, "its arrays do not fit together")
    if pictures[0].size > _MOST:
        raise broken(path, f"its pictures are {list(shape)}, more than a page can show")
    for least, arrays in ((0, labels), (NO_ANSWER, answers)):
        if any(int(found.min()) < least or int(found.max()) >= _LABELS for found in arrays):
            raise broken(path, f"it has labels outside 0 to {_LABELS - 1:,}")
