"""Starts Ray and the servers beside it on this machine; knows nothing of what runs there.

`local` starts a Ray head or a program that starts Ray, `object_store` an S3 server, `mlflow_server` MLflow, `services` all.
"""
