"""How the page looks: Streamlit's theme as options, and the style of what Streamlit has no element for.

Nothing is fetched: fonts are those that Streamlit brings along or the system has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

STYLE = Path(__file__).with_name("style.css")

LIGHT = {
    "primaryColor": "#2b6270", "backgroundColor": "#fbfaf7", "secondaryBackgroundColor": "#ffffff",
    "textColor": "#23262b", "borderColor": "#d8d4ca", "linkColor": "#2b6270",
}  # fmt: skip
DARK = {
    "primaryColor": "#6fb3c2", "backgroundColor": "#16181b", "secondaryBackgroundColor": "#1c1f23",
    "textColor": "#e4e2dc", "borderColor": "#3a3e44", "linkColor": "#8cc6d3",
}  # fmt: skip
SHARED: Mapping[str, str] = {"baseRadius": "0.5rem", "baseFontSize": "16", "showWidgetBorder": "true"}


def theme_flags() -> Iterator[str]:
    """The theme as flags of ``streamlit run``; light or dark is what the system says."""
    for section, colours in (("theme", SHARED), ("theme.light", LIGHT), ("theme.dark", DARK)):
        for name, value in colours.items():
            yield f"--{section}.{name}={value}"
