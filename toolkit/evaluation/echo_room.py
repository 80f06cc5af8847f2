"""The Echo Room's protocol, from whatever splits are there; our model and its rivals are trained on its own 80 %.

Both corpora are mapped to the ten shared labels, neutral is capped at 10,000, and 80/20 is cut by label with seed 42.
All models learn through one lens and are not told which corpus a text is from.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convert.build import build_model
from convert.file_types import default_file_type
from convert.files import locked
from toolkit.assets import asset
from toolkit.base import find_base_gguf, load_base
from toolkit.config import load_config
from toolkit.contract.example import Example
from toolkit.contract.lens import Lens
from toolkit.contract.prompt import load_prompt
from toolkit.contract.taxonomy import NEUTRAL, load_taxonomy
from toolkit.corpora.empathetic import read_empathetic
from toolkit.corpora.goemotions import read_goemotions
from toolkit.corpora.ratings import read_ratings
from toolkit.errors import DataError
from toolkit.evaluation.baselines import figures, fit_rivals, judge_rival
from toolkit.evaluation.document import Block, Heading, Points, Table, Words
from toolkit.evaluation.evaluate import Judged, judge, read
from toolkit.evaluation.protocols import Rows, label_matrix
from toolkit.evaluation.rivals import Progress, Tell, require_sklearn
from toolkit.inference.model import EmotionModel

TAXONOMY = "shared10"
NEUTRAL_CAP = 10_000
SEED = 42
HELD_OUT = 0.2
ALL_RATINGS = 211_225
"""Rows of the full per-rater release."""

READERS: dict[str, Callable[[str, Path | None], Iterator[Example]]] = {
    "goemotions": read_goemotions,
    "empathetic": read_empathetic,
}

ECHO_ROOM: dict[str, Any] = {
    "model": "The Echo Room, bge-small-en",
    "accuracy": 0.6675,
    "weighted_f1": 0.6633,
    "differences": [
        "Its input file bears the name of the per-rater release, so its rows seem to be single ratings; ours are texts "
        "on whose one label at least two raters agree, which are easier.",
        "Its split is of rows: ratings of one text may lie on both sides. So they do in our per-rater variant.",
        "Its exact rows are not published; ours come from the splits that are there, EmpatheticDialogues included.",
    ],
}


@dataclass(frozen=True)
class Task:
    """The protocol's rows.

    Attributes:
        train: the 80 %; labels are of ``shared10``, all through the author's lens; the id begins with the corpus.
        held_out: the 20 %.
        missing: the splits that are not there, one line each.
    """

    name: str
    train: list[Example]
    held_out: list[Example]
    missing: list[str] = field(default_factory=list)

    @property
    def repeated(self) -> float:
        """The share of held-out texts that stand, word for word, in the 80 % as well."""
        seen = {example.text for example in self.train}
        return sum(example.text in seen for example in self.held_out) / len(self.held_out)

    def rows(self, limit: int | None = None) -> Rows:
        """The first ``limit`` held-out rows, as they are judged."""
        held = self.held_out[:limit]
        gold = label_matrix((example.labels for example in held), len(held), TAXONOMY)
        texts = tuple(example.text for example in held)
        return Rows(self.name, None, Lens.AUTHOR, TAXONOMY, texts, gold, None, False)


@dataclass(frozen=True)
class Outcome:
    """Our model and its rivals (None where one could not be trained) on the held-out rows of a task."""

    task: Task
    ours: Judged
    rivals: dict[str, Judged | None]

    def to_dict(self) -> dict[str, Any]:
        """Our evaluation, the rivals' under ``baselines``, and what the task was."""
        of_corpora = {corpus: self._accuracy(corpus) for corpus in READERS}
        return self.ours.evaluation.to_dict() | {
            "baselines": {name: one and figures(one.evaluation) for name, one in self.rivals.items()},
            "trained_on": len(self.task.train),
            "repeated": round(self.task.repeated, 6),
            "by_corpus": {corpus: found for corpus, found in of_corpora.items() if found},
            "missing": self.task.missing,
            "echo_room": ECHO_ROOM,
        }

    def _accuracy(self, corpus: str) -> dict[str, float] | None:
        mine = [e.id.startswith(corpus) for e in self.task.held_out[: len(self.ours.rows.texts)]]
        if not any(mine):
            return None
        models = {"ours": self.ours, **{name: one for name, one in self.rivals.items() if one}}
        return {"n": sum(mine), **{name: round(float(one.correct[mine].mean()), 6) for name, one in models.items()}}


