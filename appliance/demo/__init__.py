"""The demonstration: a publisher and a configuration with a simulated Qlik server."""
