"""Products of rows: against float64 on the whole matrix, and the same bits by any workers."""

import time
from collections.abc import Callable
from threading import Thread

import pytest
import torch
from torch import Tensor

from fedrobust.aggregators.kernels import products
from fedrobust.compute.units import shared_by

N = 7
WEIGHTS = torch.rand(N, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
MEMBERS = torch.tensor([[1.0, 1, 0, 0, 1, 0, 0], [0, 0, 1, 1, 0, 1, 1]])
Product = Callable[[Tensor], Tensor]

PRODUCTS: dict[str, tuple[Product, Product]] = {
    "norms": (products.norms, lambda x: x.norm(dim=1)),
    "norms-from": (lambda x: products.norms(x, x[0]), lambda x: (x - x[0]).norm(dim=1)),
    "cosines": (
        lambda x: products.cosines(x, products.norms(x), unit(x)),
        lambda x: x @ unit(x) / x.norm(dim=1),
    ),
    "gram": (
        lambda x: products.gram(x, 2, products.norms(x)),
        lambda x: (x - x[2]) @ (x - x[2]).T / x.norm(dim=1)[:, None] / x.norm(dim=1),
    ),
    "combination": (lambda x: products.combination(WEIGHTS, x), lambda x: WEIGHTS @ x),
    "group-means": (
        lambda x: products.group_means(MEMBERS, x),
        lambda x: MEMBERS.double() @ x / MEMBERS.double().sum(dim=1, keepdim=True),
    ),
}


def unit(x: Tensor) -> Tensor:
    """Return the direction of the rows' sum, in float64."""
    total = x.double().sum(dim=0)
    found: Tensor = total / total.norm()
    return found


def rows(d: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(N, d, generator=torch.Generator().manual_seed(d), dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("product", "oracle"), PRODUCTS.values(), ids=PRODUCTS)
def test_products_are_those_of_the_whole_matrix(
    monkeypatch: pytest.MonkeyPatch, product: Product, oracle: Product, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(products, "_BLOCK", N * 5)
    for d in (1, 5, 6, 400):
        updates = rows(d, dtype)
        before = updates.clone()
        for workers in (1, 2, 3):
            with shared_by(workers):
                found = product(updates)
            close = 1e-6 if found.dtype == torch.float32 else 1e-12
            torch.testing.assert_close(
                found.double(), oracle(updates.double()), rtol=close, atol=close
            )
        assert torch.equal(updates, before), f"d = {d}"


@pytest.mark.parametrize("product", [p for p, _ in PRODUCTS.values()], ids=PRODUCTS)
def test_no_bit_depends_on_the_number_of_workers(product: Product) -> None:
    updates = rows(100_000, torch.float32)
    found = []
    for workers in (1, 2, 5):
        with shared_by(workers):
            found.append(product(updates))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_few_results_wait_to_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The n² numbers of each block would otherwise be kept until the last one is computed."""
    monkeypatch.setattr(products, "_BLOCK", N)
    begun = 0

    def work(columns: slice, block: Tensor) -> int:
        nonlocal begun
        begun += 1
        return int(columns.start)

    with shared_by(2):
        found = products._each(rows(400, torch.float32), work)
        assert next(found) == 0
        time.sleep(0.3)  # in which workers that need not wait would go on
        assert begun <= 2 * products._TURNS
        assert list(found) == list(range(1, 400))


def test_an_error_in_a_block_reaches_the_caller() -> None:
    with shared_by(2), pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        products.combination(WEIGHTS[:3], rows(50_000, torch.float32))


@pytest.mark.parametrize("product", [p for p, _ in PRODUCTS.values()], ids=PRODUCTS)
def test_the_modes_of_the_caller_hold_in_its_workers(product: Product) -> None:
    updates = rows(50_000, torch.float32)
    want = product(updates)
    for workers in (1, 2):
        with shared_by(workers):
            with torch.inference_mode():
                assert torch.equal(product(updates.clone()), want)
            with torch.no_grad():
                assert not product(updates.clone().requires_grad_(True)).requires_grad


def test_threads_that_begin_later_have_as_many_of_pytorchs_as_before() -> None:
    torch.set_num_threads(2)
    try:
        products.norms(rows(50_000, torch.float32))
        found = list[int]()
        thread = Thread(target=lambda: found.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert (torch.get_num_threads(), found) == (2, [2])
    finally:
        torch.set_num_threads(1)
