"""Text generation: token ids in, token events out. Knows no HTTP."""
