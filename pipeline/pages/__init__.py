"""HTML pages that need no network: of an evaluation, of the data, of augmented images."""
