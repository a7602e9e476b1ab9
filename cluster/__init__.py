"""Starts Ray, an S3 server and MLflow on this machine; independent of the programs that use them.

`local` starts a Ray head or a program that starts Ray, `object_store` an S3 server, `mlflow_server` MLflow, `services` all.
"""
