"""All file types of a small model, measured: the table, the picture, the choice, and the task metric of `verify`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import save_file

from convert.gguf_file import TensorPlan, as_field, copied_fields, write_gguf
from convert.header import check_header
from convert.merge import merge_adapter
from toolkit.apps.conversion import OURS, convert
from toolkit.apps.export import read_source
from toolkit.apps.quality import Bounds, Loss, Quality, labelled_rows, loss_against
from toolkit.apps.quantize import Measured, fastest, print_table
from toolkit.apps.quantize_plot import draw
from toolkit.apps.throughput import Throughput
from toolkit.base import find_base_gguf, load_base
from toolkit.contract.prompt import load_prompt
from toolkit.errors import DataError, EmotionLRMError, ModelError, UsageError

WIDTH, HIDDEN, KV = 64, 96, 32


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One block of random weights behind the default base's vocabulary."""
    base = check_header(find_base_gguf(load_base("smollm2-135m")))
    sizes = {"block_count": 1, "embedding_length": WIDTH, "feed_forward_length": HIDDEN}
    sizes |= {"attention.head_count": 4, "attention.head_count_kv": 2, "rope.dimension_count": WIDTH // 4}
    fields = copied_fields(base) | {f"llama.{key}": as_field(value) for key, value in sizes.items()}
    block = {"attn_q": (WIDTH, WIDTH), "attn_k": (KV, WIDTH), "attn_v": (KV, WIDTH), "attn_output": (WIDTH, WIDTH)}
    block |= {"ffn_gate": (HIDDEN, WIDTH), "ffn_up": (HIDDEN, WIDTH), "ffn_down": (WIDTH, HIDDEN)}
    block |= {"attn_norm": (WIDTH,), "ffn_norm": (WIDTH,)}
    shapes = {f"blk.0.{name}.weight": shape for name, shape in block.items()}
    vocabulary = next(t.shape[0] for t in base.tensors if t.name == "token_embd.weight")
    shapes |= {"token_embd.weight": (vocabulary, WIDTH), "output_norm.weight": (WIDTH,)}
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("small") / "small-bf16.gguf"
    plans = [TensorPlan(name, "BF16" if len(shape) > 1 else "F32", shape) for name, shape in shapes.items()]
    write_gguf(path, "llama", fields, plans, lambda plan: [rng.normal(0, 0.3, plan.shape).astype(np.float32)])
    return path


@pytest.fixture(autouse=True)
def no_corpora(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMOTION_LRM_CORPORA", raising=False)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(convert, [str(argument) for argument in arguments])


def test_all_file_types_are_measured_and_one_is_chosen(tmp_path: Path, small_model: Path) -> None:
    out, picture = tmp_path / "chosen.gguf", tmp_path / "types.png"
    options = ("--limit", 12, "--rounds", 1, "--threads", 1, "--max-loss", 1, "--max-f1-loss", 1)
    result = run("quantize", small_model, "--auto", "-o", out, "--plot", picture, "--json", *options)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["judged_by"], told["texts"]) == ("12 of the samples that ship", 12)
    assert (told["max_loss"], told["max_f1_loss"]) == (1.0, 1.0)
    types = {one["file_type"]: one for one in told["types"]}
    assert list(types) == [
        "F16", "BF16", "Q8_0", "Q4_0", "Q4_0_MIXED", "Q4_1", "Q5_0", "Q5_1", "Q4_K_M", "Q6_K", "IQ4_NL",
    ]  # fmt: skip
    nothing = {"top1": 0.0, "noise": 0.0, "macro_f1": 0.0, "macro_f1_noise": 0.0}
    assert types["BF16"]["loss"] == {**nothing, "kl": pytest.approx(0, abs=1e-9)}
    assert 0 < types["Q8_0"]["loss"]["kl"] < types["Q4_0"]["loss"]["kl"]
    assert types["Q4_0"]["bits_per_weight"] == pytest.approx(4.5, abs=0.01)
    assert all(one["prompt_tokens_per_second"] > 0 < one["decode_tokens_per_second"] for one in types.values())
    assert not any(one["refused"] for one in types.values())
    assert types["Q8_0"]["fallbacks"] == {}
    assert types["Q6_K"]["fallbacks"]["blk.0.ffn_up.weight"].startswith("Q8_0: rows of 64 do not divide")
    assert told["chosen"] == max(types, key=lambda name: types[name]["texts_per_second"])
    assert check_header(out).metadata["emotion_lrm.file_type"] == told["chosen"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_one_file_type_is_written_and_told(tmp_path: Path, small_model: Path) -> None:
    result = run("quantize", small_model, "-t", "q4_0_mixed", "-o", tmp_path / "q.gguf", "--threads", 1)
    assert result.exit_code == 0, result.output
    assert "bits per weight" in result.stdout
    assert "here 4 would lose most" in result.stderr
    assert check_header(tmp_path / "q.gguf").tensor("blk.0.attn_q.weight").type == "Q4_0"


def test_verify_compares_the_task_metric(tmp_path: Path, small_model: Path) -> None:
    copy = tmp_path / "q8.gguf"
    run("quantize", small_model, "-t", "Q8_0", "-o", copy)
    result = run("verify", copy, "--metric", "--reference", small_model, "--limit", 10, "--json")
    checks = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    assert "on 10 of the samples that ship" in checks["metric"]["detail"]
    assert checks["metric"]["passed"] is not None
    without = json.loads(run("verify", copy, "--metric", "--json").stdout)["checks"][-1]
    assert (without["name"], without["passed"]) == ("metric", None)
    assert "metric" not in run("verify", copy).stdout


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A LoRA of one matrix of the small model."""
    folder = tmp_path / "mine"
    folder.mkdir()
    parts = {"A": np.ones((2, WIDTH), np.float32), "B": np.full((WIDTH, 2), 0.01, np.float32)}
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    save_file({key.format(part): matrix for part, matrix in parts.items()}, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_what_is_built_from_an_adapter_names_its_prompt(tmp_path: Path, small_model: Path, adapter: Path) -> None:
    """So that it can be exported, and verified on its task; a GGUF that names no prompt is taken at its word."""
    built, merged = tmp_path / "built.gguf", tmp_path / "merged.gguf"
    given = ("--base", small_model, "--adapter", adapter)
    for command in (("build", *given, "-o", built, "-t", "Q8_0"), ("merge", *given, "-o", merged)):
        result = run(*command)
        assert result.exit_code == 0, result.output
    result = run("export", "--out", tmp_path / "served", "--model", built)
    assert result.exit_code == 0, result.output
    assert read_source(merged).told["prompt_hash"] == load_prompt().digest
    assert "prompt_hash" not in read_source(small_model).told
    checked = run("verify", built, "--metric", "--reference", built, "--limit", 5, "--json")
    assert checked.exit_code == 0, checked.output
    passed = {check["name"]: check["passed"] for check in json.loads(checked.stdout)["checks"]}
    assert passed["prompt"] is passed["metric"] is True
    merge_adapter(small_model, adapter, merged, "F16", {"prompt_hash": "another"})
    with pytest.raises(ModelError, match="another prompt"):
        read_source(merged)


@pytest.mark.parametrize("options", [(), ("--all", "--auto"), ("-t", "Q8_0")])
def test_what_to_write_must_be_plain(small_model: Path, options: tuple[str, ...]) -> None:
    assert isinstance(run("quantize", small_model, *options).exception, UsageError)


def test_labelled_rows_are_the_corpus_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, told = labelled_rows()
    assert told == "500 of the samples that ship"
    assert samples.gold.shape == (500, 28)
    assert samples.gold.sum() == 500
    monkeypatch.setenv("EMOTION_LRM_CORPORA", str(tmp_path))
    assert labelled_rows(limit=3)[1] == "3 of the samples that ship"
    with pytest.raises(DataError, match="no dev split"):
        labelled_rows(tmp_path)
    (tmp_path / "goemotions").mkdir()
    (tmp_path / "goemotions" / "dev.tsv").write_text("So glad!\t17\tx1\nHow sad.\t25\tx2\n")
    rows, told = labelled_rows(limit=1)
    assert (rows.texts, told) == (("So glad!",), "1 comments of the GoEmotions dev split")


def test_loss_by_hand() -> None:
    first, both = np.array([[1, 0], [1, 0]], dtype=bool), np.array([[0, 1], [1, 0]], dtype=bool)
    reference = Quality(np.array([[0.5, 0.5], [0.9, 0.1]]), np.array([True, True]), first, first)
    other = Quality(np.array([[0.25, 0.75], [0.9, 0.1]]), np.array([False, True]), both, first)
    loss = loss_against(reference, other)
    assert loss.top1 == 0.5
    assert loss.noise == pytest.approx(0.5 / np.sqrt(2))
    assert loss.kl == pytest.approx((0.5 * np.log(2) + 0.5 * np.log(2 / 3)) / 2)
    # F1 of the one label with a gold row: 1, and of the other 2/3; so the means over two labels are 1/2 and 1/3
    assert loss.macro_f1 == pytest.approx(1 / 6)
    # drawn are both rows, twice the first or twice the second: 1/6 two times in four, 1/2 once, 0 once
    assert loss.macro_f1_noise == pytest.approx((1 / 72 + 1 / 16 - (5 / 24) ** 2) ** 0.5, rel=0.1)
    assert loss_against(reference, reference) == Loss(0.0, 0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("top1", "macro_f1", "noise", "within"),
    [
        (0.005, 0.003, 0.0, True),
        (0.0051, 0.0, 0.0, False),
        (0.0, 0.004, 0.002, False),
        (0.0, 0.004, 0.003, True),  # chance reaches as far in one file of twenty that has lost nothing
        (0.0, 0.002, 0.0001, True),  # certain, but little
        (-0.01, -0.02, 0.001, True),
        (-0.01, 0.02, 0.01, False),
    ],
)
def test_what_a_file_may_lose(top1: float, macro_f1: float, noise: float, within: bool) -> None:
    assert Loss(top1, 0.004, 0.01, macro_f1, noise).within(Bounds()) is within


def test_chance_alone_seldom_refuses_a_file() -> None:
    """Two that find six in ten of the labels, at random, are as good; one without the rarer labels is not."""
    random = np.random.default_rng(0)
    even, same = np.full((1_000, 28), 1 / 28), np.ones(1_000, dtype=bool)
    losses, kept, blind = [], [], []
    for _ in range(20):
        gold = np.eye(28, dtype=bool)[random.integers(0, 28, 1_000)]
        one, other = (Quality(even, same, gold & (random.random(gold.shape) < 0.6), gold) for _ in range(2))
        found = loss_against(one, other)
        losses.append(found.macro_f1)
        kept.append(found.within(Bounds()))
        less = Quality(even, same, one.predicted & (np.arange(28) < 25), gold)
        blind.append(loss_against(one, less).within(Bounds()))
    assert sum(loss > Bounds().macro_f1 for loss in losses) > 5  # what the bound alone would refuse
    assert sum(kept) >= 17
    assert not any(blind)


@pytest.fixture
def found() -> list[Measured]:
    def one(name: str, lost: float, macro_f1: float, speed: float) -> Measured:
        loss = Loss(lost, 0.004, 0.02, macro_f1, 0.001)
        return Measured(name, 10**8, 5.0, 0.6, 0.5, loss, Throughput(speed, speed), {})

    return [
        one("BF16", 0.0, 0.0, 700.0), one("Q8_0", 0.001, 0.002, 490.0), one("Q4_0", 0.03, 0.002, 980.0),
        one("Q5_0", 0.001, 0.004, 990.0),
    ]  # fmt: skip


def test_the_fastest_is_chosen_within_the_bound(found: list[Measured]) -> None:
    assert found[0].speed.texts == pytest.approx(10.0)
    assert fastest(found, Bounds()).file_type == "BF16"
    assert fastest(found, Bounds(top1=0.05)).file_type == "Q4_0"
    assert fastest(found, Bounds(macro_f1=0.005)).file_type == "Q5_0"
    with pytest.raises(EmotionLRMError, match=r"loses more than 0\.005 of the top-1 accuracy or 0\.003 of macro-F1"):
        fastest(found[2:], Bounds())


def test_the_table_and_the_picture_mark_what_is_refused(tmp_path: Path, found: list[Measured]) -> None:
    import io

    out = io.StringIO()
    print_table(found, {"source": "m.gguf", "judged_by": "9 texts"}, Bounds(), out)
    rows = [line for line in out.getvalue().splitlines() if line.startswith(("BF16", "Q"))]
    assert [row.split()[0] for row in rows] == ["Q5_0", "Q4_0", "BF16", "Q8_0"]
    assert ["refused" in row for row in rows] == [True, True, False, False]
    assert "…" not in out.getvalue()
    draw(found, Bounds(), "9 texts", tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 10_000


def test_the_listed_summaries_are_the_commands_own() -> None:
    import click

    context = click.Context(convert)
    for name in OURS:
        command = convert.get_command(context, name)
        assert command is not None
        assert (command.help or "").strip().splitlines()[0] == OURS[name][1]
    listed = run("--help").stdout
    assert all(name in listed for name in ("merge", "gguf", "quantize", "verify", "build", "export", "bundle"))
