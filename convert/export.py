"""Export: a folder that other programs serve, holding the model with its prompt as chat template, and checksums."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import gguf
import numpy as np
from gguf.constants import GGMLQuantizationType

from convert.errors import FileError
from convert.files import explained, require_space, sha256_of
from convert.gguf_file import CONTENT_HASH, Progress, TensorPlan, as_field, copied_fields, read_back, seal
from convert.header import Header, check_header, read_array

SUMS = "SHA256SUMS"
_CONTROL = 3  # llama.cpp's token type of what a tokenizer finds in a text only where it is told to
_COPY_SIZE = 1 << 24


def write_export(
    out: Path, model: Path, name: str, chat_template: str, texts: Mapping[str, str], progress: Progress | None = None
) -> tuple[Path, ...]:
    """Write the folder ``out``: the model as ``NAME.gguf``, the texts, and the checksums of all.

    The folder appears whole or not at all. Texts whose name ends in ``.sh`` may be executed.

    Args:
        model: a GGUF; its weights are copied bit for bit.
        chat_template: replaces the model's own.
        texts: file name, which may lead into a folder, and content.

    Returns:
        the files, checksums last.

    Raises:
        FileError: ``out`` is there and not empty, or cannot be written; the disk is full.
        GGUFError: the model is damaged.
    """
    header = check_header(model)
    with whole_folder(out, header.file_size + (4 << 20)) as work:
        write_with_template(header, work / f"{name}.gguf", chat_template, progress)
        for file, text in texts.items():
            path = work / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
            if path.suffix == ".sh":
                path.chmod(path.stat().st_mode | 0o111)
        write_sums(work)
        files = [path.relative_to(work) for path in sorted(work.rglob("*")) if path.is_file()]
    return tuple(out / file for file in sorted(files, key=lambda file: (file.name == SUMS, file)))


@contextlib.contextmanager
def whole_folder(out: Path, n_bytes: int) -> Iterator[Path]:
    """Yield a temporary neighbour of the folder ``out``, which takes its name when the block ends well.

    Raises:
        FileError: ``out`` is there and not empty, cannot be written, or has less than ``n_bytes`` free.
    """
    with explained(out):
        if out.is_dir() and any(out.iterdir()):
            raise FileError(f"The folder {out} is not empty", "Give a new folder, or empty this one.")
        if out.exists() and not out.is_dir():
            raise FileError(f"{out} is a file", "Give the path of a folder.")
        require_space(out.parent, n_bytes)
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
        try:
            yield work
            work.chmod(0o755)  # mkdtemp makes folders that only their owner can enter
            if out.is_dir():
                out.rmdir()  # Windows renames over nothing, not even an empty folder
            work.replace(out)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def write_with_template(source: Header, out: Path, chat_template: str, progress: Progress | None = None) -> None:
    """Write a GGUF anew with another chat template; its weights are copied bit for bit.

    Raises:
        GGUFError: what was written is not what was meant. FileError: the disk is full and the like.
    """
    fields = copied_fields(source)
    fields.pop("general.alignment", None)  # it is the writer's own that counts
    fields |= {"tokenizer.chat_template": as_field(chat_template), CONTENT_HASH: as_field("0" * 64)}
    writer = gguf.GGUFWriter(out, source.architecture)
    for key, value in fields.items():
        if key != "general.architecture":
            writer.add_key_value(key, value.value, value.type, value.sub_type)
    plans = [TensorPlan(tensor.name, tensor.type, tensor.shape) for tensor in source.tensors]
    for plan in plans:
        kind = GGMLQuantizationType[plan.type]
        writer.add_tensor_info(plan.name, plan.shape, np.dtype(np.float32), plan.n_bytes, raw_dtype=kind)
    with explained(out):
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            _copy_weights(source, writer, progress)
        finally:
            writer.close()
    seal(out)
    read_back(out, plans)


def _copy_weights(source: Header, writer: gguf.GGUFWriter, progress: Progress | None) -> None:
    assert writer.fout is not None
    file = writer.fout[0]
    total, done = sum(tensor.n_elements for tensor in source.tensors), 0
    writer.write_padding(file, file.tell())
    with open(source.path, "rb") as weights:
        for tensor in source.tensors:
            weights.seek(tensor.offset)
            left = tensor.n_bytes
            while left:
                block = weights.read(min(left, _COPY_SIZE))
                file.write(block)
                left -= len(block)
            writer.write_padding(file, tensor.n_bytes)
            done += tensor.n_elements
            if progress is not None:
                progress(done, total, "copying")


def write_sums(folder: Path) -> Path:
    """Write ``SHA256SUMS`` over every file below ``folder``, in the form that ``sha256sum -c`` reads."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / SUMS]
    lines = [f"{sha256_of(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8", newline="\n")
    return folder / SUMS


def control_tokens(header: Header) -> list[str]:
    """Return the control tokens of a vocabulary, such as ``<|im_end|>``."""
    types = header.metadata.get("tokenizer.ggml.token_type")
    if types is None:
        return []
    pairs = zip(
        read_array(header, "tokenizer.ggml.tokens"), read_array(header, "tokenizer.ggml.token_type"), strict=True
    )
    return [token.decode("utf-8", "replace") for token, kind in pairs if kind == _CONTROL and len(token) > 1]


def jinja_template(heads: Mapping[str, str], tail: str, control: list[str]) -> str:
    """Return a chat template: head, the last message with its outer white space stripped, tail.

    A control token that stands in the message gets a space after its first character, so that it is none any more.

    Args:
        heads: what stands before the text, by the name of the lens. The first is the one without a system message;
            another is chosen by a system message that holds its name and nothing else.
        tail: what stands after the text; the answer follows at once.
        control: the control tokens of the vocabulary.
    """
    first, *others = heads
    head = f"{{{{- {_quoted(heads[first])} -}}}}"
    if others:
        asked = "messages[0]['content'] | trim if messages[0]['role'] == 'system' else ''"
        branches = [f"{{%- {'el' * bool(i)}if lens == '{name}' -%}}{{{{- {_quoted(heads[name])} -}}}}"
                    for i, name in enumerate(others)]  # fmt: skip
        head = "\n".join([f"{{%- set lens = {asked} -%}}", *branches, f"{{%- else -%}}{head}{{%- endif -%}}"])
    tokens = ", ".join(map(_quoted, control))
    return "\n".join(
        [
            "{%- set said = namespace(text=messages[-1]['content'] | trim) -%}",
            f"{{%- for token in [{tokens}] -%}}",
            "{%- set said.text = said.text | replace(token, token[:1] ~ ' ' ~ token[1:]) -%}",
            "{%- endfor -%}",
            head,
            "{{- said.text -}}",
            f"{{{{- {_quoted(tail)} -}}}}",
        ]
    )


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"
