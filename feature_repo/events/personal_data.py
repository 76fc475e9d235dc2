"""A net for personal data in free text: e-mail addresses, phone numbers, card numbers.

It catches what a page sends by accident, and is made to take no price, article number or time for
somebody's. Belongs here: what such data look like. What becomes of them is `minimisation`'s.

Every pattern is bounded, and begins only where a word or number does: the time a text takes grows
with its length, whatever stands in it.
"""

import re
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple
from urllib.parse import unquote

Likeness = Literal["an e-mail address", "a phone number", "a card number"]

_EMAIL: Final = re.compile(
    r"(?<![\w.+'-])[\w.+'-]{1,64}@((?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24})(?![\w-])"
)
_NO_DOMAINS: Final = frozenset(
    [
        "avif",
        "bmp",
        "css",
        "gif",
        "heic",
        "htm",
        "html",
        "ico",
        "jpeg",
        "jpg",
        "js",
        "json",
        "mov",
        "mp4",
        "pdf",
        "png",
        "svg",
        "ts",
        "webm",
        "webp",
    ]
)
"""Endings of files: ``logo@2x.png`` is nobody's address."""
_ABROAD: Final = re.compile(r"(?<![\w+.,-])\+[1-9](?:[ ()./-]{0,2}[0-9]){7,14}(?![0-9])")
_DIALLED: Final = re.compile(
    r"(?<![\w+.,-])00[1-9][0-9]{0,2}[ ()/-](?:[ ()./-]{0,2}[0-9]){6,12}(?![0-9])"
)
_AT_HOME: Final = re.compile(
    r"(?<![\w+.,/-])(?:"
    r"\(0[1-9][0-9]{1,4}\)[ /-]{0,3}[0-9]{2,8}(?:[ -][0-9]{2,5}){0,3}"  # (030) 123 456
    r"|0[1-9][0-9]{1,4}(?: ?/ ?| )[0-9]{3,8}(?:[ -][0-9]{2,5}){0,3}"  # 0170/1234567
    r"|0[1-9](?:([ .-])[0-9]{2})(?:\1[0-9]{2}){3}"  # 01 23 45 67 89
    r"|(?:1[-. ])?(?:\([2-9][0-9]{2}\)[ -]?[2-9][0-9]{2}[-. ]"
    r"|[2-9][0-9]{2}([-.])[2-9][0-9]{2}\2)[0-9]{4}"  # (555) 234-5678
    r")(?![\w-]|[.,][0-9])"
)
_PHONE_NAME: Final = re.compile(
    r"(?:(?<!i)phone|telefono?|telefone|handy|mobile?|whatsapp|msisdn|(?:^|[_.-])(?:tel|fax|cell))"
    r"[_.-]?(?:no|nr|num|number|nummer)?$", re.IGNORECASE
)  # fmt: skip
_CODE_NAME: Final = re.compile(
    r"(?:^|[_.-]|(?<=[a-z])(?=[A-Z]))"
    r"(?:ids?|ean|gtin|upc|sku|isbn|ts|time|timestamp|order|invoice|tracking|barcode)$",
    re.IGNORECASE,
)
_FIRST_LOOK: Final = re.compile(r"@|[0-9](?:[ ()./-]{0,3}[0-9]){6}")
_HOME_LOOK: Final = re.compile(r"[0-9][0-9)][ ./-]")
_CARD_LOOK: Final = re.compile(r"[2-6](?:[ -]?[0-9]){12}")
_GROUPED: Final = re.compile(r"(?<![0-9])[0-9]{1,19}(?:[ -][0-9]{1,19}){0,64}(?![0-9])")
_SPLIT: Final = re.compile(r"[ -]")
_SHAPES: Final = frozenset({(4, 6, 5), (4, 6, 4)})
_CARD: Final = re.compile(
    r"4(?:[0-9]{12}|[0-9]{15}|[0-9]{18})|5[1-5][0-9]{14}|3[47][0-9]{13}"
    r"|2(?:22[1-9]|2[3-9][0-9]|[3-6][0-9]{2}|7[01][0-9]|720)[0-9]{12}|220[0-4][0-9]{12}"
    r"|(?:6011|64[4-9][0-9]|65[0-9]{2}|35(?:2[89]|[3-8][0-9]))(?:[0-9]{12}|[0-9]{15})"
    r"|3(?:0[0-5]|[689][0-9])(?:[0-9]{11}|[0-9]{13}|[0-9]{16})|62[0-9]{14,17}"
    r"|(?:5[0678]|6[37])(?:[0-9]{14}|[0-9]{16,17})"
)
"""Numbers as issuers give them out, by first digits and length."""
_DOUBLED: Final = str.maketrans("0123456789", "0246813579")
_URL_PARTS: Final = re.compile(r"([/?&=#;]+)")
_SEPARATORS: Final = str.maketrans("", "", " ()+./-")
_ENCODED: Final = 3  # so many times a link may be written into another


class Found(NamedTuple):
    """What was found in a text: where, as what, and the same for every spelling of it."""

    start: int
    end: int
    likeness: Likeness
    plain: str


