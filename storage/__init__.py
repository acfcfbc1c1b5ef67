"""Files on local disks, gs:// and s3://. Each file exists as a whole or not at all."""
