"""Transform whose examples are those that ingestion has decoded."""
