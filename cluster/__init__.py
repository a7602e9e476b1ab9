"""How a Ray cluster and the servers beside it start, on this machine; knows nothing of what runs there.

`local` runs jobs on a head, `object_store` is an S3 server, `mlflow_server` the registry's, `services` all three.
"""
