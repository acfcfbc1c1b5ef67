"""Results and progress on a screen."""
