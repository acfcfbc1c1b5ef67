"""An ExampleValidator that can stop the run."""
