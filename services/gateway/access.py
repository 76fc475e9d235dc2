"""Access table of `docs/security.md`, made from the routes: who may call what.

``python -m services.gateway.access`` prints the table of that page.
"""

import sys

from services.gateway.application import create_app
from services.http.api_keys import CONTAINS, SCOPES
from services.settings import Settings


def operations() -> list[str]:
    """Return ``METHOD PATH SCOPE`` of every operation that the API describes."""
    app = create_app(Settings(redis_url="redis://127.0.0.1:1"), "redis://127.0.0.1:1", None)
    return [
        f"{method.upper()} {path} {said['x-scope']}"
        for path, methods in app.openapi()["paths"].items()
        for method, said in methods.items()
    ]


def table() -> str:
    """Return the table of the operations and the scopes that may call them."""
    lines = [f"| call | no key | {' | '.join(SCOPES)} |", "|---" * (len(SCOPES) + 2) + "|"]
    for row in operations():
        method, path, needed = row.split(" ")
        may = [needed == "open", *(needed == "open" or needed in CONTAINS[s] for s in SCOPES)]
        lines.append(f"| `{method} {path}` | {' | '.join('yes' if one else '–' for one in may)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())
