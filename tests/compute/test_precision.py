"""The arithmetic of training holds inside its context only."""

from collections.abc import Callable

import pytest
import torch

from fedrobust.compute.precision import Precision, arithmetic, reduced
from fedrobust.errors import ConfigError
from fedrobust.experiment import Experiment
from fedrobust.runs.prepare import prepare


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        ("float32", ("highest", torch.float32)),
        ("bfloat16", ("highest", torch.bfloat16)),
        ("tf32", ("high", torch.float32)),
    ],
)
def test_a_precision_holds_inside(precision: Precision, expected: tuple[object, ...]) -> None:
    with torch.backends.cudnn.flags(allow_tf32=False):
        before = arithmetic("cpu")
        with reduced("cpu", precision):
            product = torch.rand(4, 4) @ torch.rand(4, 4)
            assert (torch.get_float32_matmul_precision(), product.dtype) == expected
            assert torch.backends.cudnn.allow_tf32 == (precision == "tf32")
            assert (arithmetic("cpu") == before) == (precision == "float32")
        assert arithmetic("cpu") == before
        with pytest.raises(KeyError), reduced("cpu", precision):
            raise KeyError
        assert arithmetic("cpu") == before


def test_tf32_needs_a_gpu_that_has_it(tiny: Callable[..., Experiment]) -> None:
    with pytest.raises(ConfigError, match=r"precision: tf32 needs a GPU that has it.*float32"):
        prepare(tiny(execution={"device": "cpu", "precision": "tf32"}))
