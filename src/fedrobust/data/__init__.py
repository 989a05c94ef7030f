"""Data sets: how they are found, read, checked and shared out among clients."""

from fedrobust.data.dataset import DATASET, AnyData, Dataset, DataSpec
from fedrobust.data.datasets import Cifar10, Digits, FashionMnist, Mnist, Npz
from fedrobust.data.femnist import Femnist
from fedrobust.data.partition import (
    PARTITION,
    AnyPartition,
    ByWriter,
    Dirichlet,
    Iid,
    Partition,
    Partitioner,
    Shards,
)
from fedrobust.data.remote import Remote
from fedrobust.data.sources import get
from fedrobust.data.split import Split
from fedrobust.data.synthetic import SyntheticRing

DATASETS = DATASET.of(
    Digits,
    Mnist,
    FashionMnist,
    Cifar10,
    Femnist,
    Npz,
    SyntheticRing,
)
PARTITIONS = PARTITION.of(Iid, Dirichlet, Shards, ByWriter, Remote)

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
    "Remote",
    "Shards",
    "Split",
    "SyntheticRing",
    "get",
]
