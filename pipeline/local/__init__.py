"""The pipeline on this machine: checks first, then runs, cross-validations, looks at the data."""
