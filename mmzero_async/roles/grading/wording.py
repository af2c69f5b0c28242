"""An answer without what a model wraps around it, and the words of answers in one spelling.

Text to text; knows no numbers' values. Linear in the text but for a bounded number of rounds.
"""

import re
import unicodedata

from mmzero_async.roles.grading.number_words import BEGINS_A_NUMBER, spelled

_ROUNDS = 6  # wrappers around wrappers that are taken off
_RAISED = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u207b]+")  # NFKC would make 3² a 32
_MIXED = re.compile("(?<=\\d)\\s*(?=[\u00bc-\u00be\u2150-\u215e])")  # and 1½ eleven halves
_ONE_DIGIT_POWER = re.compile(r"\^\{(\d)\}(?!\d)")
_CHARACTERS = str.maketrans(  # minus signs and dashes, quotes, the fraction slash
    {
        "\u2212": "-",
        "\u2013": "-",
        "\u2014": "-",
        "\u2010": "-",
        "\u2019": "'",
        "\u2018": "'",
        "\u201c": '"',
        "\u201d": '"',
        "\u2044": "/",
    }
)
_DEGREES = re.compile(r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\s*\\degree")
_SPACING = re.compile(r"\\[,;:! ]|~|\\(?:left|right|displaystyle)(?![a-z])")
_ESCAPED = re.compile(r"\\([%$&#])")
_FENCE = re.compile(r"^```\w*\s+(.*?)\s*```$")
_WRAPPERS = (
    re.compile(r"^\$\$?([^$]*)\$?\$$"),
    re.compile(r"^\\\((.*)\\\)$"),
    re.compile(r"^\\\[(.*)\\\]$"),
    re.compile(r"^\*\*(.*)\*\*$"),
    re.compile(r"^__(.*)__$"),
    re.compile(r"^\*([^*]*)\*$"),
    re.compile(r'^"(.*)"$'),
    re.compile(r"^'(.*)'$"),
    re.compile(r"^`(.*)`$"),
    re.compile(r"^<(?:b|i|em|strong|answer)>(.*)</(?:b|i|em|strong|answer)>$", re.IGNORECASE),
)
_COMMAND = re.compile(
    r"\\(?:boxed|fbox|text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|mbox)\s*\{"
)
_TEXT_COMMAND = re.compile(r"\\(?:text|mathrm|mbox)\s*\{([^{}]*)\}")
_LEAD = re.compile(
    r"^(?:(?:so|thus|hence|therefore),?\s+)?"
    r"(?:(?:the\s+)?(?:(?:final|correct)\s+)?(?:answer|result|value)\s*(?:is|equals|[:=])\s*:?"
    r"|(?:it\s+is|it's|there\s+(?:is|are)|this\s+is)(?=\s))\s*(?=\S)",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    r"^(?:(?:about|approximately|approx\.?|around|roughly|circa|ca\.?)\s+|(?:\u2248|\\approx)\s*)"
    rf"(?=[-+$€£.\d\\]|{BEGINS_A_NUMBER})",
    re.IGNORECASE,
)
_MINUS = re.compile(rf"^(?:minus|negative)\s+(?=[$€£.\d]|{BEGINS_A_NUMBER})", re.IGNORECASE)
_ASSIGNED = re.compile(r"^(?:(?:\\angle|\u2220)\s*)?[a-zA-Z]{1,4}(?:_\{?\w\}?)?\s*=\s*(?=[^=])")
_ARTICLE = re.compile(r"^(?:the|an?)\s+(?=\w)")
_CHOICE = re.compile(r"^(?:(?:option|choice)\s+\(?([a-z])\)?|\(?([a-z])\))$", re.IGNORECASE)
_GROUPS = re.compile(r"^([-+$€£]*)(\d{1,3}(?: \d{3})+|\d{1,3}(?:'\d{3})+)(?![\d/'])")
_LETTERED = re.compile(r"^([-+]?[$€£]?-?[\d,.]*\d)(M|[Mm]n|B|[Bb]n)(?=$|\s)")
_LETTERS = {"m": " million", "b": " billion"}
_NOON = re.compile(r"\b([ap])\.\s?m(?:\.|$)", re.IGNORECASE)

_TIGHT = re.compile(r"(?<=\d)\s(?=[a-z])|(?<=\d)\s(?=-\s?\d)|(?<=\d-)\s(?=\d)|(?<=\d\s-)\s(?=\d)")
_HYPHEN = re.compile(r"(?<=[^\W\d_])-(?=[^\W\d_])")
_INSIDE = re.compile(r"(?<=[(\[{])\s+|\s+(?=[)\]}])")
_CONJUNCTION = re.compile(r"\s*(?:,\s*(?:and\s+|&\s*)?|\s+and\s+|\s*&\s*)\s*")
_SPELLINGS = {"gray": "grey", "color": "colour", "center": "centre"}
_LONG = """january february march april june july august september october november december
monday tuesday wednesday thursday friday saturday sunday"""
_CALENDAR = {long[:3]: long for long in _LONG.split()} | {
    "sept": "september",
    "tues": "tuesday",
    "thur": "thursday",
    "thurs": "thursday",
}
_DATED = re.compile(r"^([a-z]+)\.?(?=$|[\s,]*\d)")


def normalise(answer: str) -> str:
    """The answer without its wrapping: mathematics marks, quotes, lead-ins, hedges, articles,
    closing periods. Case and inner words stay."""
    text = _MIXED.sub(" ", _RAISED.sub(lambda match: f"^{{{match[0]}}}", answer))
    text = unicodedata.normalize("NFKC", text).translate(_CHARACTERS)
    text = " ".join(_ONE_DIGIT_POWER.sub(r"^\1", text).split())
    text = _SPACING.sub(" ", _DEGREES.sub("°", text)).replace("{,}", ",")
    text = _ESCAPED.sub(r"\1", text)
    for _ in range(_ROUNDS):
        before = text
        text = _unwrapped(text.strip().rstrip(".;,!").strip())
        if text == before:
            break
    text = " ".join(_TEXT_COMMAND.sub(r" \1", text).split())
    text = _MINUS.sub("-", _HEDGE.sub("", _ASSIGNED.sub("", text)))
    if (choice := _CHOICE.match(text)) is not None:
        return choice[1] or choice[2]
    text = _numbers_one_way(text)
    if text[:1].isalpha() or text[:1] == "(":
        text = re.sub(r"\s*([,:;])\s*", r"\1", text)
        lowered = text.casefold()
        if (article := _ARTICLE.match(lowered)) is not None and len(lowered) > article.end():
            text = text[article.end() :]
    else:
        text = re.sub(r"\s+([,:;])\s*|([:;])\s+", r"\1\2", text)
    return " ".join(text.split())


def words(text: str) -> str:
    """A normalised answer that is no number, for comparison letter by letter: no case, one
    spelling, lists with commas, the last word singular; no blank between number and unit."""
    text = _INSIDE.sub("", _HYPHEN.sub(" ", spelled(text.casefold())))
    text = _CONJUNCTION.sub(", ", text).strip()
    text = " ".join(_SPELLINGS.get(word, word) for word in text.split())
    if (dated := _DATED.match(text)) is not None and dated[1] in _CALENDAR:
        text = _CALENDAR[dated[1]] + text[dated.end() :]
    first, blank, last = text.rpartition(" ")
    return _TIGHT.sub("", first + blank + (singular(last) if last.isalpha() else last))


def singular(word: str) -> str:
    """The word without its plural ending; what merely looks like one loses it too."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("xes", "ches", "shes", "sses")):
        return word[:-2]
    return word.removesuffix("s") if len(word) > 2 and not word.endswith("ss") else word


def _unwrapped(text: str) -> str:
    """One round: what encloses the whole text, and what leads in to it, is gone."""
    text = _FENCE.sub(r"\1", text)
    for wrapper in _WRAPPERS:
        text = wrapper.sub(r"\1", text).strip()
    if (command := _COMMAND.match(text)) is not None and _closes_at_the_end(text, command.end()):
        text = text[command.end() : -1].strip()
    return _LEAD.sub("", text)


def _closes_at_the_end(text: str, start: int) -> bool:
    """Whether the brace that was opened before `start` is closed by the text's last character."""
    depth = 1
    for i in range(start, len(text)):
        depth += (text[i] == "{") - (text[i] == "}")
        if depth == 0:
            return i == len(text) - 1
    return False


def _numbers_one_way(text: str) -> str:
    """12 000 and 12'000 as 12000, 5M as 5 million, 3 p.m. as 3 pm."""
    text = _GROUPS.sub(lambda found: found[1] + re.sub("[ ']", "", found[2]), text)
    text = _LETTERED.sub(lambda found: found[1] + _LETTERS[found[2][0].lower()], text)
    return _NOON.sub(r"\1m", text)
