"""Made-up scenes whose answers are known: bar charts, line charts, shapes in a grid, rectangles.

A scene is drawn once as data; caption, SVG and questions are functions of it. Coordinates stand on
a coarse grid of a 96 x 96 canvas, so that a very small model can learn to draw.
"""

import random
from dataclasses import dataclass

COLOURS = ("red", "blue", "green", "orange", "purple", "black")
SHAPES = ("circle", "square", "triangle")
HEADER = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 96 96">'
UNIT = 9  # pixels a unit of value
BASE = 90  # y of the axis


@dataclass(frozen=True)
class Asked:
    """A question about a scene, what one reads off the picture to answer it, and the answer."""

    kind: str
    question: str
    reading: str
    answer: str
    hard: bool


@dataclass(frozen=True)
class Bars:
    values: tuple[tuple[str, int], ...]  # colour, 1..9
    content_type = "data_chart"

    def caption(self) -> str:
        listed = ", ".join(f"{colour} {value}" for colour, value in self.values)
        return f"Bar chart with {len(self.values)} bars: {listed}."

    def svg(self) -> str:
        bars = "".join(
            f'<rect x="{6 + 18 * i}" y="{BASE - UNIT * value}" width="14" '
            f'height="{UNIT * value}" fill="{colour}"/>'
            for i, (colour, value) in enumerate(self.values)
        )
        return f'{HEADER}{bars}<path d="M4 90H92" stroke="black"/></svg>'

    def easy(self, rng: random.Random) -> Asked:
        colour, value = rng.choice(self.values)
        question = rng.choice(
            (f"What is the value of the {colour} bar?", f"How tall is the {colour} bar?")
        )
        tallest = max(self.values, key=lambda pair: pair[1])
        unique = sum(v == tallest[1] for _, v in self.values) == 1
        if unique and rng.random() < 0.2:
            asked = "Which colour is the tallest bar?"
            return Asked("bar_tallest", asked, f"{tallest[0]} {tallest[1]}", tallest[0], hard=False)
        return Asked("bar_value", question, f"{colour} {value}", str(value), hard=False)

    def hard(self, rng: random.Random, kind: str | None = None) -> Asked:
        kind = kind or rng.choice(self.hard_kinds)
        (a, x), (b, y) = rng.sample(self.values, 2)
        if kind == "bar_difference":
            question = rng.choice(
                (
                    f"What is the difference between {a} and {b}?",
                    f"How far apart are {a} and {b}?",
                )
            )
            return Asked(kind, question, f"{a} {x}, {b} {y}", str(abs(x - y)), hard=True)
        if kind == "bar_sum":
            question = rng.choice(
                (f"What is the sum of {a} and {b}?", f"What are {a} and {b} together?")
            )
            return Asked(kind, question, f"{a} {x}, {b} {y}", str(x + y), hard=True)
        ordered = sorted((value for _, value in self.values), reverse=True)
        listed = ", ".join(str(value) for value in ordered)
        question = "What is the second largest value?"
        return Asked("bar_second", question, listed, str(ordered[1]), hard=True)

    hard_kinds = ("bar_difference", "bar_sum", "bar_second")


@dataclass(frozen=True)
class Line:
    colour: str
    values: tuple[int, ...]  # 1..9
    content_type = "data_chart"

    def caption(self) -> str:
        listed = ", ".join(str(value) for value in self.values)
        return f"Line chart in {self.colour} with {len(self.values)} points: {listed}."

    def svg(self) -> str:
        at = [(13 + 18 * i, BASE - UNIT * value) for i, value in enumerate(self.values)]
        points = " ".join(f"{x},{y}" for x, y in at)
        dots = "".join(f'<circle cx="{x}" cy="{y}" r="4" fill="{self.colour}"/>' for x, y in at)
        line = f'<polyline points="{points}" fill="none" stroke="{self.colour}"/>'
        return f'{HEADER}{line}{dots}<path d="M4 90H92" stroke="black"/></svg>'

    def easy(self, rng: random.Random) -> Asked:
        i = rng.randrange(len(self.values))
        question = rng.choice(
            (f"What is the value at point {i + 1}?", f"How high is point {i + 1}?")
        )
        reading = f"point {i + 1} {self.values[i]}"
        return Asked("line_value", question, reading, str(self.values[i]), hard=False)

    def hard(self, rng: random.Random, kind: str | None = None) -> Asked:
        kind = kind or rng.choice(self.hard_kinds)
        if kind == "line_range":
            high, low = max(self.values), min(self.values)
            question = "What is the largest minus the smallest value?"
            return Asked(kind, question, f"{high}, {low}", str(high - low), hard=True)
        i, j = sorted(rng.sample(range(len(self.values)), 2))
        x, y = self.values[i], self.values[j]
        question = rng.choice(
            (
                f"What is the sum of points {i + 1} and {j + 1}?",
                f"What are points {i + 1} and {j + 1} together?",
            )
        )
        return Asked("line_sum", question, f"{x}, {y}", str(x + y), hard=True)

    hard_kinds = ("line_range", "line_sum")


