"""The data sets by name: each is a component whose ``load`` gives a :class:`Dataset`."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedrobust.config.component import component
from fedrobust.config.scalars import PathText, Size
from fedrobust.data import formats
from fedrobust.data.dataset import Dataset
from fedrobust.data.sources import Found, ensure
from fedrobust.data.split import Split
from fedrobust.errors import DataError
from fedrobust.records.bounded import contents, named, why
from fedrobust.typing import Doubles


@component
class Digits:
    """1,797 real 8×8 digits that come with scikit-learn: no download.

    Loads x float32 [N, 1, 8, 8]: the values 0 to 16, divided by 16. The examples are sorted by
    class and keep their order within a class. Every fifth example, beginning with the first, is a
    test example: 1,437 to train, 360 to test. Each class is within one example of its share.

    Reference: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998.
    """

    validation: Size = 300
    name: Literal["digits"] = "digits"

    def load(self) -> Dataset:
        """Read the data set."""
        table = torch.from_numpy(_digits())
        x = table[:, :-1].float().reshape(-1, 1, 8, 8) / 16
        y = table[:, -1].long()
        by_class = torch.argsort(y, stable=True)
        test = torch.zeros(len(y), dtype=torch.bool)
        test[by_class[::5]] = True
        whole = Split(x, y)
        train, held = (whole.take(mask.nonzero()[:, 0]) for mask in (~test, test))
        return Dataset(self.name, train, held, 10, self.validation)


def _digits() -> Doubles:
    """Return the table of scikit-learn's digits, float64 [1797, 65]: 64 pixels and the label.

    Its file is read where it is installed, because importing scikit-learn takes a second.
    """
    spec = find_spec("sklearn")
    for folder in (spec and spec.submodule_search_locations) or ():
        if (file := Path(folder, "datasets", "data", "digits.csv.gz")).is_file():
            return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    found = load_digits()
    return np.column_stack([found.data, found.target])


@component
class Mnist:
    """MNIST: 60,000 and 10,000 handwritten digits, uint8 [N, 1, 28, 28].

    Raises: ``DataError`` where it is missing or corrupt.

    Reference: LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998.
    """

    validation: Size = 5000
    name: Literal["mnist"] = "mnist"

    def load(self) -> Dataset:
        """Read the data set; download it first where no folder holds it."""
        return _idx(self.name, self.validation)


@component
class FashionMnist:
    """Fashion-MNIST: 60,000 and 10,000 pieces of clothing, uint8 [N, 1, 28, 28].

    Raises: ``DataError`` where it is missing or corrupt.

    Reference: Xiao, Rasul, Vollgraf, "Fashion-MNIST", 2017.
    """

    validation: Size = 5000
    name: Literal["fashion-mnist"] = "fashion-mnist"

    def load(self) -> Dataset:
        """Read the data set; download it first where no folder holds it."""
        return _idx(self.name, self.validation)


@component
class Cifar10:
    """CIFAR-10: 50,000 and 10,000 colour images, uint8 [N, 3, 32, 32]; an .npz may hold fewer.

    Raises: ``DataError`` where it is missing or corrupt.

    Reference: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """

    validation: Size = 5000
    name: Literal["cifar10"] = "cifar10"

    def load(self) -> Dataset:
        """Read the data set; download it first where no folder holds it."""
        found = ensure(self.name)
        if found.form == "npz":
            return _cifar_npz(found, self.validation)
        if found.form.endswith("-archive"):
            what, content = found.only()
            batches = formats.cifar_archive(content, what)
        else:
            batches = found.contents()
        binary = found.form.startswith("binary")
        read = formats.cifar_binary if binary else formats.cifar_python
        parts = [read(batch, f"{found.root}, batch {i}") for i, batch in enumerate(batches, 1)]
        train = Split(*(torch.cat(tensors) for tensors in zip(*parts[:5], strict=True)))
        return Dataset(self.name, train, Split(*parts[5]), 10, self.validation)


@component
class Npz:
    """Your own .npz: x_train, y_train, x_test, y_test, and perhaps user_train and user_test.

    :meth:`Dataset.from_tensors` says what the arrays may be. Pickled objects are refused.

    Raises: ``DataError`` where the file is missing, cannot be read, or holds arrays that do not
    fit.
    """

    path: PathText
    validation: Size = 5000
    name: Literal["npz"] = "npz"

    def load(self) -> Dataset:
        """Read the data set."""
        what = named(self.path)
        try:
            path = Path(self.path).expanduser()
            content = contents(path)
        except (OSError, ValueError, RuntimeError) as error:
            where = (
                "" if Path(self.path).expanduser().is_absolute() else f" (looked in {Path.cwd()})"
            )
            raise DataError(f"{what} cannot be read: {why(error)}{where}") from error
        arrays = formats.npz(content, what)
        needed = formats.required(arrays, ["x_train", "y_train", "x_test", "y_test"], what)
        try:
            return Dataset.from_tensors(
                *needed,
                user_train=arrays.get("user_train"),
                user_test=arrays.get("user_test"),
                validation=self.validation,
                name=path.stem,
            )
        except (DataError, MemoryError) as error:
            raise DataError(f"{what}: {why(error)}") from error


def _idx(name: str, validation: int) -> Dataset:
    found = ensure(name)
    arrays = [
        formats.idx(content, str(path))
        for path, content in zip(found.paths, found.contents(), strict=True)
    ]
    x_train, y_train, x_test, y_test = arrays
    train = Split(x_train[:, None], y_train.long())
    return Dataset(name, train, Split(x_test[:, None], y_test.long()), 10, validation)


def _cifar_npz(found: Found, validation: int) -> Dataset:
    what, content = found.only()
    arrays = formats.npz(content, what)
    needed = formats.required(arrays, ["x_train", "y_train", "x_test", "y_test"], what)
    x_train, y_train, x_test, y_test = needed
    try:
        data = Dataset.from_tensors(
            _channels_first(x_train), y_train, _channels_first(x_test), y_test, name="cifar10"
        )
    except (DataError, MemoryError) as error:
        raise DataError(f"{what}: {why(error)}") from error
    if data.classes > 10 or data.shape != (3, 32, 32) or data.train.x.dtype != torch.uint8:
        raise DataError(f"{what} is not CIFAR-10: it needs uint8 images of 32 by 32 in 10 classes")
    notes = list(found.notes)
    for part, split, full in (("training", data.train, 50_000), ("test", data.test, 10_000)):
        if len(split) < full:
            notes.append(f"{len(split):,} of CIFAR-10's {full:,} {part} images")
    exact = arrays.get("lossless_test", np.ones(len(data.test), bool))
    if exact.dtype != bool or exact.shape != (len(data.test),):
        raise DataError(f"{what}: lossless_test is not one flag for each test image")
    lossy = int((~exact).sum())
    if lossy:
        notes.append(f"{lossy} of the {len(data.test):,} test images are JPEG decodes, not exact")
    return Dataset("cifar10", data.train, data.test, 10, validation, tuple(notes))


def _channels_first(x: NDArray[Any]) -> Tensor | NDArray[Any]:
    last = x.ndim == 4 and x.shape[3] == 3
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if last else x
