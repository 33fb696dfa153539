"""Widgets that draw lines; the pages give them their content."""
