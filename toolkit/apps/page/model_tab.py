"""The model: which one reads, what it says of itself, and how good it is."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

import streamlit as st

from toolkit.apps.page import markup
from toolkit.apps.page.cards import FIGURES, Card, card_of, choices
from toolkit.apps.page.shelf import Shelf
from toolkit.apps.page.trouble import told
from toolkit.errors import UsageError
from toolkit.inference.store import licence_remark
from toolkit.settings import Settings, wanted_model

_FILE = "a GGUF file on this machine …"
_KEY = "model-choice"


def chosen_model(settings: Settings) -> str | None:
    """The model that the visitor chose in this tab, else the one of the settings; None leaves it to the lens."""
    found: str | None = st.session_state.get("model", settings.model)
    return found


def show(settings: Settings, shelf: Shelf) -> None:
    """Draw the tab."""
    if settings.adapter:
        st.html(markup.remark(f"The adapter {settings.adapter} is added to every model."))
    current = wanted_model(settings) or choices()[0]
    offered = [*choices(), *([_FILE] if is_local() else [])]
    if current not in offered:
        offered.insert(0, current)
    name = st.selectbox("Model", offered, index=offered.index(current), key=_KEY, format_func=os.path.basename)
    if name == _FILE:
        name = st.text_input("Path of the GGUF file", key="path", placeholder="model.gguf").strip().strip('"')
        if not name:
            return
    with told():
        if name.lower().endswith(".gguf"):
            name = str(Path(name).expanduser().absolute())
        elif os.sep in name:
            raise UsageError("That is no GGUF file.", "Give a path that ends with .gguf.")
        card = card_of(name)
        _use(name, current, settings, shelf)
        _show_card(card, licence_remark(name))


def is_local() -> bool:
    """Whether only this machine can reach the page; others shall not look for files on it."""
    address = st.get_option("server.address") or "0.0.0.0"
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return bool(address == "localhost")


def _use(name: str, current: str, settings: Settings, shelf: Shelf) -> None:
    if name == current:
        st.html(markup.remark("This model reads now."))
    elif st.button("Use this model", type="primary", key="use"):
        st.session_state["model"] = name
        shelf.prepare(settings.model_copy(update={"model": name}))
        st.rerun()


def _show_card(card: Card, remark: str) -> None:
    if remark:
        st.html(markup.remark(remark))
    st.html(markup.facts(card.facts))
    if card.figures:
        st.html(markup.table(FIGURES, card.figures, f"How good it is. {card.measured}"))
    if card.words:
        with st.expander("The whole model card"):
            st.markdown(card.words)
