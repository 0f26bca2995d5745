"""Chatting in a terminal: the dialogue, the ways to show it, and the loop between them."""
