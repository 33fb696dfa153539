"""Connections to other brokers: messages come in from them and go out to them."""
