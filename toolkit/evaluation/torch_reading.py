"""What a model under training makes of texts, read in torch without building a file: exact posteriors, many at a time.

It reads answers in both orders of their keys. Where the reasoning comes first, the model writes it greedily, then the
posterior is read at the label behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from toolkit.contract.lens import Lens
from toolkit.contract.prompt import load_prompt
from toolkit.evaluation.metrics import Floats
from toolkit.inference.posterior import trie_posterior
from toolkit.training.encode import REASONING_PREFILL
from toolkit.training.objective import hidden_states

if TYPE_CHECKING:
    from toolkit.training.lora import Trainer

_BATCH = 32
_QUOTE = '"'

Heard = Callable[[int, int, str], None]


@torch.inference_mode()
def read_posteriors(
    trainer: Trainer, texts: Sequence[str], lens: Lens, progress: Heard, reasonings: Sequence[str] | None = None
) -> tuple[Floats, Floats]:
    """Posteriors along the label trie, shape (n, labels), and coverage, shape (n,), uncalibrated.

    Args:
        reasonings: what stands before the label in each answer; without them the label comes first.
    """
    trainer.model.eval()
    encoder = trainer.encoder
    frame, trie = encoder.frames[lens], encoder.tries[lens]
    starts: list[list[int]] = [
        [*encoder.ask(text, lens), *(frame.prefill if reasonings is None else encoder.argue(reasonings[i]))]
        for i, text in enumerate(texts)
    ]
    posterior, coverage = np.zeros((len(texts), len(trie.labels))), np.zeros(len(texts))
    for done, places in _batches(starts):
        logits = [_logits_after(trainer, frame, [[*starts[i], *b.path] for i in places]) for b in trie.branches]
        for row, place in enumerate(places):
            posterior[place], coverage[place] = trie_posterior(trie, {b: logits[b][row] for b in range(len(logits))})
        progress(done, len(texts), "reading dev")
    return posterior, coverage


def _logits_after(trainer: Trainer, frame: Any, rows: list[list[int]]) -> np.ndarray:
    """The logits behind the last token of every row, shape (n, vocabulary)."""
    longest = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=trainer.model.device)
    states = hidden_states(trainer.decoder, frame, tokens)
    last = torch.tensor([i * longest + len(row) - 1 for i, row in enumerate(rows)], device=states.device)
    return np.asarray((states[last] @ trainer.head.T).float().cpu().numpy())


@torch.inference_mode()
def write_reasonings(trainer: Trainer, texts: Sequence[str], lens: Lens, progress: Heard) -> list[str]:
    """What the model writes, greedily, where its answer begins with the reasoning; up to the closing quotation mark."""
    from transformers import GenerationConfig

    trainer.model.eval()
    encoder = trainer.encoder
    frame, backend = encoder.frames[lens], encoder.tokenizer.backend
    ends = [id for token, id in backend.get_vocab().items() if _QUOTE in token]
    told = GenerationConfig(
        max_new_tokens=load_prompt().max_tokens, do_sample=False, eos_token_id=[*ends, frame.eos], pad_token_id=0
    )
    prefill = encoder.tokenizer.encode(REASONING_PREFILL)
    prompts = [[*frame.head, *encoder.ask(text, lens), *prefill] for text in texts]
    written = [""] * len(texts)
    for done, places in _batches(prompts):
        longest = max(len(prompts[i]) for i in places)
        blank = [longest - len(prompts[i]) for i in places]
        ids = torch.tensor([[0] * b + prompts[i] for b, i in zip(blank, places, strict=True)])
        mask = torch.tensor([[0] * b + [1] * (longest - b) for b in blank])
        device = trainer.model.device
        out = trainer.model.generate(
            input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=told
        )[:, longest:]  # fmt: skip
        for place, tokens in zip(places, out.tolist(), strict=True):
            written[place] = backend.decode(tokens, skip_special_tokens=True).split(_QUOTE)[0].strip()
        progress(done, len(texts), "reasoning on dev")
    return written


def _batches(rows: Sequence[Sequence[int]]) -> Iterator[tuple[int, list[int]]]:
    """Places of rows of like length, and how many rows are done with each batch."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for start in range(0, len(order), _BATCH):
        places = order[start : start + _BATCH]
        yield start + len(places), places
