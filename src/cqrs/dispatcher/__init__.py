"""From messages to their handlers."""
