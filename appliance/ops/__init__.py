"""What operates a running appliance: health, metrics, control, backup, the service manager."""
