"""Yuan2's forward pass for serving, and what it computes with."""
