"""Counts the values of text features."""

import heapq
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import tensorflow_data_validation as tfdv
from tensorflow_data_validation import types
from tensorflow_data_validation.arrow import arrow_util
from tensorflow_data_validation.statistics.generators.stats_generator import CombinerStatsGenerator
from tensorflow_data_validation.utils import schema_util, stats_util, top_k_uniques_stats_util
from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx_bsl.arrow import array_util

_Counts = dict[types.FeaturePath, Counter[Any]]


class ValueCounts(CombinerStatsGenerator):
    """How many values there are and how often the most frequent ones; as TFDV's `TopKUniquesStatsGenerator` does in Beam."""

    def __init__(self, options: tfdv.StatsOptions) -> None:
        """Creates the generator for options with a schema, without weights and without categories that are numbers."""
        super().__init__("ValueCounts", options.schema)
        self._options = options
        self._opaque = schema_util.get_bytes_features(options.schema)

    def create_accumulator(self) -> _Counts:
        return {}

    def add_input(self, accumulator: _Counts, batch: pa.RecordBatch) -> _Counts:
        for path, values, _ in arrow_util.enumerate_arrays(batch, example_weight_map=None, enumerate_leaves_only=True):
            kind = stats_util.get_feature_type_from_arrow_type(path, values.type)
            if kind != statistics_pb2.FeatureNameStatistics.STRING or path in self._opaque:
                continue
            counts = array_util.flatten_nested(values)[0].value_counts()
            found = accumulator.setdefault(path, Counter())
            for value, count in zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True):
                found[value] += count
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[_Counts]) -> _Counts:
        merged: _Counts = {}
        for accumulator in accumulators:
            for path, counts in accumulator.items():
                merged.setdefault(path, Counter()).update(counts)
        return merged

    def extract_output(self, accumulator: _Counts) -> statistics_pb2.DatasetFeatureStatistics:
        options = self._options
        most = max(options.num_top_values, options.num_rank_histogram_buckets)
        result = statistics_pb2.DatasetFeatureStatistics()
        for path, counts in accumulator.items():
            largest = heapq.nlargest(most, ((count, value) for value, count in counts.items()))
            result.features.add().CopyFrom(
                top_k_uniques_stats_util.make_feature_stats_proto_topk_uniques(
                    path,
                    num_top_values=options.num_top_values,
                    num_rank_histogram_buckets=options.num_rank_histogram_buckets,
                    num_unique=len(counts),
                    value_count_list=[top_k_uniques_stats_util.FeatureValueCount(value, count) for count, value in largest],
                    frequency_threshold=options.frequency_threshold,
                )
            )
        return result
