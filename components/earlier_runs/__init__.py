"""What a run is compared with: the model that is served where it pushes to, and the previous statistics."""
