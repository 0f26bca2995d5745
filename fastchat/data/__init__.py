"""Reading and checking conversations, and turning them into rows of (ids, labels)."""
