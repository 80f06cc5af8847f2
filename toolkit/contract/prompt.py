"""What the model reads: a fixed frame per lens around the text, then the start of the answer.

Template and text are tokenized apart, so the text never yields control tokens, whatever it contains. Every piece ends
on a stable token boundary: ``tokenize(a) + tokenize(b) == tokenize(a + b)``; :func:`check_boundaries` proves it for a
tokenizer.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import yaml

from toolkit.assets import asset
from toolkit.contract.lens import Lens
from toolkit.errors import ModelError

HEAD_LIMIT, TAIL_LIMIT = 12, 8


class Tokenizer(Protocol):
    """What the contract needs of a tokenizer, whichever library provides it."""

    def encode(self, text: str, *, control: bool = False) -> list[int]:
        """Token ids without BOS or EOS; only with ``control`` do control tokens in ``text`` become such."""
        ...

    def control_id(self, token: str) -> int | None:
        """The id of a control token, or None where the vocabulary lacks it."""
        ...


@dataclass(frozen=True, slots=True)
class PromptSpec:
    """The contents of ``prompts/prompt.yaml``."""

    questions: dict[str, str]
    frames: tuple[dict[str, Any], ...]
    prefill: str
    bridge: str
    close: str
    max_characters: int
    max_tokens: int
    open_quote: str
    close_quote: str
    max_quoted_share: float
    digest: str


@dataclass(frozen=True, slots=True)
class Frame:
    """The prompt of one lens for one tokenizer, as strings and as token ids."""

    name: str
    lens: Lens
    head_text: str
    tail_text: str
    head: tuple[int, ...]
    tail: tuple[int, ...]
    prefill: tuple[int, ...]
    bridge: tuple[int, ...]
    eos: int

    def render(self, text: str) -> str:
        """The whole prompt as one string, the way other programs see it."""
        return f"{self.head_text}{prepare_text(text)}{self.tail_text}"


@cache
def load_prompt() -> PromptSpec:
    """The prompt texts, read from ``prompts/prompt.yaml``."""
    source = asset("prompts", "prompt.yaml").read_bytes()
    raw = yaml.safe_load(source)
    digest = hashlib.sha256(yaml.safe_dump(raw, sort_keys=True).encode()).hexdigest()
    return PromptSpec(
        questions=raw["questions"], frames=tuple(raw["frames"]), digest=digest, **raw["answer"], **raw["reasoning"]
    )


def prepare_text(text: str) -> str:
    """The text as the model sees it: outer white space stripped, lone surrogates replaced, nothing else touched."""
    return text.strip().encode("utf-8", "replace").decode("utf-8")


def frame_for(tokenizer: Tokenizer, lens: Lens) -> Frame:
    """The prompt of ``lens`` in the tokens of ``tokenizer``.

    Raises:
        ModelError: where no frame fits the vocabulary, or the fixed parts exceed their token budget.
    """
    spec = load_prompt()
    for raw in spec.frames:
        if all(tokenizer.control_id(token) is not None for token in raw["control"]):
            break
    else:
        known = ", ".join(f["name"] for f in spec.frames)
        raise ModelError(
            "The model's vocabulary has the control tokens of no known prompt frame.",
            f"Use a base model with one of the frames {known}, or add a frame to prompts/prompt.yaml.",
        )
    head_text = raw["head"].format(question=spec.questions[lens])
    head, tail = tokenizer.encode(head_text, control=True), tokenizer.encode(raw["tail"], control=True)
    prefill = tokenizer.encode(spec.prefill)
    if len(head) > HEAD_LIMIT or len(tail) + len(prefill) > TAIL_LIMIT:
        raise ModelError(
            f"The prompt takes {len(head)} tokens before and {len(tail) + len(prefill)} after the text; "
            f"at most {HEAD_LIMIT} and {TAIL_LIMIT} are allowed.",
            "Shorten the question or the frame in prompts/prompt.yaml.",
        )
    return Frame(
        raw["name"], lens, head_text, raw["tail"], tuple(head), tuple(tail), tuple(prefill),
        tuple(tokenizer.encode(spec.bridge)), tail[0],
    )  # fmt: skip


def check_boundaries(tokenizer: Tokenizer, labels: tuple[str, ...]) -> None:
    """Prove that the pieces of prompt and answer end on stable token boundaries.

    Raises:
        ModelError: naming the two pieces whose tokens change when they are joined.
    """
    spec = load_prompt()
    frame = frame_for(tokenizer, Lens.AUTHOR)
    pairs = [(frame.tail_text, spec.prefill), (spec.bridge, "The")]
    pairs += [(frame.render("a"), spec.prefill)]
    pairs += [(spec.prefill, label) for label in labels] + [(label, spec.bridge) for label in labels]
    pairs += [(label, spec.close) for label in labels]
    for left, right in pairs:
        apart = tokenizer.encode(left, control=True) + tokenizer.encode(right)
        if apart != tokenizer.encode(left + right, control=True):
            raise ModelError(
                f"The tokenizer joins {left!r} and {right!r} into other tokens.",
                "This base model cannot be used with the prompt in prompts/prompt.yaml.",
            )
