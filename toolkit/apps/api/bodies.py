"""What callers of the API send and get, as the OpenAPI document describes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from toolkit.contract.lens import Lens
from toolkit.contract.taxonomy import load_taxonomy
from toolkit.inference.divergence import SHARED
from toolkit.inference.request import Options
from toolkit.settings import Settings

LONGEST_TEXT = 20_000  # characters: one text has a worker to itself until it is read
TOO_LONG = f"The text has more than {LONGEST_TEXT:,} characters."
MOST_TEXTS = 10_000


def _string(value: object) -> str:
    # pydantic's own strings refuse lone surrogates, which JSON may hold and the model reads like any other text.
    if not isinstance(value, str):
        raise PydanticCustomError("text_type", "Input should be a valid string")
    return value


def _text(value: object) -> str:
    text = _string(value)
    if not text.strip():
        raise PydanticCustomError("text_empty", "The text is empty")
    if len(text) > LONGEST_TEXT:
        raise PydanticCustomError("text_long", "The text is too long")
    return text


AnyString = Annotated[str, PlainValidator(_string), WithJsonSchema({"type": "string"})]
Text = Annotated[
    str,
    PlainValidator(_text),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": LONGEST_TEXT, "pattern": r"\S"}),
]
_LENS = "Whose emotion; one that the model has learned."


class _Ask(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    taxonomy: Literal["goemotions", "ekman", "sentiment", "shared10", "empathetic"] | None = Field(
        None, description="The set of labels; by default the lens's own."
    )
    mode: Literal["fast", "explain"] | None = Field(None, description="Label only, or with reasoning.")

    def options(self, lens: str | None, default: Settings) -> Options:
        """The keywords of the model's methods; ``default`` is what the server was started with."""
        taxonomy = default.taxonomy if lens in (None, default.lens) else None
        return {
            "lens": lens or default.lens,
            "taxonomy": self.taxonomy or taxonomy,
            "mode": self.mode or default.mode,
        }


class AskOne(_Ask):
    """One text to read."""

    lens: Literal["author", "reader", "both"] | None = Field(None, description=_LENS)
    text: Text = Field(description="At least one word.", examples=["I feel disappointed and ignored..."])


def _or_string(schema: dict[str, Any]) -> None:
    described = dict(schema)
    schema.clear()
    schema["anyOf"] = [{"type": "string"}, described]


class Item(BaseModel):
    """One text of many, with an id that its answer bears; a string stands for its text."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra=_or_string)

    text: AnyString
    id: AnyString | int | None = Field(None, description="By default the number of the text, from 0.")

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: object) -> object:
        if not isinstance(value, (str, dict)):
            raise PydanticCustomError("item_type", "Input should be a string or an object")
        return {"text": value} if isinstance(value, str) else value


class AskMany(_Ask):
    """Texts to read, in order."""

    lens: Literal["author", "reader"] | None = Field(None, description=_LENS)
    texts: list[Item] = Field(min_length=1, max_length=MOST_TEXTS, examples=[["What a day!", "Go away."]])


class LabelBody(BaseModel):
    """One emotion."""

    name: str
    definition: str = Field(description="What must be true of a situation for this emotion to arise.")


class TaxonomyBody(BaseModel):
    """One set of labels."""

    name: str
    title: str
    lenses: list[Lens] = Field(description="The lenses through which it can be asked for.")
    labels: list[LabelBody]


class LabelsBody(BaseModel):
    """What the model can be asked for."""

    model: str
    lenses: list[Lens]
    modes: list[str]
    taxonomies: list[TaxonomyBody]


class HealthBody(BaseModel):
    """The server answers."""

    status: Literal["ok"] = "ok"


class ReadyBody(BaseModel):
    """A worker has the model loaded."""

    status: Literal["ready"] = "ready"
    model: str


def taxonomies(lenses: Sequence[Lens]) -> list[TaxonomyBody]:
    """The taxonomies that a model with these lenses can answer in."""
    names = dict.fromkeys(name for lens in lenses for name in lens.taxonomies)
    return [
        TaxonomyBody(
            name=name,
            title=load_taxonomy(name).title,
            lenses=[lens for lens in lenses if name in lens.taxonomies],
            labels=[LabelBody(name=e.name, definition=e.definition) for e in load_taxonomy(name).entries],
        )
        for name in names
    ]


def possible_pairs(body: type[AskOne | AskMany], lenses: Sequence[Lens], default: str) -> list[dict[str, Any]]:
    """JSON schemas of which a body must match one: a lens that the model has learned with a taxonomy that fits it."""
    fitting = {str(lens): lens.taxonomies for lens in lenses}
    if body is AskOne and len(lenses) == len(Lens):
        fitting["both"] = (SHARED,)
    if default not in fitting:
        default = str(Lens.AUTHOR)
    return [
        {
            "properties": {
                "lens": {"enum": [lens, None] if lens == default else [lens]},
                "taxonomy": {"enum": [*known, None]},
            },
            "required": [] if lens == default else ["lens"],
        }
        for lens, known in fitting.items()
    ]
