"""The shipped fonts under more family names, for an engine whose generic families cannot be set.

svg2png-py asks for "serif" under the name that fontdb gives it, Times New Roman. So the shipped
serif answers to that name too, and a drawing that asks for Times New Roman itself gets another
word in its place: an unknown family, as for the other engine. Fonts live in anonymous memory that
ends with the process; nothing is written to any disk.
"""

import os
import re
import struct
from pathlib import Path

SANS, SERIF, MONO = "DejaVu Sans", "DejaVu Serif", "DejaVu Sans Mono"
# Of each shipped family, what fontdb calls the generic ones that it stands for.
GENERIC: dict[str, tuple[str, ...]] = {
    SANS: ("Arial", "Comic Sans MS", "Impact"),
    SERIF: ("Times New Roman",),
    MONO: ("Courier New",),
}
_NAMES = [name for names in GENERIC.values() for name in names]
_ANY = re.compile(r"\b(?:" + "|".join(name.replace(" ", r"\s+") for name in _NAMES) + r")\b")
_ATTRIBUTE = r"""\bfont-family\s*=\s*(?:"[^"<>]*"|'[^'<>]*')"""
_STYLE = r"\bfont(?:-family)?\s*:(?:&\w+;|[^;{}<>=])*"  # stops before another attribute's value
_PLACES = re.compile(f"{_ATTRIBUTE}|{_STYLE}")
_UNKNOWN = "\\g<0>-"
_HEAD, _RECORD = struct.Struct(">4sIII"), struct.Struct(">6H")
_FAMILY, _TYPOGRAPHIC_FAMILY = 1, 16
_WINDOWS, _UNICODE = 3, 1  # platform and encoding
_LANGUAGES = (0x0809, 0x0C09, 0x1009, 0x1409)  # English elsewhere: the own name is en-US


def without_generic_names(svg: str) -> str:
    """The drawing with those names, where it asks for them by name, unknown."""
    if not _ANY.search(svg):
        return svg
    return _PLACES.sub(lambda place: _ANY.sub(_UNKNOWN, place[0]), svg)


def in_memory(path: Path) -> int:
    """A file descriptor of the font with its further names; the caller closes it.

    Opened again under /proc/self/fd, also after the process may open no file any more.
    """
    descriptor = os.memfd_create(path.name, os.MFD_CLOEXEC)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(renamed(path.read_bytes()))
    return descriptor


def renamed(font: bytes) -> bytes:
    """The font file with a new table of names at its end; checksums are left as they were."""
    count = struct.unpack_from(">H", font, 4)[0]
    for at in range(12, 12 + 16 * count, 16):
        tag, checksum, offset, length = _HEAD.unpack_from(font, at)
        if tag == b"name":
            table = _names(font[offset : offset + length])
            padding = b"\0" * (-len(font) % 4)
            entry = _HEAD.pack(tag, checksum, len(font) + len(padding), len(table))
            return font[:at] + entry + font[at + 16 :] + padding + table
    raise ValueError("a font without a table of names")


def _names(table: bytes) -> bytes:
    _, count, start = struct.unpack_from(">3H", table)
    records = [_RECORD.unpack_from(table, 6 + 12 * i) for i in range(count)]
    letters = table[start:]
    own = [r for r in records if (r[0], r[1]) == (_WINDOWS, _UNICODE)]
    kinds = [kind for kind in (_TYPOGRAPHIC_FAMILY, _FAMILY) if any(r[3] == kind for r in own)]
    families = {letters[r[5] : r[5] + r[4]].decode("utf-16-be") for r in own if r[3] in kinds}
    further = [name for family in sorted(families) for name in GENERIC.get(family, ())]
    for language, name in zip(_LANGUAGES, further, strict=False):
        written = name.encode("utf-16-be")
        for kind in kinds:
            records.append((_WINDOWS, _UNICODE, language, kind, len(written), len(letters)))
        letters += written
    head = struct.pack(">3H", 0, len(records), 6 + 12 * len(records))
    return head + b"".join(_RECORD.pack(*record) for record in sorted(records)) + letters
