"""SQL of the tables that rules are answered from, out of the archive and the feature views.

``users`` number the pseudonyms, in their order; ``events`` and ``lines`` hold what conditions
may ask of, ``orders`` and ``order_days`` what the explicit profile keeps of purchases,
``facts`` its figures that no passing of time changes, a row for every user. The last three
follow from ``events`` by the same SQL for all of it and for its past as of a moment.
Belongs here: statements. What runs them is `index`'s, what asks of the tables `compiler`'s.
"""

from typing import Final

from feature_repo.events.types import find_types
from feature_repo.features.catalogue import USER_VIEWS, scalars
from feature_repo.profile_views.engagement_score import load as score_terms
from feature_repo.profile_views.metrics import MIN_GAP_DAYS, PRIOR_GAP_DAYS, PRIOR_GAPS
from feature_repo.user_profile.amounts import EVENT_M, IS_STATED, LINE, milli, of_lines
from feature_repo.user_profile.compact import DAY_S
from feature_repo.user_profile.order_memory import told_again
from feature_repo.user_profile.orders import MAX_GAPS

_TEXTS: Final = (
    "source", "coupon", "query", "url", "device", "channel", "campaign_id", "placement", "currency",
)  # fmt: skip


def _thousandths(quantity: str) -> str:
    return f"round_even(1000::DOUBLE * {quantity}, 0)::BIGINT"


_SHELVES: Final = (
    "[split_part(category, '/', 1), array_to_string(string_split(category, '/')[1:2], '/')]"
)


def _fill_shelves(level: int) -> str:
    return f"""
INSERT INTO shelf_events
SELECT shelf, u, e, type, time_ms, sum(lines_m)::BIGINT, sum(quantity_m)::BIGINT,
    sum(all_lines_m)::BIGINT, sum(all_quantity_m)::BIGINT
FROM lines JOIN (
    SELECT good, shelf FROM goods JOIN shelves ON path = {_SHELVES}[{level}] WHERE level = {level}
) USING (good)
GROUP BY ALL ORDER BY shelf, type, time_ms
"""


def _select_told(events: str) -> str:
    source = (
        "(SELECT u, e, ordinal, time_ms, order_key, worth_m, num_lines, is_stated, "
        f"time_ms // {1000 * DAY_S} AS day FROM {events} WHERE type = 'purchase')"
    )
    return told_again(source, user="u", event="e", order="ordinal", day="day")


def select_retold(events: str) -> str:
    """Return the SELECT of the events that tell of an order again."""
    return f"SELECT e, before_m, takes_place FROM ({_select_told(events)}) WHERE NOT is_new"


_OF_LINES: Final = {
    f"{name}_m": (f"all_{name}_m", f"CASE WHEN takes_place THEN 0 ELSE all_{name}_m END")
    for name in ("lines", "quantity")
}
COUNTED: Final = {
    "lines": _OF_LINES,
    "shelf_events": _OF_LINES,
    "events": _OF_LINES
    | {"amount_m": ("worth_m", "worth_m - before_m"), "is_order": ("type = 'purchase'", "false")},
}
"""What a row counts for, by table and column: by itself, and where it tells of an order again."""


def _count_again(table: str) -> str:
    changes = ", ".join(f"{name} = {again}" for name, (_, again) in COUNTED[table].items())
    return f"UPDATE {table} SET {changes} FROM retold WHERE retold.e = {table}.e"


def counted_until(table: str, until: str) -> str:
    """Return the SELECT of the rows of which ``until`` holds, as ``retold`` lets them count."""
    changes = ", ".join(
        f"CASE WHEN takes_place IS NULL THEN {alone} ELSE {again} END AS {name}"
        for name, (alone, again) in COUNTED[table].items()
    )
    return (
        f"SELECT * EXCLUDE (before_m, takes_place) REPLACE ({changes}) "
        f"FROM audience.{table} LEFT JOIN retold USING (e) WHERE {until}"
    )


_ORDER_KEY: Final = "coalesce(order_id, event_id)"

