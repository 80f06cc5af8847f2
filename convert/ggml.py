"""A tensor of the pinned llama.cpp as it lies in memory."""

import ctypes

from convert.errors import ConvertError

F32, F16, BF16 = 0, 1, 30  # as in ggml.h
_OBJECT_SIZE = 32  # what ggml keeps beside each tensor


class Tensor(ctypes.Structure):
    """``ggml_tensor``; :func:`require_layout` holds it against the library. ``ne`` counts values, ``nb`` bytes."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
        ("extra", ctypes.c_void_p),
        ("padding", ctypes.c_char * 8),
    )


def require_layout() -> None:
    """Make sure that a tensor of the installed llama.cpp is as large as the one that is read here.

    Raises:
        ConvertError: for another llama.cpp than the pinned one.
    """
    from llama_cpp._ggml import libggml

    libggml.ggml_tensor_overhead.restype = ctypes.c_size_t
    if libggml.ggml_tensor_overhead() != _OBJECT_SIZE + ctypes.sizeof(Tensor):
        raise ConvertError(
            "The installed llama-cpp-python is another release than the pinned one",
            'Reinstall the pinned one: pip install "llama-cpp-python==0.3.36"',
        )
