"""What users start: one module a process, and inner rooms for what is larger than a file."""
