"""What runs, and where: configuration, the DAG, its runners, the records of runs, and the `fpn` command (cli.py)."""
