"""Data sets that the pipeline can write by itself."""
