"""The rows that a training run asks for: labelled examples, chains and samples through each lens, and dev rows."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from toolkit.contract.example import Example
from toolkit.contract.lens import Lens
from toolkit.corpora.agreement import AgreementConfig, attach, read_votes
from toolkit.corpora.empathetic import read_empathetic
from toolkit.corpora.goemotions import read_goemotions
from toolkit.corpora.jsonl import read_examples
from toolkit.corpora.prepare import load_raters
from toolkit.errors import ConfigError, DataError
from toolkit.training.config import DataSettings, LensData, RunConfig, SampleData
from toolkit.training.distillation import distilled
from toolkit.training.erasure import erased

_SAMPLE_KEYS = {Lens.AUTHOR: ("emotion", "reasoning"), Lens.READER: ("reader_emotion", "reader_reasoning")}


def load_training(config: RunConfig, source: Path | None) -> list[Example]:
    """The training mix of ``config.data`` through every lens that it names, cut to ``data.limit``.

    An example that has a chain enters once, with it, and keeps the soft target of all its labels.
    """
    found: list[Example] = []
    for lens, wanted in config.data.lenses().items():
        rows = _labelled(lens, wanted, config.data, source)
        taught = list(distilled(rows, wanted.distil, lens)) if wanted.distil else rows
        found += mix(wanted, taught, lens, config.seed)
    for samples in config.data.samples:
        told = load_samples(samples)
        copies = erased(told, config.seed) if samples.erased else []
        if samples.labels_only:  # only now, as the reasoning says which words a copy lacks
            told = [replace(e, reasoning=None) for e in told]
        found += told + copies
    return found[: config.data.limit]


def load_dev(config: RunConfig, source: Path | None) -> list[Example]:
    """The first ``dev_limit`` dev rows of each lens, to watch the run."""
    found: list[Example] = []
    for lens in config.data.lenses():
        rows = read_goemotions("dev", source) if lens is Lens.AUTHOR else read_empathetic("dev", source)
        found += itertools.islice(rows, config.data.dev_limit)
    return found


def load_samples(samples: SampleData) -> list[Example]:
    """The first ``limit`` texts of a samples file through each of its lenses, ``repeats`` times.

    A text without reasoning teaches its label alone.

    Raises:
        ConfigError: for votes without the author's lens, whose they are.
        DataError: for a missing or damaged table of votes, or one without any on these texts.
    """
    if samples.votes is not None and Lens.AUTHOR not in samples.lenses:
        raise ConfigError(
            f"{samples.file} is learned without the author's lens, whose the votes are.", "Leave out votes."
        )
    lines = samples.file.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines[: samples.limit]]
    found: list[Example] = []
    for lens in samples.lenses:
        label, reasoning = _SAMPLE_KEYS[lens]
        told = [Example(r["text"], (r[label],), lens, r["id"], reasoning=r.get(reasoning)) for r in rows]
        found += _voted(told, samples.votes, samples.file) if samples.votes and lens is Lens.AUTHOR else told
    return found * samples.repeats


def _voted(examples: list[Example], table: Path, file: Path) -> Iterable[Example]:
    """The examples with the votes on them mixed into their targets."""
    votes = read_votes(table)
    if not any(example.id in votes for example in examples):
        raise DataError(f"{table} has no votes on the texts of {file}.", "Name the table that belongs to the file.")
    return attach(examples, votes, AgreementConfig())


def mix(wanted: LensData, labelled: list[Example], lens: Lens, seed: int) -> list[Example]:
    """Choose by the seed: ``chain_limit`` chains, then ``labels_per_chain`` labelled examples for each."""
    chance = random.Random(seed)
    chains = [e for e in read_examples(wanted.chains) if e.lens is lens] if wanted.chains else []
    chains = chance.sample(chains, len(chains))[: wanted.chain_limit]
    reasoned = {e.id for e in chains}
    rest = [e for e in labelled if e.id not in reasoned]
    chance.shuffle(rest)
    if wanted.labels_per_chain is not None and chains:
        rest = rest[: round(wanted.labels_per_chain * len(chains))]
    gold = {e.id: e for e in labelled}
    joined = [replace(e, soft=gold[e.id].target()) if e.id in gold else e for e in chains]
    return joined + rest


def _labelled(lens: Lens, wanted: LensData, data: DataSettings, source: Path | None) -> list[Example]:
    """Every labelled row of a lens: of a file, of GoEmotions, or EmpatheticDialogues' situations and some turns."""
    if wanted.rows is not None:
        found = [e for e in read_examples(wanted.rows) if e.lens is lens]
    elif lens is Lens.READER:
        return [*read_empathetic(data.split, source), *_some_turns(wanted, data, source)]
    else:
        found = list(read_goemotions(data.split, source))
    return list(_share(found, data, source))


def _some_turns(wanted: LensData, data: DataSettings, source: Path | None) -> list[Example]:
    if not wanted.turns:
        return []
    turns = list(read_empathetic(data.split, source, "utterance"))
    return random.Random(0).sample(turns, min(wanted.turns, len(turns)))


def _share(examples: Iterable[Example], data: DataSettings, source: Path | None) -> Iterator[Example]:
    """The examples with the targets that ``soft_labels`` asks for."""
    if data.soft_labels == "votes":
        raters = AgreementConfig()
        return attach(examples, load_raters(raters, source).agreements, raters)
    if data.soft_labels == "first":
        return (replace(e, labels=e.labels[:1], soft=None) for e in examples)
    return iter(examples)
