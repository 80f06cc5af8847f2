"""`emotion-lrm train CONFIG.yaml`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from toolkit.config import load_config
from toolkit.errors import EmotionLRMError

if TYPE_CHECKING:
    from toolkit.training.config import EncoderConfig, TrainConfig


@click.command()
@click.argument("config", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the file.")
@click.option("--source", type=click.Path(file_okay=False, path_type=Path), help="Folder with the corpora.")
@click.option("--resume", is_flag=True, help="Go on from the run's last checkpoint.")
def train(config: Path, overrides: tuple[str, ...], source: Path | None, resume: bool) -> None:
    """Fine-tune an adapter as CONFIG says.

    A CONFIG of the kind encoder trains the rival, an encoder with a classification head.

    \b
    emotion-lrm train models/configs/own-texts.yaml
    emotion-lrm train models/configs/own-texts.yaml --set epochs=2 --set out=models/runs/longer
    emotion-lrm train models/configs/own-texts.yaml --resume
    emotion-lrm train models/configs/encoder.yaml
    """
    from toolkit.training.config import EncoderConfig, TrainConfig

    if kind_of(config) == "encoder":
        _train_encoder(load_config(EncoderConfig, config, overrides), source, resume)
    else:
        _train_adapter(load_config(TrainConfig, config, overrides), source, resume)


def kind_of(config: Path) -> str:
    """What a configuration trains: ``adapter``, or what its key ``kind`` says. Damage is left for later to report."""
    try:
        raw = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return "adapter"
    return str(raw.get("kind", "adapter")) if isinstance(raw, dict) else "adapter"


def _train_adapter(settings: TrainConfig, source: Path | None, resume: bool) -> None:
    require_torch()
    from toolkit.training.data import load_dev, load_training
    from toolkit.training.loop import run
    from toolkit.training.lora import account, prepare

    trainer = prepare(settings, load_training(settings, source), load_dev(settings, source))
    click.echo(_describe(account(trainer)), err=True)
    with Progress(trainer.last_step) as progress:
        metrics = run(trainer, resume, progress)
    click.echo(json.dumps({"adapter": str(settings.run_dir / "adapter"), **metrics}))


def _train_encoder(settings: EncoderConfig, source: Path | None, resume: bool) -> None:
    require_torch()
    from toolkit.training.data import load_dev, load_training
    from toolkit.training.encoder import prepare_encoder
    from toolkit.training.loop import run

    named = f"{settings.lens.native} {settings.data.split}"
    examples, dev = load_training(settings, source), load_dev(settings, source)
    trainer = prepare_encoder(settings, examples, dev, named, lambda line: click.echo(line, err=True))
    click.echo(
        f"{len(examples):,} examples; {trainer.last_step:,} steps; time about {trainer.minutes():.0f} minutes on this "
        "machine.",
        err=True,
    )
    with Progress(trainer.last_step) as progress:
        metrics = run(trainer, resume, progress)
    click.echo(json.dumps({"encoder": str(settings.run_dir / "encoder.zip"), **metrics}))


def require_torch() -> None:
    try:
        import peft  # noqa: F401
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise EmotionLRMError(
            f"Training needs the package {error.name}.", 'Install it with: pip install ".[train]"'
        ) from None


def _describe(facts: dict[str, float]) -> str:
    return (
        f"{facts['examples']:,.0f} examples ({facts['chains']:,.0f} with reasoning), "
        f"{facts['tokens_per_example']} tokens each; {facts['steps']:,.0f} steps; "
        f"{facts['trainable_parameters'] / 1e6:.1f} M trainable parameters; "
        f"memory about {facts['memory_mb']:,.0f} MB; time about {facts['minutes']:.0f} minutes on this machine."
    )


class Progress:
    """A bar with loss and ETA on standard error; one line every fifty steps where that is no terminal."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.console = Console(stderr=True)
        columns: list[Any] = [TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
        self.bar = Progress(*columns, TextColumn("{task.fields[loss]}"), console=self.console)
        self.task = self.bar.add_task("training", total=total, loss="")

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def __call__(self, done: int, total: int, record: dict[str, float]) -> None:
        told = f"loss {record['label_loss']:.3f}"
        if record.get("answer_loss"):
            told += f" / {record['answer_loss']:.3f}"
        if "dev_accuracy" in record:
            self.console.print(
                f"step {done}: dev loss {record['dev_label_loss']:.4f}, dev accuracy {record['dev_accuracy']:.4f}"
            )
        elif not self.console.is_terminal and done % 50 == 0:
            self.console.print(f"step {done}/{total}: {told}", highlight=False)
        self.bar.update(self.task, completed=done, loss=told)
