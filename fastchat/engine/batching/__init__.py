"""Who computes what in each step: pure decisions, and the loop that carries them out."""
