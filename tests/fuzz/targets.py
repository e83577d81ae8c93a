"""All targets by their names, and what is kept for each: seeds, and words that mean something to it."""

from pathlib import Path

from tests.fuzz import deciding, policies, texts, wire

_ALL = (*wire.TARGETS, *texts.TARGETS, *policies.TARGETS, *deciding.TARGETS)
TARGETS = {target.name: target for target in _ALL}

CORPUS = Path(__file__).parent / "corpus"
WORDS = Path(__file__).parent / "words"


def seeds(name: str) -> dict[str, bytes]:
    """The kept inputs of a target by the names of their files, the empty one too."""
    files = sorted(path for path in (CORPUS / name).iterdir() if path.is_file())
    return {"": b"", **{path.name: path.read_bytes() for path in files}}


def words(name: str) -> list[bytes]:
    """One a line, as Python writes bytes."""
    lines = (WORDS / name).read_text("ascii").splitlines()
    return [line.encode().decode("unicode_escape").encode("latin-1") for line in lines]
