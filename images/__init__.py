"""Data sets: how they are listed, how image files are read, and how images become examples. Has no TFX components."""
