"""Turn a ``tokenizer.json`` into GGUF's vocabulary, for the pre-tokenizers that are known, and for no others.

A wrong pre-tokenizer loads and is quietly worse. So it is recognised by its whole definition, never by a model's name,
and the result is proven by token parity (``convert.tokens``).
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
from gguf.constants import GGUFValueType, TokenType
from gguf.gguf_writer import GGUFValue

from convert.errors import ConvertError
from convert.gguf_file import as_field
from convert.hf_folder import bad_folder, read_json

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _split(regex: str) -> list[Any]:
    return [
        {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
    ]


# llama.cpp's name -> (steps of the pre-tokenizer, normalizer, ignore_merges)
_BYTE_LEVEL: dict[str, tuple[list[Any], str | None, bool]] = {
    "smollm": (
        [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        ],
        None,
        False,
    ),
    "llama-bpe": (_split(_CONTRACTIONS + r"\p{N}{1,3}" + _REST), None, True),
    "qwen2": (_split(_CONTRACTIONS + r"\p{N}" + _REST), "NFC", False),
}

_SPACE_SPLIT = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
_SPACE_MARK = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
_ID_KEYS = {"unk": "unknown", "pad": "padding", "sep": "seperator"}  # GGUF's own names, spelling included


def tokenizer_fields(folder: Path, n_rows: int) -> dict[str, GGUFValue]:
    """Return GGUF's tokenizer metadata for a model folder, padded to the number of embedding rows.

    Raises:
        ModelFolderError: an unknown tokenizer, or one that does not fit the embeddings.
    """
    definition = read_json(folder, "tokenizer.json")
    if "auto_map" in _config(folder):
        raise bad_folder(folder, "its tokenizer needs code of its own (auto_map), which is never run")
    model = definition.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE" or not isinstance(model.get("vocab"), dict):
        raise bad_folder(folder, "its tokenizer is no BPE")
    pre = recognise(definition)
    if pre is None:
        steps = [step.get("type") for step in _steps(definition.get("pre_tokenizer"))]
        raise bad_folder(folder, f"its pre-tokenizer is unknown ({', '.join(map(str, steps)) or 'none'})")
    tokens, types = _vocabulary(folder, definition, n_rows, sentencepiece=pre == "default")
    fields = {
        "tokenizer.ggml.model": as_field("llama" if pre == "default" else "gpt2"),
        "tokenizer.ggml.pre": as_field(pre),
        "tokenizer.ggml.tokens": as_field(tokens),
        "tokenizer.ggml.token_type": _array(types, GGUFValueType.INT32),
    }
    if pre == "default":
        added = {token["content"] for token in definition.get("added_tokens") or []}
        scores = _array(_scores(folder, model, tokens, added), GGUFValueType.FLOAT32)
        fields |= {"tokenizer.ggml.scores": scores, "tokenizer.ggml.add_space_prefix": as_field(False)}
    return fields | _special_fields(folder, n_rows, with_merges=pre != "default")


def recognise(definition: dict[str, Any]) -> str | None:
    """Return llama.cpp's name for the pre-tokenizer of a ``tokenizer.json``; None if it is not known.

    "default" stands for Gemma's sentencepiece-like BPE, whose only step is to write spaces as "▁".
    """
    model, normalizer = definition["model"], definition.get("normalizer")
    steps = _steps(definition.get("pre_tokenizer"))
    if model.get("byte_fallback"):
        known = normalizer == _SPACE_MARK and steps in ([], [_SPACE_SPLIT]) and not model.get("ignore_merges")
        return "default" if known else None
    normal_form = None if normalizer is None else normalizer.get("type")
    for name, known_form in _BYTE_LEVEL.items():
        if (steps, normal_form, bool(model.get("ignore_merges"))) == known_form:
            return name
    return None


def correct_pre_tokenizer(tokenizer: Any, pre: str) -> None:
    """Give a fast tokenizer the pre-tokenizer and normalizer that ``tokenizer.ggml.pre`` of its GGUF names, in place.

    transformers reads a GGUF's vocabulary but not its pre-tokenizer, and then splits numbers and tabs in another way.

    Raises:
        ConvertError: a pre-tokenizer that is not known.
    """
    from tokenizers import Tokenizer

    if pre == "default":
        return
    if pre not in _BYTE_LEVEL:
        raise ConvertError(f"The pre-tokenizer {pre!r} is unknown", f"Known ones are {', '.join(_BYTE_LEVEL)}.")
    steps, normalizer, ignore_merges = _BYTE_LEVEL[pre]
    backend = tokenizer.backend_tokenizer
    definition = json.loads(backend.to_str())
    definition["normalizer"] = None if normalizer is None else {"type": normalizer}
    definition["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [_with_offsets(step) for step in steps]}
    corrected = Tokenizer.from_str(json.dumps(definition))
    backend.pre_tokenizer, backend.normalizer = corrected.pre_tokenizer, corrected.normalizer
    backend.model.ignore_merges = ignore_merges


def _with_offsets(step: dict[str, Any]) -> dict[str, Any]:
    return step | {"trim_offsets": True} if step["type"] == "ByteLevel" else step


def normalizes_to_nfc(folder: Path) -> bool:
    """Say whether the tokenizer composes its text first (NFC), which llama.cpp leaves to its caller."""
    return (read_json(folder, "tokenizer.json").get("normalizer") or {}).get("type") == "NFC"


def _steps(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the steps of a pre-tokenizer without the setting that only concerns offsets."""
    if pre_tokenizer is None:
        return []
    steps = pre_tokenizer["pretokenizers"] if pre_tokenizer.get("type") == "Sequence" else [pre_tokenizer]
    return [{key: value for key, value in step.items() if key != "trim_offsets"} for step in steps]


