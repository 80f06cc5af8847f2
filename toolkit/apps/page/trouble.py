"""Failures on the page: one sentence and the next step, never a traceback."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import streamlit as st

from convert.errors import ConvertError
from toolkit.apps.page import markup
from toolkit.cli import explain
from toolkit.errors import EmotionLRMError

log = logging.getLogger(__name__)


@contextmanager
def told(reword: Callable[[str], str] = str) -> Iterator[None]:
    """Show a failure in its place on the page; what comes after the block goes on.

    Args:
        reword: what is to become of the sentences, which may name files by paths that mean nothing to a visitor.
    """
    try:
        yield
    except Exception as error:
        show(error, reword)


def show(error: Exception, reword: Callable[[str], str] = str) -> None:
    """Show a failure; what nobody expected goes to the log of the server with its traceback."""
    _, cause, hint = explain(error)
    if not isinstance(error, (EmotionLRMError, ConvertError, OSError, MemoryError)):
        log.error("unexpected on the page", exc_info=error)
        hint = "Please report it, with what you did."
    st.html(markup.problem(reword(cause), reword(hint)))
