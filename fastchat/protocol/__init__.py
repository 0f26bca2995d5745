"""What crosses a process: OpenAI bodies, and the messages of workers and controllers.

Imports neither torch nor a web framework, so that every process can share it.
"""
