"""Fitting a network: a loop that yields, so that progress and cancellation belong to whoever iterates.

Importing this package without the ``training`` extra raises MissingExtra, which says how to install it.
"""

from importlib.util import find_spec

from ktrdr.errors import MissingExtra

if any(find_spec(name) is None for name in ("torch", "onnx", "safetensors")):
    raise MissingExtra("Training a model", "training")
