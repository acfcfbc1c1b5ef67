"""Requests that were captured where a model is used: their columns, their files, and TensorFlow Serving's log as the same."""
