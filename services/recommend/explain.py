"""Reasons: why an item is in the list, from what the user did and what the shop sells."""

from collections.abc import Callable, Mapping

from feature_repo.profile_views.shapes import InterestKind, ProfileInterest
from services.http.answer_schemas import ReasonCode, ReasonEvidence, RecommendationReason
from services.recommend.assortment import Assortment
from services.recommend.user_context import UserContext


def reasons(
    items: Assortment, popular: Mapping[str, float], user: UserContext
) -> Callable[[str], list[RecommendationReason]]:
    """Return a function that gives the reasons for an item, the strongest first.

    It goes by the rows as they are now, in whatever thread it is called.
    """
    rows, category_of, brand_of = items.row, items.category, items.brand
    categories, brands = items.categories.of, items.brands.of
    interests = {(i["kind"], str(i["key"])): i for i in user.interests}
    purchased = set(user.purchased)

    def of(item: str) -> list[RecommendationReason]:
        found = list[RecommendationReason]()
        own = interests.get(("item", item))
        evidence = _evidence(own)
        if item in purchased or evidence.get("purchase"):
            found.append({"code": "bought_before", "evidence": evidence})
        elif own is not None:
            found.append({"code": "looked_at", "evidence": evidence})
        row = rows.get(item)
        category = "" if row is None else categories[category_of[row]]
        brand = "" if row is None else brands[brand_of[row]]
        wanted: tuple[tuple[InterestKind, ReasonCode, str], ...] = (
            ("category", "interest_category", category),
            ("category", "interest_category", category.split("/")[0]),
            ("brand", "interest_brand", brand),
        )
        for table, code, key in wanted:
            interest = interests.get((table, key)) if key else None
            if interest is not None:
                found.append({"code": code, "key": key, "evidence": _evidence(interest)})
                break
        if not found:
            found.append({"code": "popular" if item in popular else "catalogue"})
        return found

    return of


def _evidence(interest: ProfileInterest | None) -> ReasonEvidence:
    return {} if interest is None else {**interest["evidence"]}
