"""Adds thresholds on distances between distributions to a schema, and rewords the anomalies that TFDV then reports.

TFDV is TensorFlow Data Validation.
"""

from typing import Final

from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from models import features

FEWEST_IMAGES: Final = 30  # with fewer images, chance alone changes a distribution by as much as a real drift
_MEASUREMENT: Final = anomalies_pb2.DriftSkewInfo.Measurement
MEASURES: Final = {
    _MEASUREMENT.JENSEN_SHANNON_DIVERGENCE: "Jensen-Shannon divergence",
    _MEASUREMENT.L_INFTY: "largest difference of a share",
    _MEASUREMENT.NORMALIZED_ABSOLUTE_DIFFERENCE: "normalized absolute difference",
}
_CATEGORIES: Final = (features.LABEL, features.FORMAT)
_MEASURED_PREFIX: Final = "image/"
_NUMBERS: Final = (schema_pb2.INT, schema_pb2.FLOAT)
_COMPARATORS: Final = {
    anomalies_pb2.AnomalyInfo.COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH,
    anomalies_pb2.AnomalyInfo.COMPARATOR_L_INFTY_HIGH,
}


def images(statistics: statistics_pb2.DatasetFeatureStatisticsList) -> int:
    """Number of examples in the statistics."""
    return statistics.datasets[0].num_examples


def with_thresholds(
    schema: schema_pb2.Schema,
    comparator: str,
    threshold: float | None,
    statistics: statistics_pb2.DatasetFeatureStatisticsList,
    control: statistics_pb2.DatasetFeatureStatisticsList | None,
) -> schema_pb2.Schema:
    """A copy of the schema with thresholds on the distance between two sets of statistics.

    The numbers that ingestion measures (`image/...`) are compared by the Jensen-Shannon divergence of their quantile histograms
    (base 2: 0 for equal distributions, 1 for distributions without overlap; Lin 1991, 10.1109/18.61115). The label and the file
    format are compared by the L-infinity distance, which is the largest difference of the share of a value. Quantiles are used
    because TFDV's standard histogram has buckets of equal width: a single large value puts all other values into one bucket,
    and equal distributions seem to differ.

    Args:
      schema: a feature that has the comparator already, even an empty one, keeps it.
      comparator: drift_comparator or skew_comparator.
      threshold: largest accepted distance; None to add no thresholds.
      statistics: the statistics to judge.
      control: the statistics to compare with. No threshold is added if either has fewer than `FEWEST_IMAGES` images, or for
        features that are not in both.
    """
    changed = schema_pb2.Schema()
    changed.CopyFrom(schema)
    if threshold is None or control is None or min(images(statistics), images(control)) < FEWEST_IMAGES:
        return changed
    present = _names(statistics) & _names(control)
    for feature in changed.feature:
        if feature.name not in present or feature.HasField(comparator):
            continue
        if feature.name in _CATEGORIES:
            getattr(feature, comparator).infinity_norm.threshold = threshold
        elif feature.type in _NUMBERS and feature.name.startswith(_MEASURED_PREFIX):
            divergence = getattr(feature, comparator).jensen_shannon_divergence
            divergence.threshold = threshold
            divergence.source.type = schema_pb2.HistogramSelection.QUANTILES
    return changed


def _names(statistics: statistics_pb2.DatasetFeatureStatisticsList) -> set[str]:
    return {
        feature.path.step[0]
        for feature in statistics.datasets[0].features
        if len(feature.path.step) == 1 and _has_values(feature)
    }


def _has_values(feature: statistics_pb2.FeatureNameStatistics) -> bool:
    common = (feature.num_stats if feature.HasField("num_stats") else feature.string_stats).common_stats
    return common.num_non_missing > 0


def name_splits(anomalies: anomalies_pb2.Anomalies, split: str, skew_control: str | None) -> None:
    """Rewords TFDV's descriptions in place: they name the splits instead of "current and previous", "training and serving"."""
    words = (
        ("between current and previous", f"between {split} and {split} of the previous run"),
        ("between training and serving", f"between {split} and {skew_control}"),
        ("approximate Jensen-Shannon divergence", MEASURES[_MEASUREMENT.JENSEN_SHANNON_DIVERGENCE]),
        ("Linfty distance", MEASURES[_MEASUREMENT.L_INFTY]),
        (" (up to six significant digits)", ""),
        ("feature value with maximum difference", "value with the largest difference"),
    )
    for info in anomalies.anomaly_info.values():
        compared = [reason for reason in info.reason if reason.type in _COMPARATORS]
        for reason in compared:
            for old, new in words:
                reason.short_description = reason.short_description.replace(old, new)
                reason.description = reason.description.replace(old, new)
        if compared:
            info.description = " ".join(reason.description for reason in info.reason)
            if len(info.reason) == 1:
                info.short_description = info.reason[0].short_description
