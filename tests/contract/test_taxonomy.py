"""The five taxonomies are complete, ordered, and map into one another as the documentation says."""

import pytest

from toolkit.contract.lens import Lens, check_pair, parse_lens
from toolkit.contract.taxonomy import NAMES, load_taxonomy
from toolkit.errors import UsageError

SIZES = {"goemotions": 28, "ekman": 7, "sentiment": 4, "shared10": 10, "empathetic": 32}
EMPATHETIC_TO_SHARED10 = {
    "joy": {"joyful", "excited", "content"},
    "fear": {"afraid", "terrified", "apprehensive", "anxious"},
    "anger": {"angry", "annoyed", "furious"},
    "sadness": {"sad", "devastated", "lonely", "disappointed"},
    "surprise": {"surprised"},
    "disgust": {"disgusted"},
    "love": {"caring"},
    "gratitude": {"grateful"},
    "pride": {"proud"},
}


@pytest.mark.parametrize("name", NAMES)
def test_every_label_is_defined_once_in_one_sentence(name: str) -> None:
    taxonomy = load_taxonomy(name)
    assert len(taxonomy.labels) == len(set(taxonomy.labels)) == SIZES[name]
    for entry in taxonomy.entries:
        assert entry.definition.endswith(".")
        assert len(entry.definition.split()) >= 5


def test_empathetic_maps_into_the_ten_as_documented() -> None:
    taxonomy, ten = load_taxonomy("empathetic"), load_taxonomy("shared10").labels
    found: dict[str, set[str]] = {}
    for label, goal in zip(taxonomy.labels, taxonomy.mapping("shared10"), strict=True):
        if goal is not None:
            found.setdefault(ten[goal], set()).add(label)
    assert found == EMPATHETIC_TO_SHARED10


@pytest.mark.parametrize("name", ["goemotions", "empathetic"])
def test_a_label_left_out_of_the_ten_says_why(name: str) -> None:
    for entry in load_taxonomy(name).entries:
        assert ("shared10" in entry.maps) != bool(entry.left_out.get("shared10"))


def test_goemotions_reaches_the_ten_by_the_same_name_only() -> None:
    taxonomy, ten = load_taxonomy("goemotions"), load_taxonomy("shared10").labels
    pairs = {(a, ten[b]) for a, b in zip(taxonomy.labels, taxonomy.mapping("shared10"), strict=True) if b is not None}
    assert pairs == {(label, label) for label in ten}


@pytest.mark.parametrize("target", ["ekman", "sentiment"])
def test_goemotions_maps_wholly_into_coarse_taxonomies(target: str) -> None:
    mapping = load_taxonomy("goemotions").mapping(target)
    assert set(mapping) == set(range(SIZES[target]))


def test_every_feeling_of_the_reader_is_good_bad_or_open() -> None:
    taxonomy, groups = load_taxonomy("empathetic"), load_taxonomy("sentiment").labels
    found = {label: groups[goal] for label, goal in zip(taxonomy.labels, taxonomy.mapping("sentiment"), strict=True)}  # type: ignore[index]
    assert {found[label] for label in ("joyful", "hopeful", "proud")} == {"positive"}
    assert {found[label] for label in ("sad", "guilty", "ashamed")} == {"negative"}
    assert {found[label] for label in ("surprised", "nostalgic")} == {"ambiguous"}


def test_unknown_names_are_usage_errors_that_list_the_known_ones() -> None:
    with pytest.raises(UsageError) as taxonomy:
        load_taxonomy("plutchik")
    assert "goemotions" in taxonomy.value.hint
    with pytest.raises(UsageError) as label:
        load_taxonomy("ekman").index("love")
    assert "surprise" in label.value.hint
    with pytest.raises(UsageError):
        parse_lens("listener")


def test_only_the_documented_pairs_of_lens_and_taxonomy_are_allowed() -> None:
    allowed = {(lens, name) for lens in Lens for name in lens.taxonomies}
    assert allowed == {
        (Lens.AUTHOR, "goemotions"),
        (Lens.AUTHOR, "ekman"),
        (Lens.AUTHOR, "sentiment"),
        (Lens.AUTHOR, "shared10"),
        (Lens.READER, "empathetic"),
        (Lens.READER, "shared10"),
    }
    with pytest.raises(UsageError, match="cannot answer") as refused:
        check_pair(Lens.READER, "ekman")
    assert "empathetic, shared10" in refused.value.hint
