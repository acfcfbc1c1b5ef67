"""The model and its data contract. Imports nothing of `pipeline` or `components`."""
