"""The terminal UI. Imports Textual; nothing outside this package does."""
