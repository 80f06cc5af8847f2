"""One text: write or paste it, and see how it is read."""

from __future__ import annotations

import streamlit as st

from toolkit.apps.escape import json_line
from toolkit.apps.page import markup
from toolkit.apps.page.choice import choose
from toolkit.apps.page.shelf import Shelf
from toolkit.apps.page.trouble import told
from toolkit.contract.analysis import Analysis, Comparison
from toolkit.errors import UsageError
from toolkit.inference.store import licence_remark
from toolkit.settings import Settings, wanted_model

LONGEST = 50_000
EXAMPLES = (
    "I waited all evening for her call. Nothing. I feel disappointed and ignored.",
    "You stayed up all night to help me finish this? I don’t know what to say. Thank you!",
    "Oh great, another meeting that could have been an e-mail.",
)


def show(settings: Settings, shelf: Shelf) -> None:
    """Draw the tab."""
    with st.form("text-form", border=False, enter_to_submit=True):
        text = st.text_area("Text to read", key="text", height=140, placeholder="Write or paste a text")
        if st.form_submit_button("Read", type="primary", key="read"):
            st.session_state["asked"] = text
    chosen = choose(settings, "text")
    asked: str | None = st.session_state.get("asked")
    if asked is None:
        _examples()
        return
    with told():
        found = _read(asked, chosen, shelf)
        st.html(markup.comparison(found) if isinstance(found, Comparison) else markup.reading(found))
        remark = licence_remark(wanted_model(chosen))
        if remark:
            st.html(markup.remark(remark))
        st.download_button(
            "Download as JSON", json_line(found.to_dict()), "reading.json", "application/json", on_click="ignore",
            type="tertiary", key="reading-json",
        )  # fmt: skip


def _examples() -> None:
    st.html(markup.remark("Or begin with one of these:"))
    with st.container(key="examples", gap="small"):
        for number, example in enumerate(EXAMPLES):
            st.button(f"“{example}”", key=f"example-{number}", on_click=_take, args=(example,), width="stretch")


def _take(example: str) -> None:
    st.session_state["text"] = st.session_state["asked"] = example


def _read(text: str, settings: Settings, shelf: Shelf) -> Analysis | Comparison:
    """The reading, which is remembered until another is asked for.

    Raises:
        UsageError: for an empty text and for one that belongs into a file.
        EmotionLRMError, ConvertError: as the model does.
    """
    if not text.strip():
        raise UsageError("The text is empty.", "Write or paste at least one word.")
    if len(text) > LONGEST:
        cause = f"The text has {len(text):,} characters; this box takes {LONGEST:,}."
        raise UsageError(cause, "Put it into a file, and give that in the tab File.")
    known = st.session_state.get("reading")
    if known is not None and known[0] == (text, settings):
        found: Analysis | Comparison = known[1]
        return found
    waiting = st.empty()
    with waiting, st.spinner("Reading …"):
        found = _ask(text, settings, shelf)
    waiting.empty()
    st.session_state["reading"] = ((text, settings), found)
    return found


def _ask(text: str, settings: Settings, shelf: Shelf) -> Analysis | Comparison:
    bar = st.empty()

    def progress(done: int, total: int, step: str) -> None:
        bar.progress(done / total if total else 0.0, f"Getting the model ready, which is kept: {step or 'loading'} …")

    with shelf.borrowed(settings, progress) as model:
        bar.empty()
        if settings.lens == "both":
            return model.compare(text, taxonomy=settings.taxonomy, mode=settings.mode)
        return model.analyze(text, lens=settings.lens, taxonomy=settings.taxonomy, mode=settings.mode)
