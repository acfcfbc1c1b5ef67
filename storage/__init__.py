"""Files on any file system, local, gs:// or s3://, each there as a whole or not at all."""
