"""From raw splits to clean training examples, by one configuration."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.config import Config
from toolkit.contract.example import Example
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.corpora.agreement import (
    VOTES,
    Agreement,
    AgreementConfig,
    agreed,
    attach,
    fuller,
    low_agreement,
    read_votes,
    summarize,
)
from toolkit.corpora.checks import Check, drop_flagged
from toolkit.corpora.clean import CleanConfig, CleaningReport, build_filters, clean
from toolkit.corpora.cot import CotConfig
from toolkit.corpora.embeddings import Progress, embed
from toolkit.corpora.goemotions import find_split, read_goemotions, resolve_source
from toolkit.corpora.linguistic import LinguisticConfig, check_texts
from toolkit.corpora.neutral import NeutralConfig, cap_neutral, mostly_neutral
from toolkit.corpora.ratings import Rating, find_ratings, read_ratings
from toolkit.corpora.split import SplitConfig
from toolkit.corpora.suspects import EmbeddingConfig, check_embedded
from toolkit.corpora.tables import Damage, find_file


class DataConfig(Config):
    """One file for the corpora commands: agreement, cleaning, neutral texts, flags, splits, and chains."""

    agreement: AgreementConfig = AgreementConfig()
    clean: CleanConfig = CleanConfig()
    neutral: NeutralConfig = NeutralConfig()
    linguistic: LinguisticConfig = LinguisticConfig()
    embeddings: EmbeddingConfig = EmbeddingConfig()
    split: SplitConfig = SplitConfig()
    cot: CotConfig = CotConfig()

    def unwanted(self) -> tuple[str, ...]:
        """The flags that drop a text."""
        return (*self.linguistic.drop, *self.embeddings.drop)


@dataclass
class Raters:
    """What is known of the raters: the ratings, agreement by comment id, and the raters left out."""

    ratings: list[Rating] = field(default_factory=list)
    agreements: Mapping[str, Agreement] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)


def clean_training(
    config: DataConfig, source: Path | None, limit: int | None = None, cache: Path | None = None
) -> tuple[list[Example], CleaningReport]:
    """The cleaned train split of GoEmotions, without near duplicates of whichever other splits are there.

    Args:
        source: the corpora folder; None takes ``EMOTION_LRM_CORPORA`` or the hub.
        limit: read only this many rows.
        cache: keeps the embeddings, as in :func:`check_rows`.

    Raises:
        DataError: where neither the train split nor a per-rater release is there, or a column is missing.
    """
    kept, report = clean_rows(config, source, limit)
    if config.unwanted():
        kept, _ = drop_flagged(kept, check_rows(kept, config, cache), report, config.unwanted())
    return kept, report


def clean_rows(
    config: DataConfig, source: Path | None, limit: int | None = None
) -> tuple[list[Example], CleaningReport]:
    """What :func:`clean_training` gives before any flag drops a text."""
    report = CleaningReport()
    raters = load_raters(config.agreement, source, report.damage)
    rows = itertools.islice(_training_rows(config, source, raters, report.damage), limit)
    filters = {
        "agreement": low_agreement(raters.agreements, config.agreement),
        "neutral": mostly_neutral(config.neutral),
        **build_filters(config.clean, _held_out(source, report.damage)),
    }
    kept, report = clean(attach(rows, raters.agreements, config.agreement), filters, report)
    report.raters_left_out = sorted(raters.left_out)
    return cap_neutral(kept, report, config.neutral), report


def check_rows(
    examples: Sequence[Example], config: DataConfig, cache: Path | None = None, progress: Progress | None = None
) -> list[Check]:
    """The scores and flags of every text: the linguistic ones, and those by embeddings where they are asked for.

    Args:
        cache: the folder that keeps the embeddings; without one they are computed and forgotten.
        progress: told how many texts are embedded.
    """
    by_words = config.linguistic.check or bool(config.linguistic.drop)
    by_vectors = config.embeddings.check or bool(config.embeddings.drop)
    if not examples or not (by_words or by_vectors):
        return []
    from toolkit.corpora.lexicon import FoldedLexicon

    labels = load_taxonomy(examples[0].lens.native).labels
    reader = FoldedLexicon(examples, labels, config.linguistic.folds)
    checks = check_texts(examples, reader, config.linguistic) if by_words else [Check({}) for _ in examples]
    if not by_vectors:
        return checks
    with tempfile.TemporaryDirectory() as passing:
        vectors = embed([e.text for e in examples], config.embeddings.model, cache or Path(passing), progress)
        further = check_embedded(examples, vectors, reader, config.embeddings)
        del vectors  # the file is mapped, and some systems refuse to remove it before
    return [first | second for first, second in zip(checks, further, strict=True)]


def load_raters(config: AgreementConfig, source: Path | None, damage: Damage | None = None) -> Raters:
    """What is known of the raters: from the per-rater release, from a table of votes, for each text the fuller one.

    From the hub this is the per-rater release; a folder may lack both.
    """
    folder = resolve_source(source)
    ratings = list(read_ratings(source, damage)) if folder is None or find_ratings(folder) else []
    agreements, left_out = summarize(ratings, config)
    votes = find_file([folder / "goemotions"], VOTES) if folder else None
    if votes is not None:
        agreements = fuller(agreements, read_votes(votes, damage))
    return Raters(ratings, agreements, left_out)


def _training_rows(config: DataConfig, source: Path | None, raters: Raters, damage: Damage) -> Iterable[Example]:
    """The official train split; without one the texts of the per-rater release on which raters agree."""
    folder = resolve_source(source)
    if folder is not None and raters.ratings and find_split(folder, "train") is None:
        return agreed(raters.ratings, raters.agreements, config.agreement.min_raters)
    return read_goemotions("train", source, damage)


def _held_out(source: Path | None, damage: Damage) -> list[Example]:
    folder = resolve_source(source)
    splits = [s for s in ("dev", "test") if folder is None or find_split(folder, s) is not None]
    return [example for split in splits for example in read_goemotions(split, source, damage)]
