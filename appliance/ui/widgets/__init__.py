"""Widgets that draw lines; none of them asks the engine for anything by itself."""
