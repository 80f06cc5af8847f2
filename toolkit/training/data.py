"""The rows that a training run asks for: labelled examples, chains, dev."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

from toolkit.contract.example import Example
from toolkit.corpora.goemotions import read_goemotions
from toolkit.training.config import TrainConfig


def load_training(config: TrainConfig, source: Path | None) -> list[Example]:
    """The training mix of ``config.data``: labelled examples and, where asked for, chains.

    An example that has a chain enters once, with it, and keeps the soft target of all its labels.
    """
    labelled = list(read_goemotions(config.data.split, source))
    if config.data.chains is None:
        chains: list[Example] = []
    else:
        from toolkit.corpora.jsonl import read_examples

        chains = list(read_examples(config.data.chains))
    return mix(config, labelled, chains) + load_samples(config)


def load_samples(config: TrainConfig) -> list[Example]:
    """The texts of ``data.samples`` through the author's lens, ``sample_repeats`` times; none where it names none."""
    if config.data.samples is None:
        return []
    lines = config.data.samples.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines[: config.data.sample_limit]]
    samples = [Example(r["text"], (r["emotion"],), id=r["id"], reasoning=r["reasoning"]) for r in rows]
    return samples * config.data.sample_repeats


def load_dev(config: TrainConfig, source: Path | None) -> list[Example]:
    """The first ``dev_limit`` rows of the dev split, to watch the run."""
    return list(read_goemotions("dev", source))[: config.data.dev_limit]


def mix(config: TrainConfig, labelled: list[Example], chains: list[Example]) -> list[Example]:
    """Choose by the config's seed: ``chain_limit`` chains, then ``labels_per_chain`` labelled examples for each."""
    chance = random.Random(config.seed)
    chains = chance.sample(chains, len(chains))[: config.data.chain_limit]
    reasoned = {e.id for e in chains}
    rest = [e for e in labelled if e.id not in reasoned]
    chance.shuffle(rest)
    if config.data.labels_per_chain is not None and chains:
        rest = rest[: round(config.data.labels_per_chain * len(chains))]
    gold = {e.id: e for e in labelled}
    joined = [replace(e, soft=gold[e.id].target()) if e.id in gold else e for e in chains]
    return (joined + rest)[: config.data.limit]