def agreed_task(source: Path | None) -> Task:
    """The protocol on texts on whose label raters agree.

    Raises:
        DataError: where no split of either corpus is there.
    """
    found, missing = gather(source)
    return split_task("echo-room", found, missing)


def per_rater_task(source: Path | None) -> Task:
    """The protocol on single ratings in the place of GoEmotions' splits.

    Raises:
        DataError: where not all ratings are there.
    """
    ratings = list(read_ratings(source))
    if len(ratings) < ALL_RATINGS:
        raise DataError(
            f"Of the per-rater release of GoEmotions {len(ratings):,} of {ALL_RATINGS:,} ratings are there.",
            "Put the whole release there for the per-rater variant.",
        )
    rated = [(f"goemotions/{r.id}/{r.rater}", r.text, r.labels) for r in ratings]
    situations, missing = gather(source, ("empathetic",))
    return split_task("echo-room, per rater", [*_shared("goemotions", rated), *situations], missing)


def gather(source: Path | None, corpora: Iterable[str] = READERS) -> tuple[list[Example], list[str]]:
    """Every text of the corpora whose one label has a place among the ten, and which splits are missing."""
    found: list[Example] = []
    missing = []
    for corpus in corpora:
        for split in ("train", "dev", "test"):
            try:
                rows = [(f"{corpus}/{split}/{e.id}", e.text, e.labels) for e in READERS[corpus](split, source)]
            except DataError as error:
                missing.append(str(error))
            else:
                found += _shared(corpus, rows)
    return found, missing


def _shared(corpus: str, rows: Sequence[tuple[str, str, tuple[str, ...]]]) -> Iterator[Example]:
    """Rows of (id, text, native labels) as examples of the ten labels, those that have exactly one of them."""
    native, shared = load_taxonomy(corpus), load_taxonomy(TAXONOMY)
    mapping = native.mapping(TAXONOMY)
    for name, text, labels in rows:
        goal = mapping[native.index(labels[0])] if len(labels) == 1 else None
        if goal is not None:
            yield Example(text, (shared.labels[goal],), Lens.AUTHOR, name)


def split_task(name: str, examples: Sequence[Example], missing: list[str]) -> Task:
    """Cap neutral, and cut off a fifth of every label, by seed 42.

    Raises:
        DataError: where there are too few rows to cut.
    """
    require_sklearn()
    from sklearn.model_selection import train_test_split

    neutral = [example for example in examples if example.labels == (NEUTRAL,)]
    kept = random.Random(SEED).sample(neutral, min(len(neutral), NEUTRAL_CAP))
    rows = [*kept, *(example for example in examples if example.labels != (NEUTRAL,))]
    try:
        train, held = train_test_split(
            rows, test_size=HELD_OUT, random_state=SEED, stratify=[example.labels[0] for example in rows]
        )
    except ValueError:
        raise DataError(
            f"{len(rows)} rows are too few for {name}.", f"Give more splits. {' '.join(missing)}".strip()
        ) from None
    return Task(name, train, held, missing)


