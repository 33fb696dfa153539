"""The process: signals, log, terminal or none, exit code."""
