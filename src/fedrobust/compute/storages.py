"""Tensors that are parts of larger storages, or that repeat their entries."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor

_MAPPINGS, _LISTS = (dict, OrderedDict), (list, tuple)
"""What is looked into. Other containers stay as they are: a checkpoint refuses them."""
_Place: TypeAlias = tuple[str, int]
"""The device and the address of a storage."""


def compacted(value: Any, *, whole: bool = False) -> Any:
    """Return ``value`` with no storage that is larger than what its tensors reach.

    A view of one row would keep all rows in memory, and in a file. Tensors that share a storage go
    on sharing one. With ``whole``, a tensor that repeats its entries gets a storage with all of
    them. Values are nested dictionaries, lists and tuples of tensors and plain data; what needs no
    change is returned as it is.
    """
    reached = dict[_Place, tuple[int, int]]()
    for tensor in _tensors(value):
        first, last = _reach(tensor)
        low, high = reached.get(_place(tensor), (first, last))
        reached[_place(tensor)] = min(low, first), max(high, last)
    return _rebuilt(value, reached, {}, whole)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.layout == torch.strided and value.numel():
            yield value
    elif type(value) in _MAPPINGS:
        for item in value.values():
            yield from _tensors(item)
    elif type(value) in _LISTS:
        for item in value:
            yield from _tensors(item)


def _place(tensor: Tensor) -> _Place:
    return str(tensor.device), tensor.untyped_storage().data_ptr()


def _reach(tensor: Tensor) -> tuple[int, int]:
    """Return the first byte of its storage that the tensor has, and the one after its last."""
    size, start = tensor.element_size(), tensor.storage_offset()
    last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return int(start * size), int((start + last + 1) * size)


def _rebuilt(
    value: Any, reached: dict[_Place, tuple[int, int]], copies: dict[_Place, Tensor], whole: bool
) -> Any:
    if type(value) in _MAPPINGS:
        items = {k: _rebuilt(item, reached, copies, whole) for k, item in value.items()}
        same = all(items[key] is item for key, item in value.items())
        return value if same else type(value)(items)
    if type(value) in _LISTS:
        parts = [_rebuilt(item, reached, copies, whole) for item in value]
        return value if all(map(_is, parts, value)) else type(value)(parts)
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        return value
    if whole and value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return value.detach().clone(memory_format=torch.contiguous_format)
    return _moved(value, reached, copies)


def _is(a: object, b: object) -> bool:
    return a is b


def _moved(
    value: Tensor, reached: dict[_Place, tuple[int, int]], copies: dict[_Place, Tensor]
) -> Tensor:
    """Return the tensor in a storage that ends where the tensors of its storage end."""
    place, size = _place(value), value.element_size()
    if not value.numel():
        return value if not value.untyped_storage().nbytes() else value.detach().clone()
    low, high = reached[place]
    if high - low == value.untyped_storage().nbytes() or low % size or (high - low) % size:
        return value
    if place not in copies:
        copies[place] = (
            torch.empty(0, dtype=torch.uint8, device=value.device)
            .set_(value.untyped_storage(), low, (high - low,), (1,))
            .clone()
        )
    start = value.storage_offset() - low // size
    return copies[place].view(value.dtype).as_strided(value.shape, value.stride(), start)
