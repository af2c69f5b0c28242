"""How far references inside a drawing multiply it: use of use, patterns in patterns, masks in
masks. Pure graph arithmetic; knows no XML. Bounded: each owner is visited once, MAX_CHAIN deep.
"""

from collections.abc import Mapping, Sequence

MAX_EXPANSIONS = 2000  # references followed while drawing everything once
MAX_CHAIN = 8  # references one behind the other


def too_entangled(references: Mapping[str, Sequence[str]]) -> str | None:
    """What is wrong with the graph, or None.

    `references[id]` lists what stands inside the element with that id and refers elsewhere;
    `references[""]` lists all references of the drawing. An id that refers to nothing may be
    missing. Acyclic, chains of MAX_CHAIN at most, MAX_EXPANSIONS in all.
    """
    costs: dict[str, tuple[int, int]] = {}  # id -> (expansions, longest chain)

    def cost(owner: str, behind: tuple[str, ...]) -> tuple[int, int]:
        if owner in costs:
            return costs[owner]
        if owner in behind:
            raise _Entangled(f"#{owner[:40]} refers to itself")
        if len(behind) > MAX_CHAIN:
            raise _Entangled(f"more than {MAX_CHAIN} references one behind the other")
        expansions = chain = 0
        for target in references.get(owner, ()):
            below = cost(target, (*behind, owner))
            expansions += 1 + below[0]
            chain = max(chain, 1 + below[1])
        if chain > MAX_CHAIN:
            raise _Entangled(f"more than {MAX_CHAIN} references one behind the other")
        if expansions > MAX_EXPANSIONS:
            raise _Entangled(f"more than {MAX_EXPANSIONS} references to follow")
        costs[owner] = (expansions, chain)
        return costs[owner]

    try:
        cost("", ())
    except _Entangled as problem:
        return str(problem)
    return None


class _Entangled(Exception):
    """Carries the verdict out of the recursion."""
