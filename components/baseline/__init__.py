"""What a run is compared with: the model and the data of earlier runs."""
