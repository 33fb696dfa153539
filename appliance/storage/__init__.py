"""What lies on disk: how files are locked, replaced and synced, and how SQLite is opened."""
