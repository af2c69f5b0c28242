"""The pages of a data.mdb seen with our own eyes, so that damage is named and cannot crash us.

LMDB's C code follows every page number it finds; a torn or flipped page ends the process. Here each
page is checked before it is followed, and what lies beyond a bad one is still read. Knows LMDB's
on-disk format (0.9) and nothing of events. Reads only. Its answers hold for one snapshot: while a
writer runs, pin it with a read transaction, or see that the snapshot is still `current`.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HEADER = struct.Struct("<QHHHH")  # page number, pad, flags, lower, upper
_NODE = struct.Struct("<HHHH")  # low, high, flags, key size
_TREE = struct.Struct("<IHHQQQQQ")  # pad, flags, depth, branch, leaf, overflow, entries, root
_META = struct.Struct("<IIQQ48s48sQQ")  # magic, version, address, map size, two trees, last, id
_Node = tuple[int, int, int, int, int]  # its place in the page, then as _NODE
_NUMBER = struct.Struct("<Q")
_MAGIC, _VERSION, _NOTHING = 0xBEEFC0DE, 1, 2**64 - 1
_BRANCH, _LEAF, _OVERFLOW, _META_PAGE = 0x01, 0x02, 0x04, 0x08  # page flags
_BIG, _SUBTREE = 0x01, 0x02  # node flags: value on overflow pages; value is a tree
_FREE_FLAGS = 0x08  # of the tree of free pages: integer keys
_MAX_DEPTH = 32
_SLACK = 64 << 20  # bytes that a sound file may lack at its end


class NotPages(ValueError):
    """No LMDB file, or one whose first two pages are damaged."""


@dataclass(frozen=True, slots=True)
class Tree:
    """One database: the root of its pages, and how many there should be."""

    name: str
    depth: int
    pages: int
    entries: int
    root: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One committed state: what a meta page says."""

    transaction: int
    last_page: int
    free: Tree
    main: Tree


@dataclass(frozen=True, slots=True)
class Entry:
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Damage:
    """A page that cannot be what the tree takes it for. `after`: the last key read before it."""

    tree: str
    page: int
    after: bytes | None
    what: str
    cut_off: bool = False  # it lies behind the end of the file

    def __str__(self) -> str:
        return f"page {self.page} of {self.tree}: {self.what}"


