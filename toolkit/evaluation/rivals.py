"""Simpler models beside ours, fitted on the same examples: the most frequent labels, a word model, an encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.contract.example import Example
from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.errors import EmotionLRMError, UsageError
from toolkit.evaluation.metrics import Floats
from toolkit.inference.calibration import Calibration, parse_calibration

if TYPE_CHECKING:
    from toolkit.training.config import EncoderConfig
    from toolkit.training.encoder_model import EncoderModel

Tell = Callable[[str], None]
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Rival:
    """A model that only names labels, as :func:`~toolkit.evaluation.evaluate.judge` wants it.

    Attributes:
        lens: whose texts it has learned.
        taxonomy: of its posteriors.
        probabilities: from texts to posteriors, shape (n, labels).
    """

    name: str
    lens: Lens
    taxonomy: str
    probabilities: Callable[[Sequence[str]], Floats]
    calibration: Calibration = field(default_factory=Calibration)

    @property
    def lenses(self) -> tuple[Lens, ...]:
        """The one lens that it has learned."""
        return (self.lens,)

    def posteriors(self, texts: Sequence[str], *, lens: Lens) -> tuple[Floats, Floats]:
        """Posteriors, shape (n, labels), and ones, shape (n,), as nothing but labels can be named.

        Raises:
            UsageError: for the other lens.
        """
        if lens is not self.lens:
            raise UsageError(f"{self.name} has not learned the lens {lens}.", "Judge it by another protocol.")
        return self.probabilities(texts), np.ones(len(texts))


def require_sklearn() -> None:
    """Refuse to go on without scikit-learn.

    Raises:
        EmotionLRMError: with the line that installs it.
    """
    if find_spec("sklearn") is None:
        raise EmotionLRMError("The baselines need the package scikit-learn.", "pip install scikit-learn")


def fit_majority(examples: Sequence[Example], lens: Lens, taxonomy: str) -> Rival:
    """Every text gets the label shares of the examples, and so always the same label."""
    shares = _targets(examples, taxonomy).mean(0)
    return Rival("majority", lens, taxonomy, lambda texts: np.tile(shares, (len(texts), 1)))


def fit_words(examples: Sequence[Example], lens: Lens, taxonomy: str) -> Rival:
    """TF-IDF over words and pairs of words, and one multinomial logistic regression.

    An example with several labels counts as one row for each, weighted by its share.
    """
    require_sklearn()
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2 if len(examples) > 1000 else 1, sublinear_tf=True)
    matrix = vectorizer.fit_transform([example.text for example in examples])
    targets = _targets(examples, taxonomy)
    rows, labels = targets.nonzero()
    regression = LogisticRegression(C=5.0, max_iter=200, tol=1e-3)
    regression.fit(matrix[rows], labels, sample_weight=targets[rows, labels])

    def probabilities(texts: Sequence[str]) -> Floats:
        found = np.zeros((len(texts), targets.shape[1]))
        found[:, regression.classes_] = regression.predict_proba(vectorizer.transform(texts))
        return found

    return Rival("TF-IDF + logistic regression", lens, taxonomy, probabilities)


def _targets(examples: Sequence[Example], taxonomy: str) -> Floats:
    """The share of each label, shape (examples, labels)."""
    known = load_taxonomy(taxonomy)
    shares = np.zeros((len(examples), len(known.labels)))
    for row, example in enumerate(examples):
        for label, share in example.target().items():
            shares[row, known.index(label)] = share
    return shares


def train_encoder(
    config: EncoderConfig, examples: Sequence[Example], folder: Path, tell: Tell, progress: Progress
) -> Rival:
    """An encoder trained on the examples, or the one that ``folder`` keeps from the same examples and configuration.

    A run that was broken off goes on where it stood. ``tell`` hears how long it will take.
    """
    from convert.files import locked
    from toolkit.training.encoder_model import EncoderModel, is_encoder, require_transformers
    from toolkit.training.loop import fingerprint

    require_transformers()
    from toolkit.training.encoder import prepare_encoder
    from toolkit.training.loop import finish

    place = folder / f"{config.name}-{fingerprint(config, examples)}"
    place.mkdir(parents=True, exist_ok=True)
    with locked(place / "encoder.zip", on_wait=lambda: tell("Another process is training this encoder; waiting.")):
        if not is_encoder(str(place / "encoder.zip")):
            named = f"{len(examples):,} examples"
            trainer = prepare_encoder(config.model_copy(update={"out": place}), examples, (), named, tell)
            tell(
                f"Training an encoder on {named} takes about {trainer.minutes():.0f} minutes on this machine; "
                f"it is kept in {place}."
            )
            finish(trainer, lambda done, total, _: progress(done, total, "training the encoder"))
    return encoder_rival(EncoderModel.load(place / "encoder.zip"))


def encoder_rival(model: EncoderModel) -> Rival:
    """A loaded encoder with the calibration that lies beside its weights."""

    def probabilities(texts: Sequence[str]) -> Floats:
        return np.asarray(model.posteriors(texts, lens=model.facts.lens)[0])

    calibration = parse_calibration(model.calibration or "{}")
    return Rival(model.name, model.facts.lens, model.taxonomy, probabilities, calibration)


@contextmanager
def open_encoder(path: str) -> Iterator[Any]:
    """The encoder of a folder or a zip."""
    from toolkit.training.encoder_model import EncoderModel

    model = EncoderModel.load(Path(path))
    try:
        yield encoder_rival(model)
    finally:
        model.close()
