"""Values are compacted without a change of their numbers, or of what shares a storage."""

from collections import OrderedDict, defaultdict
from typing import Any

import torch

from fedrobust.compute.storages import compacted


def nbytes(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().nbytes()


def test_a_view_keeps_no_more_than_it_reaches() -> None:
    rows = torch.randn(40, 100)
    for view in (rows[1], rows[3:5], rows[7:9].T, rows[7:9].T[:, 0], rows[2, ::2]):
        found = compacted({"kept": [view]})["kept"][0]
        assert torch.equal(found, view)
        assert nbytes(found) <= 2 * 100 * 4
        assert nbytes(view) == 40 * 100 * 4


def test_what_is_whole_is_returned_as_it_is() -> None:
    whole: Any = {"a": torch.randn(5), "b": [torch.randn(2, 3).T, 3, "text"], "c": OrderedDict(d=1)}
    assert compacted(whole) is whole
    flat = torch.randn(10)
    both: Any = {"flat": flat, "head": flat[:4]}
    assert compacted(both) is both


def test_tensors_that_share_a_storage_go_on_sharing_one() -> None:
    rows = torch.randn(40, 100)
    pair: Any = {"first": rows[4], "second": rows[5], "both": rows[4:6]}
    found = compacted(pair)
    assert all(torch.equal(found[name], pair[name]) for name in pair)
    assert nbytes(found["both"]) == 2 * 100 * 4
    found["both"].zero_()
    assert not found["first"].any()
    assert rows.any()


def test_repeated_entries_are_written_out_only_where_asked() -> None:
    row = torch.randn(100).expand(8, -1)
    assert compacted([row])[0] is row
    found = compacted([row], whole=True)[0]
    assert torch.equal(found, row)
    assert nbytes(found) == 8 * 100 * 4


def test_odd_tensors_are_left_or_right() -> None:
    sparse = torch.eye(3).to_sparse()
    empty = torch.randn(5, 3)[:0]
    half = torch.randn(9, dtype=torch.float64).to(torch.bfloat16)[3:5]
    scalar = torch.randn(4)[2]
    kept = (sparse, empty, half, scalar, None, 3)
    found = compacted(kept)
    assert isinstance(found, tuple)
    assert found[0] is sparse
    assert found[1].shape == (0, 3)
    assert nbytes(found[1]) == 0
    assert torch.equal(found[2], half)
    assert (nbytes(found[2]), nbytes(found[3])) == (4, 4)
    assert torch.equal(found[3], scalar)
    named = OrderedDict(b=torch.randn(4, 4)[0], a=1)
    assert type(compacted(named)) is OrderedDict
    assert list(compacted(named)) == ["b", "a"]
    odd = defaultdict(list, a=[torch.randn(4, 4)[0]])
    assert compacted(odd) is odd
