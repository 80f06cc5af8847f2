"""What can go wrong with a model file: one sentence of cause, and the next step as a hint."""


class ConvertError(Exception):
    """An expected failure. ``str(error)`` is the cause in one sentence; ``hint`` is what to do next."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class GGUFError(ConvertError):
    """A file that is no sound GGUF: malformed, truncated, or of an architecture that is not supported."""


class AdapterError(ConvertError):
    """A LoRA folder that cannot be merged: incomplete, of an unsupported kind, or made for another base."""


class ModelFolderError(ConvertError):
    """A Hugging Face model folder that cannot be converted."""


class FileError(ConvertError):
    """The file system said no: no space, no permission, read-only, missing."""
