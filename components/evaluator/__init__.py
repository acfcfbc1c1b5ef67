"""Evaluator: predicts the test split once, measures each slice with TensorFlow Model Analysis (TFMA), and judges the model."""
