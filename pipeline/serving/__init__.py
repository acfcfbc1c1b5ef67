"""A pushed model behind HTTP, in an environment of its own (`make serving`), with TensorFlow and KServe and none of TFX."""
