"""An encoder with a classification head as files (a folder or a zip) and as a reader of texts."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from convert.files import replacing
from toolkit.contract.lens import Lens
from toolkit.contract.prompt import prepare_text
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.errors import ModelError, UsageError

CARD, CALIBRATION = "encoder.json", "calibration.json"
FILES = (CARD, "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", CALIBRATION)
_MOST_BYTES = 4 << 30
_MOST_CARD = 4 << 20
_BATCH_TOKENS = 4096


class Facts(BaseModel):
    """What ``encoder.json`` says: which labels the head has, through which lens, on what it was trained.

    Attributes:
        learned: what :meth:`toolkit.training.learned.Learned.to_dict` tells; one from before has ``trained_on`` alone.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    lens: Lens
    taxonomy: str
    base: str
    max_length: int
    trained_on: str = ""
    learned: dict[str, Any] = {}


@dataclass
class EncoderModel:
    """A loaded encoder.

    Attributes:
        network: transformers' sequence classifier.
        tokenizer: its fast tokenizer.
        calibration: the JSON that ``evaluate --fit-calibration`` wrote, where it lies beside the weights.
    """

    network: Any
    tokenizer: Any
    facts: Facts
    calibration: str | None = None

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.facts.name

    @property
    def taxonomy(self) -> str:
        """The taxonomy of its posteriors."""
        return self.facts.taxonomy

    @property
    def lenses(self) -> tuple[Lens, ...]:
        """The lens that it knows."""
        return (self.facts.lens,)

    @classmethod
    def load(cls, path: Path) -> EncoderModel:
        """Read what :meth:`save` or :func:`write_zip` wrote.

        Raises:
            ModelError: where it is damaged, or transformers is missing.
        """
        if path.is_dir():
            return _load_folder(path)
        with tempfile.TemporaryDirectory() as unpacked:
            _unpack(path, Path(unpacked))
            return _load_folder(Path(unpacked))

    def save(self, folder: Path) -> Path:
        """Write weights, tokenizer and ``encoder.json`` as transformers reads them; returns ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        self.network.save_pretrained(str(folder))
        self.tokenizer.save_pretrained(str(folder))
        told = json.dumps(self.facts.model_dump(mode="json"), indent=2) + "\n"
        (folder / CARD).write_text(told, encoding="utf-8")
        return folder

    def encode(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Token ids with the marks around them, cut to ``max_length``."""
        return encode(self.tokenizer, texts, self.facts.max_length)

    def posteriors(self, texts: Sequence[str], *, lens: Lens | str = Lens.AUTHOR) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities, shape (n, labels), and ones, shape (n,): a head puts all its mass on labels.

        Raises:
            UsageError: for the other lens.
        """
        import torch

        if lens != self.facts.lens:
            raise UsageError(f"The encoder {self.name} has not learned the lens {lens}.", "Judge it by another one.")
        rows = self.encode(texts)
        found = np.zeros((len(rows), len(load_taxonomy(self.taxonomy).labels)))
        self.network.eval()
        with torch.inference_mode():
            for places in _like_lengths(rows):
                logits = self.network(**padded([rows[i] for i in places], self.network.device)).logits.float()
                found[places] = torch.softmax(logits, -1).double().cpu().numpy()
        return found, np.ones(len(rows))

    def close(self) -> None:
        """Free the weights."""
        self.network = None


def is_encoder(name: str | None) -> bool:
    """Whether a path is that of an encoder's folder or zip; reads no weights."""
    if not name:
        return False
    path = Path(name)
    if path.is_dir():
        return (path / CARD).is_file()
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as packed:
        return CARD in packed.namelist()


def write_zip(folder: Path, path: Path) -> Path:
    """Pack an encoder's folder; the same files give the same bytes."""
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(folder.iterdir()):
            packed.writestr(zipfile.ZipInfo(file.name), file.read_bytes(), zipfile.ZIP_DEFLATED)
    return path


def encode(tokenizer: Any, texts: Sequence[str], max_length: int) -> list[tuple[int, ...]]:
    """Texts as token ids with the encoder's marks around them, cut to ``max_length``."""
    if not texts:
        return []
    found = tokenizer([prepare_text(text) for text in texts], truncation=True, max_length=max_length)
    return [tuple(ids) for ids in found["input_ids"]]


def padded(rows: Sequence[tuple[int, ...]], device: Any) -> dict[str, Any]:
    """Right-padded ids and the mask of what is no padding, shape (n, longest)."""
    import torch

    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
    return {"input_ids": ids, "attention_mask": mask}


def _like_lengths(rows: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """The places of the rows in batches of like length, each of so many padded tokens at most (or one row)."""
    batches: list[list[int]] = []
    for place in sorted(range(len(rows)), key=lambda i: len(rows[i])):
        if batches and len(rows[place]) * (len(batches[-1]) + 1) <= _BATCH_TOKENS:
            batches[-1].append(place)
        else:
            batches.append([place])
    return batches


def read_facts(path: Path) -> Facts:
    """What ``encoder.json`` says in an encoder's folder or zip; reads no weights.

    Raises:
        ModelError: where it is damaged.
    """
    try:
        if path.is_dir():
            return Facts.model_validate_json((path / CARD).read_bytes())
        with zipfile.ZipFile(path) as packed, packed.open(CARD) as card:
            return Facts.model_validate_json(card.read(_MOST_CARD))
    except (OSError, EOFError, KeyError, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError):
        raise ModelError(f"{path.name} has no sound {CARD}.", "Train or export the encoder again.") from None


def _load_folder(folder: Path) -> EncoderModel:
    facts = read_facts(folder)
    require_transformers()
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        network = AutoModelForSequenceClassification.from_pretrained(str(folder), use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
    except Exception as error:  # whatever the files of others can make transformers say
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"The encoder {facts.name} cannot be loaded: {first}", "Train or export it again.") from error
    if network.config.num_labels != len(load_taxonomy(facts.taxonomy).labels):
        raise ModelError(f"The head of {facts.name} does not fit the labels of {facts.taxonomy}.", "Train it again.")
    fitted = folder / CALIBRATION
    return EncoderModel(network, tokenizer, facts, fitted.read_text(encoding="utf-8") if fitted.is_file() else None)


def require_transformers() -> None:
    """Refuse to go on without torch and transformers.

    Raises:
        ModelError: with the line that installs them.
    """
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise ModelError(
            f"An encoder needs the package {error.name}.", 'Install it with: pip install ".[train]"'
        ) from None


def _unpack(path: Path, folder: Path) -> None:
    """The files of an encoder and nothing else, whatever the zip holds."""
    try:
        with zipfile.ZipFile(path) as packed:
            wanted = [info for info in packed.infolist() if info.filename in FILES]
            if sum(info.file_size for info in wanted) > _MOST_BYTES:
                raise ModelError(f"{path.name} unpacks to more than 4 GiB.", "Give an encoder's own zip.")
            for info in wanted:
                with packed.open(info) as source, (folder / info.filename).open("wb") as target:
                    shutil.copyfileobj(source, target)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelError(f"{path.name} is damaged: {error}.", "Export it again.") from None
