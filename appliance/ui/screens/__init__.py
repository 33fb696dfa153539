"""The screens: each takes the snapshot that the app polled and shows it."""
