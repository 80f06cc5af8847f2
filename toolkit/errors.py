"""Expected failures. Each carries one sentence of cause and one next step; commands print both without a traceback."""

from __future__ import annotations


class EmotionLRMError(Exception):
    """The base of every failure that the toolkit expects.

    Args:
        message: the cause, one sentence.
        hint: the next step, one sentence.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(EmotionLRMError):
    """Something was asked for that cannot be: an unknown label, an empty text, an impossible pair of options."""

    exit_code = 2


class DataError(EmotionLRMError):
    """A corpus or input file is missing, damaged or of another form than expected."""


class ModelError(EmotionLRMError):
    """A model, adapter or tokenizer is missing, damaged or does not fit."""


class ConfigError(UsageError):
    """A configuration file has an unknown key or a value of the wrong kind."""