LOAD: Final = f"""
CREATE TABLE users AS
SELECT (row_number() OVER (ORDER BY entity) - 1)::INTEGER AS u, entity
FROM (SELECT DISTINCT "user" AS entity FROM archive_events);

CREATE TABLE events AS
SELECT *, row_number() OVER ()::INTEGER AS ordinal, worth_m AS amount_m,
    type = 'purchase' AS is_order, all_lines_m AS lines_m, all_quantity_m AS quantity_m
FROM (
    SELECT u, e, type, epoch_ms(time) AS time_ms, anonymous, value, rating, {", ".join(_TEXTS)},
        CASE WHEN type = 'purchase' THEN {_ORDER_KEY} END AS order_key,
        coalesce(len(items), 0)::SMALLINT AS num_lines, {EVENT_M} AS worth_m,
        {IS_STATED} AS is_stated,
        coalesce({of_lines(milli(LINE))}, 0)::BIGINT AS all_lines_m,
        coalesce({of_lines(_thousandths("i.quantity"))}, 0)::BIGINT AS all_quantity_m
    FROM archive_events JOIN users ON entity = "user"
    ORDER BY type, log_ms, log_seq, event_id
);

CREATE TABLE retold AS {select_retold("events")};
{_count_again("events")};

CREATE TABLE goods AS
SELECT row_number() OVER (ORDER BY string_split(category, '/'), item_id, brand)::INTEGER AS good,
    item_id, category, brand
FROM (SELECT DISTINCT i.item_id AS item_id, i.category AS category, i.brand AS brand
    FROM archive_lines);

CREATE TABLE lines AS
SELECT u, e, type, epoch_ms(time) AS time_ms, good, i.price AS price, i.quantity AS quantity,
    {milli(LINE)} AS all_lines_m, {_thousandths("i.quantity")} AS all_quantity_m,
    all_lines_m AS lines_m, all_quantity_m AS quantity_m
FROM archive_lines JOIN users ON entity = "user"
JOIN goods ON item_id = i.item_id AND category IS NOT DISTINCT FROM i.category
    AND brand IS NOT DISTINCT FROM i.brand
ORDER BY good, type, time_ms;
{_count_again("lines")};

CREATE TABLE shelves AS
SELECT row_number() OVER (ORDER BY level, path)::INTEGER AS shelf, level, path
FROM (SELECT DISTINCT unnest([1, 2]) AS level, unnest({_SHELVES}) AS path FROM goods
    WHERE category IS NOT NULL)
WHERE level = 1 OR contains(path, '/');

CREATE TABLE shelf_events (shelf INTEGER, u INTEGER, e BIGINT, type VARCHAR, time_ms BIGINT,
    lines_m BIGINT, quantity_m BIGINT, all_lines_m BIGINT, all_quantity_m BIGINT);
{_fill_shelves(1)};
{_fill_shelves(2)};
"""
"""Reads ``archive_events`` and ``archive_lines``. ``lines`` stand by category and item, so that a
condition on either passes over all other lines unread. ``ordinal`` is the order of the fold within
one type. ``shelf_events`` have one row for each event and shelf in it; a shelf is a category of the
first or second level, with all below it. ``retold`` are the events that tell of an order again:
``amount_m`` is the difference that they make; where they take an order's place, their lines and
quantities are nothing more. As of the past, what tells again is found anew (`counted_until`)."""

TOTALS: Final = """
CREATE TABLE event_totals AS
SELECT u, type, count(*) AS num, sum(amount_m)::BIGINT AS amount_m,
    sum(lines_m)::BIGINT AS lines_m, sum(quantity_m)::BIGINT AS quantity_m,
    min(time_ms) AS first_ms, max(time_ms) AS last_ms
FROM events GROUP BY ALL ORDER BY type;

CREATE TABLE shelf_totals AS
SELECT shelf, u, type, count(*) AS num, sum(lines_m)::BIGINT AS lines_m,
    sum(quantity_m)::BIGINT AS quantity_m, min(time_ms) AS first_ms, max(time_ms) AS last_ms
FROM shelf_events GROUP BY ALL ORDER BY shelf, type;
"""
"""Each user's sums over all time, for the rules that ask of nothing else."""

ORDERS: Final = f"""
SELECT u, ordinal, time_ms // 1000 AS at_s, worth_m - before_m AS amount_m, is_new,
    CASE WHEN is_new AND time_ms // 1000 >= newest_s THEN time_ms // 1000 - newest_s END AS gap_s
FROM (
    SELECT *, max(time_ms // 1000) OVER (PARTITION BY u ORDER BY ordinal
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS newest_s
    FROM ({_select_told("events")})
)
"""
"""Purchases as the profile takes them (`feature_repo.user_profile.order_memory`): what tells of an
order again takes the place of what was told before, and an order that arrives late makes no gap."""

ORDER_DAYS: Final = f"""
SELECT u, (at_s // {DAY_S})::INTEGER AS day, sum(orders)::BIGINT AS orders,
    sum(spend_m)::BIGINT AS spend_m
FROM (
    SELECT u, at_s, is_new::INTEGER AS orders, amount_m AS spend_m FROM orders
    UNION ALL
    SELECT u, time_ms // 1000, 0, -amount_m FROM events WHERE type = 'refund'
)
GROUP BY ALL
"""

_OWN: Final = f"type NOT IN {(*sorted(find_types('passive')),)}"

