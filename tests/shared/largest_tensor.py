"""Watches what memory an operation asks for."""

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class LargestTensor(TorchDispatchMode):
    """Remembers the size in bytes of the largest tensor that any operation allocates."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, Tensor):
                given = {a.untyped_storage().data_ptr() for a in args if isinstance(a, Tensor)}
                if value.untyped_storage().data_ptr() not in given:
                    self.bytes = max(self.bytes, value.numel() * value.element_size())
        return result
