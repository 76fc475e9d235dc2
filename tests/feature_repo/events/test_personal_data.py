"""Personal data in text: what is found, what is not taken for it, and how long a text takes."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.events.personal_data import find, find_email_or_phone, may_hold, split_url

THEIRS = {
    "an e-mail address": [
        "jo@shop.example", "write to A.B+c@x.co.uk!", "jürgen@müller.de", "mailto:jo@x.de",
        "ivan@xn--e1afmkfd.xn--p1ai", "jo@shop.mov", "jo@shop.example_2", "jo@shop.example-x",
    ],
    "a phone number": [
        "+491701234567", "tel:+49 170 1234567", "+1 (555) 234-5678", "0049 170 1234567",
        "(030) 123 456", "0170/1234567", "030 1234567", "01 23 45 67 89", "06.12.34.56.78",
        "(555) 234-5678", "555-234-5678", "1-800-555-0199",
        "Tel.0170 1234567", "tel.+491701234567", "Tel.0049 170 1234567",
        "+49\u00a0170\u00a01234567", "06\u202f12\u202f34\u202f56\u202f78", "+49 170\u20111234567",
        "+49 (0) 170 123 45 67",
    ],
    "a card number": [
        "4111 1111 1111 1111", "4111-1111-1111-1111", "4111111111111111", "378282246310005",
        "3782 822463 10005", "my card 5555 5555 5555 4444 12/27", "2223003122003222",
        "2 4111 1111 1111 1111", "6011111111111117", "30569309025904",
        "4111\u00a01111\u00a01111\u00a01111",
    ],
    "a bank account": [
        "DE89 3704 0044 0532 0130 00", "GB29NWBK60161331926819", "IBAN: NO93 8601 1117 947.",
        "FR76 3000 6000 0112 3456 7890 189 PLEASE", "BE68 5390 0754 7034 BANK",
    ],
}  # fmt: skip
NOBODYS = [
    "4006381333931", "9783161484100", "ISBN 978-3-16-148410-0",  # articles
    "1,299.00", "1299.00 EUR", "10 000 000", "1 000 000 000 000", "500 300 200 100 20",  # amounts
    "1700000000123", "1700000000123456", "2026-01-31", "2026-01-31 12:30:45", "01.02.2020 10:30",
    "2024-01-15 10 30 45",  # moments
    "0012345678", "024-5567-889", "302-1234567-1234567", "0123-456789",  # orders
    "4111111111111112", "12345678901234567890", "550e8400-e29b-41d4-a716-446655440000",
    "+10000000", "+12 345 678",
    "192.168.100.200", "50.1109221,8.6821267", "v1.2.3-20240131.123456", "iphone 15 128 gb 2024",
    "logo@2x.png", "@handle", "x@y", "logo@2x.png_1",
    "30112026170016", "4123456789011", "300.400.5000", "200-300-4000", "01.02.03.04.05",
    "48.1351253,+11.5819805", "DE88370400440532013000", "AB12 3456 7890 1234",
]  # fmt: skip


@pytest.mark.parametrize(("likeness", "text"), [(k, t) for k, each in THEIRS.items() for t in each])
def test_what_is_somebodys_is_found(likeness: str, text: str) -> None:
    assert [one.likeness for one in find(text)] == [likeness]


@pytest.mark.parametrize("text", NOBODYS)
def test_codes_amounts_and_moments_are_nobodys(text: str) -> None:
    assert find(text) == []


@given(st.integers(10**11, 10**12 - 1))
def test_no_article_number_is_a_card(number: int) -> None:
    digits = str(number)
    check = -(sum(map(int, digits[::2])) + 3 * sum(map(int, digits[1::2]))) % 10
    assert find(f"{digits}{check}") == []


@given(st.integers(946_684_800, 2_208_988_800), st.sampled_from([1, 10**3, 10**6, 10**9]))
def test_no_moment_is_somebodys(second: int, unit: int) -> None:
    assert find(f"at {second * unit}") == []


def test_a_name_says_what_digits_are() -> None:
    for name in ("phone", "customerPhone", "user.tel", "mobile_number", "phone-no", "WhatsApp"):
        assert [one.likeness for one in find("01701234567", name)] == ["a phone number"], name
    for name in ("phone[]", "customer[phone]", "tel[0]", "phone1", "phones"):
        assert [one.likeness for one in find("01701234567", name)] == ["a phone number"], name
    for name in ("", "phone_model", "iphone", "hotel", "stock", "headphones", "/phone"):
        assert find("01701234567", name) == [], name
    for name in ("order_id", "orderId", "ean", "gtin", "created.ts"):
        assert find("4111111111111111", name) == [], name
        assert find("jo@shop.example", name), name
        assert find("+49 170 1234567", name), name
    for name in ("variant", "order[id]", "orderNo", "order_number", "sku", "/orders", "/p"):
        assert find("4111111111111111", name) == find("305-555-1234", name) == [], name
    for name in ("contacts", "recipients", "paid", "p"):  # no ts, no id
        assert find("4111111111111111", name), name


@pytest.mark.parametrize(
    "text",
    [
        "+491701234567,+491709999999", "0170 1234567,0171 7654321",
        "0049 170 1234567,0049 171 7654321", "555-234-5678,555-234-5679",
        "06 12 34 56 78,06 12 34 56 79",
        "DE89 3704 0044 0532 0130 00 GB29 NWBK 6016 1331 9268 19",
    ],
)  # fmt: skip
def test_of_two_both_are_found(text: str) -> None:
    assert len(find(text)) == 2


@pytest.mark.parametrize(
    "url",
    [
        "/?q=4111+1111+1111+1111", "/?q=3782+822463+10005", "/?q=06+12+34+56+78",
        "/?tel=(030)+123+4567", "/?phone=0170+123456", "/?tel=0170/1234567",
        "/?phone[]=01701234567", "/?customer%5Bphone%5D=01701234567", "/?tel=%28030%29/1234567",
        "/to/+491701234567",
    ],
)  # fmt: skip
def test_what_a_url_says_is_read_as_it_is_meant(url: str) -> None:
    assert may_hold(url)
    assert [one.end - one.start for _, plain, name in split_url(url) for one in find(plain, name)]


@pytest.mark.parametrize(
    "url",
    [
        "/orders/4111111111111111", "/?variant=39412345678900", "/gtin/30012340003093",
        "/p/30012340003093", "/phone/4006381333931", "/2026/11/30/", "/?from=2026/11/30",
        "/orders/4123456789011",
    ],
)  # fmt: skip
def test_numbers_of_things_in_a_url_are_nobodys(url: str) -> None:
    assert not [one for _, plain, name in split_url(url) for one in find(plain, name)]


def test_an_address_is_found_whole() -> None:
    for text in ("ivan@xn--e1afmkfd.xn--p1ai", "jo@a.b-c.co.uk"):
        assert find(text)[0].plain == text


def test_one_address_in_two_spellings_is_one() -> None:
    assert find("Jo@Shop.example")[0].plain == find("jo@shop.example")[0].plain
    cards = [find(text)[0].plain for text in ("4111 1111 1111 1111", "4111-1111-1111-1111")]
    assert cards == ["4111111111111111"] * 2
    phones = ["+49 170/123 45 67", "0049 170 1234567", "+49 (0)170 1234567"]
    assert [find(text)[0].plain for text in phones] == ["+491701234567"] * 3
    named = [*phones, "0049170123 4567", "00491701234567", " +491701234567"]
    assert [find(text, "phone")[0].plain for text in named] == ["+491701234567"] * 6
    american = ["1-415-555-2671", "+1 415 555 2671", "(415) 555-2671", "415.555.2671"]
    for name in ("", "phone"):
        assert [find(text, name)[0].plain for text in american] == ["+14155552671"] * 4
    for name in ("", "phone"):
        assert find("0170 1234567", name)[0].plain == "01701234567"
    accounts = ["DE89 3704 0044 0532 0130 00", "DE89370400440532013000"]
    assert [find(text)[0].plain for text in accounts] == ["DE89370400440532013000"] * 2


def test_ids_are_looked_through_for_what_no_number_is() -> None:
    assert find_email_or_phone("jo@shop.example") == "an e-mail address"
    for one in ("+491701234567", "+49\u00a0170\u00a01234567", "tel.+491701234567"):
        assert find_email_or_phone(one) == "a phone number"
    assert find_email_or_phone("ivan@xn--e1afmkfd.xn--p1ai") == "an e-mail address"
    for one in ("4111111111111111", "01701234567", "u-17", "", "jo@localhost"):
        assert find_email_or_phone(one) is None, one


@given(st.text("/?&=#;%40+abc", max_size=40))
def test_the_parts_of_a_url_are_the_url(url: str) -> None:
    assert "".join(part for part, _, _ in split_url(url)) == url


HOSTILE = [
    "a", "@", "a@", "a.", "b.", "1", "1 ", "1-", "4111 ", "4111", "0170 ", "+1", "(0", "0 1", "+1 ",
    "a@b.", "a@b.c-", "%25", "&=", "+1()", "1 () ", "12) ", "0/1 ", "(", "'", "5-", "a@b.c",
    "AB12 ", "DE89", "DE89 3704 ", "=1/2", "+1,", "0170 1234567,", "[phone]", "xn--", "a@b.xn--",
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_the_time_grows_with_the_length_alone(piece: str) -> None:
    """CPU seconds, of which 32 kB take at most some sixteen times as many as 2 kB."""

    def seconds(text: str) -> float:
        took = []
        for _ in range(3):
            begin = time.thread_time()
            for part in (text, *(plain for _, plain, _ in split_url(text))):
                find(part)
                find(part, "phone")
            took.append(time.thread_time() - begin)
        return min(took)

    short, long = (seconds(piece * (size // len(piece))) for size in (2_048, 32_768))
    assert long < max(60 * short, 0.02)
