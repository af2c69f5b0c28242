"""The kinds of picture that a proposal may name, and what a caption shows when it names none.

Words are matched as whole words, so that a heatmap is no map and a rectangle no angle.
"""

import re

from mmzero_async.schemas.events import Proposal

CONTENT_TYPES = ("data_chart", "diagram", "geometry", "timeline", "map", "table", "other")

# Names of a form of picture: the one that stands first in the caption decides.
_FORMS = {
    "diagram": """flowchart, flow chart, diagram, org chart, organisation chart, organization chart,
        circuit, state machine, mind map, concept map, family tree, network graph, schematic""",
    "data_chart": """chart, plot, scatterplot, histogram, heatmap, heat map, treemap, tree map,
        graph, sparkline, dashboard""",
    "timeline": "timeline, time line, gantt, gantt chart",
    "geometry": """triangle, polygon, quadrilateral, parallelogram, trapezium, trapezoid, pentagon,
        hexagon, octagon, rhombus, geometric construction, geometric figure, number line""",
    "table": "table, spreadsheet, timetable, scoreboard, rows and columns",
    "map": "map, floor plan, floorplan, sea chart, nautical chart",
}
# What pictures of a form are about; asked only when no form is named.
_SUBJECTS = {
    "data_chart": "bar, pie, scatter, axis, axes",
    "timeline": "schedule, calendar, chronology",
    "geometry": "circle, angle, radius, radii, diameter, perpendicular, chord, tangent, square",
    "map": "route, country, countries, coastline, district, street, island",
}
_AREA = r"(?!\s+(?:kilo|centi|milli)?(?:met(?:er|re)s?|miles?|feet|foot|inch(?:es)?|k?m|cm)\b)"


def _pattern(words: dict[str, str]) -> re.Pattern[str]:
    """One alternative a type, in a group of its name; a longer phrase before a shorter one."""
    kinds = []
    for kind, listed in words.items():
        phrases = sorted((" ".join(phrase.split()) for phrase in listed.split(",")), key=len)
        escaped = (re.escape(phrase).replace(r"\ ", r"[\s-]+") for phrase in reversed(phrases))
        kinds.append(f"(?P<{kind}>{'|'.join(escaped)})")
    return re.compile(rf"\b(?:{'|'.join(kinds)})s?\b{_AREA}", re.IGNORECASE)


_TIERS = (_pattern(_FORMS), _pattern(_SUBJECTS))


def content_type_of(proposal: Proposal) -> str:
    """The tag, or what the caption's words suggest when the tag is "other"."""
    if proposal.content_type != "other":
        return proposal.content_type
    found = next(filter(None, (tier.search(proposal.caption) for tier in _TIERS)), None)
    return str(found.lastgroup) if found else "other"
