"""What was computed is kept under a fingerprint of all that decides it."""

from hashlib import sha256
from pathlib import Path
from typing import Final

_SOURCES: Final = ("inference", "training", "connectors/simulator", "connectors/line.py")
_SUFFIXES: Final = {".py", ".json", ".safetensors"}


def fingerprint(*words: bytes) -> str:
    """Changes with `words`, with the plant, and with the code and weights of the model."""
    digest = sha256(b"|".join(words))
    root = Path(__file__).parent.parent
    for source in _SOURCES:
        path = root / source
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.suffix in _SUFFIXES:
                digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
