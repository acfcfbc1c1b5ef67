"""BulkInferrer: what a model answers to images without labels, as tables."""
