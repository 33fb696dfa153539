"""HTTP for load scripts, schedulers, tools and monitors: one server with one Starlette application.

Not for: what a request asks for, which the rooms below do.
"""
