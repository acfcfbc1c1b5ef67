"""ExampleValidator: checks statistics against the schema, the previous run and the train split."""
