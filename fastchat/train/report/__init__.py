"""Seeing a training run: its rates, its progress, its curves and what it came to."""