def run_task(
    task: Task,
    folder: Path,
    tell: Tell,
    progress: Progress,
    *,
    steps: int | None = None,
    epochs: float | None = None,
    limit: int | None = None,
) -> Outcome:
    """Train our model and its rivals on the 80 % and judge them by the 20 %.

    What is trained is kept in ``folder`` by a hash of rows and configuration; a run that was broken off goes on.

    Args:
        steps: at most so many updates of our model and of the encoder.
        epochs: in the place of the configurations' own.
        limit: judge the first rows only.
    """
    budget = {key: value for key, value in (("max_steps", steps), ("epochs", epochs)) if value is not None}
    rows = task.rows(limit)
    fitted = fit_rivals(task.train, Lens.AUTHOR, TAXONOMY, folder, tell, progress, **budget)
    rivals = {name: judge_rival(rival, rows, progress) if rival else None for name, rival in fitted.items()}
    with EmotionModel.load(_train_ours(task, folder, tell, progress, budget)) as model:
        return Outcome(task, judge(model, rows, read(model, rows, progress), mode="fast"), rivals)


def _train_ours(task: Task, folder: Path, tell: Tell, progress: Progress, budget: dict[str, Any]) -> Path:
    """The GGUF of our model, trained on the 80 %, merged and converted as the shipped one is."""
    from toolkit.training.commands import require_torch

    require_torch()
    from toolkit.training.config import TrainConfig
    from toolkit.training.loop import fingerprint, finish
    from toolkit.training.lora import account, prepare

    config = load_config(TrainConfig, asset("models", "configs", "echo-room.yaml")).model_copy(update=budget)
    base = load_base(config.base)
    place = folder / f"{config.name}-{fingerprint(config, task.train)}"
    adapter, model = place / "adapter", place / f"{config.name}-{base.name}.gguf"
    with locked(adapter, on_wait=lambda: tell("Another process is training this model; waiting.")):
        if not (adapter / "training.json").is_file():
            trainer = prepare(config.model_copy(update={"out": place}), task.train, [])
            tell(
                f"Training our model on {len(task.train):,} examples takes about {account(trainer)['minutes']:.0f} "
                f"minutes on this machine; it is kept in {place}."
            )
            finish(trainer, lambda done, total, _: progress(done, total, "training our model"))
    told = {
        "name": model.stem, "base": base.model_id, "adapter": config.name, "lenses": [str(Lens.AUTHOR)],
        "datasets": ["GoEmotions", "EmpatheticDialogues"], "prompt_hash": load_prompt().digest,
        "context_window": base.context_window, "calibration": "{}",
    }  # fmt: skip
    build_model(find_base_gguf(base), adapter, model, default_file_type(), metadata=told)
    return model


def echo_room_blocks(outcomes: Sequence[Mapping[str, Any]]) -> Iterator[Block]:
    """What outcomes, as :meth:`Outcome.to_dict` has them, say beside The Echo Room's own figures."""
    for told in outcomes:
        yield from _outcome_blocks(told)
    yield Words(
        "Precision, recall and F1 are weighted by support. The Echo Room's figures, "
        f"{100 * ECHO_ROOM['accuracy']:.2f} % accuracy and {100 * ECHO_ROOM['weighted_f1']:.2f} % F1, are its own; the "
        "tasks differ:"
    )
    yield Points(ECHO_ROOM["differences"])


def _outcome_blocks(told: Mapping[str, Any]) -> Iterator[Block]:
    yield Heading(f"{told['protocol']}: {told['trained_on']:,} texts to learn from, {told['n']:,} to judge by")
    models = {told["model"]: told, **told["baselines"], ECHO_ROOM["model"]: ECHO_ROOM}
    keys = ("accuracy", "weighted_precision", "weighted_recall", "weighted_f1", "loss")
    yield Table(
        ("", "accuracy", "precision", "recall", "F1", "loss"),
        [(name, *((one or {}).get(key) for key in keys)) for name, one in models.items()],
    )
    judged = ["ours", *(name for name, one in told["baselines"].items() if one)]
    yield Table(
        ("accuracy on", "texts", *judged),
        [(corpus, one["n"], *(one[name] for name in judged)) for corpus, one in told["by_corpus"].items()],
    )
    yield Words(f"{100 * told['repeated']:.1f} % of the texts judged by stand among those learned from as well.")
    if told["missing"]:
        yield Words("Missing here:")
        yield Points(told["missing"])
