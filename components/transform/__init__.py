"""Transform with a writer that uses all cores, and whose memory does not grow with the data."""
