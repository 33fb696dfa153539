"""From a message to a finished execution: triggers, the runner, following, outcomes."""
