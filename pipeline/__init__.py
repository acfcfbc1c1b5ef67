"""What runs, and where: configuration, the DAG, its runners and the `fpn` command."""
