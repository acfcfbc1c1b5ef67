"""HTML pages and pictures that need no network: about an evaluation, about the data, of augmented images."""
