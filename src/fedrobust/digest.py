"""SHA-256 of texts, bytes and tensors."""

import hashlib

import torch
from torch import Tensor


def digest(*parts: str | bytes | Tensor, length: int = 64) -> str:
    """Return the first ``length`` hexadecimal digits of the SHA-256 of all parts in order.

    A text is hashed by its UTF-8 bytes, and a tensor by its values alone. Where the shape or the
    type of a tensor matters too, pass it as a part of its own.
    """
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            plain = part.detach().cpu().contiguous()
            found.update(plain.view(-1).view(torch.uint8).numpy().data)
        else:
            found.update(part.encode() if isinstance(part, str) else part)
    return found.hexdigest()[:length]
