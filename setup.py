"""Compiles the explicit profile's fold: `python setup.py build_ext --inplace`, as `make` does.

Everything else about the package stands in pyproject.toml. Installing it compiles nothing, so
that it needs neither mypyc nor a C compiler: the same modules run as Python, only slower.
"""

import sys
from pathlib import Path

from setuptools import Extension, setup

ROOM = "feature_repo/user_profile"


def extensions() -> list[Extension]:
    """Return the modules named in compiled.txt as one shared library, translated to C."""
    if "build_ext" not in sys.argv:
        return []
    from mypyc.build import mypycify

    names = (Path(__file__).parent / ROOM / "compiled.txt").read_text().split()
    return mypycify(
        [f"{ROOM}/{name}.py" for name in names],
        group_name="feature_repo.user_profile.fold",
        opt_level="3",
        debug_level="0",
    )


setup(ext_modules=extensions())
