"""Which model a new one is compared with."""
