"""What stands in an export beside the model: grammars, schemas, a request, commands and words about them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from toolkit.contract.answer import gbnf, json_schema
from toolkit.contract.lens import Lens
from toolkit.contract.prompt import Frame

_EXAMPLE = "I feel disappointed and ignored..."
_PORT = 8080


def export_texts(name: str, frames: Mapping[Lens, Frame], told: Mapping[str, Any], card: str) -> dict[str, str]:
    """The files of an export by name.

    Args:
        name: of the model; its file is ``NAME.gguf``.
        frames: the prompt of every lens, the default one first.
        told: what the GGUF says under ``emotion_lrm.``
        card: the model card of the adapter.
    """
    files = {
        "README.md": readme(name, frames),
        "MODEL_CARD.md": f"{card.rstrip()}\n\n{origin(name, told)}",
        "Modelfile": modelfile(name, frames),
        "serve.sh": f'#!/bin/sh\ncd "$(dirname "$0")" && exec {server_line(name)} "$@"\n',
    }
    default = next(iter(frames))
    for lens in frames:
        for kind, with_reasoning in (("label", False), ("answer", True)):
            grammar, schema = gbnf(lens, with_reasoning), json_schema(lens, with_reasoning)
            files[f"{lens}-{kind}.gbnf"] = grammar
            files[f"{lens}-{kind}.schema.json"] = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
            files[f"{lens}-{kind}.request.json"] = request(lens, grammar, default)
    return files


def server_line(name: str) -> str:
    """The command that serves the model with llama.cpp's own server."""
    return f"llama-server -m {name}.gguf --host 127.0.0.1 --port {_PORT} -c 4096 -np 4"


def request(lens: Lens, grammar: str, default: Lens) -> str:
    """The body of a request, with a text in it to be replaced."""
    system = [] if lens == default else [{"role": "system", "content": str(lens)}]
    body = {
        "messages": [*system, {"role": "user", "content": _EXAMPLE}],
        "temperature": 0,
        "max_tokens": 256,
        "grammar": grammar,
    }
    return json.dumps(body, indent=2, ensure_ascii=False) + "\n"


def modelfile(name: str, frames: Mapping[Lens, Frame]) -> str:
    """How Ollama takes the model in, through its default lens."""
    frame = next(iter(frames.values()))
    return f'''# For Ollama; untested. Build with: ollama create {name} -f Modelfile
# Ask through its HTTP interface with "format" set to the JSON schema, and "stream": false.
FROM ./{name}.gguf
TEMPLATE """{frame.head_text}{{{{ .Prompt }}}}{frame.tail_text}"""
PARAMETER temperature 0
PARAMETER num_ctx 1024
PARAMETER num_predict 256
'''


def origin(name: str, told: Mapping[str, Any]) -> str:
    """What the file was made of, as a section of the model card."""
    rows = {
        "base": told.get("base"),
        "SHA-256 of the base": told.get("base_sha256"),
        "SHA-256 of the adapter": told.get("adapter_sha256"),
        "datasets": ", ".join(told.get("datasets", [])),
        "licence": told.get("licence"),
        "file type": told.get("file_type"),
        "prompt": told.get("prompt_hash"),
    }
    lines = [f"| {key} | {value} |" for key, value in rows.items() if value]
    return "\n".join(
        ["## This file", "", f"`{name}.gguf`, the adapter merged into its base.", "", "| | |", "|---|---|", *lines, ""]
    )


def readme(name: str, frames: Mapping[Lens, Frame]) -> str:
    """How to serve and ask the model, and what to know about the answers."""
    default, *others = frames
    lines = [
        f"# {name}",
        "",
        "A model that reads the emotion in a text. Text in, one JSON object out.",
        "",
        "    sha256sum -c SHA256SUMS",
        f"    {server_line(name)}",
        f"    curl -s http://127.0.0.1:{_PORT}/v1/chat/completions -H 'Content-Type: application/json' "
        f"-d @{default}-label.request.json",
        "",
        "`serve.sh` holds the second line. The chat template in the model is its prompt: the last message is the text.",
        "Every answer must be held to a grammar or a schema, greedily (`temperature` 0); without one the model may say",
        "anything.",
        "",
        "| file | holds |",
        "|---|---|",
        "| `*-label.*` | the emotion alone |",
        "| `*-answer.*` | the emotion and one or two sentences of reasoning |",
        "| `*.gbnf` | the grammar, for `grammar` in a request |",
        '| `*.schema.json` | the JSON schema, for `"response_format": {"type": "json_object", "schema": ...}` |',
        "| `*.request.json` | a whole request |",
        "| `Modelfile` | for Ollama; untested |",
        "| `MODEL_CARD.md`, `LICENSE*`, other files in capitals | what it is made of, what it may be used for |",
        "",
    ]
    if others:
        names = ", ".join(f"`{lens}`" for lens in others)
        lines += [f"The lens is `{default}`. A system message that is one of {names} chooses another.", ""]
    return "\n".join(lines + _LIMITS)


_LIMITS = [
    "## What another server does differently",
    "",
    "- It decodes greedily: the likelier first token wins, while `emotion-lrm` compares whole labels, and the sums of",
    "  rounded numbers run in another order. So a few texts in a hundred get another emotion;",
    "  `emotion-lrm convert export --out . --prove` counts and shows them.",
    "- No probabilities, thresholds or abstention: calibration happens in `emotion-lrm`. It never changes the emotion.",
    "- Quotes in the reasoning are not held to the text.",
    "- A text longer than the context is refused or cut; `emotion-lrm` reads it in windows.",
    "- Prompt and text are tokenized in one go. The template breaks up every control token of the vocabulary in the",
    "  text (`<|im_end|>` becomes `< |im_end|>`), so a text cannot end itself, but is not read to the letter then.",
    "  This protects `/v1/chat/completions` alone: on `/v1/completions` the caller writes the prompt, and Ollama's",
    "  own template language cannot break them up.",
    "- llama.cpp strips outer ASCII white space where `emotion-lrm` strips all of Unicode's.",
    "- llama-cpp-python's chat endpoint stops at once after a prompt that ends in the end-of-sequence token and",
    "  returns nothing. Where it does, use `/v1/completions` with the prompt written out.",
    "",
]
