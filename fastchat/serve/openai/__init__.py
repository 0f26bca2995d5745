"""The insides of the OpenAI-compatible API server, one idea a module."""
