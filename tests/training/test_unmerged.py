"""On a tiny model of random weights torch and the engine read alike, through both lenses."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from toolkit.contract.lens import Lens
from toolkit.inference.engine import Engine
from toolkit.inference.transformers_backend import TransformersEngine, TransformersTokenizer


def test_on_a_tiny_model_of_random_weights_the_readings_agree(tiny_base: Path, tiny_folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = TransformersTokenizer(AutoTokenizer.from_pretrained(tiny_folder))
    theirs = TransformersEngine(AutoModelForCausalLM.from_pretrained(tiny_folder).eval(), tokenizer)
    ours = Engine(tiny_base, threads=1)
    texts = ["I am so glad!", None, "Leave me alone.", "word " * 600]
    try:
        for lens in Lens:
            for left, right in zip(ours.read(texts, lens), theirs.read(texts, lens), strict=True):
                np.testing.assert_allclose(right.posterior, left.posterior, atol=2e-3)
                assert right.coverage == pytest.approx(left.coverage, abs=2e-3)

        def best(posterior: np.ndarray) -> int:
            return int(posterior.argmax())

        explained = zip(ours.explain(texts, Lens.AUTHOR, best), theirs.explain(texts, Lens.AUTHOR, best), strict=True)
        for left, right in explained:
            assert right.label == left.label
            assert right.reasoning
            assert not set('"\\\n') & set(right.reasoning)

        heard: list[list[str]] = [[], []]
        for told, engine in zip(heard, (ours, theirs), strict=True):
            found = engine.explain(["I am so glad!"], Lens.AUTHOR, best, lambda *now, told=told: told.append(now[-1]))
            whole = next(found).reasoning
            assert len(told) > 1
            assert all(later.startswith(earlier) for earlier, later in pairwise(told))
            assert whole.startswith(told[-1][:5])
        assert heard[0][:3] == heard[1][:3]
    finally:
        ours.close()
        theirs.close()
