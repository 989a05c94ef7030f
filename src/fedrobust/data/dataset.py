"""A data set in memory: a training split, a test split, and notes for the user."""

from dataclasses import dataclass, replace
from typing import Annotated, Any, Protocol, TypeAlias

import torch

from fedrobust.config import arguments
from fedrobust.config.kind import Kind
from fedrobust.config.scalars import Size
from fedrobust.config.text import shortened
from fedrobust.data import checks
from fedrobust.data.checks import Array
from fedrobust.data.map_style import split_of
from fedrobust.data.split import Split
from fedrobust.errors import DataError, UserError
from fedrobust.typing import Labels


class DataSpec(Protocol):
    """Something that loads a data set: a component of :mod:`fedrobust.data`, or a Dataset."""

    @property
    def validation(self) -> int:
        """The number of training examples that a run holds out."""
        ...

    def load(self) -> "Dataset":
        """Read the data set. Raises: ``DataError`` where it is missing or corrupt."""
        ...


DATASET = Kind(
    "data set",
    has=("load",),
    holds={"validation": Size},
    calls={"load": ""},
    made_by=(
        "Dataset.from_tensors(x_train, y_train, x_test, y_test) makes one of tensors or arrays, "
        "Dataset.from_torch(train, test) of PyTorch's data sets"
    ),
)
AnyData: TypeAlias = Annotated[DataSpec, DATASET]


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A loaded data set. It has ``load`` and ``validation``, so it can be used like a spec.

    ``validation`` is the number of training examples that a run holds out. ``notes`` are what a
    report must say about the data. ``user_names[i]`` is the name of user i.
    """

    name: str
    train: Split
    test: Split
    classes: int
    validation: int = 5000
    notes: tuple[str, ...] = ()
    user_names: tuple[str, ...] | None = None

    def __repr__(self) -> str:
        return (
            f"<Dataset {self.name}: {len(self.train):,} training and {len(self.test):,} test "
            f"examples {list(self.shape)}, {self.classes} classes>"
        )

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
        """Build a data set from tensors or numpy arrays.

        Images are uint8 [N, c, h, w] or floats in [0, 1]; other data are floats [N, ...]. The
        classes are 0 to the largest label of the training split.

        Raises: ``DataError`` for anything that does not fit, with a way to correct it.

        >>> x, y = torch.rand(50, 3, 8, 12), torch.arange(50) % 4
        >>> Dataset.from_tensors(x[:40], y[:40], x[40:], y[40:], validation=5).classes
        4
        """
        if isinstance(validation, bool) or not isinstance(validation, int) or validation < 0:
            raise DataError(f"validation must be a whole number from 0 on; got {validation!r}")
        if (user_train is None) != (user_test is None):
            raise DataError("give user_train and user_test, or neither")
        train = _checked("train", x_train, y_train, user_train)
        test = _checked("test", x_test, y_test, user_test)
        _require_alike(train, test)
        classes = _classes(train.y, test.y)
        notes = list[str]()
        if absent := sorted(set(range(classes)) - set(train.y.tolist())):
            notes.append(f"no training example has label {', '.join(map(str, absent))}")
        if both := checks.shared(train.x, test.x):
            notes.append(f"{both:,} of {len(test):,} test inputs are training inputs too")
        return cls(name, train, test, classes, validation, tuple(notes))

    @classmethod
    def from_torch(
        cls, train: Any, test: Any, *, validation: int = 5000, name: str = "own"
    ) -> "Dataset":
        """Build a data set from two PyTorch data sets, whose items are (x, y), or pairs (x, y).

        Every example is read once. See :func:`~fedrobust.data.map_style.split_of`.

        Raises: ``DataError`` for anything that does not fit, with a way to correct it.
        """
        parts = split_of(train, "the training split"), split_of(test, "the test split")
        arrays = [array for part in parts for array in (part.x, part.y)]
        return cls.from_tensors(*arrays, validation=validation, name=name)

    def load(self) -> "Dataset":
        """Return the data set itself."""
        return self

    def checked(self) -> "Dataset":
        """Return the data set after checks for a run. Raises: ``DataError``."""
        if not isinstance(self.train, Split) or not isinstance(self.test, Split):
            raise DataError(f"{self.name}: train and test must each be a Split")
        train = _checked("train", self.train.x, self.train.y, self.train.user)
        test = _checked("test", self.test.x, self.test.y, self.test.user)
        _require_alike(train, test)
        most = int(torch.cat([train.y, test.y]).max())
        if type(self.classes) is not int or self.classes < 2 or most >= self.classes:
            raise DataError(
                f"{self.name} has labels up to {most}, but {self.classes} classes; labels must be "
                "0 to classes - 1, with two classes or more"
            )
        return replace(self, train=train, test=test)

    def hold_out(self, generator: torch.Generator) -> tuple[Split, Split]:
        """Return the training split without, and with only, ``validation`` random examples of it.

        Both keep the order of the training split.

        Raises: ``DataError`` where nothing would be left to train on.
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
    """Return the data set that ``spec`` loads, checked for a run.

    Raises: ``DataError`` where this fails, or gives no usable data set.
    """
    name = type(spec).__name__
    try:
        found = spec.load()
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # a user's own spec may fail in any way
        reason = shortened(f"{type(error).__name__}: {error}", 300)
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


def _require_alike(train: Split, test: Split) -> None:
    """Refuse splits that differ in shape or type, and bytes that are no pixels.

    Raises: ``DataError``.
    """
    if train.x.shape[1:] != test.x.shape[1:] or train.x.dtype != test.x.dtype:
        raise DataError(
            f"x_train and x_test differ: examples of shape {list(train.x.shape[1:])} "
            f"({train.x.dtype}) and {list(test.x.shape[1:])} ({test.x.dtype})"
        )
    checks.pixels_of_bytes(train.x, test.x)


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
