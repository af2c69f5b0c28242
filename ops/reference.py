"""Reference pages from the code itself: events, configuration keys, figures of trackers.

`python -m mmzero_async.ops.reference` writes them into docs/, `--check` says which are out of date
(exit status 1). A test does the latter.
"""

import argparse
import ast
import inspect
import io
import re
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import msgspec

from mmzero_async.config import Config
from mmzero_async.schemas import events
from mmzero_async.trackers.series import TABLE

DOCS = Path(__file__).resolve().parent.parent / "docs"
MADE = "<!-- made by `python -m mmzero_async.ops.reference`; change the code instead -->"
BEGIN, END = "<!-- table -->", "<!-- end of table -->"


def pages(docs: Path = DOCS) -> dict[str, str]:
    """File name -> text, all as they ought to be."""
    return {
        "EVENTS.md": events_page(),
        "CONFIGURATION.md": configuration_page(),
        "TRACKERS.md": trackers_page((docs / "TRACKERS.md").read_text()),
    }


# --- events ---------------------------------------------------------------------------------------


def events_page() -> str:
    kinds = get_args(events.KnownEvent)
    values = [
        kind
        for kind in vars(events).values()
        if inspect.isclass(kind)
        and issubclass(kind, msgspec.Struct)
        and kind.__module__ == events.__name__
        and kind not in (*kinds, events.Event, events.Value, events.UnknownEvent)
    ]
    text = [
        "# Events: all that a log can hold",
        "",
        MADE,
        "",
        f"Schema version {events.SCHEMA_VERSION}. Every event is a MessagePack map whose `kind` "
        "says what it is; fields that have their default are left out. Fields are only ever added, "
        "with defaults; a kind that a reader does not know is kept and skipped (promise 7 of "
        "[GUARANTEES.md](GUARANTEES.md)). Around each stands an envelope: offset, time, producer, "
        "its epoch and sequence. `mmzero log scan RUN --where kind=...  --json` prints them "
        "([LOG.md](LOG.md)).",
        "",
        ", ".join(f"[`{_tag(kind)}`](#{_tag(kind)})" for kind in kinds),
        "",
    ]
    for kind in kinds:
        text += [f"## {_tag(kind)}", "", *_struct(kind)]
    text += ["# Values inside events", ""]
    for kind in values:
        text += [f"## {kind.__name__}", "", *_struct(kind)]
    return "\n".join(text).rstrip() + "\n"


def _tag(kind: Any) -> str:
    return str(kind.__struct_config__.tag)


def _struct(kind: Any) -> Iterator[str]:
    yield " ".join((inspect.getdoc(kind) or "").split())
    yield ""
    rows = list(_fields(kind))
    if rows:
        yield "| field | type | default | |"
        yield "| --- | --- | --- | --- |"
        yield from ("| " + " | ".join(map(_cell, row)) + " |" for row in rows)
        yield ""


def _fields(kind: Any) -> Iterator[tuple[str, str, str, str]]:
    """name, type, default and comment, as the source has them."""
    source = inspect.getsource(kind)
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    [definition] = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    for node in definition.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            default = f"`{ast.unparse(node.value)}`" if node.value is not None else ""
            told = " ".join(comments[line] for line in lines if line in comments)
            yield f"`{node.target.id}`", f"`{ast.unparse(node.annotation)}`", default, told


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


# --- configuration --------------------------------------------------------------------------------

_SECTION = re.compile(r"^\[([\w.]+)\]\s*(?:#\s*(.*))?$")
_KEY = re.compile(r"^(\w+) = (.*?)(?:\s+#\s*(.*))?$")
_MORE = re.compile(r"^\s+#\s*(.*)$")


def configuration_page() -> str:
    text = [
        "# Every configuration key",
        "",
        MADE,
        "",
        "One TOML file, a preset's name or a path, with `--config`; `mmzero run section.key=value` "
        "overrides any value, and `[run]` needs no section. Unknown keys and wrong types are "
        "refused with their place. The column *seedling* is the value of the preset that "
        "`./launch run` uses; *otherwise* is what a file that leaves the key out "
        "gets, where that differs. The presets are commented files in `mmzero_async/presets/`.",
        "",
    ]
    defaults = msgspec.to_builtins(Config())
    for section, about, rows in _sections(_preset()):
        text += [f"## {section or 'top level'}", ""]
        text += [about, ""] if about else []
        text += ["| key | seedling | otherwise | |", "| --- | --- | --- | --- |"]
        for key, value, told in rows:
            place = f"{section}.{key}" if section else key
            other = _other(defaults, place, value)
            cells = (f"`{place}`", f"`{value}`", other, told)
            text.append("| " + " | ".join(map(_cell, cells)) + " |")
        text.append("")
    return "\n".join(text).rstrip() + "\n"


def _preset() -> str:
    return resources.files("mmzero_async.presets").joinpath("seedling.toml").read_text()


def _sections(text: str) -> Iterator[tuple[str, str, list[tuple[str, str, str]]]]:
    """(section, what is said of it, [(key, value, comment)]), in the file's order."""
    section, about = "", ""
    rows: list[tuple[str, str, str]] = []
    for line in text.splitlines():
        if found := _SECTION.match(line):
            yield section, about, rows
            section, about, rows = found[1], found[2] or "", []
        elif found := _KEY.match(line):
            rows.append((found[1], found[2], found[3] or ""))
        elif (found := _MORE.match(line)) and rows:
            key, value, told = rows[-1]
            rows[-1] = (key, value, f"{told} {found[1]}")
    yield section, about, rows


def _other(defaults: Any, place: str, value: str) -> str:
    node = defaults
    for part in place.split("."):
        node = node[part]
    said = tomllib.loads(f"x = {value}")["x"]
    built = list(node) if isinstance(node, tuple) else node
    return "" if said == built else f"`{_toml(built)}`"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(v)}" for key, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else f"{value}"


# --- trackers -------------------------------------------------------------------------------------


def trackers_page(text: str) -> str:
    """The page as it stands, with its table made anew."""
    rows = [f"| `{name}` | {_cell(told)} |" for name, told in TABLE.items()]
    table = "\n".join(["| series | what it is |", "| --- | --- |", *rows])
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args(argv)
    stale = [
        name
        for name, text in pages().items()
        if not (DOCS / name).exists() or (DOCS / name).read_text() != text
    ]
    for name in stale:
        print(f"docs/{name} is out of date" if args.check else f"docs/{name} written")
        if not args.check:
            (DOCS / name).write_text(pages()[name])
    return 1 if args.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
