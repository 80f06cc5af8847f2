"""What embeddings say against a text: it lies far from all others, like another one, or its labels do not fit it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from toolkit.config import Config
from toolkit.contract.example import Example
from toolkit.corpora.checks import Check
from toolkit.corpora.embeddings import DEFAULT_MODEL, Vectors
from toolkit.corpora.label_errors import find_label_errors, gold_matrix, probabilities_of_fold, rivals
from toolkit.corpora.linguistic import Reader
from toolkit.corpora.neighbours import groups, nearest, strangeness

EMBEDDED_SCORES = ("outlier", "alike", "label_error")


class EmbeddingConfig(Config):
    """Whether texts are checked by their embeddings, and which of the flags drop a text; as it stands, none does.

    Attributes:
        check: embed the texts and check them; needs sentence-transformers and cleanlab.
        model: a folder in the form of sentence-transformers, or a name on the hub.
        neighbours: how many of the nearest texts an outlier is measured against.
        outlier_share: the share of texts that lie farthest from their neighbours, which is flagged.
        alike: texts this similar (cosine) form a group, of which all but the first are flagged.
        label_error: what confident learning takes for wrong is flagged where another label is so much likelier than the
            row's own: its share of both probabilities.
        folds: the labels of each text are judged by models fitted on the other folds.
        seed: for the folds and the network.
        drop: the names of flags that drop a text.
    """

    check: bool = False
    model: str = DEFAULT_MODEL
    neighbours: int = Field(10, ge=1)
    outlier_share: float = Field(0.005, ge=0, le=1)
    alike: float = Field(0.9, gt=0, le=1)
    label_error: float = Field(0.9, ge=0, le=1)
    folds: int = Field(3, ge=2)
    seed: int = 0
    drop: tuple[Literal["outlier", "alike", "label_error"], ...] = ()


def check_embedded(
    examples: Sequence[Example], vectors: Vectors, reader: Reader, config: EmbeddingConfig
) -> list[Check]:
    """The scores ``outlier``, ``alike`` and ``label_error`` of every text.

    ``outlier`` is 1 less the mean cosine similarity to the nearest texts; it falls with the number of texts, so a share
    of them is flagged. ``alike`` is the similarity to the nearest other text; its note names the first text of the
    group and how many it has. The note of ``label_error`` says what the text reads like.

    Args:
        vectors: one row of length 1 per text.
        reader: a second witness on the labels, as for the linguistic checks.
    """
    similarities, places = nearest(vectors, config.neighbours)
    leaders = groups(similarities, places, config.alike)
    sizes = Counter(leaders.tolist())
    gold = gold_matrix(examples, reader.labels)
    read = probabilities_of_fold(vectors, gold, leaders, config.folds, config.seed)
    read = (read + reader.probabilities([e.text for e in examples])) / 2
    doubt, rival = rivals(gold, read)
    far = strangeness(similarities)
    close = np.clip(similarities[:, 0], 0.0, 1.0) if similarities.shape[1] else np.zeros(len(examples))
    scores = dict(zip(EMBEDDED_SCORES, (far, close, doubt), strict=True))
    flagged = {
        "outlier": (far >= np.quantile(far, 1.0 - config.outlier_share)) & (config.outlier_share > 0),
        "alike": leaders != np.arange(len(examples)),
        "label_error": find_label_errors(gold, read) & (doubt >= config.label_error),
    }
    checks = []
    for row, example in enumerate(examples):
        flags = tuple(name for name in EMBEDDED_SCORES if flagged[name][row])
        notes = {}
        if "alike" in flags:
            leader = int(leaders[row])
            notes["alike"] = f"like {examples[leader].id or f'row {leader}'}, in a group of {sizes[leader]}"
        if "label_error" in flags:
            notes["label_error"] = f"labelled {', '.join(example.labels)}, reads like {reader.labels[int(rival[row])]}"
        checks.append(Check({name: float(column[row]) for name, column in scores.items()}, flags, notes))
    return checks
