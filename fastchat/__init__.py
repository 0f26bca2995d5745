"""FastChat for Yuan 2.0: fine-tune, serve and evaluate the Yuan2 models.

Importing this package is cheap: it loads neither torch nor transformers.
"""

__version__ = "0.1.0"
