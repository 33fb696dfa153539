"""Qlik servers: client-managed (QRS), Qlik Cloud, and a simulated server that speaks HTTP."""