class Pages:
    """An open data.mdb. NotPages when it is none."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("rb")
        try:
            first = self._meta_bytes(0)
            self.page_size: int = _TREE.unpack(_META.unpack(first)[4])[0]
            if self.page_size not in {1 << bits for bits in range(9, 17)}:
                raise NotPages(f"{file} is damaged: a page size of {self.page_size} bytes")
            self.newest()
        except NotPages:
            self._file.close()
            raise

    def close(self) -> None:
        self._file.close()

    @property
    def size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def newest(self) -> Snapshot:
        return max(self._snapshots(), key=lambda snapshot: snapshot.transaction)

    def of_transaction(self, transaction: int) -> Snapshot | None:
        """None when later commits have taken the place of its meta page."""
        return next((s for s in self._snapshots() if s.transaction == transaction), None)

    def current(self, snapshot: Snapshot) -> bool:
        """Whether nothing was committed since: then no page that it reaches was reused."""
        return self.newest().transaction == snapshot.transaction

    def is_short(self, snapshot: Snapshot) -> bool:
        """Whether the file ends before the last page. Sound logs may lack unused pages there."""
        return self.size < (snapshot.last_page + 1) * self.page_size

    def meta_problems(self) -> list[str]:
        """What is wrong with the two pages that LMDB starts from, and never checks itself.

        The older one stands in when the newer is damaged: then the last commit is lost in silence.
        """
        problems, transactions = [], []
        both = self.read(0, 2)  # in one go: a writer may be about to write one of them
        for number, page in enumerate((both[: self.page_size], both[self.page_size :])):
            own, _, flags, _, _ = HEADER.unpack_from(page)
            meta = _META.unpack_from(page, HEADER.size)
            _, _, address, size, free, main, last_page, transaction = meta
            wanted = [(number, _META_PAGE), (0, 0), (self.page_size, _FREE_FLAGS), (0, 0)]
            found = [(own, flags), (address, 0), _TREE.unpack(free)[:2], _TREE.unpack(main)[:2]]
            needs = (last_page + 1) * self.page_size
            if found != wanted or not needs <= size < 1 << 47 or needs > self.size + _SLACK:
                problems.append(f"meta page {number} is damaged: it cannot describe this file")
            if transaction and transaction % 2 != number:
                problems.append(f"meta page {number} holds commit {transaction}: not its turn")
            transactions.append(transaction)
        first, second = transactions
        if abs(first - second) > 1:
            problems.append(f"the meta pages hold commits {first} and {second}, not neighbours")
        return problems

    def trees(self, snapshot: Snapshot) -> tuple[dict[str, Tree], list[Damage]]:
        """The named databases, and what is wrong with the tree that names them."""
        found: dict[str, Tree] = {}
        damages: list[Damage] = []
        for item in self.walk(snapshot, snapshot.main):
            if isinstance(item, Damage):
                damages.append(item)
            elif len(item.value) == _TREE.size:
                name = item.key.decode("utf-8", "replace")
                found[name] = _tree(name, item.value)
        return found, damages

    def walk(self, snapshot: Snapshot, tree: Tree) -> Iterator[Entry | Damage]:
        """Every entry in the order of keys, with each bad page in its place."""
        return _Walk(self, snapshot, tree).run()

    def read(self, page: int, pages: int = 1) -> bytes:
        return os.pread(self._file.fileno(), pages * self.page_size, page * self.page_size)

    def _snapshots(self) -> list[Snapshot]:
        return [_snapshot(self._meta_bytes(place)) for place in (0, self.page_size)]

    def _meta_bytes(self, place: int) -> bytes:
        data = os.pread(self._file.fileno(), _META.size, place + HEADER.size)
        if len(data) < _META.size:
            raise NotPages(f"{self._file.name} is no LMDB file: only {self.size} bytes")
        magic, version, *_ = _META.unpack(data)
        if (magic, version) != (_MAGIC, _VERSION):
            raise NotPages(
                f"{self._file.name} is no LMDB file of ours, or its meta page at byte {place} is "
                f"damaged: magic {magic:08x}, version {version}"
            )
        return data


class _Walk:
    """One pass over one tree. Each page is reached once, so that no loop goes on for ever."""

    def __init__(self, pages: Pages, snapshot: Snapshot, tree: Tree) -> None:
        self._pages, self._snapshot, self._tree = pages, snapshot, tree
        self._seen: set[int] = set()  # branch and leaf pages
        self._last: bytes | None = None

    def run(self) -> Iterator[Entry | Damage]:
        if self._tree.root != _NOTHING:
            yield from self._page(self._tree.root, self._tree.depth)

    def _page(self, number: int, depth: int) -> Iterator[Entry | Damage]:
        try:
            page, nodes = self._checked(number, depth)
        except _BadPageError as bad:
            yield self._damage(number, bad, "")
            return
        for place, low, high, flags, key_size in nodes:
            start = place + _NODE.size
            if depth > 1:
                yield from self._page(low | high << 16 | flags << 32, depth - 1)
                continue
            key, size = page[start : start + key_size], low | high << 16
            try:
                if flags & _BIG:
                    value = self._overflow(page[start + key_size :], size)
                else:
                    value = page[start + key_size : start + key_size + size]
            except _BadPageError as bad:
                yield self._damage(number, bad, f", the value of key {key.hex()}")
                self._last = key
                continue
            self._last = key
            yield Entry(key, value)

    def _checked(self, number: int, depth: int) -> tuple[bytes, list[_Node]]:
        page = self._whole(number)
        own, _, flags, lower, upper = HEADER.unpack_from(page)
        wanted = _BRANCH if depth > 1 else _LEAF
        if not 0 < depth <= _MAX_DEPTH or number in self._seen:
            raise _BadPageError("reached a second time, or too deep")
        self._seen.add(number)
        if own != number or flags != wanted:
            raise _BadPageError(f"holds page {own} with flags {flags:#x}, not a page of the tree")
        if not HEADER.size <= lower <= upper <= len(page) or lower % 2:
            raise _BadPageError(f"its bounds {lower}, {upper} are impossible")
        nodes = []
        for (place,) in struct.iter_unpack("<H", page[HEADER.size : lower]):
            if not upper <= place <= len(page) - _NODE.size:
                raise _BadPageError(f"an entry at byte {place}, outside {upper} to {len(page)}")
            low, high, node_flags, key_size = _NODE.unpack_from(page, place)
            stored = 0 if wanted == _BRANCH else 8 if node_flags & _BIG else low | high << 16
            if place + _NODE.size + key_size + stored > len(page):
                raise _BadPageError(f"the entry at byte {place} is longer than its page")
            nodes.append((place, low, high, node_flags, key_size))
        return page, nodes

    def _overflow(self, pointer: bytes, size: int) -> bytes:
        (number,) = _NUMBER.unpack_from(pointer)
        count = (HEADER.size - 1 + size) // self._pages.page_size + 1
        data = self._whole(number, count)
        own, _, flags, low, high = HEADER.unpack_from(data)
        if own != number or flags != _OVERFLOW or (low | high << 16) < count:
            raise _BadPageError(f"overflow page {number} holds page {own} with flags {flags:#x}")
        return data[HEADER.size : HEADER.size + size]

    def _whole(self, number: int, count: int = 1) -> bytes:
        if not 2 <= number <= self._snapshot.last_page - (count - 1):
            raise _BadPageError(f"page {number} lies outside the {self._snapshot.last_page} in use")
        data = self._pages.read(number, count)
        if len(data) < count * self._pages.page_size:
            raise _CutOffError(f"page {number} is cut off: the file ends at {self._pages.size}")
        return data

    def _damage(self, number: int, bad: "_BadPageError", of_what: str) -> Damage:
        cut_off = isinstance(bad, _CutOffError)
        return Damage(self._tree.name, number, self._last, f"{bad}{of_what}", cut_off)


class _BadPageError(Exception):
    pass


class _CutOffError(_BadPageError):
    pass


def cut_off(file: Path) -> Damage | None:
    """The first page that a torn file lacks. Quick for a whole file; NotPages."""
    pages = Pages(file)
    try:
        snapshot = pages.newest()
        if not pages.is_short(snapshot):
            return None
        named, damages = pages.trees(snapshot)
        for tree in (snapshot.free, *named.values()):
            damages += [item for item in pages.walk(snapshot, tree) if isinstance(item, Damage)]
        return next((damage for damage in damages if damage.cut_off), None)
    finally:
        pages.close()


def _snapshot(meta: bytes) -> Snapshot:
    _, _, _, _, free, main, last_page, transaction = _META.unpack(meta)
    return Snapshot(transaction, last_page, _tree("free pages", free), _tree("main", main))


def _tree(name: str, data: bytes) -> Tree:
    _, _, depth, branch, leaf, overflow, entries, root = _TREE.unpack(data)
    return Tree(name, depth, branch + leaf + overflow, entries, root)
