"""The page, as Streamlit runs it from top to bottom for every visitor and every click."""

from __future__ import annotations

import streamlit as st

from toolkit.apps.page import file_tab, markup, model_tab, text_tab, theme
from toolkit.apps.page.shelf import Shelf
from toolkit.apps.page.trouble import told
from toolkit.settings import Settings, resolve

MASTHEAD = (
    '<header class="masthead"><h1>Emotion-LRM</h1><p>the emotion in a text, and the words it rests on</p></header>'
)
FOOTER = (
    "It says what a text reads like, not what a person feels, and is no diagnosis. Texts are read by the machine that "
    "serves this page and are not kept."
)


@st.cache_resource
def open_shelf() -> Shelf:
    """The models of this process, the same for all visitors."""
    return Shelf()


@st.cache_resource
def page_settings() -> Settings:
    """What the command line and the surroundings say, read once."""
    return resolve({})


def main() -> None:
    """Draw the page."""
    st.set_page_config("Emotion-LRM", page_icon="🎭", layout="centered")
    st.html(theme.STYLE)
    st.html(MASTHEAD)
    with told():
        told_settings, shelf = page_settings(), open_shelf()
        settings = told_settings.model_copy(update={"model": model_tab.chosen_model(told_settings)})
        shelf.prepare(settings)
        text, file, model = st.tabs(["Text", "File", "Model"])
        for tab, show in ((text, text_tab.show), (file, file_tab.show), (model, model_tab.show)):
            with tab, told():
                show(settings, shelf)
    st.html(markup.remark(FOOTER))


main()
