"""Alert rules and the Grafana dashboard for jobs and the endpoint."""
