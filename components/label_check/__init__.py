"""LabelCheck: finds labels that are probably wrong, in all splits, by linear models on the images' embeddings."""
