"""Colours that can be read: WCAG 2.1 contrast of all words and marks, on light and dark."""

from __future__ import annotations

import re

import pytest

from toolkit.apps.page.theme import DARK, LIGHT, STYLE, theme_flags

CSS = STYLE.read_text(encoding="utf-8")
OWN = {name: (light, dark) for name, light, dark in re.findall(r"--([a-z]+): light-dark\((#\w+), (#\w+)\)", CSS)}


def luminance(colour: str) -> float:
    def linear(part: int) -> float:
        share = part / 255
        return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4

    red, green, blue = (linear(int(colour[n : n + 2], 16)) for n in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_ruler_measures_right() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("dark", [False, True])
def test_words_stand_out_from_what_they_stand_on(dark: bool) -> None:
    theme = DARK if dark else LIGHT
    grounds = (theme["backgroundColor"], theme["secondaryBackgroundColor"], OWN["card"][dark])
    words = [theme["textColor"], theme["linkColor"]]
    words += [OWN[name][dark] for name in ("soft", "positive", "negative", "ambiguous", "neutral", "unsure")]
    for word in words:
        for ground in grounds:
            assert contrast(word, ground) >= 4.5, (word, ground)


@pytest.mark.parametrize("dark", [False, True])
def test_bars_and_buttons_stand_out(dark: bool) -> None:
    theme = DARK if dark else LIGHT
    for name in ("positive", "negative", "ambiguous", "neutral", "unsure"):
        assert contrast(OWN[name][dark], OWN["track"][dark]) >= 3
    assert contrast(theme["primaryColor"], theme["backgroundColor"]) >= 3


def test_nothing_is_fetched_for_looks() -> None:
    assert "url(" not in CSS
    assert "@import" not in CSS
    assert not [flag for flag in theme_flags() if "://" in flag]
