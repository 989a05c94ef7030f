"""Files in the formats of public data sets, as others write them."""

import io
import pickle
import struct
from typing import Any

import numpy as np


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def python_batch(images: np.ndarray, labels: list[int]) -> bytes:
    content = {b"data": images.reshape(len(images), -1), b"labels": labels, b"batch_label": b"one"}
    return pickle.dumps(content, protocol=3)


def binary_batch(images: np.ndarray, labels: list[int]) -> bytes:
    rows = zip(images.reshape(len(images), -1), labels, strict=True)
    return b"".join(bytes([label]) + row.tobytes() for row, label in rows)


def npz_bytes(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()
