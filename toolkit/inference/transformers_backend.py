"""The engine's work done by torch, to compare it with: the adapter, unmerged, on its base in transformers.

Slow and simple: one text at a time, in 32-bit floats. Nothing imports this module until somebody asks for it, and it
loads torch only when a model is loaded.
"""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convert.adapter import Adapter, read_adapter, require_base
from convert.header import check_header
from toolkit.assets import asset
from toolkit.base import base_of, find_base_gguf, load_base
from toolkit.contract.lens import Lens
from toolkit.contract.prompt import frame_for, load_prompt, prepare_text
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.contract.trie import build_trie
from toolkit.errors import ModelError, UsageError
from toolkit.inference import store
from toolkit.inference.calibration import parse_calibration
from toolkit.inference.engine import LONGEST, Choose, Explained, Reading, Written
from toolkit.inference.model import EmotionModel
from toolkit.inference.origin import read_origin
from toolkit.inference.posterior import pool_windows, trie_posterior
from toolkit.inference.reasoning import ReasoningWriter, next_token


class TransformersTokenizer:
    """A fast tokenizer of transformers as the contract wants it: text never yields control tokens."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._vocabulary = backend.get_vocab()

    def encode(self, text: str, *, control: bool = False) -> list[int]:
        """Token ids without BOS or EOS; control tokens are recognised only with ``control``."""
        ids: list[int] = self._backend.encode(text, add_special_tokens=False, split_special_tokens=not control)
        return ids

    def control_id(self, token: str) -> int | None:
        """The id of a control token, or None."""
        found = self._vocabulary.get(token)
        return None if found is None else int(found)

    def pieces(self, n_rows: int) -> list[bytes]:
        """The bytes of every token, as llama.cpp gives them: empty for control tokens and for ids without a token."""
        definition = json.loads(self._backend.backend_tokenizer.to_str())
        spell = _spell_marked if definition["model"].get("byte_fallback") else _spell_byte_level
        found = {index: spell(token) for token, index in definition["model"]["vocab"].items()}
        for added in definition["added_tokens"]:
            found[added["id"]] = b"" if added["special"] else added["content"].encode()
        return [found.get(index, b"") for index in range(n_rows)]


def _spell_marked(token: str) -> bytes:
    """The bytes of a sentencepiece token: "▁" is a space, and "<0x0A>" a byte."""
    if len(token) == 6 and token.startswith("<0x"):
        return bytes([int(token[3:5], 16)])
    return token.replace("▁", " ").encode()


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's characters for the 256 bytes: the visible ones are themselves, the others follow from U+0100 on."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


_BYTES = _byte_alphabet()


def _spell_byte_level(token: str) -> bytes:
    return bytes(_BYTES[character] for character in token if character in _BYTES)


class TransformersEngine:
    """Reads and explains as :class:`~toolkit.inference.engine.Engine` does, text by text.

    Args:
        model: a causal language model of transformers, or one that PEFT has wrapped.
        tokenizer: its tokenizer.
        context_window: the most tokens of prompt and answer; a longer text is read in overlapping windows.
    """

    def __init__(self, model: Any, tokenizer: TransformersTokenizer, context_window: int = LONGEST) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.frames = {lens: frame_for(tokenizer, lens) for lens in Lens}
        self.tries = {lens: build_trie(tokenizer, load_taxonomy(lens.native).labels) for lens in Lens}
        self.pieces = tokenizer.pieces(model.get_input_embeddings().weight.shape[0])
        self._window = min(context_window, LONGEST) - max(map(self._overhead, Lens))

    def close(self) -> None:
        """Free the weights."""
        self.model = None

    def read(self, texts: Iterable[str | None], lens: Lens) -> Iterator[Reading]:
        """The posterior and coverage of every text, in order; a None among them is passed over."""
        for text in texts:
            if text is not None:
                yield self._pooled(self._windows(text), lens)[0]

    def explain(
        self, texts: Iterable[str | None], lens: Lens, choose: Choose, watch: Written | None = None
    ) -> Iterator[Explained]:
        """Reading, label and reasoning of every text, in order; arguments as for ``Engine.explain``."""
        for number, text in enumerate(text for text in texts if text is not None):
            windows = self._windows(text)
            pooled, readings = self._pooled(windows, lens)
            label = choose(pooled.posterior)
            clearest = max(range(len(windows)), key=lambda i: float(readings[i].posterior[label]))
            shown = prepare_text(text) if len(windows) == 1 else self._spelled(windows[clearest])
            writer = ReasoningWriter(shown)
            for _ in self._reason(windows[clearest], writer, label, lens):
                if watch is not None:
                    watch(number, shown, pooled, writer.written)
            yield Explained(pooled, label, writer.finish())

    def _overhead(self, lens: Lens) -> int:
        frame, longest = self.frames[lens], max(map(len, self.tries[lens].paths))
        parts = (frame.head, frame.tail, frame.prefill, frame.bridge)
        return sum(map(len, parts)) + longest + load_prompt().max_tokens

    def _windows(self, text: str) -> list[list[int]]:
        """The text's tokens whole, or in windows that overlap by an eighth."""
        tokens = self.tokenizer.encode(prepare_text(text))
        if len(tokens) <= self._window:
            return [tokens]
        overlap = self._window // 8
        starts = range(0, len(tokens) - overlap, self._window - overlap)
        return [tokens[start : start + self._window] for start in starts]

    def _spelled(self, tokens: Sequence[int]) -> str:
        return b"".join(self.pieces[token] for token in tokens).decode("utf-8", "ignore")

    def _prompt(self, tokens: Sequence[int], lens: Lens) -> list[int]:
        frame = self.frames[lens]
        return [*frame.head, *tokens, *frame.tail, *frame.prefill]

    def _pooled(self, windows: Sequence[list[int]], lens: Lens) -> tuple[Reading, list[Reading]]:
        """The reading of a text, and those of its windows."""
        readings = [self._reading(self._prompt(tokens, lens), lens) for tokens in windows]
        if len(readings) == 1:
            return readings[0], readings
        lengths = np.array([len(tokens) for tokens in windows], np.float64)
        posterior = pool_windows(np.stack([reading.posterior for reading in readings]), lengths)
        return Reading(posterior, float(np.average([r.coverage for r in readings], weights=lengths))), readings

    def _reading(self, prompt: list[int], lens: Lens) -> Reading:
        """One forward pass over the prompt followed by each branching point of the labels."""
        import torch

        trie = self.tries[lens]
        rows = [[*prompt, *branch.path] for branch in trie.branches]
        longest = max(map(len, rows))
        # Padding on the right changes nothing to its left: attention looks back only.
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=self.model.device)
        ends = sorted({len(row) - 1 for row in rows})
        with torch.inference_mode():
            found = self.model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                use_cache=False,
                logits_to_keep=torch.tensor(ends, device=self.model.device),
            ).logits.float()
        logits = {i: found[i, ends.index(len(row) - 1)].cpu().numpy() for i, row in enumerate(rows)}
        return Reading(*trie_posterior(trie, logits))

    def _reason(self, tokens: Sequence[int], writer: ReasoningWriter, label: int, lens: Lens) -> Iterator[None]:
        """Write the reasoning for a label greedily, token by token."""
        import torch

        named = self.tokenizer.encode(self.tries[lens].labels[label])
        pending, cache = [*self._prompt(tokens, lens), *named, *self.frames[lens].bridge], None
        while True:
            ids = torch.tensor([pending], device=self.model.device)
            with torch.inference_mode():
                out = self.model(input_ids=ids, cache=cache, use_cache=True, logits_to_keep=1)
            cache = out.cache
            token = next_token(writer, out.logits[0, -1].float().cpu().numpy(), self.pieces)
            if token < 0 or writer.done or writer.exhausted():
                return
            pending = [token]
            yield


