"""The typed configuration, one module for each group of sections; loading.py reads it from YAML."""
