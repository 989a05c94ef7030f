"""Aggregation rules: each turns one round's updates [n, d] into one vector [d]."""

from fedrobust.aggregators.aggregator import (
    AGGREGATOR,
    Aggregation,
    Aggregator,
    AnyAggregator,
    Context,
)
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
from fedrobust.aggregators.smallest_maximum_eigenvalue_averaging import (
    SmallestMaximumEigenvalueAveraging,
)
from fedrobust.aggregators.trimmed_mean import TrimmedMean

AGGREGATORS = AGGREGATOR.of(
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
"""All aggregation rules. Add a new rule here."""


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
