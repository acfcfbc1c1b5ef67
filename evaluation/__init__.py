"""Evaluation of a model: metrics, intervals, groups, slices, verdicts, and the files of results."""
