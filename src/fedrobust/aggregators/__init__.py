"""Aggregation rules: one round's updates [n, d] in, one vector [d] out."""

from typing import TYPE_CHECKING

from fedrobust.aggregators.bulyan import Bulyan
from fedrobust.aggregators.krum import Krum, MultiKrum
from fedrobust.aggregators.mean import Mean
from fedrobust.aggregators.mean_around_median import MeanAroundMedian
from fedrobust.aggregators.median import Median
from fedrobust.aggregators.rule import Aggregation, Aggregator, Context
from fedrobust.aggregators.trimmed_mean import TrimmedMean
from fedrobust.component import one_of

AGGREGATORS = (Mean, Median, TrimmedMean, MeanAroundMedian, Krum, MultiKrum, Bulyan)
"""Every rule; a new one is added here."""

if TYPE_CHECKING:
    AnyAggregator = Aggregator
else:
    AnyAggregator = one_of("aggregator", *AGGREGATORS, has=("__call__", "aggregate"))

__all__ = [
    "AGGREGATORS",
    "Aggregation",
    "Aggregator",
    "AnyAggregator",
    "Bulyan",
    "Context",
    "Krum",
    "Mean",
    "MeanAroundMedian",
    "Median",
    "MultiKrum",
    "TrimmedMean",
]
