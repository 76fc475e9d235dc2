"""A net for personal data in free text: e-mail addresses, phone, card and account numbers.

It catches what a page sends by accident, and is made to take no price, article number or time for
somebody's. Belongs here: what such data look like. Numbers with a checksum are `checked_numbers`';
what becomes of all of them is `minimisation`'s.

Every pattern is bounded, and begins only where a word or number does: the time a text takes grows
with its length, whatever stands in it.
"""

import re
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple
from urllib.parse import unquote

from feature_repo.events.checked_numbers import find_accounts, find_cards

Likeness = Literal["an e-mail address", "a phone number", "a card number", "a bank account"]

_EMAIL: Final = re.compile(
    r"(?<![\w.+'-])[\w.+'-]{1,64}@((?:[\w-]{1,63}\.){1,8}"
    r"(?:[Xx][Nn]--[A-Za-z0-9-]{2,59}|[^\W\d_]{2,24}))(?![^\W_])"
)
_NO_DOMAINS: Final = frozenset(
    ["avif", "bmp", "css", "gif", "heic", "htm", "html", "ico", "jpeg", "jpg", "js", "json", "mp4",
     "pdf", "png", "svg", "ts", "webm", "webp"]
)  # fmt: skip
"""Endings of files: ``logo@2x.png`` is nobody's address."""
_BEGIN: Final = r"(?:(?<![\w+.-])|(?<=[^\W\d_]\.))"  # a word, or Tel.0170
_ABROAD: Final = re.compile(
    _BEGIN + r"(?!(?<=,)\+[0-9]{1,3}\.)"  # of 48.13,+11.58 neither
    r"\+(?:1(?:[ ()./-]{0,2}[0-9]){10}|[2-9](?:[ ()./-]{0,2}[0-9]){7,14})(?![0-9])"
)
_DIALLED: Final = re.compile(
    _BEGIN + r"00[1-9][0-9]{0,2}[ ()/-](?:[ ()./-]{0,2}[0-9]){6,12}(?![0-9])"
)
_AT_HOME: Final = re.compile(
    _BEGIN + r"(?<!/)(?:"
    r"\(0[1-9][0-9]{1,4}\)[ /-]{0,3}[0-9]{2,8}(?:[ -][0-9]{2,5}){0,3}"  # (030) 123 456
    r"|0[1-9][0-9]{1,4}(?: ?/ ?| )[0-9]{3,8}(?:[ -][0-9]{2,5}){0,3}"  # 0170/1234567
    r"|(?!01[ .-]02[ .-]03)0[1-9](?:([ .-])[0-9]{2})(?:\1[0-9]{2}){3}"  # 01 23 45 67 89
    r"|(?:1[-. ])?(?:\([2-9][0-9]{2}\)[ -]?[2-9][0-9]{2}[-. ]"
    r"|(?![234]00)[2-9][0-9]{2}([-.])[2-9][0-9]{2}\2)[0-9]{4}"  # (555) 234-5678
    r")(?![\w-]|\.[0-9]|,(?!0[1-9][0-9]{0,4}[ ./-]|[0-9]{3}[-.][0-9]{3}[-.])[0-9])"
)
_INDEX: Final = r"[\]\[0-9]{0,8}$"  # customer[phone], phone[]
_PHONE_NAME: Final = re.compile(
    r"(?:(?<!i)(?<!head)(?<!micro)phone|telefono?|telefone|handy|(?<!auto)mobile?|whatsapp|msisdn"
    r"|(?:^|[_.\[-])(?:tel|fax|cell))[_.-]?(?:no|nr|num|number|nummer)?s?" + _INDEX,
    re.IGNORECASE,
)
_CODE_NAME: Final = re.compile(
    r"^/d?p$|(?:^/?|[_.\[-]|(?-i:(?<=[a-z])(?=[A-Z])))"
    r"(?:ids?|ean|gtin|upc|skus?|isbn|ts|time|timestamp|orders?|invoices?|tracking|barcode"
    r"|articles?|items?|products?|variants?)[_.-]?(?:no|nr|num|number|nummer|code)?" + _INDEX,
    re.IGNORECASE,
)
_FIRST_LOOK: Final = re.compile(r"@|[0-9](?:[ ()./+-]{0,3}[0-9]){6}")
_UNBROKEN: Final = ("\u00a0 ", "\u2007 ", "\u2009 ", "\u202f ", "\u2011-")
_HOME_LOOK: Final = re.compile(r"[0-9][0-9)][ ./-]")
_URL_PARTS: Final = re.compile(
    r"[/?&=#;]+|(?<==)[^/?&=#;]{1,24}/[0-9][^/?&=#;]*|[^/?&=#;]+"  # tel=0170/1234567 is one
)
_SEPARATORS: Final = str.maketrans("", "", " ()+./-")
_MOST_NAME: Final = 32  # characters of it that say something
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
        Name of the property or parameter, if it has one, or ``/`` and the word before it in a path:
        ``phone`` makes bare digits a phone number, ``ean`` and ``/orders`` make no digits a card,
        and a phone only those with a ``+``.

    Examples
    --------
    >>> [(one.likeness, one.plain) for one in find("Ask Jo@Shop.example or +49 170 1234567")]
    [('an e-mail address', 'jo@shop.example'), ('a phone number', '+491701234567')]
    >>> find("4006381333931 on 2026-01-31 for 1,299.00"), find("4111 1111 1111 1111")[0].likeness
    ([], 'a card number')
    """
    text = _unbreak(text)
    if _FIRST_LOOK.search(text) is None:
        return []
    found = list(_find_emails(text)) if "@" in text else []
    if not text.isdecimal():
        found += (Found(at, end, "a bank account", plain) for at, end, plain in find_accounts(text))
    is_code = bool(name) and _ends_as(_CODE_NAME, name)
    if not is_code:
        found += (Found(at, end, "a card number", plain) for at, end, plain in find_cards(text))
    if not is_code or "+" in text:
        found += _find_phones(text, name, is_code=is_code)
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
    text = _unbreak(text)
    if "@" in text and any(True for _ in _find_emails(text)):
        return "an e-mail address"
    return "a phone number" if "+" in text and _ABROAD.search(text) is not None else None


def may_hold(text: str) -> bool:
    """Say whether it is worth looking closer at a text, or at a document with texts in it."""
    return "%" in text or _FIRST_LOOK.search(_unbreak(text)) is not None


def split_url(url: str) -> list[tuple[str, str, str]]:
    """Return the parts of a URL: each as it is written, as it reads, and its name as for `find`.

    Joined again, the first of each are the URL.

    Examples
    --------
    >>> split_url("/a?to=b%40c.de")[-1]
    ('b%40c.de', 'b@c.de', 'to')
    """
    parts = list[tuple[str, str, str]]()
    before = last = ""
    for written in _URL_PARTS.findall(url):
        name = before if last == "=" else "/" + before if last == "/" else ""
        parts.append((written, _read(written), name))
        if written[0] not in "/?&=#;":
            before = parts[-1][1]
        last = written
    return parts


def _unbreak(text: str) -> str:
    """Return a text of the same length with blanks and dashes that break lines."""
    if not text.isascii():
        for unbroken, usual in _UNBROKEN:
            text = text.replace(unbroken, usual)
    return text


def _read(written: str) -> str:
    text = written[:1] + written[1:].replace("+", " ")
    for _ in range(_ENCODED):
        if "%" not in text:
            break
        text = unquote(text)
    return text


def _ends_as(pattern: re.Pattern[str], name: str) -> bool:
    """Say whether a name is such by its end: many values may have one long name."""
    return pattern.search(name, max(0, len(name) - _MOST_NAME)) is not None


def _find_emails(text: str) -> Iterator[Found]:
    for match in _EMAIL.finditer(text):
        if match[1].rpartition(".")[2].lower() not in _NO_DOMAINS:
            yield Found(match.start(), match.end(), "an e-mail address", match[0].lower())


def _find_phones(text: str, name: str, *, is_code: bool) -> Iterator[Found]:
    patterns = list[re.Pattern[str]]()
    if "+" in text:
        patterns.append(_ABROAD)
    if not is_code and _HOME_LOOK.search(text) is not None:
        patterns += (_DIALLED, _AT_HOME)
    is_whole = False
    for pattern in patterns:
        for match in pattern.finditer(text):
            digits = match[0].replace("(0)", "").translate(_SEPARATORS)
            if pattern is not _AT_HOME:
                digits = "+" + digits.removeprefix("00")
            elif digits[0] != "0":  # an American one
                digits = "+1" + digits[-10:]
            if 9 <= len(digits) <= 16:
                is_whole = is_whole or match[0] == text.strip()
                yield Found(match.start(), match.end(), "a phone number", digits)
    if not name or is_whole or is_code or name[0] == "/":
        return
    digits = text.translate(_SEPARATORS)
    if 7 <= len(digits) <= 15 and digits.isdecimal() and _ends_as(_PHONE_NAME, name):
        sign = "+" if text.strip()[0] == "+" else ""
        if digits[:2] == "00" and not sign:
            sign, digits = "+", digits[2:]
        yield Found(0, len(text), "a phone number", sign + digits)
