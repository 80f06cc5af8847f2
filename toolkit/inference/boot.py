"""How a function of ours is started in a Python process of its own, without running the caller's main module again."""

from __future__ import annotations

import json
import sys

_CODE = """
import json, sys
sys.path[:] = json.loads(sys.argv.pop(1))
module, _, name = sys.argv.pop(1).partition(":")
from importlib import import_module
getattr(import_module(module), name)()
"""


def python_command(entry: str, *arguments: str) -> list[str]:
    """The command that calls ``module:function``, found on the search path of this process.

    The function finds ``arguments`` in ``sys.argv[1:]``.
    """
    # Importing skips whatever else people append there, such as a Path.
    paths = [entry for entry in sys.path if isinstance(entry, str)]
    return [sys.executable, "-c", _CODE, json.dumps(paths), entry, *arguments]
