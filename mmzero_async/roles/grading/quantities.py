"""Numbers as answers write them, with their units: read from text, compared by value."""

import re
from dataclasses import dataclass
from fractions import Fraction

from mmzero_async.roles.grading.number_words import NUMBER_WORDS, SCALES, spelled
from mmzero_async.roles.grading.wording import singular

TOLERANCE = Fraction(1, 1_000_000)  # absolute, on numbers that are not whole

_UNITS = {  # another word for a unit -> the one that stands for it
    long.replace("_", " "): short
    for short, longs in {
        "mm": "millimeter millimetre",
        "cm": "centimeter centimetre",
        "m": "meter metre",
        "km": "kilometer kilometre",
        "g": "gram",
        "kg": "kilogram kilo",
        "s": "second sec",
        "min": "minute",
        "h": "hour hr",
        "degree": "deg °",
        "$": "dollar usd",
        "€": "euro eur",
        "£": "pound gbp",
        "l": "liter litre",
        "in": "inch",
        "ft": "foot feet",
        "px": "pixel",
        "ml": "milliliter millilitre",
        "mi": "mile",
        "year": "yr",
        "week": "wk",
        "v": "volt",
        "w": "watt",
        "hz": "hertz",
        "°c": "degree_celsius degrees_celsius deg_c celsius",
        "°f": "degree_fahrenheit degrees_fahrenheit deg_f fahrenheit",
        "km/h": "kph kmh kilometers_per_hour kilometres_per_hour",
        "mph": "mi/h mile_per_hour miles_per_hour",
        "m/s": "meters_per_second metres_per_second",
        "th": "st nd rd",
    }.items()
    for long in longs.split()
}
_PERCENT = frozenset({"%", "percent", "per cent", "pct"})
_TIGHT = "mm cm m km g kg s min h degree $ € £ l in ft px"  # may stand right behind a digit
_BEHIND_A_DIGIT = frozenset(_TIGHT.split())
_NO_UNIT = "pi x y z and or to out of by plus minus times"
_NO_UNITS = frozenset(_NO_UNIT.split())
_UNIT_WORD = r"[a-z°$€£%][a-z°/.]*(?:\^?[23])?(?:\s[a-z]+(?:\^?[23])?){0,2}"
_PLAIN = r"(?:\d{1,3}(?:,\d{3})+|\d{1,40})(?:\.\d{0,40})?|\.\d{1,40}"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)\s*(?P<money>[$€£]?)\s*(?P<inner>-?)(?:(?P<whole>\d{{1,9}})\s+(?=\d+/))?"
    rf"(?P<value>{_PLAIN})(?:e(?P<power>[-+]?\d{{1,2}})(?![\w.]))?"
    rf"(?:(?:\s*/\s*|\sout\sof\s)(?P<under>{_PLAIN}))?"
    rf"(?:\s*(?P<scale>{'|'.join(SCALES)})(?![\w/]))?"
    rf"(?P<gap>\s*)(?P<unit>%|percent|per cent|{_UNIT_WORD})?"
)
_LATEX_FRACTION = re.compile(
    r"(?P<sign>[-+]?)\s*\\[dt]?frac\s*(?:\{\s*(\d{1,20})\s*\}|(\d))\s*(?:\{\s*(\d{1,20})\s*\}|(\d))"
    r"(?:\s+(?P<unit>[a-z]{1,12}))?"
)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number as answers write it; `unit` is "" for none, "%" for a percentage."""

    value: Fraction
    unit: str


def quantity(text: str) -> Quantity | None:
    """The number that a normalised answer is, with its unit, or None."""
    lowered = text.casefold()
    if (match := _LATEX_FRACTION.fullmatch(lowered)) is not None:
        over, under = match[2] or match[3], match[4] or match[5]
        sign = -1 if match["sign"] == "-" else 1
        unit = _unit(match["unit"] or "")
        if not int(under) or not _is_unit(unit, " "):
            return None
        return Quantity(sign * Fraction(int(over), int(under)), unit)
    if (match := _NUMBER.fullmatch(spelled(lowered))) is None:
        return None
    unit = _unit(match["unit"] or "")
    if not _is_unit(unit, match["gap"]):
        return None
    value = _plain(match["value"]) * Fraction(10) ** int(match["power"] or 0)
    if match["under"] is not None:
        under_value = _plain(match["under"])
        if not under_value:
            return None
        value /= under_value
    value = (value + int(match["whole"] or 0)) * SCALES.get(match["scale"] or "", 1)
    negative = (match["sign"] == "-") != (match["inner"] == "-")
    return Quantity(-value if negative else value, match["money"] or unit)


def same_quantity(one: Quantity, two: Quantity) -> bool:
    """Equal numbers whose units agree or where one has none; 50 % is 50 and 0.5."""
    if one.unit and two.unit and one.unit != two.unit:
        return False
    if _close(one.value, two.value):
        return True
    if (one.unit == "%") != (two.unit == "%"):
        percent, plain = (one, two) if one.unit == "%" else (two, one)
        return _close(percent.value / 100, plain.value)
    return False


def _close(one: Fraction, two: Fraction) -> bool:
    if one == two:
        return True
    return (one.denominator > 1 or two.denominator > 1) and abs(one - two) <= TOLERANCE


def _is_unit(unit: str, gap: str) -> bool:
    """2x, 2 pi and 3x2 are no numbers; right behind one any unknown lone letter is a symbol."""
    first = unit.partition(" ")[0]
    if first in _NO_UNITS or first in NUMBER_WORDS:
        return False
    if _UNITS.get(first, first) == "th" and unit != "th":
        return False  # the 2nd quarter is no quantity of quarters
    if unit[-1:] in ("2", "3"):
        return unit[:-1] in _BEHIND_A_DIGIT or "/" in unit
    return bool(gap) or len(unit) > 1 or unit in _BEHIND_A_DIGIT or unit in ("", "%")


def _plain(digits: str) -> Fraction:
    digits = digits.replace(",", "")
    return Fraction("0" + digits if digits.startswith(".") else digits.removesuffix("."))


def _unit(text: str) -> str:
    """One spelling for the common units; a plural is its singular."""
    text = text.strip().rstrip(".")
    if text in _PERCENT:
        return "%"
    first, _, second = text.partition(" ")
    if second and first.rstrip(".") in ("sq", "square", "cubic"):
        return _unit(second) + ("3" if first == "cubic" else "2")
    if text[-1:] in ("2", "3"):
        return _unit(text[:-1].rstrip("^")) + text[-1]
    one = text if "/" in text else singular(text)
    return _UNITS.get(text, _UNITS.get(one, one))
