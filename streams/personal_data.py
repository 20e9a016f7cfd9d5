"""Personal data in a text: e-mail addresses, phone and card numbers, account and identity numbers.

Only what has a form of its own, checked by its check digits where there are any: a guardrail that cries wolf is
switched off.
"""

import re
from collections.abc import Iterator

_EMAIL = re.compile(r"\b[\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,4}[A-Za-z]{2,24}\b")
_PHONE = re.compile(r"(?<![\w+])\+\d(?:[ ()./-]{0,2}\d){7,14}(?!\w)")
_CARD = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-])")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_IDENTITY = re.compile(r"(?<![\w.-])(?:\d{3}-\d{2}-\d{4}|\d{3}\.\d{3}\.\d{3}-\d{2})(?![\w.-])")


def personal_data(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of each in code points, form by form."""
    for match in _EMAIL.finditer(text):
        yield match.span()
    for match in _PHONE.finditer(text):
        yield match.span()
    for match in _CARD.finditer(text):
        if _luhn(match.group()):
            yield match.span()
    for match in _IBAN.finditer(text):
        if _mod_97(match.group()):
            yield match.span()
    for match in _IDENTITY.finditer(text):
        yield match.span()


def _luhn(number: str) -> bool:
    digits = [int(character) for character in number if character.isdigit()]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return len(set(digits)) > 1 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _mod_97(iban: str) -> bool:
    """ISO 13616: the first four characters go last, letters become numbers, and the rest of a division by 97 is 1."""
    bare = iban.replace(" ", "")
    return int("".join(str(int(character, 36)) for character in bare[4:] + bare[:4])) % 97 == 1
