"""Image files: reading, checking, decoding, and conversion to pixels that TensorFlow reads."""