def find(text: str, name: str = "") -> list[Found]:
    """Return the personal data in a text, from left to right.

    Parameters
    ----------
    name
        Name of the property or parameter, if it has one: ``phone`` makes bare digits a phone
        number, ``ean`` makes none of any digits.

    Examples
    --------
    >>> [(one.likeness, one.plain) for one in find("Ask Jo@Shop.example or +49 170 1234567")]
    [('an e-mail address', 'jo@shop.example'), ('a phone number', '+491701234567')]
    >>> find("4006381333931 on 2026-01-31 for 1,299.00"), find("4111 1111 1111 1111")[0].likeness
    ([], 'a card number')
    """
    if _FIRST_LOOK.search(text) is None:
        return []
    found = list(_find_emails(text)) if "@" in text else []
    if not name or _CODE_NAME.search(name) is None:
        if _CARD_LOOK.search(text) is not None:
            found += _find_cards(text)
        found += _find_phones(text, name)
    found.sort()
    kept = list[Found]()
    for one in found:
        if not kept or one.start >= kept[-1].end:
            kept.append(one)
    return kept


def find_email_or_phone(text: str) -> Likeness | None:
    """Say what an id looks like: ids are numbers too often to take bare digits for anything.

    Examples
    --------
    >>> find_email_or_phone("jo@shop.example"), find_email_or_phone("4111111111111111")
    ('an e-mail address', None)
    """
    if "@" in text and any(True for _ in _find_emails(text)):
        return "an e-mail address"
    return "a phone number" if "+" in text and _ABROAD.search(text) is not None else None


def may_hold(text: str) -> bool:
    """Say whether it is worth looking closer at a text, or at a document with texts in it."""
    return "%" in text or _FIRST_LOOK.search(text) is not None


def split_url(url: str) -> list[tuple[str, str, str]]:
    """Return the parts of a URL: each as it is written, as it reads, and its parameter's name.

    Joined again, the first of each are the URL.

    Examples
    --------
    >>> split_url("/a?to=b%40c.de")[-1]
    ('b%40c.de', 'b@c.de', 'to')
    """
    parts = list[tuple[str, str, str]]()
    name = before = ""
    for written in _URL_PARTS.split(url):
        name = before if parts and parts[-1][0] == "=" else ""
        parts.append((written, _read(written), name))
        if written[:1] not in "/?&=#;":
            before = parts[-1][1]
    return parts


def _read(written: str) -> str:
    text = written[:1] + written[1:].replace("+", " ")
    for _ in range(_ENCODED):
        if "%" not in text:
            break
        text = unquote(text)
    return text


def _find_emails(text: str) -> Iterator[Found]:
    for match in _EMAIL.finditer(text):
        if match[1].rpartition(".")[2].lower() not in _NO_DOMAINS:
            yield Found(match.start(), match.end(), "an e-mail address", match[0].lower())


def _find_phones(text: str, name: str) -> Iterator[Found]:
    digits = text.translate(_SEPARATORS)
    if name and 7 <= len(digits) <= 15 and digits.isdecimal() and _PHONE_NAME.search(name):
        sign = "+" if text.strip()[0] == "+" else ""
        yield Found(0, len(text), "a phone number", sign + digits)
        return
    patterns = list[re.Pattern[str]]()
    if "+" in text:
        patterns.append(_ABROAD)
    if _HOME_LOOK.search(text) is not None:
        patterns += (_DIALLED, _AT_HOME)
    for pattern in patterns:
        for match in pattern.finditer(text):
            digits = match[0].translate(_SEPARATORS)
            if pattern is not _AT_HOME:
                digits = "+" + digits.removeprefix("00")
            if 9 <= len(digits) <= 16:
                yield Found(match.start(), match.end(), "a phone number", digits)


def _find_cards(text: str) -> Iterator[Found]:
    for run in _GROUPED.finditer(text):
        if len(run[0]) < 13:
            continue
        if run[0].isdigit():
            if _is_card(run[0]):
                yield Found(run.start(), run.end(), "a card number", run[0])
            continue
        groups = list[tuple[int, str]]()
        start = run.start()
        for group in _SPLIT.split(run[0]):
            groups.append((start, group))
            start += len(group) + 1
        at = 0
        while at < len(groups):
            taken = _count_groups([group for _, group in groups[at : at + 5]])
            if taken:
                some = groups[at : at + taken]
                end = some[-1][0] + len(some[-1][1])
                digits = "".join(group for _, group in some)
                yield Found(some[0][0], end, "a card number", digits)
            at += taken or 1


def _count_groups(groups: list[str]) -> int:
    """Return how many of the groups that begin a list are a card's number; 0: they are none."""
    if len(groups[0]) != 4:
        return int(_is_card(groups[0]))
    for count in range(min(5, len(groups)), 2, -1):
        lengths = tuple(map(len, groups[:count]))
        grouped = count > 3 and set(lengths[:-1]) == {4} and lengths[-1] <= 4
        if (grouped or lengths in _SHAPES) and _is_card("".join(groups[:count])):
            return count
    return 0


def _is_card(digits: str) -> bool:
    if _CARD.fullmatch(digits) is None or (len(digits) == 13 and _is_ean(digits)):
        return False
    luhn = digits[-2::-2].translate(_DOUBLED) + digits[-1::-2]
    return sum(map(int, luhn)) % 10 == 0


def _is_ean(digits: str) -> bool:
    return (sum(map(int, digits[::2])) + 3 * sum(map(int, digits[1::2]))) % 10 == 0
