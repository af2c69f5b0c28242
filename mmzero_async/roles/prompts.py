"""Prompts: template sets as package data, filled in one pass into chat messages.

Knows no engine. Text that a model wrote is inserted verbatim and never read as a template, so
braces or placeholders in it change nothing.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

from mmzero_async.config import DrawingKind
from mmzero_async.roles.errors import TemplateError
from mmzero_async.schemas.events import ROLES, Proposal, Role

Message = dict[str, Any]  # one OpenAI chat message

# The first placeholder of each role is the one that no template may leave out.
PLACEHOLDERS: dict[Role, tuple[str, ...]] = {
    "proposer": ("topic",),
    "coder": ("caption", "easy_question", "easy_answer", "hard_question", "hard_answer"),
    "solver": ("question",),
}
_PLACEHOLDER = re.compile(
    r"\{(" + "|".join(sorted({name for names in PLACEHOLDERS.values() for name in names})) + r")\}"
)


@dataclass(frozen=True, slots=True)
class Templates:
    """One set: the user message of each role, with placeholders in braces."""

    name: str
    proposer: str
    coder: str
    solver: str

    def text(self, role: Role) -> str:
        return {"proposer": self.proposer, "coder": self.coder, "solver": self.solver}[role]

    def digest(self, role: Role) -> str:
        """Sha-256 of the template's text, 16 hex digits: stands in the events as `template`."""
        return hashlib.sha256(self.text(role).encode()).hexdigest()[:16]


@lru_cache(maxsize=16)
def load_templates(name: str, drawing: DrawingKind = "svg") -> Templates:
    """The set in `templates/<name>/`; one closing newline of each file is dropped. A coder that
    does not draw SVG has a file of its own, `coder_<drawing>.txt`.

    Raises TemplateError for an unknown set, a missing file, a missing or a foreign placeholder.
    """
    folder = resources.files("mmzero_async.roles").joinpath("templates")
    known = template_sets()
    if name not in known:
        raise TemplateError(f"templates {name!r}: no such set; choose one of {known}")
    texts: dict[Role, str] = {}
    for role in ROLES:
        stem = role if role != "coder" or drawing == "svg" else f"coder_{drawing}"
        file = folder.joinpath(name, f"{stem}.txt")
        if not file.is_file():
            raise TemplateError(f"templates {name!r}: {stem}.txt is missing; every role needs one")
        texts[role] = file.read_text(encoding="utf-8").removesuffix("\n")
    return checked(Templates(name=name, **texts))


def template_sets() -> list[str]:
    folder = resources.files("mmzero_async.roles").joinpath("templates")
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir())


def checked(templates: Templates) -> Templates:
    """The same set, or TemplateError when a role's placeholders do not fit it."""
    for role in ROLES:
        found = set(_PLACEHOLDER.findall(templates.text(role)))
        needed = PLACEHOLDERS[role][0]
        if needed not in found:
            raise TemplateError(
                f"templates {templates.name!r}, {role}.txt: placeholder {{{needed}}} is missing"
            )
        if foreign := found - set(PLACEHOLDERS[role]):
            raise TemplateError(
                f"templates {templates.name!r}, {role}.txt: {sorted(foreign)} mean nothing to this "
                f"role; it may use {list(PLACEHOLDERS[role])}"
            )
    return templates


def fill(template: str, values: Mapping[str, str]) -> str:
    """Replace known placeholders in one pass; all other braces stay as they are."""
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), template)


def proposer_messages(templates: Templates, topic: str) -> list[Message]:
    return [_user(fill(templates.proposer, {"topic": topic}))]


def coder_messages(templates: Templates, proposal: Proposal) -> list[Message]:
    values = {name: getattr(proposal, name) for name in PLACEHOLDERS["coder"]}
    return [_user(fill(templates.coder, values))]


def png_url(png: bytes) -> str:
    """A picture as the `data:` URL that a chat message carries."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def solver_messages(templates: Templates, question: str, image_data_url: str) -> list[Message]:
    """The picture stands before the question, as the base models were trained."""
    picture = {"type": "image_url", "image_url": {"url": image_data_url}}
    text = {"type": "text", "text": fill(templates.solver, {"question": question})}
    return [_user([picture, text])]


def blind_messages(templates: Templates, question: str) -> list[Message]:
    """The solver's message without its picture."""
    return [_user(fill(templates.solver, {"question": question}))]


def _user(content: str | list[Message]) -> Message:
    return {"role": "user", "content": content}