def load_unmerged(model: str | None = None, *, threads: int | None = None, gpu: bool = False) -> EmotionModel:
    """An adapter on its base, unmerged, in transformers.

    Args:
        model: a PEFT adapter's folder, or the name of a shipped model; None is the default model.
        threads: CPU threads, None for torch's choice.
        gpu: compute on a GPU.

    Raises:
        UsageError: for a model that is no adapter, or for a GPU where there is none.
        ModelError: without torch, transformers and PEFT, or without the base.
        ConvertError: for an adapter that is damaged, no plain LoRA, or of another base.
    """
    folder, name, lenses, window = _find(model)
    try:
        import peft
        import torch
        import transformers
    except ImportError as error:
        raise ModelError(
            f"The backend transformers needs the package {error.name}.", 'Install it with: pip install ".[train]"'
        ) from None
    from convert.merge_hf import load_base as load_weights

    if gpu and not torch.cuda.is_available():
        raise UsageError("A GPU was asked for, and torch finds none here.", "Leave --gpu-layers out, or set it to 0.")
    base = _base_of(read_adapter(folder))
    if threads:
        torch.set_num_threads(threads)
    transformers.utils.logging.disable_progress_bar()
    # A bar that no setting of transformers turns off goes to standard error while a GGUF is dequantized.
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers for a name that it is giving up
        weights, tokenizer = load_weights(base)
        adapted = peft.PeftModel.from_pretrained(weights, str(folder)).eval()
    if gpu:
        adapted = adapted.to("cuda")
    engine = TransformersEngine(adapted, TransformersTokenizer(tokenizer), window)
    stored = folder / "calibration.json"
    calibration = parse_calibration(stored.read_text(encoding="utf-8") if stored.is_file() else "{}")
    return EmotionModel(engine, f"{name}-transformers", calibration, lenses)


def _find(model: str | None) -> tuple[Path, str, tuple[Lens, ...], int]:
    """Adapter folder, name, lenses and context window."""
    if model and Path(model).is_dir():
        return Path(model), Path(model).resolve().name, read_origin(Path(model)).lenses or (Lens.AUTHOR,), LONGEST
    if model and model.endswith(".gguf"):
        raise UsageError(
            f"The backend transformers does not read {model}.", "Give an adapter's folder, or a shipped model's name."
        )
    name, _ = store.parse_name(model)
    shipped = store.load_shipped().models[name]
    window = load_base(shipped.base).context_window
    return asset("models", "adapters", shipped.adapter), name, tuple(shipped.lenses), window


def _base_of(adapter: Adapter) -> Path:
    """The GGUF or the model folder that an adapter was trained on."""
    if adapter.base is None:
        named = Path(str(adapter.config.get("base_model_name_or_path") or ""))
        if (named / "config.json").is_file():
            return named
        raise ModelError(f"The adapter {adapter.path.name} does not say which base it is for.", "Add its base.json.")
    base = base_of(adapter.base.model_id)
    if base is None:
        raise ModelError(
            f"The base {adapter.base.model_id} of the adapter {adapter.path.name} is unknown here.",
            "Add a file for it to models/configs/base.",
        )
    path = find_base_gguf(base)
    require_base(adapter, path, check_header(path))
    return path
