"""What is watched while the service runs: metrics, input drift, and the rules and dashboards that read them."""
