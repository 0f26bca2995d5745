"""Kernels for processors, compiled on first use. Knows tensors, but no model and no request."""
