"""How a text is to be read: the lens, the labels and the mode that a visitor chooses."""

from __future__ import annotations

import streamlit as st

from toolkit.apps.page.cards import known_lenses
from toolkit.contract.lens import Lens, parse_lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.inference.divergence import SHARED
from toolkit.settings import Settings

_LENSES = {"author": "Author", "reader": "Reader", "both": "Both"}
_MODES = {"explain": "With reasoning", "fast": "Labels only"}
_OWN = "own"


def choose(settings: Settings, key: str) -> Settings:
    """Draw the choices and return the settings with what was chosen.

    Args:
        key: the beginning of the widgets' keys.

    Raises:
        ModelError, ConvertError: where the chosen model is not there.
    """
    lenses = known_lenses(settings)
    with st.container(horizontal=True, vertical_alignment="bottom", key=f"{key}-choices"):
        lens = lenses[0]
        if len(lenses) > 1:
            lens = st.segmented_control(
                "Lens", lenses, default=first_lens(settings, lenses), required=True, key=f"{key}-lens",
                format_func=_LENSES.__getitem__,
                help="The author’s lens learned what raters read into comments, the reader’s what speakers set out to "
                "convey. Both together show where they part.",
            )  # fmt: skip
        offered = labels_of(lens)
        taxonomy = st.selectbox(
            "Labels", offered, index=offered.index(settings.taxonomy) if settings.taxonomy in offered else 0,
            key=f"{key}-taxonomy-{lens}", format_func=_title, width=300,
            help="The lens’s own labels come first; coarser sets are computed from them.",
        )  # fmt: skip
        mode = st.segmented_control(
            "Answer", tuple(_MODES), default=settings.mode, required=True, key=f"{key}-mode",
            format_func=_MODES.__getitem__, help="Labels only is several times faster.",
        )  # fmt: skip
    return settings.model_copy(
        update={"lens": lens, "taxonomy": None if taxonomy == _OWN else taxonomy, "mode": mode or settings.mode}
    )


def first_lens(settings: Settings, lenses: tuple[str, ...]) -> str:
    """The lens that is chosen at first: as the settings say, else both where the chosen model knows both."""
    asked = settings.lens if "lens" in settings.model_fields_set or not settings.model else "both"
    return asked if asked in lenses else lenses[0]


def labels_of(lens: str) -> tuple[str, ...]:
    """The taxonomies that can be had through a lens, or through both, its own first."""
    return (_OWN, SHARED) if lens == "both" else parse_lens(lens).taxonomies


def _title(taxonomy: str) -> str:
    if taxonomy == _OWN:
        return f"Each lens’s own ({' and '.join(str(len(load_taxonomy(lens.native).labels)) for lens in Lens)})"
    return load_taxonomy(taxonomy).title
