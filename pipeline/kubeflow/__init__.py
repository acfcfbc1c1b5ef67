"""The pipeline on Kubeflow Pipelines: compiler, checks, the server's client, what containers start."""
