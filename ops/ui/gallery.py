"""Drawings out of the log, newest first, a page at a time: by index and offset, never all.

Belongs to one thread. A tree that was read is remembered, and read on from where it ended.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mmzero_async.log.interface import View
from mmzero_async.log.where import Where
from mmzero_async.ops.ui.cards import card, whole
from mmzero_async.ops.ui.trees import Tree, is_drawing
from mmzero_async.ops.ui.wanted import Wanted
from mmzero_async.schemas.events import Coded, Rendered
from mmzero_async.schemas.ids import drawing_id, root
from mmzero_async.schemas.record import Record

TREES = 48  # remembered
WINDOW = 1024  # offsets looked at in one go, backwards
WINDOWS = 64  # a request, at most
DRAWINGS = 256  # looked at for one request, at most
MOST = 48  # cards a page


@dataclass(slots=True)
class Found:
    """Cards, and where the search goes on: `next` None when all was looked at."""

    cards: list[dict[str, Any]]
    next: int | None
    looked: int

    def figures(self) -> dict[str, Any]:
        return {"cards": self.cards, "next": self.next, "looked": self.looked}


@dataclass(slots=True)
class Gallery:
    reader: View
    _trees: "OrderedDict[str, Tree]" = field(default_factory=OrderedDict)

    def newest(self, before: int | None, after: int, limit: int, wanted: Wanted) -> Found:
        """Wanted drawings whose event lies in [after, before), newest first.

        Fewer than `limit` and a `next`: enough was looked at for one request, go on from there.
        """
        if wanted.lineage:
            return Found(self._below(wanted, limit), None, 1)
        end = self.reader.next_offset
        stop = end if before is None else min(before, end)
        cards: list[dict[str, Any]] = []
        looked = 0
        kind = "coded" if wanted.state == "failed" else "rendered"
        for _ in range(WINDOWS):
            if stop <= after:
                return Found(cards, None, looked)
            start = max(after, stop - WINDOW)
            for record in reversed(self._window(kind, start, stop)):
                if len(cards) >= limit or looked >= DRAWINGS:
                    return Found(cards, record.offset + 1, looked)
                for drawing in _drawings(record):
                    looked += 1
                    if (found := self._card(drawing)) is not None and wanted.matches(found):
                        cards.append(found)
            stop = start
        return Found(cards, stop if stop > after else None, looked)

    def these(self, drawings: Sequence[str], limit: int, wanted: Wanted, first: int = 0) -> Found:
        """Of the drawings named from the `first` on, those that are wanted, at most `limit`; `next`
        is the place to go on from."""
        cards: list[dict[str, Any]] = []
        for place in range(first, len(drawings)):
            if len(cards) >= limit or place - first >= DRAWINGS:
                return Found(cards, place, place - first)
            if (found := self._card(drawings[place])) is not None and wanted.matches(found):
                cards.append(found)
        return Found(cards, None, max(0, len(drawings) - first))

    def whole(self, drawing: str) -> dict[str, Any] | None:
        """All that is known of a drawing; None for one that the log does not know."""
        if not is_drawing(drawing):
            return None
        try:
            return whole(self.tree(root(drawing)), drawing)
        except LookupError:
            return None

    def tree(self, name: str) -> Tree:
        """Of one root, as far as the log goes now."""
        tree = self._trees.pop(name, None) or Tree(name)
        self._trees[name] = tree
        if len(self._trees) > TREES:
            self._trees.popitem(last=False)
        end, where = self.reader.next_offset, Where(lineages=(name,))
        while tree.next < end:
            page = self.reader.page(where, tree.next)
            for record in page.records:
                tree.apply(record)
            tree.next = page.next
        return tree

    def _below(self, wanted: Wanted, limit: int) -> list[dict[str, Any]]:
        tree = self.tree(root(wanted.lineage))
        found = (self._card(drawing) for drawing in tree.drawings())
        return [one for one in found if one is not None and wanted.matches(one)][:limit]

    def _card(self, drawing: str) -> dict[str, Any] | None:
        if not is_drawing(drawing):
            return None
        try:
            return card(self.tree(root(drawing)), drawing)
        except LookupError:  # a log that lost its proposal, or that a stranger wrote
            return None

    def _window(self, kind: str, start: int, stop: int) -> list[Record]:
        return list(self.reader.scan(start, stop, Where(kinds=(kind,))))


def _drawings(record: Record) -> list[str]:
    event = record.event()
    match event:
        case Rendered():
            return [event.drawing] if event.picture is not None else []
        case Coded():
            return [drawing_id(event.proposal, i) for i in range(len(event.outcomes))]
        case _:
            return []
