"""The DAG, readable from top to bottom in pipeline.py, and the settings of its nodes."""
