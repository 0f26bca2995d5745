"""The embedded default: a tiny Yuan2, the data it learns from and the recipes that make it.

A toy to try every part of the project on two CPU cores and without a network. It sits on
top of all other layers; nothing below imports it.
"""
