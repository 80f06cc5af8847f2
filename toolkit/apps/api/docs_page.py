"""The OpenAPI document as one HTML page that loads nothing else, so that it works offline."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ max-width: 60rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif; }}
body {{ color: #222; background: #fff; }}
section {{ border-top: 1px solid #8888; margin-top: 2rem; }}
code, pre {{ font-family: ui-monospace, monospace; font-size: .9rem; }}
pre {{ overflow-x: auto; padding: .7rem; background: #8882; border-radius: .3rem; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; }}
th, td {{ text-align: left; vertical-align: top; padding: .25rem 1rem .25rem 0; border-bottom: 1px solid #8884; }}
@media (prefers-color-scheme: dark) {{ body {{ color: #ddd; background: #181818; }} a {{ color: #8bf; }} }}
</style>
<h1>{title} <small>{version}</small></h1>
<p>{description}. For programs: <a href="/openapi.json">openapi.json</a>.</p>
<p>An answer whose status is not 200 is {{"error": {{"code", "message", "hint"}}}}: a word for programs, the cause and
the next step.</p>
{sections}
</html>
"""


def docs_page(document: Mapping[str, Any]) -> str:
    """The page for an OpenAPI document."""
    sections = (
        _section(document, path, method, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    )
    info = document["info"]
    described = {name: escape(info[name].rstrip(".")) for name in ("title", "version", "description")}
    return _PAGE.format(**described, sections="\n".join(sections))


def _section(document: Mapping[str, Any], path: str, method: str, operation: Mapping[str, Any]) -> str:
    parts = [f"<section><h2><code>{method.upper()} {escape(path)}</code></h2>", f"<p>{_prose(operation)}</p>"]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    parts.append(f"<pre>{escape(_curl(document, path, body, 'security' in operation))}</pre>")
    if body:
        parts += ["<h3>Body</h3>", _table(_fields(document, body))]
    answers = [(status, "", told["description"]) for status, told in sorted(operation["responses"].items())]
    parts += ["<h3>Answers</h3>", _table(iter(answers))]
    answer = operation["responses"]["200"].get("content", {}).get("application/json", {}).get("schema")
    if answer:
        parts += ["<h3>200</h3>", _table(_fields(document, answer))]
    return "\n".join([*parts, "</section>"])


def _prose(operation: Mapping[str, Any]) -> str:
    return escape(operation.get("description") or operation["summary"])


def _curl(document: Mapping[str, Any], path: str, body: Mapping[str, Any] | None, keyed: bool) -> str:
    """The command that calls an address of this server, with the examples of the required fields."""
    words = [f"curl http://localhost:8000{path}"]
    if keyed:
        words.append("-H 'Authorization: Bearer KEY'")
    if body:
        schema = _resolved(document, body)
        example = {name: schema["properties"][name]["examples"][0] for name in schema["required"]}
        words += ["-H 'Content-Type: application/json'", f"-d '{json.dumps(example)}'"]
    return " \\\n  ".join(words)


def _table(rows: Iterator[tuple[str, str, str]]) -> str:
    cells = (f"<td><code>{escape(a)}</code><td>{escape(b)}<td>{escape(c)}" for a, b, c in rows)
    return "<table>" + "".join(f"<tr>{row}" for row in cells) + "</table>"


def _fields(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Name, kind and meaning of every field."""
    schema = _resolved(document, schema)
    for name, told in schema.get("properties", {}).items():
        kind = _kind(document, told)
        needed = "required; " if name in schema.get("required", ()) else ""
        yield name, needed + kind, told.get("description", "")


def _kind(document: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """What a value may be, in a few words."""
    schema = _resolved(document, schema)
    if "anyOf" in schema and "properties" not in schema:
        return " or ".join(_kind(document, one) for one in schema["anyOf"] if one != {"type": "null"})
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if "properties" in schema:
        return "{" + ", ".join(schema["properties"]) + "}"
    kind = str(schema.get("const", schema.get("type", "anything")))
    return f"list of ({_kind(document, schema['items'])})" if kind == "array" and "items" in schema else kind


def _resolved(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    found: Mapping[str, Any] = document["components"]["schemas"][reference.rpartition("/")[2]]
    return found
