"""One image file: read, checked, decoded, brought to pixels that TensorFlow takes."""
