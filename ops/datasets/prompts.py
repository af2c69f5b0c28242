"""What a policy was asked, as chat messages again: the log holds the prompt's tokens and its
template's digest, and the templates are package data. A log of other templates gets the bare
words.

Contents are plain strings. Trainers that take pictures put them before the first user's words,
which is where ours stood.
"""

from dataclasses import dataclass, field

from mmzero_async.ops.datasets.sources import Asked
from mmzero_async.roles.errors import TemplateError
from mmzero_async.roles.prompts import PLACEHOLDERS, Templates, fill, load_templates
from mmzero_async.schemas.events import ROLES, Proposal, Proposed, Role

Messages = list[dict[str, str]]


@dataclass(slots=True)
class Prompts:
    """Of one run."""

    _texts: dict[str, str] = field(default_factory=dict)  # by digest
    bare: int = 0  # prompts whose template we do not have

    @classmethod
    def of(cls, asked: Asked) -> "Prompts":
        try:
            templates: Templates = load_templates(asked.templates, asked.coder.drawing)
        except TemplateError:
            return cls()
        return cls({templates.digest(role): templates.text(role) for role in ROLES})

    def proposer(self, event: Proposed) -> Messages:
        return self._asked("proposer", event.generation.template, {"topic": event.topic})

    def coder(self, template: str, proposal: Proposal) -> Messages:
        values = {name: getattr(proposal, name) for name in PLACEHOLDERS["coder"]}
        return self._asked("coder", template, values)

    def solver(self, template: str, question: str) -> Messages:
        return self._asked("solver", template, {"question": question})

    def _asked(self, role: Role, template: str, values: dict[str, str]) -> Messages:
        text = self._texts.get(template)
        if text is None:
            self.bare += 1
            return user("\n".join(values[name] for name in PLACEHOLDERS[role]))
        return user(fill(text, values))


def user(content: str) -> Messages:
    return [{"role": "user", "content": content}]


def assistant(content: str) -> Messages:
    return [{"role": "assistant", "content": content}]
