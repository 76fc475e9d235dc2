"""Numbers whose form and checksum tell them from others: payment cards and bank accounts (IBAN).

Belongs here: how a text is searched for such numbers. In what is searched is `personal_data`'s to
say. The time a text takes grows with its length, whatever stands in it.
"""

import re
from collections.abc import Iterator
from typing import Final

_CARD_LOOK: Final = re.compile(r"[2-6](?:[ -]?[0-9]){13}")
_GROUPED: Final = re.compile(r"(?<![0-9])[0-9]{1,19}(?:[ -][0-9]{1,19}){0,64}(?![0-9])")
_SPLIT: Final = re.compile(r"[ -]")
_LEAST: Final = 14
_SHAPES: Final = frozenset({(4, 6, 5), (4, 6, 4)})
_CARD: Final = re.compile(
    r"4(?:[0-9]{15}|[0-9]{18})|5[1-5][0-9]{14}|3[47][0-9]{13}"
    r"|2(?:22[1-9]|2[3-9][0-9]|[3-6][0-9]{2}|7[01][0-9]|720)[0-9]{12}|220[0-4][0-9]{12}"
    r"|(?:6011|64[4-9][0-9]|65[0-9]{2}|35(?:2[89]|[3-8][0-9]))(?:[0-9]{12}|[0-9]{15})"
    r"|3(?:0[0-5]|[689][0-9])(?:[0-9]{11}|[0-9]{13}|[0-9]{16})|62[0-9]{14,17}"
    r"|(?:5[0678]|6[37])(?:[0-9]{14}|[0-9]{16,17})"
)
"""Numbers as issuers give them out, by first digits and length."""
_MOMENT: Final = re.compile(
    r"30(?:0[1-9]|1[0-2])(?:19|20)[0-9]{2}(?:[01][0-9]|2[0-3])[0-5][0-9][0-5][0-9]"
)
"""DDMMYYYYhhmmss of a 30th, which begins as a card does."""
_DOUBLED: Final = str.maketrans("0123456789", "0246813579")
_ACCOUNT: Final = re.compile(r"(?<!\w)[A-Z]{2}[0-9]{2}(?= ?[A-Z0-9])")
_COUNTRIES: Final = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 "
    "EE20 EG29 ES24 FI18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 "
    "IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30 "
    "NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SC31 SE24 SI19 SK24 SM27 ST25 SV28 TL23 "
    "TN24 TR26 UA29 VA22 VG24 XK20"
)
"""Which countries have IBANs, and of how many characters."""
_FORMS: Final = {
    one[:2]: re.compile(rf"[A-Z0-9](?: ?[A-Z0-9]){{{int(one[2:]) - 1}}}(?!\w)")
    for one in _COUNTRIES.split()
}


def find_accounts(text: str) -> Iterator[tuple[int, int, str]]:
    """Return where bank accounts stand (IBAN, bare or in groups), and each without its blanks.

    Examples
    --------
    >>> list(find_accounts("to DE89 3704 0044 0532 0130 00 PLEASE"))
    [(3, 30, 'DE89370400440532013000')]
    """
    for match in _ACCOUNT.finditer(text):
        form = _FORMS.get(match[0][:2])
        whole = None if form is None else form.match(text, match.start())
        if whole is not None:
            plain = whole[0].replace(" ", "")
            if int("".join(str(int(one, 36)) for one in plain[4:] + plain[:4])) % 97 == 1:
                yield whole.start(), whole.end(), plain


def find_cards(text: str) -> Iterator[tuple[int, int, str]]:
    """Return where card numbers stand, bare or in groups, and the digits of each.

    Examples
    --------
    >>> list(find_cards("my 4111 1111 1111 1111, of 4006381333931"))
    [(3, 22, '4111111111111111')]
    """
    if _CARD_LOOK.search(text) is None:
        return
    for run in _GROUPED.finditer(text):
        if len(run[0]) < _LEAST:
            continue
        if run[0].isdigit():
            if _is_card(run[0]):
                yield run.start(), run.end(), run[0]
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
                yield some[0][0], end, "".join(group for _, group in some)
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
    if _CARD.fullmatch(digits) is None or _MOMENT.fullmatch(digits) is not None:
        return False
    luhn = digits[-2::-2].translate(_DOUBLED) + digits[-1::-2]
    return sum(map(int, luhn)) % 10 == 0
