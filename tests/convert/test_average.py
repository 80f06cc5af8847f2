"""The mean of adapters changes the base by the mean of what each changes."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from convert.adapter import read_adapter
from convert.average import average_adapters
from convert.commands import convert
from convert.errors import AdapterError

WriteAdapter = Callable[..., Path]


def other_weights(folder: Path) -> Path:
    """The same adapter with some columns moved, so that it changes the base otherwise."""
    path = folder / "adapter_model.safetensors"
    save_file(
        {name: np.roll(matrix, 5, 1) if "lora_A" in name else matrix for name, matrix in load_file(path).items()}, path
    )
    return folder


def changes(folder: Path) -> dict[str, np.ndarray]:
    return {layer.module: layer.scale * layer.b @ layer.a for layer in read_adapter(folder).layers}


def test_the_mean_is_the_weighted_mean_of_the_changes(tmp_path: Path, write_adapter: WriteAdapter) -> None:
    """Adapters of ranks 4 and 6 with different scales; rank 10 holds their mean whole."""
    first = write_adapter(tmp_path / "first", lora_alpha=12)
    second = other_weights(write_adapter(tmp_path / "second", rank=6, lora_alpha=5))
    kept = average_adapters([first, second], [3, 1], tmp_path / "mean", rank=10)
    one, two, mean = changes(first), changes(second), changes(tmp_path / "mean")
    assert kept == pytest.approx(1.0)
    for module, found in mean.items():
        wanted = 0.75 * one[module] + 0.25 * two[module]
        np.testing.assert_allclose(found, wanted, atol=0.002 * np.abs(wanted).max())


def test_a_smaller_rank_keeps_the_largest_singular_values(tmp_path: Path, write_adapter: WriteAdapter) -> None:
    first, second = write_adapter(tmp_path / "first"), other_weights(write_adapter(tmp_path / "second"))
    kept = average_adapters([first, second], [1, 1], tmp_path / "mean", rank=3)
    one, two, mean = changes(first), changes(second), changes(tmp_path / "mean")
    lost = whole = 0.0
    for module, found in mean.items():
        wanted = (one[module] + two[module]) / 2
        singular = np.linalg.svd(wanted, compute_uv=False)
        lost, whole = lost + float((singular[3:] ** 2).sum()), whole + float((singular**2).sum())
        assert np.linalg.norm(found - wanted) == pytest.approx(np.linalg.norm(singular[3:]), rel=0.02)
    assert kept == pytest.approx(1 - lost / whole)


def test_scales_by_rslora_and_by_pattern_are_kept(tmp_path: Path, write_adapter: WriteAdapter) -> None:
    scaled = write_adapter(tmp_path / "scaled", use_rslora=True, alpha_pattern={"q_proj": 3})
    plain = other_weights(write_adapter(tmp_path / "plain"))
    average_adapters([scaled, plain], [1, 1], tmp_path / "mean")
    one, two = changes(scaled), changes(plain)
    for module, found in changes(tmp_path / "mean").items():
        wanted = (one[module] + two[module]) / 2
        np.testing.assert_allclose(found, wanted, atol=0.002 * np.abs(wanted).max())


@pytest.mark.parametrize("own", [4, 80])
def test_a_rank_above_what_the_mean_can_have_is_filled_up(
    own: int, tmp_path: Path, write_adapter: WriteAdapter
) -> None:
    """Some matrices have 32 rows only, so that no change of theirs has a higher rank."""
    alone = write_adapter(tmp_path / "alone", rank=own)
    assert average_adapters([alone], [1], tmp_path / "mean", rank=80) == pytest.approx(1.0)
    assert all(layer.a.shape[0] == 80 for layer in read_adapter(tmp_path / "mean").layers)
    before = changes(alone)
    for module, found in changes(tmp_path / "mean").items():
        np.testing.assert_allclose(found, before[module], atol=0.002 * np.abs(before[module]).max())


def test_what_each_part_was_trained_with_is_told(tmp_path: Path, tiny_gguf: Path, write_adapter: WriteAdapter) -> None:
    first, second = (write_adapter(tmp_path / name, tiny_gguf) for name in ("first", "second"))
    (first / "training.json").write_text(json.dumps({"config": {"name": "first"}}))
    run = CliRunner().invoke(
        convert, ["average", str(first), str(second), "--weights", "3,1", "-o", str(tmp_path / "m")]
    )
    assert run.exit_code == 0, run.output
    assert "rank 16 keeps 100.00%" in run.output
    told = json.loads((tmp_path / "m" / "training.json").read_text())["average"]
    assert told == [{"weight": 0.75, "config": {"name": "first"}}, {"weight": 0.25, "folder": "second"}]
    assert read_adapter(tmp_path / "m").base == read_adapter(first).base


def test_what_cannot_be_averaged_is_refused(tmp_path: Path, tiny_gguf: Path, write_adapter: WriteAdapter) -> None:
    first, based = write_adapter(tmp_path / "first"), write_adapter(tmp_path / "based", tiny_gguf)
    shallow = write_adapter(tmp_path / "shallow", n_blocks=1)
    for folders, weights, why in (
        ([first, based], [1, 1], "do not name the same base"),
        ([first, shallow], [1, 1], "different matrices"),
        ([first, first], [1], "one weight"),
        ([first, first], [1, 0], "above 0"),
        ([first, first], [1, math.nan], "above 0"),
        ([], [], "above 0"),
    ):
        with pytest.raises(AdapterError, match=why):
            average_adapters(folders, weights, tmp_path / "mean")
    assert not (tmp_path / "mean").exists()
    with pytest.raises(AdapterError, match="is there already"):
        average_adapters([first], [1], shallow)
    (first / "training.json").write_text("[]")
    with pytest.raises(AdapterError, match="cannot be averaged"):
        average_adapters([first], [1], tmp_path / "mean")
