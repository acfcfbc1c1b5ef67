"""The pipeline on this machine: first checks, then runs, cross-validations or inspections of the data."""
