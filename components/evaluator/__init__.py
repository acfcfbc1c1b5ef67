"""Evaluator: predicts the test split once, measures slice by slice with TensorFlow Model Analysis, and judges."""
