"""Whether the five top-level packages that Python finds are ours.

Their names are plain words, and a public distribution owns one of them (``inference``).
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from connectors.errors import Poison

PACKAGES: Final = ("connectors", "ingest", "inference", "training", "deploy")


def check_names() -> None:
    """Each of the five names is imported from where this file lies.

    Raises:
        Poison: Another distribution owns a name; says which folder it is found in.
    """
    root = Path(__file__).resolve().parent.parent
    for name in PACKAGES:
        spec = find_spec(name)
        places = [] if spec is None else list(spec.submodule_search_locations or ())
        if [Path(place).resolve() for place in places] != [root / name]:
            raise Poison(
                name,
                f"Python finds this package in {places or 'no folder'}, not in {root / name}: "
                "another installed distribution owns the name; uninstall it, or give Hololine an "
                "environment of its own",
            )
