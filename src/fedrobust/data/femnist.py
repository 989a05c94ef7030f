"""FE-MNIST: 62 classes of handwriting, by writer (LEAF, Caldas et al. 2018; NIST SD 19).

Labels are LEAF's: 0-9, A-Z (10 to 35), a-z (36 to 61). Images are dark on white: the background is
255.
"""

import importlib.util
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from fedrobust.compute.randomness import Streams
from fedrobust.config.component import component
from fedrobust.config.scalars import Size
from fedrobust.config.text import shortened
from fedrobust.data import checks, formats, parquet
from fedrobust.data.dataset import Dataset
from fedrobust.data.sources import Found, ensure, find
from fedrobust.data.split import Split
from fedrobust.errors import DataError
from fedrobust.records.bounded import named, why

_CLASSES = 62
_SPLIT_NOTE = "the source has no test split: 90 % of each writer's images train, by a fixed seed"


@component
class Femnist:
    """FE-MNIST with writer ids, from an .npz, LEAF's json folders, or the Hugging Face parquet.

    Loads x uint8 [N, 1, 28, 28]; ``user`` numbers the writers, and ``user_names`` are LEAF's ids.
    Where the source has no test split, each writer's images are split 90 to 10.

    Raises: ``DataError`` where it is missing or corrupt.

    Reference: Caldas et al., "LEAF: A Benchmark for Federated Settings", 2018.
    """

    validation: Size = 5000
    name: Literal["femnist"] = "femnist"

    def load(self) -> Dataset:
        """Read the data set; download the parquet file first where no form of it is found."""
        found = find(self.name)
        if found is None or found.form == "parquet":
            _need_pyarrow()
        found = found or ensure(self.name)
        if found.form == "npz":
            train, test, names, notes = _npz(found)
        elif found.form == "parquet":
            whole, names = parquet.joined(found)
            train, test, notes = *_by_writer(whole), [_SPLIT_NOTE]
        else:
            train, test, names, notes = _leaf(found)
        _check_labels(found, train, test)
        notes = [*_facts(train, test, len(names)), *notes, *found.notes]
        return Dataset(
            self.name, train, test, _CLASSES, self.validation, tuple(notes), tuple(names)
        )


_Parts = tuple[Split, Split, list[str], list[str]]


def _npz(found: Found) -> _Parts:
    what, content = found.only()
    arrays = formats.npz(content, what)
    names = _names(formats.required(arrays, ["users"], what)[0], what)
    splits = []
    for part in ("train", "test"):
        keys = [f"{key}_{part}" for key in ("x", "y", "user")]
        x, y, user = formats.required(arrays, keys, what)
        if x.dtype != np.uint8 or x.shape[1:] != (28, 28) or len(x) == 0:
            raise DataError(
                f"{what}: x_{part} must be uint8 [N, 28, 28]; it is {x.dtype} {x.shape}"
            )
        labels = checks.labels(f"{what}: y_{part}", y, len(x))
        users = checks.users(f"{what}: user_{part}", user, len(x))
        if int(users.max()) >= len(names):
            raise DataError(f"{what}: user_{part} is beyond the {len(names)} names in users")
        splits.append(Split(torch.from_numpy(x[:, None]), labels, users))
    return splits[0], splits[1], names, []


def _names(users: NDArray[Any], what: str) -> list[str]:
    try:
        names = [str(name) for name in users]
        "".join(names).encode()
    except (TypeError, ValueError, SystemError) as error:  # the last for invalid characters
        raise DataError(f"{what}: users are not names: {why(error)}") from error
    if users.ndim != 1 or users.dtype.kind not in "US" or len(set(names)) < len(names):
        raise DataError(f"{what}: users must be different names [N]")
    return names


def _leaf(found: Found) -> _Parts:
    rows = {"train": list[_Rows](), "test": list[_Rows]()}
    for path, content in zip(found.paths, found.contents(), strict=True):
        part = "test" if found.form == "leaf-split" and path.parent.name == "test" else "train"
        more = formats.leaf(content, named(path))
        if twice := {user for user, _, _ in rows[part]} & {user for user, _, _ in more}:
            raise DataError(
                f"{named(path)} holds the user {shortened(min(twice))}, and so does another file "
                "beside it: remove one"
            )
        rows[part] += more
    names = sorted({user for part in rows.values() for user, _, _ in part})
    ids = {name: number for number, name in enumerate(names)}
    train = _joined(rows["train"], ids, found)
    if found.form == "leaf-split":
        return train, _joined(rows["test"], ids, found), names, []
    return *_by_writer(train), names, [_SPLIT_NOTE]


_Rows = tuple[str, NDArray[Any], NDArray[Any]]


def _joined(rows: list[_Rows], ids: dict[str, int], found: Found) -> Split:
    if not any(len(y) for _, _, y in rows):
        raise DataError(f"{found.root}: its LEAF files hold no image of one of the splits")
    x, y = (torch.from_numpy(np.concatenate([row[i] for row in rows])) for i in (1, 2))
    users = torch.tensor([ids[user] for user, _, _ in rows])
    return Split(x, y, users.repeat_interleave(torch.tensor([len(y) for _, _, y in rows])))


def _need_pyarrow() -> None:
    if importlib.util.find_spec("pyarrow") is None:
        raise DataError(
            "FE-MNIST's parquet file is read with pyarrow, which is not installed: "
            "pip install 'fedrobust[femnist]', or put LEAF's train and test folders into a folder "
            "femnist/ in a folder that FEDROBUST_DATA names"
        )


def _by_writer(whole: Split) -> tuple[Split, Split]:
    """Split each writer's n images at random: max(1, ⌊0.9 n⌋) train, as in LEAF's own script."""
    assert whole.user is not None
    order = torch.randperm(len(whole), generator=Streams(0).generator("femnist-split"))
    order = order[torch.argsort(whole.user[order], stable=True)]
    counts = torch.bincount(whole.user)
    starts = (counts.cumsum(0) - counts)[whole.user[order]]
    rank = torch.arange(len(order)) - starts
    in_train = rank < (9 * counts // 10).clamp(min=1)[whole.user[order]]
    train, test = order[in_train].sort().values, order[~in_train].sort().values
    return whole.take(train), whole.take(test)


def _check_labels(found: Found, train: Split, test: Split) -> None:
    for split in (train, test):
        if len(split) and not 0 <= int(split.y.min()) <= int(split.y.max()) < _CLASSES:
            where = found.root if len(found.paths) > 1 else found.paths[0]
            raise DataError(f"{named(where)}: a label is outside 0 to {_CLASSES - 1}")


def _facts(train: Split, test: Split, writers: int) -> list[str]:
    assert train.user is not None
    assert test.user is not None
    digits = float((train.y < 10).double().mean())
    notes = [
        f"{writers:,} writers (LEAF has over 3,500), {len(train):,} training and {len(test):,} "
        f"test images; {digits:.0%} of the training images are digits"
    ]
    for part, split in (("training", train), ("test", test)):
        without = writers - len(torch.unique(split.user))
        if without:
            notes.append(f"{without:,} of {writers:,} writers have no {part} image")
    return notes
