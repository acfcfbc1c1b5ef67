"""BulkInferrer: writes tables of a model's answers to images, which need no labels."""
