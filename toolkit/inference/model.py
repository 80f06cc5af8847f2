"""The one class that callers need: text in, :class:`~toolkit.contract.analysis.Analysis` out."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from toolkit.contract.analysis import Analysis, Comparison
from toolkit.contract.answer import find_evidence, render_answer
from toolkit.contract.lens import Lens, parse_lens
from toolkit.contract.prompt import load_prompt
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.errors import ModelError, UsageError
from toolkit.inference import store
from toolkit.inference.abi import check_abi
from toolkit.inference.calibration import Calibration, parse_calibration
from toolkit.inference.divergence import compare_many
from toolkit.inference.engine import Choose, Engine, Explained, Reading, Written
from toolkit.inference.posterior import apply_temperature, best_native, coarsen
from toolkit.inference.request import Wish, check_lens, check_wish, refuse_empty, refuse_lone_text, until_refused

# The number of a text, and what gives its reading with the reasoning that is written so far.
Watch = Callable[[int, Callable[[], Analysis]], None]


class Reader(Protocol):
    """What a model stands on: the engine, or another way to the same readings."""

    def read(self, texts: Iterable[str | None], lens: Lens) -> Iterator[Reading]:
        """The reading of every text, in order."""
        ...

    def explain(
        self, texts: Iterable[str | None], lens: Lens, choose: Choose, watch: Written | None = None
    ) -> Iterator[Explained]:
        """Reading, label and reasoning of every text, in order."""
        ...

    def close(self) -> None:
        """Free memory."""
        ...


class EmotionModel:
    """A loaded model.

    Examples:
        >>> with EmotionModel.load() as model:                                  # doctest: +SKIP
        ...     print(model.analyze("I feel disappointed and ignored...").emotion)
        disappointment
    """

    def __init__(self, engine: Reader, name: str, calibration: Calibration, lenses: tuple[Lens, ...]) -> None:
        self.engine, self.name, self.calibration, self.lenses = engine, name, calibration, lenses

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        *,
        threads: int | None = None,
        gpu_layers: int = 0,
        adapter: str | Path | None = None,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> EmotionModel:
        """Load a model by name or GGUF file; None is the default model, which is built on first use.

        ``adapter`` is a GGUF-LoRA to add to it; what it says of itself (lenses, calibration) goes before the model's.

        Raises:
            ModelError: for an unknown or unusable model, and where llama.cpp does not do what it should.
            ConvertError: for a damaged file or a build that cannot be finished.
        """
        check_abi()
        path = store.ensure(str(model) if model else None, progress)
        lora = Path(adapter) if adapter else None
        engine = Engine(path, threads=threads, gpu_layers=gpu_layers, lora=lora)
        try:
            engine.self_test()
            return cls(engine, *_told(engine, lora))
        except BaseException:
            engine.close()
            raise

    def __enter__(self) -> EmotionModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the model's memory."""
        self.engine.close()

    def analyze(
        self, text: str, *, lens: Lens | str = Lens.AUTHOR, taxonomy: str | None = None, mode: str = "explain"
    ) -> Analysis:
        """Read one text.

        Raises:
            UsageError: for an empty text, an unknown mode, or a taxonomy that the lens cannot answer in.
        """
        return next(self.analyze_many([refuse_empty(text)], lens=lens, taxonomy=taxonomy, mode=mode))

    def analyze_many(
        self,
        texts: Iterable[str | None],
        *,
        lens: Lens | str = Lens.AUTHOR,
        taxonomy: str | None = None,
        mode: str = "explain",
        watch: Watch | None = None,
        pauses: bool = False,
    ) -> Iterator[Analysis]:
        """Read many texts: lazily, in order, with a bounded look-ahead.

        Errors as for :meth:`analyze`; of a text that is refused it comes behind the readings of those before it.
        Args:
            pauses: whether the texts may hold None where none is there at the moment: what was read so far goes on.
            watch: called whenever a reasoning has grown, with the number of its text, from 0, and a function that gives
                the unfinished analysis. The text of that is stripped, and of a long one only a part.
        """
        wish = check_wish(lens, taxonomy, mode, self.lenses, self.name)
        return self._analyze(refuse_lone_text(texts), wish, watch, pauses)

    def analyze_in_slices(
        self,
        text: str,
        *,
        lens: Lens | str = Lens.AUTHOR,
        taxonomy: str | None = None,
        mode: str = "explain",
        watch: Watch | None = None,
    ) -> Iterator[Analysis | None]:
        """Read one long text: None after each forward pass, so that others can be read in between; then the analysis.

        Arguments as for :meth:`analyze_many`, errors as for :meth:`analyze`.
        """
        wish = check_wish(lens, taxonomy, mode, self.lenses, self.name)
        return self._in_slices(refuse_empty(text), wish, watch)

    @property
    def noise_line(self) -> float | None:
        """What two models of one lens rarely differ by; None where that was not measured."""
        return self.calibration.noise_line

    def compare(self, text: str, *, taxonomy: str | None = None, mode: str = "explain") -> Comparison:
        """Read one text through both lenses. Errors as for :meth:`compare_many`."""
        return next(self.compare_many([refuse_empty(text)], taxonomy=taxonomy, mode=mode))

    def compare_many(
        self, texts: Iterable[str], *, taxonomy: str | None = None, mode: str = "explain"
    ) -> Iterator[Comparison]:
        """Read many texts through both lenses: lazily, in order.

        Raises:
            UsageError: as for :meth:`analyze`, and for a taxonomy that the lenses do not share.
        """
        return compare_many(self, texts, taxonomy=taxonomy, mode=mode)

    def posteriors(self, texts: Sequence[str], *, lens: Lens | str = Lens.AUTHOR) -> tuple[np.ndarray, np.ndarray]:
        """Calibrated native posteriors, shape (n, labels), and coverage, shape (n,); empty texts are allowed here."""
        lens = self._check_lens(lens)
        readings = list(self.engine.read(texts, lens))
        if not readings:
            return np.zeros((0, len(load_taxonomy(lens.native).labels))), np.zeros(0)
        raw = np.stack([reading.posterior for reading in readings])
        return self._calibrated(raw, lens), np.array([reading.coverage for reading in readings])

    def answers(self, texts: Iterable[str], *, lens: Lens | str = Lens.AUTHOR) -> Iterator[tuple[str, str]]:
        """For every text the JSON exactly as the model wrote it, and the text."""
        lens = self._check_lens(lens)
        labels = load_taxonomy(lens.native).labels
        kept, read = itertools.tee(texts)
        for text, done in zip(kept, self.engine.explain(read, lens, lambda p: int(p.argmax())), strict=True):
            yield render_answer(labels[done.label], done.reasoning), text

    def _check_lens(self, lens: Lens | str) -> Lens:
        return check_lens(lens, self.lenses, self.name)

    def _analyze(
        self, texts: Iterable[str | None], wish: Wish, watch: Watch | None, pauses: bool = False
    ) -> Iterator[Analysis]:
        lens, taxonomy = wish.lens, wish.taxonomy
        refused: list[UsageError] = []
        given, read = itertools.tee(until_refused(texts, refused, pauses))
        kept = (text for text in given if text is not None)

        def choose(posterior: np.ndarray) -> int:
            return self._decide(posterior, lens, taxonomy)[2]

        if wish.mode == "fast":
            for text, reading in zip(kept, self.engine.read(read, lens), strict=True):
                yield self._analysis(text, reading, lens, taxonomy, None)
        else:
            explained = self.engine.explain(read, lens, choose, watch and self._written(wish, watch))
            for text, done in zip(kept, explained, strict=True):
                yield self._analysis(text, done.reading, lens, taxonomy, done.reasoning)
        if refused:
            raise refused[0]

    def _written(self, wish: Wish, watch: Watch) -> Written:
        """What turns the engine's words into an analysis, if whoever watches asks for one."""

        def written(number: int, text: str, reading: Reading, reasoning: str) -> None:
            watch(number, lambda: self._analysis(text, reading, wish.lens, wish.taxonomy, reasoning))

        return written

    def _in_slices(self, text: str, wish: Wish, watch: Watch | None) -> Iterator[Analysis | None]:
        if not isinstance(self.engine, Engine):
            yield from self._analyze([text], wish, watch)
            return
        written = watch and self._written(wish, watch)
        for survey in self.engine.survey(text, wish.lens):
            if survey is None:
                yield None
            elif wish.mode == "fast":
                yield self._analysis(text, survey.reading, wish.lens, wish.taxonomy, None)
            else:
                label = self._decide(survey.reading.posterior, wish.lens, wish.taxonomy)[2]
                explained = self.engine.explain([survey.clearest(label)], wish.lens, lambda _: label, written)  # noqa: B023
                done = next(explained)
                yield self._analysis(text, done.reading, wish.lens, wish.taxonomy, done.reasoning)

    def _calibrated(self, posterior: np.ndarray, lens: Lens) -> np.ndarray:
        return apply_temperature(posterior, self.calibration.of(lens).temperature)

    def _decide(self, posterior: np.ndarray, lens: Lens, taxonomy: str) -> tuple[np.ndarray, float, int]:
        """Scores in ``taxonomy``, mass outside, and the native label to argue for."""
        native = self._calibrated(posterior, lens)
        scores, outside = coarsen(native[None], lens.native, taxonomy)
        return scores[0], float(outside[0]), best_native(native, lens.native, taxonomy, int(scores[0].argmax()))

    def _analysis(self, text: str, reading: Reading, lens: Lens, taxonomy: str, reasoning: str | None) -> Analysis:
        values, outside, fine = self._decide(reading.posterior, lens, taxonomy)
        scores = dict(zip(load_taxonomy(taxonomy).labels, map(float, values), strict=True))
        emotion = max(scores, key=lambda label: scores[label])
        present = self.calibration.present(lens, taxonomy, scores)
        return Analysis(
            text=text,
            lens=lens,
            taxonomy=taxonomy,
            mode="fast" if reasoning is None else "explain",
            emotion=emotion,
            fine_emotion=load_taxonomy(lens.native).labels[fine],
            confidence=scores[emotion],
            abstained=self.calibration.abstains(lens, taxonomy, scores[emotion]),
            emotions=(emotion, *(label for label in present if label != emotion)),
            scores=scores,
            coverage=reading.coverage,
            outside=outside,
            reasoning=reasoning,
            evidence=find_evidence(text, reasoning),
            model=self.name,
        )


def _told(engine: Engine, lora: Path | None) -> tuple[str, Calibration, tuple[Lens, ...]]:
    """Name, calibration and lenses, as the model says and before it its adapter."""
    path, told = engine.model.path, _own_metadata(engine.model.header.metadata)
    name = path.stem
    if engine.adapter is not None and lora is not None:
        told, name = told | _own_metadata(engine.adapter.header.metadata), f"{name}+{lora.stem}"
    if told.get("prompt_hash", load_prompt().digest) != load_prompt().digest:
        raise ModelError(f"{path.name} was trained for another prompt.", "Convert it again with this version.")
    lenses = tuple(parse_lens(lens) for lens in told.get("lenses", ["author"]))
    return name, parse_calibration(str(told.get("calibration", "{}"))), lenses


def _own_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    found = {k.removeprefix("emotion_lrm."): v for k, v in metadata.items() if k.startswith("emotion_lrm.")}
    if isinstance(found.get("lenses"), str):
        found["lenses"] = json.loads(found["lenses"])
    return found