def _vocabulary(
    folder: Path, definition: dict[str, Any], n_rows: int, sentencepiece: bool
) -> tuple[list[str], list[int]]:
    """Return the text and the type of every id; ids without a token become unused padding."""
    vocabulary = definition["model"]["vocab"]
    by_id = {index: (token, TokenType.NORMAL) for token, index in vocabulary.items()}
    if sentencepiece:
        unknown = definition["model"].get("unk_token")
        # a byte may share its id with the character it is, and then the byte is what llama.cpp looks for
        by_id |= {index: (token, TokenType.BYTE) for token, index in vocabulary.items() if _is_byte(token)}
        by_id |= {index: (token, TokenType.UNKNOWN) for token, index in vocabulary.items() if token == unknown}
    for added in definition.get("added_tokens") or []:
        if added.get("single_word") or added.get("lstrip") or added.get("rstrip"):
            raise bad_folder(folder, f"its added token {added['content']!r} swallows the spaces around it")
        kind = TokenType.CONTROL if added.get("special") else TokenType.USER_DEFINED
        if by_id.get(added["id"], ("", None))[1] == TokenType.UNKNOWN:
            continue
        # llama.cpp looks for added tokens in the raw text; a "normalized" one is meant to match where spaces are "▁"
        marked = sentencepiece and added.get("normalized")
        by_id[added["id"]] = (added["content"].replace("▁", " ") if marked else added["content"], kind)
    if max(by_id) >= n_rows:
        raise bad_folder(folder, f"its tokenizer has the token {max(by_id)}, and there are only {n_rows} embeddings")
    padded = [by_id.get(index, (f"[PAD{index}]", TokenType.UNUSED)) for index in range(n_rows)]
    return [token for token, _ in padded], [int(kind) for _, kind in padded]


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _scores(folder: Path, model: dict[str, Any], tokens: list[str], added: set[str]) -> list[float]:
    """Return sentencepiece scores that make llama.cpp merge in the order of the merge list.

    llama.cpp joins whichever neighbours form the token of the highest score. That is the merge list's own order if
    every way to split a token is in it, and all ways in one run, as they are wherever sentencepiece made the list.
    Added tokens are exempt: they are cut out of the text before anything is merged.
    """
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    first: dict[str, int] = {}
    last = ""
    for rank, (left, right) in enumerate(merges):
        token = left + right
        if token != last and token in first and token not in added:
            raise bad_folder(folder, "its merges are not in the order of sentencepiece scores")
        last = token
        first.setdefault(token, rank)
    known = set(merges)
    ordinary = (token for token in model["vocab"] if token not in added and not _is_byte(token))
    if any(way not in known for token in ordinary for way in _splits(token, model["vocab"])):
        raise bad_folder(folder, "its merges leave out ways to form a token, so no sentencepiece scores stand for them")
    return [-float(first.get(token, len(merges))) for token in tokens]


def _splits(token: str, vocabulary: dict[str, int]) -> Iterator[tuple[str, str]]:
    for cut in range(1, len(token)):
        if token[:cut] in vocabulary and token[cut:] in vocabulary:
            yield token[:cut], token[cut:]


def _special_fields(folder: Path, n_rows: int, with_merges: bool) -> dict[str, GGUFValue]:
    special = gguf.SpecialVocab(folder, load_merges=with_merges, n_vocab=n_rows)
    fields = {}
    if with_merges:
        if not special.merges:
            raise bad_folder(folder, "its tokenizer has no merges")
        fields["tokenizer.ggml.merges"] = as_field(special.merges)
    for kind, index in special.special_token_ids.items():
        fields[f"tokenizer.ggml.{_ID_KEYS.get(kind, kind)}_token_id"] = as_field(index)
    for kind in ("bos", "eos"):
        fields[f"tokenizer.ggml.add_{kind}_token"] = as_field(bool(special.add_special_token.get(kind, False)))
    if isinstance(special.chat_template, str):
        fields["tokenizer.chat_template"] = as_field(special.chat_template)
    return fields


def _config(folder: Path) -> dict[str, Any]:
    present = (folder / "tokenizer_config.json").is_file()
    return read_json(folder, "tokenizer_config.json") if present else {}


def _array(items: list[Any], kind: GGUFValueType) -> GGUFValue:
    return GGUFValue(items, GGUFValueType.ARRAY, kind)