@dataclass(frozen=True)
class Grid:
    cells: tuple[tuple[str, str], ...]  # colour, shape; in reading order, three a row
    content_type = "diagram"

    def caption(self) -> str:
        return "Shapes in a grid: " + ", ".join(f"{c} {s}" for c, s in self.cells) + "."

    def svg(self) -> str:
        drawn = []
        for i, (colour, shape) in enumerate(self.cells):
            x, y = 16 + 32 * (i % 3), 16 + 32 * (i // 3)
            if shape == "circle":
                drawn.append(f'<circle cx="{x}" cy="{y}" r="12" fill="{colour}"/>')
            elif shape == "square":
                drawn.append(
                    f'<rect x="{x - 11}" y="{y - 11}" width="22" height="22" fill="{colour}"/>'
                )
            else:
                points = f"{x},{y - 12} {x + 12},{y + 11} {x - 12},{y + 11}"
                drawn.append(f'<polygon points="{points}" fill="{colour}"/>')
        return HEADER + "".join(drawn) + "</svg>"

    def count(self, shape: str) -> int:
        return sum(s == shape for _, s in self.cells)

    def easy(self, rng: random.Random) -> Asked:
        colour, shape = rng.choice(self.cells)
        which = rng.choice(("colour", "shape", "both"))
        what = {"colour": f"{colour} shapes", "shape": f"{shape}s", "both": f"{colour} {shape}s"}
        found = [
            f"{c} {s}"
            for c, s in self.cells
            if (which == "shape" or c == colour) and (which == "colour" or s == shape)
        ]
        question = rng.choice(("How many {} are there?", "Count the {}.")).format(what[which])
        reading = ", ".join(found)
        return Asked(f"count_{which}", question, reading, str(len(found)), hard=False)

    def hard(self, rng: random.Random, kind: str | None = None) -> Asked:
        kind = kind or rng.choice(self.hard_kinds)
        a, b = rng.sample(SHAPES, 2)
        x, y = self.count(a), self.count(b)
        if kind == "count_more" and x < y:
            a, b, x, y = b, a, y, x
        reading = f"{a}s {x}, {b}s {y}"
        if kind == "count_more":
            question = f"How many more {a}s than {b}s are there?"
            return Asked(kind, question, reading, str(x - y), hard=True)
        question = f"How many {a}s and {b}s are there together?"
        return Asked("count_together", question, reading, str(x + y), hard=True)

    hard_kinds = ("count_more", "count_together")


@dataclass(frozen=True)
class Rectangle:
    colour: str
    width: int  # units, 2..9
    height: int
    content_type = "geometry"

    def caption(self) -> str:
        return f"Rectangle in {self.colour}, {self.width} wide and {self.height} high."

    def svg(self) -> str:
        w, h = UNIT * self.width, UNIT * self.height
        rect = f'<rect x="6" y="{BASE - h}" width="{w}" height="{h}" fill="{self.colour}"/>'
        return f'{HEADER}{rect}<path d="M4 90H92" stroke="black"/></svg>'

    def easy(self, rng: random.Random) -> Asked:
        side = rng.choice(("wide", "high"))
        value = self.width if side == "wide" else self.height
        question = f"How {side} is the rectangle?"
        return Asked(f"rectangle_{side}", question, f"{side} {value}", str(value), hard=False)

    def hard(self, rng: random.Random, kind: str | None = None) -> Asked:
        kind = kind or rng.choice(self.hard_kinds)
        w, h = self.width, self.height
        if kind == "rectangle_difference":
            question = "What is the difference between width and height?"
            return Asked(kind, question, f"{w}, {h}", str(abs(w - h)), hard=True)
        question = "What are width and height together?"
        return Asked("rectangle_sum", question, f"{w}, {h}", str(w + h), hard=True)

    hard_kinds = ("rectangle_difference", "rectangle_sum")


Scene = Bars | Line | Grid | Rectangle
FAMILIES = ("bars", "line", "grid", "rectangle")
HARD_KINDS: tuple[str, ...] = (
    *Bars.hard_kinds,
    *Line.hard_kinds,
    *Grid.hard_kinds,
    *Rectangle.hard_kinds,
)


def draw(rng: random.Random, family: str, size: int | None = None) -> Scene:
    """A random scene; `size` is the number of bars, points or shapes."""
    if family == "bars":
        colours = rng.sample(COLOURS, size or rng.randint(3, 5))
        return Bars(tuple((colour, rng.randint(1, 9)) for colour in colours))
    if family == "line":
        n = size or rng.randint(4, 5)
        return Line(rng.choice(COLOURS), tuple(rng.randint(1, 9) for _ in range(n)))
    if family == "grid":
        palette, shapes = rng.sample(COLOURS, 2), rng.sample(SHAPES, rng.choice((2, 2, 3)))
        n = size or rng.randint(4, 8)
        return Grid(tuple((rng.choice(palette), rng.choice(shapes)) for _ in range(n)))
    return Rectangle(rng.choice(COLOURS), rng.randint(2, 9), rng.randint(2, 9))


def random_scene(rng: random.Random) -> Scene:
    return draw(rng, rng.choices(FAMILIES, (4, 3, 4, 2))[0])
