"""The Ray Serve application: its deployments, their handles as clients, and metrics."""
