"""Aggregation rules: one round's updates [n, d] in, one vector [d] out."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from fedrobust.aggregators.bucketing import Bucketing
from fedrobust.aggregators.bulyan import Bulyan
from fedrobust.aggregators.centered_clipping import CenteredClipping
from fedrobust.aggregators.fl_trust import FLTrust
from fedrobust.aggregators.geometric_median import GeometricMedian
from fedrobust.aggregators.krum import Krum, MultiKrum
from fedrobust.aggregators.mean import Mean
from fedrobust.aggregators.mean_around_median import MeanAroundMedian
from fedrobust.aggregators.median import Median
from fedrobust.aggregators.minimum_diameter_averaging import MinimumDiameterAveraging
from fedrobust.aggregators.nearest_neighbor_mixing import NearestNeighborMixing
from fedrobust.aggregators.norm_bound import NormBound
from fedrobust.aggregators.rule import Aggregation, Aggregator, Context
from fedrobust.aggregators.smallest_maximum_eigenvalue_averaging import (
    SmallestMaximumEigenvalueAveraging,
)
from fedrobust.aggregators.trimmed_mean import TrimmedMean
from fedrobust.config.component import complete, one_of

AGGREGATORS = (
    Mean,
    Median,
    TrimmedMean,
    MeanAroundMedian,
    Krum,
    MultiKrum,
    Bulyan,
    GeometricMedian,
    CenteredClipping,
    NormBound,
    MinimumDiameterAveraging,
    SmallestMaximumEigenvalueAveraging,
    FLTrust,
    NearestNeighborMixing,
    Bucketing,
)
"""Every rule; a new one is added here."""

if TYPE_CHECKING:
    AnyAggregator = Aggregator
else:
    AnyAggregator = one_of(
        "aggregator",
        *AGGREGATORS,
        has=("aggregate",),
        may_hold={"check": Callable, "tolerating": Callable, "rooted": bool},
        or_is=(Callable, "a function of the updates"),
    )

# They hold any rule, and are rules themselves.
complete(NearestNeighborMixing, Bucketing, AnyAggregator=AnyAggregator)

__all__ = [
    "AGGREGATORS",
    "Aggregation",
    "Aggregator",
    "AnyAggregator",
    "Bucketing",
    "Bulyan",
    "CenteredClipping",
    "Context",
    "FLTrust",
    "GeometricMedian",
    "Krum",
    "Mean",
    "MeanAroundMedian",
    "Median",
    "MinimumDiameterAveraging",
    "MultiKrum",
    "NearestNeighborMixing",
    "NormBound",
    "SmallestMaximumEigenvalueAveraging",
    "TrimmedMean",
]
