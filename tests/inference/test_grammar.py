"""The engine against llama.cpp's full grammar sampler: the same tokens are allowed, and the same answers come out."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from toolkit.apps.proof import greedy_label
from toolkit.base import find_base_gguf, load_base
from toolkit.contract.answer import render_answer
from toolkit.contract.lens import Lens
from toolkit.contract.text_grammar import text_gbnf
from toolkit.inference.cross_check import FullGrammar, answer_by_grammar
from toolkit.inference.engine import Engine
from toolkit.inference.native import NativeModel
from toolkit.inference.reasoning import ReasoningWriter
from toolkit.inference.store import ensure, load_shipped

HARD = [
    "I feel disappointed and ignored by my own team today.",
    "It's well-known: don't   trust him, he won't call (again)!",
    'She said "never mind" and left; I\'m so, so tired of it all.',
    "She wrote “so sad” to me, and that was “it” for us then.",
    "Ich bin überglücklich, weil der Zug heute pünktlich war – naïve, I know 😀 :)",
    "so so so so so so so",
    "one\ntwo three\tfour five six seven eight",
    "No.",
]


@pytest.fixture(scope="module")
def vocabulary() -> Iterator[NativeModel]:
    model = NativeModel(find_base_gguf(load_base("smollm2-135m")), vocab_only=True)
    yield model
    model.close()


def accepts(writer: ReasoningWriter, token: int, piece: bytes) -> bool:
    """Whether ``writer`` would take a token, without taking it."""
    trial = copy.copy(writer)
    trial.tokens, trial._decoder = [], copy.copy(writer._decoder)
    trial._decoder.setstate(writer._decoder.getstate())
    return trial.accept(token, piece)


def whole(piece: bytes) -> bool:
    """Whether a piece is whole characters. llama.cpp is coarse about others: where “ may not stand, it refuses the
    first byte of every character that begins like it."""
    try:
        return bool(piece.decode())
    except UnicodeDecodeError:
        return False


@pytest.mark.parametrize("text", HARD)
def test_both_allow_the_same_tokens(vocabulary: NativeModel, text: str) -> None:
    """Along a random walk that likes to quote: every tenth token, and all that bear a mark or a control character."""
    pieces, chance = vocabulary.pieces, random.Random(text)
    telling = [t for t, p in enumerate(pieces) if whole(p) and set(p.decode()) & set('“”"\\\n\t\x00')]
    looked_at = [*telling, *(t for t in range(0, len(pieces), 10) if whole(pieces[t]) and t not in set(telling))]
    writer = ReasoningWriter(text)
    prefill, label, bridge = (vocabulary.encode(part) for part in ('{"emotion": "', "joy", '", "reasoning": "'))
    grammar = FullGrammar(vocabulary, Lens.AUTHOR, text, [*prefill, *label, *bridge])
    for _ in range(24):
        allowed = grammar.allowed(vocabulary.n_vocab)
        ours = {token for token in looked_at if accepts(writer, token, pieces[token])}
        assert ours == {token for token in looked_at if allowed[token]}, f"after {writer.written!r}"
        if not ours:
            break
        marks = [token for token in ours if "“" in pieces[token].decode()]
        going_on = [token for token in ours if '"' not in pieces[token].decode()] or sorted(ours)
        token = chance.choice(sorted(marks if marks and chance.random() < 0.5 else going_on))
        grammar.accept(token)
        assert writer.accept(token, pieces[token])
        if writer.done:
            break
    grammar.close()


def test_the_grammar_says_how_many_words_may_be_quoted() -> None:
    rules = text_gbnf(Lens.AUTHOR, "one two three four five").splitlines()
    names = {line.split(" ::= ")[0] for line in rules}
    assert {"free-2", "open-2", "open-1", "free-0"} <= names
    assert not {"free-3", "open-0"} & names
    assert any(line.startswith('root ::= "{\\"emotion\\": \\"" emotion') for line in rules)


def check(path: Path, texts: list[str]) -> None:
    """Read ``texts`` with either sampler, on as many threads: with more of them sums are rounded in another order."""
    written = []
    for by_grammar in (False, True):
        engine = Engine(path, threads=1, by_grammar=by_grammar)
        try:
            written.append(list(engine.explain(texts, Lens.AUTHOR, lambda posterior: int(posterior.argmax()))))
        finally:
            engine.close()
    for text, ours, theirs in zip(texts, *written, strict=True):
        assert (ours.label, ours.reasoning) == (theirs.label, theirs.reasoning), text
        assert np.array_equal(ours.reading.posterior, theirs.reading.posterior)


@pytest.mark.real
def test_both_samplers_write_the_same(default_model_path: Path, texts: list[str]) -> None:
    check(default_model_path, [*HARD, *texts[:20]])


def test_both_samplers_write_the_same_where_the_grammar_decides(texts: list[str]) -> None:
    """The untrained base keeps to nothing by itself."""
    check(find_base_gguf(load_base("smollm2-135m")), [*HARD, *texts[:4]])


@pytest.mark.real
def test_the_grammar_alone_comes_to_the_same_answer(default_model_path: Path, texts: list[str]) -> None:  # noqa: ARG001
    """From the end of the prompt on, label and known JSON too; in F32, so that rounding decides nothing."""
    engine = Engine(ensure(f"{load_shipped().default}-f32"))
    trie = engine.tries[Lens.AUTHOR]
    try:
        for text in texts[:8]:
            (ours,) = engine.explain([text], Lens.AUTHOR, lambda posterior: greedy_label(posterior, trie.paths))
            assert answer_by_grammar(engine, text, Lens.AUTHOR) == render_answer(
                trie.labels[ours.label], ours.reasoning
            )
    finally:
        engine.close()
