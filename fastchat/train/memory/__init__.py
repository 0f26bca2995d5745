"""How much memory a training run needs, and which way of running it fits. Imports no torch."""
