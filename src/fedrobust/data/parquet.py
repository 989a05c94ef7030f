"""FE-MNIST as a parquet file: columns image {bytes: PNG}, writer_id, character (flwrlabs/femnist).

A file of a few bytes can announce any number of rows, and a picture any size. So nothing is
unpacked before its announced size has been checked.
"""

import io
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedrobust.data.sources import Found
from fedrobust.data.split import Split
from fedrobust.errors import DataError
from fedrobust.records.bounded import named, room, why

_COLUMNS = ["image", "writer_id", "character"]
_ROWS = 1000
"""The number of rows that are unpacked at once."""
_PNG = 2**16
"""The most bytes of a picture of 28 by 28."""
_PIXELS = 28 * 28


def joined(found: Found) -> tuple[Split, list[str]]:
    """Return all rows of the files, and the names of their writers. Raises: ``DataError``."""
    images: list[Tensor] = []
    labels: list[int] = []
    writers: list[str] = []
    for path, content in zip(found.paths, found.contents(), strict=True):
        for pngs, names, characters in _batches(path, content):
            images.append(_pixels(path, pngs))
            labels += characters
            writers += names
    if not images:
        raise DataError(f"{named(found.root)}: its parquet files hold no image")
    known, user = np.unique(np.array(writers), return_inverse=True)
    whole = Split(torch.cat(images), torch.tensor(labels), torch.from_numpy(user).long())
    return whole, [str(name) for name in known]


_Rows = tuple[list[bytes], list[str], list[int]]


def _batches(path: Path, content: bytes) -> Iterable[_Rows]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(content))
        _require_room(file.metadata)
        for batch in file.iter_batches(_ROWS, columns=_COLUMNS):
            yield _rows(batch)
    except Exception as error:  # a damaged file fails in many ways
        raise DataError(f"{named(path)} is not FE-MNIST in parquet: {why(error)}") from error


def _require_room(metadata: Any) -> None:
    """Refuse more rows than the memory can hold. Raises: ``ValueError``."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    unpacked = sum(group.total_byte_size for group in groups)
    needed = max(unpacked, metadata.num_rows * _PIXELS)
    if min(metadata.num_rows, unpacked) < 0 or needed > (free := room()):
        raise ValueError(
            f"it announces {metadata.num_rows:,} rows of {unpacked:,} bytes, but there is "
            f"memory for {free:,} bytes"
        )


def _rows(batch: Any) -> _Rows:
    from pyarrow import types

    image, writers, labels = (batch[name] for name in _COLUMNS)
    if not types.is_struct(image.type):
        raise ValueError(f"its images are {image.type}, not bytes of a PNG")
    pngs = image.field("bytes")
    if not types.is_binary(pngs.type) and not types.is_large_binary(pngs.type):
        raise ValueError(f"its images are {pngs.type}, not bytes of a PNG")
    if not types.is_string(writers.type) and not types.is_large_string(writers.type):
        raise ValueError(f"its writer_id is {writers.type}, not text")
    if not types.is_integer(labels.type):
        raise ValueError(f"its character is {labels.type}, not whole numbers")
    for name, column in zip(("image", *_COLUMNS), (pngs, image, writers, labels), strict=True):
        if column.null_count:
            raise ValueError(f"its {name} lacks a value (null)")
    if pngs.nbytes > _ROWS * _PNG:
        raise ValueError("its images are larger than 28 by 28")
    return pngs.to_pylist(), writers.to_pylist(), labels.to_pylist()


def _pixels(path: Path, pngs: list[bytes]) -> Tensor:
    from PIL import Image

    found = np.empty((len(pngs), 1, 28, 28), np.uint8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            for i, png in enumerate(pngs):
                with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
                    if image.size != (28, 28):
                        raise ValueError(f"a picture has {image.size[0]} by {image.size[1]} pixels")
                    found[i, 0] = np.asarray(image.convert("L"))
    except Exception as error:  # a damaged picture fails in many ways
        raise DataError(f"{named(path)} is not FE-MNIST in parquet: {why(error)}") from error
    return torch.from_numpy(found)
