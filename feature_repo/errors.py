"""Every exception that Portrait raises on purpose, in one tree.

::

    PortraitError                      message names the value, the bound and the fix
    ├── InvalidInputError              the caller's fault: CLI exit code 2, HTTP 4xx
    │   ├── InvalidSourceError         an import file or mapping cannot be read as stated
    │   ├── InvalidRuleError           an audience's definition is wrong; ``errors`` say where
    │   ├── InvalidQuestionError       a parameter of an analysis is wrong
    │   └── InvalidSettingError        a setting is out of range or two disagree
    ├── NotFoundError                  an unknown user, item, audience, model or key
    ├── ConflictError                  what is asked for and what is there do not go together
    │   └── GateError                  a model that its gate refuses; ``findings`` say why
    ├── ModelMismatchError             a model directory does not fit code, schema or checksum
    ├── LiveStateWriteError            a plain write to a view that only the updater may write
    ├── FencedError                    a commit by an owner whose lease has passed on
    │   └── StaleRowsError             … or rows that a rebuild replaced after they were read
    ├── PointInTimeError               a point-in-time join lost or doubled rows
    ├── StoreUnavailableError          the online store or log does not answer; retry later
    ├── BusyError                      too much is asked at once; retry later
    ├── TooCostlyError                 a question took more time or space than one may
    └── ApiError                       the service answered a problem (services.client)
        └── TransientApiError          one that may pass by itself
"""

from collections.abc import Sequence


class PortraitError(Exception):
    """Base of all expected failures; ``str()`` is one line fit for a user."""


class InvalidInputError(PortraitError):
    """What the caller passed cannot be accepted; nothing was changed."""


class InvalidSourceError(InvalidInputError):
    """An import file or its mapping cannot be read as stated."""


class InvalidRuleError(InvalidInputError):
    """An audience's definition is wrong; ``errors`` have a ``pointer`` and a ``detail`` each."""

    def __init__(self, errors: Sequence[dict[str, str]]) -> None:
        first = errors[0]
        super().__init__(f"{first['pointer'] or 'the definition'}: {first['detail']}")
        self.errors = list(errors)


class InvalidQuestionError(InvalidInputError):
    """A parameter of an analysis is wrong."""

    def __init__(self, parameter: str, detail: str) -> None:
        super().__init__(f"{parameter}: {detail}")
        self.parameter = parameter
        self.detail = detail


class InvalidSettingError(InvalidInputError):
    """A setting is out of range, or two settings disagree."""


class NotFoundError(PortraitError):
    """An unknown user, item, audience, model or key."""


class ConflictError(PortraitError):
    """What is asked for and what is there do not go together."""


class GateError(ConflictError):
    """The gate refuses a model; ``findings`` are pairs of a rule's name and what it found."""

    def __init__(self, message: str, findings: Sequence[tuple[str, str]]) -> None:
        super().__init__(f"{message}: " + "; ".join(detail for _, detail in findings))
        self.findings = list(findings)


class ModelMismatchError(PortraitError):
    """A model directory does not fit this code, this feature schema or its own checksums."""


class LiveStateWriteError(PortraitError):
    """A plain write to a live-state view, which only the updater's commit may change."""


class FencedError(PortraitError):
    """A commit came from an owner whose lease has passed to another."""


class StaleRowsError(FencedError):
    """A rebuild replaced rows of the partition after the committer had read them: read again."""


class PointInTimeError(PortraitError):
    """A point-in-time join returned another number of rows than it was asked for."""


class StoreUnavailableError(PortraitError):
    """The online store or the log does not answer; the caller may retry."""


class BusyError(PortraitError):
    """More is asked at once than is let wait; the caller may retry."""


class TooCostlyError(PortraitError):
    """A question took more time, memory or disk than one question may; ask for less."""
