"""Fine-tuning: arguments, batches, the training loop and what users start."""
