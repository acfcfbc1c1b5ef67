"""The pipeline on Kubeflow Pipelines: compiler, checks, the server's client, the containers' entry point."""
