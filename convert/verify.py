"""Is this GGUF what it claims to be? One check after the other, cheap ones first, each with its finding."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from convert.errors import ConvertError
from convert.file_types import DIRECT_TYPES, FILE_TYPES, tensor_type
from convert.files import explained, sha256_of
from convert.gguf_file import CONTENT_HASH, PREFIX, content_sha256
from convert.header import Header, TensorInfo, check_header
from convert.hf_tokenizer import normalizes_to_nfc
from convert.logits import compare_logits
from convert.tokens import NASTY_TEXTS, composed, differing, folder_tokens, gguf_tokens

LOGIT_BOUNDS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"F32": (0.005, 0.97), "F16": (0.005, 0.97), "BF16": (0.01, 0.95), "Q8_0": (0.05, 0.85)}
)
"""File type -> the largest mean KL divergence, in nats, and the smallest share of positions with the same likeliest
token at which a file still counts as the model of its reference; fewer bits get ``FEW_BITS_BOUND``."""

FEW_BITS_BOUND = (0.6, 0.4)

Answer = tuple[bool | None, str]
"""Whether the question was passed (None: it was not asked), and what was found."""

_ORIGIN = ("base_sha256", "adapter_sha256")

# File type of llama.cpp's own quantizer -> the types it gives to matrices; all but the first only to ``_MORE_BITS``.
_RECIPES = {"Q4_K_M": ("Q4_K", "Q5_K", "Q6_K"), "Q6_K": ("Q6_K",), "IQ4_NL": ("IQ4_NL", "Q5_K", "Q6_K")}
_MORE_BITS = re.compile(r"(token_embd|output|blk\.\d+\.(attn_v|ffn_down))\.weight")
_SHORT_ROWS = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}  # what it takes where 256 does not divide a row


@dataclass(frozen=True, slots=True)
class Check:
    """One question and its answer: ``passed`` is None where it was not asked, ``detail`` says what was found."""

    name: str
    passed: bool | None
    detail: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """All checks of one file, in order."""

    path: Path
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """True if no check failed."""
        return all(check.passed is not False for check in self.checks)


def verify(
    path: Path | str,
    manifest: Path | str | None = None,
    prompt_hash: str | None = None,
    base: Path | str | None = None,
    reference: Path | str | None = None,
    texts: Sequence[str] = NASTY_TEXTS,
    threads: int = 1,
    further: Mapping[str, Callable[[], Answer]] = MappingProxyType({}),
) -> VerifyReport:
    """Check a GGUF against everything that is given. A file that is refused ends the checks; nothing is raised for it.

    Args:
        path: the file.
        manifest: a SHA256SUMS file with a line for it.
        prompt_hash: the expected ``emotion_lrm.prompt_hash``.
        base: the base GGUF or Hugging Face folder: tokens must be the same, and a GGUF's SHA-256 the recorded one.
        reference: a GGUF whose logits it should have, within ``LOGIT_BOUNDS``.
        texts: the texts to compare logits on.
        threads: CPU threads for the logits.
        further: questions of the caller's own, by name, asked last.
    """
    path = Path(path)
    try:
        header = check_header(path)
    except ConvertError as error:
        return VerifyReport(path, (Check("header", False, str(error)),))
    found = f"{header.architecture}, {len(header.tensors)} tensors, {header.file_size / 1e6:.0f} MB"
    questions: dict[str, Callable[[], Answer]] = {
        "header": lambda: (True, found),
        "content": lambda: _content(header),
        "manifest": lambda: _manifest(header, manifest),
        "metadata": lambda: _metadata(header),
        "prompt": lambda: _prompt(header, prompt_hash),
        "base": lambda: _base(header, base),
        "tokens": lambda: _tokens(header, base),
        "logits": lambda: _logits(header, reference, texts, threads),
        **further,
    }
    return VerifyReport(path, tuple(_ask(name, question) for name, question in questions.items()))


def _ask(name: str, question: Callable[[], Answer]) -> Check:
    """Ask, and note the answer; an expected failure is a failed check."""
    try:
        return Check(name, *question())
    except ConvertError as error:
        return Check(name, False, str(error))


def _content(header: Header) -> Answer:
    if CONTENT_HASH not in header.metadata:
        return None, "the file carries no hash of its content"
    if content_sha256(header) == header.metadata[CONTENT_HASH]:
        return True, "every byte is as it was written"
    return False, "the content does not match the hash the file carries"


def _manifest(header: Header, manifest: Path | str | None) -> Answer:
    if manifest is None:
        return None, "no manifest given"
    with explained(manifest):
        lines = Path(manifest).read_text(encoding="utf-8", errors="replace").splitlines()
    listed = {name.lstrip("*"): digest for digest, _, name in (line.partition(" ") for line in lines)}
    listed = {Path(name.strip()).name: digest.lower() for name, digest in listed.items()}
    if header.path.name not in listed:
        return False, f"{Path(manifest).name} has no line for {header.path.name}"
    same = listed[header.path.name] == sha256_of(header.path)
    return same, "the SHA-256 is the listed one" if same else "the SHA-256 is not the listed one"


def _metadata(header: Header) -> Answer:
    told = [key for key in _ORIGIN if PREFIX + key in header.metadata]
    file_type = header.metadata.get(PREFIX + "file_type")
    if file_type is None and not told:
        return None, "not written by this program: it does not say what it is"
    if len(told) == 1:
        return False, f"it names its {told[0].removesuffix('_sha256')} alone, not base and adapter"
    if file_type not in FILE_TYPES:
        return False, f"its file type is {file_type!r}, which is not known"
    wrong = [tensor for tensor in header.tensors if tensor.type not in _types_of(file_type, tensor)]
    if wrong:
        return False, f"it calls itself {file_type}, and {len(wrong)} tensors are of another type"
    return True, f"{file_type}, {'with the hashes of its base and adapter' if told else 'a model without an adapter'}"


def _types_of(file_type: str, tensor: TensorInfo) -> Collection[str]:
    """The ggml types that a tensor may have in a file of this type."""
    if file_type in DIRECT_TYPES:
        return (tensor_type(file_type, tensor.name, tensor.shape),)
    if len(tensor.shape) < 2:
        return ("F32",)
    if tensor.shape[-1] % 32:
        return ("F16",)
    types = _RECIPES[file_type] if _MORE_BITS.fullmatch(tensor.name) else _RECIPES[file_type][:1]
    return types if tensor.shape[-1] % 256 == 0 else [_SHORT_ROWS.get(name, name) for name in types]


def _prompt(header: Header, expected: str | None) -> Answer:
    found = header.metadata.get(PREFIX + "prompt_hash")
    if expected is None:
        return None, "no prompt hash given"
    if found == expected:
        return True, "it was built for this prompt"
    return False, "it names no prompt" if found is None else "it was built for another prompt"


def _base(header: Header, base: Path | str | None) -> Answer:
    recorded = header.metadata.get(PREFIX + "base_sha256")
    if base is None or Path(base).is_dir() or recorded is None:
        return None, "no base GGUF given" if recorded is not None else "the file does not name its base"
    same = sha256_of(base) == recorded
    return same, "built from this base" if same else "built from another base"


def _tokens(header: Header, base: Path | str | None) -> Answer:
    if base is None:
        return None, "no base given"
    texts: Sequence[str] = NASTY_TEXTS
    if Path(base).is_dir():
        texts = composed(texts) if normalizes_to_nfc(Path(base)) else texts
        expected = folder_tokens(base, texts)
    else:
        expected = gguf_tokens(base, texts)
    different = differing(texts, expected, gguf_tokens(header.path, texts))
    if different:
        return False, f"{len(different)} of {len(texts)} texts have other tokens, such as {different[0]!r}"
    return True, f"the same tokens on {len(texts)} texts"


def _logits(header: Header, reference: Path | str | None, texts: Sequence[str], threads: int) -> Answer:
    if reference is None:
        return None, "no reference given"
    found = compare_logits(reference, header.path, texts, threads)
    max_kl, min_agreement = LOGIT_BOUNDS.get(str(header.metadata.get(PREFIX + "file_type")), FEW_BITS_BOUND)
    passed = found.kl_mean <= max_kl and found.agreement >= min_agreement
    return passed, (
        f"KL {found.kl_mean:.4f} mean, {found.kl_max:.4f} at most, "
        f"the same likeliest token at {found.agreement:.1%} of {found.n_tokens} positions"
    )
