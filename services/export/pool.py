"""The threads in which exports read and write, and how many exports go on at once.

An export does one piece of work after the other, so as many pieces wait as there are exports: once
one has begun, it is never refused.
"""

from typing import Final

from services.runtime.workers import Workers

MOST_AT_ONCE: Final = 8
"""Exports of one gateway at once; one more is answered 503."""
EXPORTING: Final = Workers("exports", 2, MOST_AT_ONCE, bound_s=30.0)
