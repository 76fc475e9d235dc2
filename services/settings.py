"""Settings: read once from the environment, handed down as one frozen object.

``python -m services.settings > docs/settings.md`` prints the page of them.
"""

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, StringConstraints, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from feature_repo.events import placeholder_ids
from feature_repo.events.minimisation import FieldPolicy, IdTreatment, Treatment, parse_fields
from feature_repo.user_profile.purposes import DEFAULTS, Purpose


class Settings(BaseSettings):
    """Everything that can be set from outside, as ``PORTRAIT_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="PORTRAIT_", frozen=True, extra="ignore")

    home: Path = Field(
        default=Path(".portrait"), description="State folder: archive, models, store"
    )
    redis_url: str | None = Field(
        default=None,
        description="redis://, rediss:// or unix:// URL; absent: an embedded server below home",
    )
    api_key: SecretStr | None = Field(default=None, description="An admin key for the HTTP API")
    host: str = Field(default="127.0.0.1", description="Address that the service listens on")
    port: int = Field(default=8080, ge=1, le=65535, description="Port of the HTTP API")
    partitions: int = Field(
        default=16, ge=1, le=1000, description="Log partitions; fixed once data exists"
    )
    gateways: int = Field(default=1, ge=1, description="Gateway replicas")
    updaters: int = Field(default=1, ge=1, description="Updater replicas")
    durability: Literal["everysec", "always"] = Field(
        default="everysec", description="fsync policy of the embedded server"
    )
    store_memory_mb: int = Field(
        default=0,
        ge=0,
        description="Memory that the embedded server may use, MB, at its next start; it removes "
        "nothing by itself. 0: half of the machine's, or of the container's",
    )
    wait_replicas: int = Field(
        default=0, ge=0, description="Replicas that must hold an event before it is acknowledged"
    )
    lag_limit: int = Field(
        default=100_000,
        ge=1_000,
        description="Entries that a partition's log may hold before new events are put off (503)",
    )
    body_timeout_s: float = Field(
        default=10.0,
        gt=0,
        description="Longest time in which a request's body must arrive, seconds",
    )
    store_bound_s: float = Field(
        default=0.9,
        gt=0,
        le=30,
        description="Longest wait of a request for the store before it is answered 503, seconds; "
        "raise it, and ?socket_timeout=SECONDS in the URL, for a store behind a slow link",
    )
    rate_limit_per_min: int = Field(
        default=0, ge=0, description="Requests a minute that an API key may make; 0: no limit"
    )
    wrong_keys_per_min: int = Field(
        default=30,
        ge=0,
        description="Wrong API keys that an address may send a minute before it is answered 429; "
        "0: no limit",
    )
    audit_days: int = Field(
        default=400, ge=1, description="Days for which uses of API keys are kept"
    )
    audit_serving: bool = Field(
        default=True,
        description="Whether recommendations, ranks and decisions about a user are audited too",
    )
    nobody_ids: str = Field(
        default="",
        description="Comma-separated ids that are nobody's, besides those in docs/data.md",
    )
    write_keys_link: bool = Field(
        default=True,
        description="Whether keys of scope write may link a user id with an anonymous id",
    )
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] | None = Field(
        default=None,
        description="The shop's currency (ISO 4217); absent: the first that an event names",
    )
    exchange_rates: dict[
        Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")],
        Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)],
    ] = Field(
        default_factory=dict,
        description='JSON: what one unit of a currency is worth in the shop\'s, {"USD": 0.92}; '
        "amounts in any other are set aside",
    )
    consent_defaults: dict[Purpose, bool] = Field(
        default_factory=dict,
        description='JSON: what stands of a purpose when nobody was asked, {"profiling": false}; '
        "without: analytics, personalization and profiling are granted, marketing and ads are not",
    )
    replay_clock: bool = Field(default=False, description="Take each event's time as now")
    model: Path | None = Field(
        default=None,
        description="Model directory that is served whatever is promoted; absent: production",
    )
    model_rollback_days: int = Field(
        default=7,
        ge=0,
        le=365,
        description="Days for which the state that the previous model made of a user is kept, "
        "so that a rollback answers as before; 0: not at all",
    )
    reencode_per_s: int = Field(
        default=50,
        ge=0,
        le=100_000,
        description="Rows a second that each updater encodes anew after production has changed; "
        "0: none, `portrait rebuild` does it",
    )
    kept_rows_mb: int = Field(
        default=64,
        ge=0,
        description="Memory in which an updater keeps rows of active users decoded, MB; 0: none",
    )
    archive_every_s: float = Field(
        default=10.0, gt=0, description="How often the log is copied to the archive, seconds"
    )
    drop_fields: str = Field(
        default="",
        description="Comma-separated fields of events that are not kept: url, query, "
        "properties.NAME, properties.*; see docs/privacy.md",
    )
    hash_fields: str = Field(
        default="",
        description="Comma-separated fields of events that are kept hashed, so that equal values "
        "stay equal; names as for PORTRAIT_DROP_FIELDS",
    )
    personal_data: Treatment = Field(
        default="hash",
        description="What becomes of e-mail addresses, phone, card and account numbers in url, "
        "query and properties of events: off (kept), reject (422) or hash",
    )
    personal_ids: IdTreatment = Field(
        default="allow",
        description="Whether ids may be e-mail addresses or phone numbers: allow, or reject (422)",
    )
    retention_days: int = Field(
        default=400,
        ge=30,
        description="Days for which `portrait privacy sweep` keeps raw events; profiles keep their "
        "counts, and cannot be rebuilt once events of theirs are gone",
    )
    session_days: int = Field(
        default=0,
        ge=0,
        description="Days for which it keeps the `session_id` of raw events; 0: as long as them",
    )
    reject_days: int = Field(
        default=0,
        ge=0,
        description="Days for which it keeps the rejects of imports; 0: as long as raw events",
    )
    decision_days: int = Field(
        default=400,
        ge=1,
        description="Days for which a campaign's decisions are kept after the end of its window",
    )
    idle_profile_days: int = Field(
        default=0,
        ge=0,
        description="Days without an event after which it removes a user's profile from the store, "
        "at least PORTRAIT_RETENTION_DAYS; 0: never",
    )
    anonymous_days: int = Field(
        default=400,
        ge=0,
        description="Days without an event after which it removes an anonymous id that is nobody's "
        "from the store, at least PORTRAIT_RETENTION_DAYS; 0: never",
    )
    rules: Path | None = Field(
        default=None, description="YAML file of rules by placement; see docs/recommendations.md"
    )
    impressions: bool = Field(
        default=False,
        description="Log every answer's items as view_item_list, not only those with a placement",
    )
    global_holdout: float = Field(
        default=0.0, ge=0, le=0.9, description="Share of users whom no campaign reaches"
    )
    wait_ms: int = Field(
        default=5000, ge=0, description="Longest wait for after= and return=profile, milliseconds"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe log line that is written"
    )
    log_to_stderr: bool = Field(
        default=False,
        description="Print log lines on stderr too, beside the files in home/run/logs",
    )
    connections_per_source: int = Field(
        default=1000,
        ge=0,
        description="Connections that one address may hold open at once; 0: no limit, "
        "for clients behind one load balancer",
    )

    @field_validator("drop_fields", "hash_fields")
    @classmethod
    def _check_fields(cls, listed: str, info: ValidationInfo) -> str:
        both = parse_fields(listed) & parse_fields(info.data.get("drop_fields") or "")
        if info.field_name == "hash_fields" and both:
            raise ValueError(f"{min(both)!r} is in PORTRAIT_DROP_FIELDS too: name it in one")
        return listed

    @cached_property
    def field_policy(self) -> FieldPolicy:
        """What is done to which fields of events before they are kept."""
        return FieldPolicy(
            parse_fields(self.drop_fields), parse_fields(self.hash_fields),
            self.personal_data, self.personal_ids,
        )  # fmt: skip

    @cached_property
    def standing(self) -> Mapping[str, bool]:
        """What stands of each purpose when nobody was asked."""
        return dict(DEFAULTS) | {str(name): yes for name, yes in self.consent_defaults.items()}

    @property
    def keep_states_s(self) -> int:
        """For how many seconds states of the previous model are kept."""
        return self.model_rollback_days * 86_400

    def export(self, redis_url: str) -> dict[str, str]:
        """Set and return the variables that ``feature_store.yaml`` and Feast's CLI read.

        Parameters
        ----------
        redis_url
            URL of the running store (the setting's, or the embedded server's).
        """
        variables = {
            "PORTRAIT_HOME": str(self.home.resolve()),
            "PORTRAIT_REDIS_URL": redis_url,
        }
        os.environ.update(variables)
        os.environ[placeholder_ids.SETTING] = self.nobody_ids
        return variables


def tighten(home: Path) -> None:
    """Close a state folder of a time when others could read it; one that is none stays as it is."""
    if (home / "tenant.json").exists() and home.stat().st_mode & 0o077:
        with suppress(PermissionError):  # somebody else's: they decide
            home.chmod(home.stat().st_mode & 0o7700)


def page(settings: type[Settings] = Settings) -> str:
    """Return ``docs/settings.md``."""
    lines = [
        "# Settings",
        "",
        "Printed by `python -m services.settings > docs/settings.md`; edit `services/settings.py`, "
        "not this page.",
        "Settings come from the environment; the options of `portrait serve` override them.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    for name, field in settings.model_fields.items():
        default = field.get_default(call_default_factory=True, validated_data={})
        shown = "–" if default in (None, "") else f"`{default}`"
        lines.append(f"| `PORTRAIT_{name.upper()}` | {shown} | {field.description} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
