"""What runs, and where: configuration, the DAG, its runners, what runs leave, and the `fpn` command (cli.py)."""
