"""Number words at the beginning of an answer as digits: "twenty-one bars" is "21 bars"."""

import re

_COUNTED = """zero one two three four five six seven eight nine ten eleven twelve thirteen
fourteen fifteen sixteen seventeen eighteen nineteen twenty"""
_TENS = ("thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
NUMBER_WORDS = {word: value for value, word in enumerate(_COUNTED.split())} | {
    word: 10 * tens for tens, word in enumerate(_TENS, start=3)
}
SCALES = {
    "hundred": 100,
    "k": 1000,
    "thousand": 1000,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
_LARGE = frozenset(SCALES) - {"k", "hundred"}
_PARTS = {"half": 2, "halve": 2, "third": 3, "quarter": 4, "fifth": 5, "eighth": 8, "tenth": 10}
_FIRST = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
_ORDINALS = {word: value for value, word in enumerate(_FIRST.split(), start=1)}
BEGINS_A_NUMBER = rf"(?:{'|'.join([*NUMBER_WORDS, 'half', 'dozen'])})\b"
_WORD = re.compile(r"([a-z]+)(?:[\s-]+(?=([a-z]*))|$)")


def spelled(text: str) -> str:
    """The lower-case text with the number words that it begins with as digits, or as it is.

    "twenty-one bars" is "21 bars", "two thirds" is "2/3", "third bar" is "3rd bar", "two dozen"
    is "24"; "two three" and "one-way" stay.
    """
    if text.startswith("-") and text[1:2].isalpha():
        return f"-{spelled(text[1:])}"
    if text in ("half", "quarter"):
        return f"1/{_PARTS[text]}"
    total = current = end = 0
    for match in _WORD.finditer(text):
        word, next_word = match[1], match[2]
        if match.start() != end:
            break
        if word in NUMBER_WORDS:
            number = NUMBER_WORDS[word]
            after_tens = number < 10 and current % 10 == 0 and current % 100 >= 20
            if end and (number == 0 or not (current % 100 == 0 or after_tens)):
                return text
            current += number
        elif word == "hundred" and 0 < current < 100:
            current *= 100
        elif word == "dozen" and current < 100:
            current = 12 * (current or 1)
        elif word in _LARGE and current:
            total, current = total + current * SCALES[word], 0
        elif not (word == "and" and current % 100 == 0 and end and next_word in NUMBER_WORDS):
            break
        end = match.end()
    rest = text[end:]
    if not end:
        return _ordinal(text)
    if (part := _PARTS.get(rest.removesuffix("s"))) is not None:
        return f"{total + current}/{part}"
    if text[end - 1] == "-":
        return text
    return f"{total + current} {rest}".strip()


def _ordinal(text: str) -> str:
    word, blank, rest = text.partition(" ")
    if (value := _ORDINALS.get(word)) is None:
        return text
    return f"{value}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(value, 'th') }{blank}{rest}"
