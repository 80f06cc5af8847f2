"""What the model tab says of a model, and which lenses the page offers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from convert.errors import ConvertError
from toolkit.apps.page import cards
from toolkit.contract.lens import Lens
from toolkit.errors import ModelError
from toolkit.inference.store import Shipped, ShippedModel, licence_remark, load_shipped
from toolkit.settings import Settings

AUTHOR = "emotion-smollm2-135m"


def shipped_models(*lenses: list[Lens], licence: str = "CC-BY-NC-4.0") -> Shipped:
    made = {
        f"model-{n}": ShippedModel(adapter="author", base="smollm2-135m", lenses=known, licence=licence, datasets=["D"])
        for n, known in enumerate(lenses)
    }
    return Shipped(default="model-0", models=made)


@pytest.fixture
def two_lenses(monkeypatch: pytest.MonkeyPatch) -> None:
    """One model with each number of lenses, as the two-lens adapter makes it."""
    made = shipped_models([Lens.AUTHOR], [Lens.AUTHOR, Lens.READER])
    for place in ("toolkit.apps.page.cards", "toolkit.inference.store"):
        monkeypatch.setattr(f"{place}.load_shipped", lambda: made)


def test_the_shipped_model_has_a_card_with_its_figures() -> None:
    card = cards.card_of(AUTHOR)
    facts = dict(card.facts)
    assert card.lenses == (Lens.AUTHOR,)
    assert facts["licence"] == "Apache-2.0"
    assert facts["learned from"] == "GoEmotions"
    assert facts["base"].startswith("HuggingFaceTB/SmolLM2-135M-Instruct")
    rows = {row[0]: row for row in card.figures}
    assert {"goemotions", "ekman", "sentiment", "shared10"} <= rows.keys()
    assert all(len(row) == len(cards.FIGURES) for row in card.figures)
    assert rows["goemotions"][1] == "dev"
    assert rows["goemotions"][2] == "5,426"
    assert 0.5 < float(rows["goemotions"][3].split()[0]) < 0.8
    assert card.measured.startswith("Measured 20")


def test_the_model_card_comes_without_front_matter_and_without_its_table_of_figures() -> None:
    words = cards.card_of(AUTHOR).words
    assert not words.startswith("---")
    assert "license:" not in words
    assert "#### Limits" in words
    assert "Figures" not in words
    assert "no proof" in words


def test_a_file_type_is_part_of_a_name() -> None:
    assert dict(cards.card_of(f"{AUTHOR}-q4_0").facts)["file type"] == "Q4_0"


@pytest.mark.parametrize("name", ["no-such-model", "/no/such/file.gguf"])
def test_a_model_that_is_not_there_is_said_with_a_next_step(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        cards.card_of(name)
    assert caught.value.hint


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"GGUF" + b"\xff" * 64)
    with pytest.raises(ConvertError):
        cards.card_of(str(path))


def test_without_a_choice_every_shipped_lens_is_offered(two_lenses: None) -> None:  # noqa: ARG001
    assert cards.known_lenses(Settings()) == ("author", "reader", "both")
    assert cards.known_lenses(Settings(model="model-0")) == ("author",)
    assert cards.known_lenses(Settings(model="model-1")) == ("author", "reader", "both")


def test_two_models_of_one_lens_each_are_not_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "load_shipped", lambda: shipped_models([Lens.AUTHOR], [Lens.READER]))
    assert cards.known_lenses(Settings()) == ("author", "reader")


def test_the_lenses_that_ship_are_offered() -> None:
    shipped = {lens for model in load_shipped().models.values() for lens in model.lenses}
    assert set(cards.known_lenses(Settings())) - {"both"} == {str(lens) for lens in shipped}


def test_a_licence_that_forbids_commercial_use_is_said(two_lenses: None) -> None:  # noqa: ARG001
    assert "forbids commercial use" in licence_remark("model-1")


def test_a_free_licence_needs_no_remark(tmp_path: Path) -> None:
    assert licence_remark(AUTHOR) == ""
    assert licence_remark(str(tmp_path / "other.gguf")) == ""


def test_a_gguf_file_says_what_it_says(tmp_path: Path, write_gguf: Callable[..., Path]) -> None:
    path = write_gguf(tmp_path / "mine.gguf", name="mine", lenses='["author", "reader"]', licence="<b>free</b>")
    card = cards.card_of(str(path))
    assert (card.name, card.lenses) == ("mine", (Lens.AUTHOR, Lens.READER))
    assert dict(card.facts)["licence"] == "<b>free</b>"
    assert "made by Emotion-LRM" not in dict(card.facts)
    assert cards.known_lenses(Settings(model=str(path))) == ("author", "reader", "both")


def test_a_foreign_gguf_file_is_called_one(tmp_path: Path, write_gguf: Callable[..., Path]) -> None:
    card = cards.card_of(str(write_gguf(tmp_path / "other.gguf")))
    assert card.lenses == (Lens.AUTHOR,)
    assert "made by Emotion-LRM" in dict(card.facts)
