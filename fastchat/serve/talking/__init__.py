"""Asking models over HTTP, and measuring their answers: what page and terminal share."""
