"""The insides of a worker process: an engine behind FastChat's wire format."""
