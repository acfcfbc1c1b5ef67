"""The DAG, readable from top to bottom in pipeline.py, and what its nodes are given."""
