"""Rules that read what the server knows: sample counts, their own memory, a root update."""

from typing import Any

import pytest
import rule_oracles as oracles
import torch
from torch import Tensor

from fedrobust.aggregators import CenteredClipping, Context, FLTrust, NormBound
from fedrobust.federation.server import aggregate


def normal(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_the_centre_is_the_next_rounds_memory_and_not_the_rules() -> None:
    rule, centre = CenteredClipping(oracles.RADIUS, iterations=3), [0.0] * 6
    memory = None
    for round_ in range(4):
        updates = 2 + normal(7, 6, seed=round_)
        result = rule.aggregate(updates, Context(memory=memory))
        centre = oracles.centered_clipping(updates.double().tolist(), 0, centre).vector
        torch.testing.assert_close(result.vector, torch.tensor(centre), rtol=1e-6, atol=1e-6)
        memory = result.memory
        assert torch.equal(memory, result.vector)
        result.vector.zero_()
        assert memory.any()
    assert torch.equal(rule(updates), rule(updates))


def test_from_a_centre_that_moves_along_clipping_moves_with_a_translation() -> None:
    updates, centre, rule = normal(9, 30).double(), normal(1, 30, 1)[0].double(), 0.5
    rule = CenteredClipping(0.5, iterations=2)
    here = rule(updates, Context(memory=centre))
    there = rule(updates + 1e3, Context(memory=centre + 1e3))
    torch.testing.assert_close(there - 1e3, here, rtol=0, atol=1e-11)


def test_a_row_moves_the_centre_by_no_more_than_its_share_of_the_radius() -> None:
    updates = normal(10, 50)
    harmed = updates.clone()
    harmed[0] = 1e30
    rule = CenteredClipping(2.0)
    assert (rule(harmed) - rule(updates)).norm() <= 2 * 2.0 / 10 + 1e-6
    wide = CenteredClipping(1e9)(updates)
    torch.testing.assert_close(wide, updates.mean(dim=0), rtol=1e-6, atol=1e-7)


MEMORIES: dict[str, tuple[Any, str]] = {
    "short": (torch.zeros(5), r"one tensor \[6\], got shape \[5\]"),
    "matrix": (torch.zeros(1, 6), r"got shape \[1, 6\]"),
    "another rule's": ({"centre": 1}, r"got dict"),
    "nan": (torch.full((6,), torch.nan), "finite"),
    "integers": (torch.zeros(6, dtype=torch.int64), "floating-point"),
}


@pytest.mark.parametrize(("memory", "message"), MEMORIES.values(), ids=MEMORIES)
def test_a_memory_that_is_no_centre_is_refused(memory: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^CenteredClipping: the memory must be .*{message}"):
        CenteredClipping(1.0)(normal(4, 6), Context(memory=memory))


def test_the_server_keeps_the_centre_of_the_rows_that_it_could_use() -> None:
    updates = normal(6, 5)
    updates[2, 1] = torch.nan
    outcome = aggregate(CenteredClipping(1.0), updates, Context(memory=torch.ones(5)))
    good = updates[[0, 1, 3, 4, 5]]
    want = CenteredClipping(1.0)(good, Context(memory=torch.ones(5)))
    assert outcome.vector is not None
    assert torch.equal(outcome.vector, want)
    assert isinstance(outcome.memory, Tensor)
    assert torch.equal(outcome.memory, want)


def test_bounded_rows_are_weighed_by_the_servers_counts() -> None:
    updates, counts = normal(5, 8), torch.tensor([3, 1, 0, 2, 9])
    updates[0] *= 1e30
    updates[3] *= 1e-3
    bounded = torch.tensor([oracles.clipped(row, [0.0] * 8, 1.5) for row in updates.tolist()])
    want = (counts[:, None] * bounded.double()).sum(dim=0) / 15
    got = NormBound(1.5)(updates, Context(counts=counts)).double()
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-7)
    assert torch.equal(NormBound(1e9)(updates[1:2]), updates[1])
    short = 0.9 * torch.nn.functional.normalize(normal(1, 8).double())
    assert torch.equal(NormBound(1.0)(short), short[0])


def test_trust_is_the_cosine_and_every_row_has_the_roots_length() -> None:
    root = torch.tensor([2.0, 0.0])
    updates = torch.tensor([[5.0, 0.0], [0.0, 7.0], [-3.0, 0.1], [0.0, 0.0], [3e20, 4e20]])
    got = FLTrust()(updates, Context(root=root))
    # Trust 1 and 0.6; unit vectors (1, 0) and (0.6, 0.8).
    want = 2 * (torch.tensor([1.0, 0.0]) + 0.6 * torch.tensor([0.6, 0.8])) / 1.6
    torch.testing.assert_close(got, want)
    assert got.norm() <= root.norm()


def test_the_length_and_number_of_hostile_rows_do_not_matter() -> None:
    root = normal(1, 40)[0]
    benign, hostile = root + 0.5 * normal(3, 40, 1), -root + 0.5 * normal(30, 40, 2)
    together = torch.cat([1e30 * hostile, benign])
    context = Context(root=root)
    torch.testing.assert_close(FLTrust()(together, context), FLTrust()(benign, context))
    torch.testing.assert_close(FLTrust()(1e-25 * benign, context), FLTrust()(benign, context))
    assert not FLTrust()(hostile, context).any()
    assert not FLTrust()(benign, Context(root=torch.zeros(40))).any()
    assert not FLTrust()(torch.zeros(3, 40), context).any()


def test_a_cosine_that_is_only_rounding_is_no_trust() -> None:
    root = normal(1, 300)[0].double()
    rows = normal(20, 300, 1).double()
    for _ in range(3):
        rows -= (rows @ root / (root @ root))[:, None] * root
    assert not FLTrust()(rows, Context(root=root)).any()


ROOTS: dict[str, tuple[Any, str]] = {
    "none": (None, r"set server\.root in a config .*Context\(root=\.\.\.\) in Python"),
    "short": (torch.ones(3), r"must be \[4\], got shape \[3\]"),
    "infinite": (torch.full((4,), torch.inf), "NaN or infinity"),
}


@pytest.mark.parametrize(("root", "message"), ROOTS.values(), ids=ROOTS)
def test_without_a_usable_root_it_says_what_to_do(root: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^FLTrust.*{message}"):
        FLTrust()(torch.ones(2, 4), Context(root=root))
