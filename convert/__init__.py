"""Merge, GGUF, quantize, verify: model files in, model files out.

This package knows files and tensors and nothing of emotions. Each verb is a module with one function of the same
name, and a command under ``convert``. Importing the package loads neither numpy nor torch.
"""

from convert.errors import ConvertError

__all__ = ["ConvertError"]
