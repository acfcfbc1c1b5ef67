"""How good a model is: metrics, intervals, groups, slices, verdicts, and the results on disk."""
