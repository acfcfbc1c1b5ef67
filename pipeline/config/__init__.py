"""The typed configuration, a module for each group of sections; loading.py reads it from YAML."""