FACTS: Final = f"""
SELECT seen.u AS u, num_events, first_s, seen_s, anonymous, coalesce(num_orders, 0) AS num_orders,
    coalesce(spend_m, 0) - coalesce(refund_m, 0) AS spend_m, last_order_s, median_gap_days,
    greatest({MIN_GAP_DAYS}, (gaps * coalesce(median_gap_days, 0) + {PRIOR_GAPS * PRIOR_GAP_DAYS})
        / (gaps + {PRIOR_GAPS}))::DOUBLE AS personal_gap_days
FROM (
    SELECT u, count(*) AS num_events, min(time_ms) // 1000 AS first_s,
        max(time_ms) FILTER ({_OWN}) // 1000 AS seen_s, bool_and(anonymous) AS anonymous,
        sum(amount_m) FILTER (type = 'refund') AS refund_m
    FROM events GROUP BY u
) seen
LEFT JOIN (
    SELECT u, num_orders, spend_m, last_order_s, coalesce(len(last_gaps), 0) AS gaps,
        round(list_aggregate(last_gaps, 'median') / {DAY_S}::DOUBLE, 4) AS median_gap_days
    FROM (
        SELECT u, count(*) FILTER (is_new) AS num_orders, sum(amount_m) AS spend_m,
            max(at_s) AS last_order_s,
            (list(gap_s ORDER BY ordinal DESC) FILTER (gap_s IS NOT NULL))[1:{MAX_GAPS}]
                AS last_gaps
        FROM orders GROUP BY u
    )
) bought ON bought.u = seen.u
"""

CONSENTS: Final = "SELECT * FROM statements WHERE until_ms IS NULL"
PAST_CONSENTS: Final = """
SELECT * FROM audience.statements WHERE from_ms <= $now_ms
AND (until_ms IS NULL OR until_ms > $now_ms)
"""


def select_granting(one: str, other: str, now_s: str) -> str:
    """Return the SELECT of the users who allow a purpose of two names at a moment.

    It says in SQL what `feature_repo.user_profile.purposes.allowed` says of one user.
    """
    return f"""
SELECT u FROM facts LEFT JOIN (
    SELECT u, CASE WHEN granted AND ends_s BETWEEN 1 AND {now_s} THEN NULL ELSE granted END AS said
    FROM consents WHERE purpose IN ({one}, {other})
    QUALIFY row_number() OVER (PARTITION BY u ORDER BY at_s DESC, granted) = 1
) USING (u) WHERE coalesce(said, (
    SELECT bool_or(granted) FROM audience.standing WHERE purpose IN ({one}, {other})
), false)
"""


def latest_features(view: str, until: str = "true") -> str:
    """Return the SELECT of the newest row of each user in a feature view, ``until`` a condition."""
    return f"""
SELECT u, f.* FROM feature_rows_{view} f JOIN users ON entity = f."user" WHERE {until}
QUALIFY row_number() OVER (PARTITION BY u ORDER BY event_timestamp DESC, created DESC) = 1
"""


def scores(propensities: str) -> str:
    """Return the SELECT of every score of every user.

    Parameters
    ----------
    propensities
        SELECT of the scores that a model gave: u, name, value.
    """
    terms = [
        f"coalesce({term.weight!r}::DOUBLE * ({name} / (abs({name}) + {term.half!r}::DOUBLE)), 0)"
        for name, term in score_terms().items()
    ]
    used = [
        view for view in USER_VIEWS if any(name in score_terms() for name in scalars(view))
    ] or list(USER_VIEWS[:1])
    joined = f"features_{used[0]} " + " ".join(
        f"FULL JOIN features_{view} USING (u)" for view in used[1:]
    )
    return f"""
SELECT u, 'interest' AS name, {" + ".join(terms) or "0"} AS value FROM {joined}
UNION ALL SELECT u, 'price_level', avg(place) FROM lines JOIN ({_PRICE_RANKS}) USING (good)
WHERE type = 'purchase' GROUP BY u
UNION ALL {propensities}
"""


_PRICE_RANKS: Final = """
SELECT good, percent_rank() OVER (
    PARTITION BY array_to_string(string_split(category, '/')[1:2], '/') ORDER BY price
) AS place
FROM (SELECT good, avg(price) AS price FROM lines WHERE type = 'purchase' AND price IS NOT NULL
    GROUP BY good) JOIN goods USING (good) WHERE category IS NOT NULL
"""
"""How dear an item is, 0 to 1, among those bought in its category (its first two levels)."""

NEWEST: Final = " UNION ALL ".join(
    [
        f"SELECT coalesce(epoch_ms(max(event_timestamp)), 0) FROM features_{v}"
        for v in (*USER_VIEWS, "clusters")
    ]
    + ["SELECT coalesce(max(as_of_ms), 0) FROM propensities"]
)

TOP_CATEGORIES: Final = """
SELECT category FROM (SELECT unnest(interest_categories) AS category FROM features_profile)
GROUP BY category ORDER BY count(*) DESC, category LIMIT $most
"""
