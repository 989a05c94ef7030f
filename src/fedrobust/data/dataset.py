"""A data set in memory: a training and a test split, and what a user must know about them."""

from dataclasses import dataclass, replace
from typing import Annotated, Protocol, TypeAlias

import torch
from torch import Tensor

from fedrobust.config import arguments
from fedrobust.config.kind import Kind
from fedrobust.config.scalars import Size
from fedrobust.data import checks
from fedrobust.data.checks import Array
from fedrobust.errors import DataError, UserError
from fedrobust.typing import Images, Indices, Labels


class DataSpec(Protocol):
    """Something that loads a data set: a component of :mod:`fedrobust.data`, or a Dataset."""

    @property
    def validation(self) -> int:
        """How many training examples a run holds out."""
        ...

    def load(self) -> "Dataset":
        """Read the data set. Raises: ``DataError`` where it is missing or corrupt."""
        ...


DATASET = Kind("data set", has=("load",), holds={"validation": Size})
AnyData: TypeAlias = Annotated[DataSpec, DATASET]


@dataclass(frozen=True, eq=False)
class Split:
    """Examples with labels, and with the user who made each where that is known.

    ``x`` is uint8 [N, c, h, w], kept as bytes because they take a quarter of the memory, or float32
    [N, ...]; ``y`` and ``user`` are int64 [N].
    """

    x: Tensor
    y: Labels
    user: Tensor | None = None

    def __len__(self) -> int:
        return len(self.y)

    def images(self, index: Indices) -> Images:
        """The examples at ``index`` as float32: bytes as pixels in [0, 1], floats as they are."""
        x = self.x[index]
        return x.float() / 255 if x.dtype == torch.uint8 else x

    def take(self, index: Indices) -> "Split":
        """The split of the examples at ``index``, in that order."""
        user = None if self.user is None else self.user[index]
        return Split(self.x[index], self.y[index], user)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A loaded data set. It has ``load`` and ``validation``, so it may stand where a spec stands.

    ``validation`` is how many training examples a run holds out, ``notes`` what a report must say
    about the data, and ``user_names[i]`` the name of user i.
    """

    name: str
    train: Split
    test: Split
    classes: int
    validation: int = 5000
    notes: tuple[str, ...] = ()
    user_names: tuple[str, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example, such as (1, 28, 28)."""
        return tuple(self.train.x.shape[1:])

    @classmethod
    def from_tensors(
        cls,
        x_train: Array,
        y_train: Array,
        x_test: Array,
        y_test: Array,
        *,
        user_train: Array | None = None,
        user_test: Array | None = None,
        validation: int = 5000,
        name: str = "own",
    ) -> "Dataset":
        """A data set from tensors or numpy arrays.

        Images are uint8 [N, c, h, w] or floats in [0, 1]; other data are floats [N, ...]. The
        classes are 0 to the largest label of the training split.

        Raises: ``DataError`` for anything that does not fit, with what to do about it.
        """
        if isinstance(validation, bool) or not isinstance(validation, int) or validation < 0:
            raise DataError(f"validation must be a whole number from 0 on; got {validation!r}")
        if (user_train is None) != (user_test is None):
            raise DataError("give user_train and user_test, or neither")
        train = _checked("train", x_train, y_train, user_train)
        test = _checked("test", x_test, y_test, user_test)
        if train.x.shape[1:] != test.x.shape[1:] or train.x.dtype != test.x.dtype:
            raise DataError(
                f"x_train and x_test differ: examples of shape {list(train.x.shape[1:])} "
                f"({train.x.dtype}) and {list(test.x.shape[1:])} ({test.x.dtype})"
            )
        classes = _classes(train.y, test.y)
        absent = sorted(set(range(classes)) - set(train.y.tolist()))
        notes = (f"no training example has label {', '.join(map(str, absent))}",) if absent else ()
        return cls(name, train, test, classes, validation, notes)

    def load(self) -> "Dataset":
        """The data set itself."""
        return self

    def checked(self) -> "Dataset":
        """The data set, fit for a run, whoever made it. Raises: ``DataError``."""
        if not isinstance(self.train, Split) or not isinstance(self.test, Split):
            raise DataError(f"{self.name}: train and test must each be a Split")
        train = _checked("train", self.train.x, self.train.y, self.train.user)
        test = _checked("test", self.test.x, self.test.y, self.test.user)
        most = int(torch.cat([train.y, test.y]).max())
        if type(self.classes) is not int or self.classes < 2 or most >= self.classes:
            raise DataError(
                f"{self.name} has labels up to {most}, and says that there are {self.classes} "
                "classes; labels are 0 to classes - 1, of two classes or more"
            )
        return replace(self, train=train, test=test)

    def hold_out(self, generator: torch.Generator) -> tuple[Split, Split]:
        """The training split without, and with only, ``validation`` random examples of it.

        Both keep the order of the training split.

        Raises: ``DataError`` where that would leave nothing to train on.
        """
        total = len(self.train)
        if self.validation >= total:
            raise DataError(
                f"{self.name} has {total:,} training examples, so {self.validation:,} of them "
                f"cannot be held out: set the data set's validation well below {total:,}"
            )
        held = torch.zeros(total, dtype=torch.bool)
        held[torch.randperm(total, generator=generator)[: self.validation]] = True
        return self.train.take((~held).nonzero()[:, 0]), self.train.take(held.nonzero()[:, 0])


def loaded(spec: DataSpec) -> Dataset:
    """What ``spec`` loads, fit for a run.

    Raises: ``DataError`` where it fails, or gives no data set that can be used.
    """
    name = type(spec).__name__
    try:
        found = spec.load()
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # a user's own may fail in any way
        reason = arguments.shortened(f"{type(error).__name__}: {error}", 300)
        raise DataError(f"the data set {name} could not be loaded: {reason}") from error
    if not isinstance(found, Dataset):
        raise DataError(
            f"load of the data set {name} must give a fedrobust.Dataset, which "
            f"Dataset.from_tensors makes; it gave {arguments.told(found)}"
        )
    return found.checked()


def _checked(part: str, x: Array, y: Array, user: Array | None) -> Split:
    x = checks.inputs(f"x_{part}", x)
    y = checks.labels(f"y_{part}", y, len(x))
    return Split(x, y, None if user is None else checks.users(f"user_{part}", user, len(x)))


def _classes(y_train: Labels, y_test: Labels) -> int:
    classes = int(y_train.max()) + 1
    if classes < 2:
        raise DataError("every label of y_train is 0; a classifier needs two classes or more")
    if classes > len(y_train):
        raise DataError(
            f"y_train reaches {classes - 1:,} with {len(y_train):,} examples; labels are 0 to "
            "classes - 1: renumber them, as np.unique(y, return_inverse=True) does"
        )
    if int(y_test.max()) >= classes:
        raise DataError(
            f"y_test has the label {int(y_test.max())}, but y_train only reaches {classes - 1}"
        )
    return classes
