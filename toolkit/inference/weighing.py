"""The texts that weigh the rounding of the mixed file type: samples that ship, as the model meets and answers them."""

from __future__ import annotations

import json
from pathlib import Path

from toolkit.assets import asset
from toolkit.contract.answer import render_answer
from toolkit.contract.lens import Lens
from toolkit.contract.prompt import frame_for
from toolkit.inference.native import NativeModel

N_TEXTS = 150


def weighing_texts(path: Path) -> list[str]:
    """Prompt, text and answer as one string each, in the prompt of a GGUF's tokenizer.

    Raises:
        ConvertError: for a damaged file.
        ModelError: for a tokenizer that has no prompt.
    """
    model = NativeModel(path, vocab_only=True)
    try:
        frame = frame_for(model, Lens.AUTHOR)
    finally:
        model.close()
    with open(asset("data", "samples", "tiny_debug_1k.jsonl"), encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    chosen = rows[:: max(1, len(rows) // N_TEXTS)][:N_TEXTS]
    return [frame.render(row["text"]) + render_answer(row["emotion"], row["reasoning"]) for row in chosen]
