"""Data sets, where they come from, and how they are shared out among clients."""

from typing import TYPE_CHECKING

from fedrobust.config.component import Size, one_of
from fedrobust.data.dataset import Dataset, DataSpec, Split
from fedrobust.data.datasets import Cifar10, Digits, FashionMnist, Mnist, Npz
from fedrobust.data.femnist import Femnist
from fedrobust.data.partition import ByWriter, Dirichlet, Iid, Partition, Partitioner, Shards
from fedrobust.data.sources import get
from fedrobust.data.synthetic import SyntheticRing

DATASETS: tuple[type, ...] = (
    Digits,
    Mnist,
    FashionMnist,
    Cifar10,
    Femnist,
    Npz,
    SyntheticRing,
)
PARTITIONS: tuple[type, ...] = (Iid, Dirichlet, Shards, ByWriter)

if TYPE_CHECKING:
    AnyData = DataSpec
    AnyPartition = Partitioner
else:
    AnyData = one_of("data set", *DATASETS, has=("load",), holds={"validation": Size})
    AnyPartition = one_of("partition", *PARTITIONS, has=("split",))

__all__ = [
    "DATASETS",
    "PARTITIONS",
    "AnyData",
    "AnyPartition",
    "ByWriter",
    "Cifar10",
    "DataSpec",
    "Dataset",
    "Digits",
    "Dirichlet",
    "FashionMnist",
    "Femnist",
    "Iid",
    "Mnist",
    "Npz",
    "Partition",
    "Partitioner",
    "Shards",
    "Split",
    "SyntheticRing",
    "get",
]
