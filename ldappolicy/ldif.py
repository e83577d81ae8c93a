"""LDIF (RFC 2849): bytes to records, and an entry to text.

Read are content and change records, base64, folded lines and comments (also a fold within a UTF-8
character), `version: 1`, LF and CRLF, a last line without an end. Values are str: UTF-8, with
surrogateescape for bytes that are not; spaces at their end belong to them.

More is taken than RFC 2849 allows: UTF-8 that is not in base64, a byte order mark, a last `-` left out,
and what ldapsearch(1) prints of references and results without -LLL (a reference is told as a warning, a
result that is not success is an error: entries are missing). Less too: a value by URL is refused, since a
file must not read others, and so is a control, since nobody here could carry it out; and an attribute with
a range (MS-ADTS section 3.1.1.3.1.3.3), since the rest of its values is missing. Every error is one line,
"SOURCE:LINE: what, what was expected".

What a DN or a value means is left to whoever asked; so are duplicates and parents.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

from ldappolicy.errors import InputError

CHANGE_TYPES = ("add", "delete", "modify", "modrdn", "moddn")
OPERATIONS = ("add", "delete", "replace", "increment")  # RFC 4525 has the last

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:;[A-Za-z0-9=_-]+)*")
_RANGE = re.compile(r";range=", re.IGNORECASE)
_FIRST_OF_RECORD_ONLY = frozenset(("dn", "changetype", "control", "version"))

# RFC 2849 SAFE-STRING; a space at the end "SHOULD" be in base64 too, for editors take it away.
_MIDDLE = r"\x01-\x09\x0b\x0c\x0e-\x7f"
_SAFE = re.compile(rf"(?:(?![ :<])[{_MIDDLE}](?:[{_MIDDLE}]*(?<! ))?)?")
_WIDTH = 76  # of a printed line, as ldapsearch(1) folds

Modification = tuple[str, str, tuple[str, ...]]
"""What to do (`OPERATIONS`), with which attribute, with which values."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record: an entry, or (with a `changetype`) a change of one.

    `attributes` are those of an entry and of `changetype: add`, with names as written (the first
    spelling in the record); `modifications` belong to modify, the last three to modrdn and moddn.
    """

    line: int
    dn: str
    changetype: str | None = None
    attributes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    modifications: tuple[Modification, ...] = ()
    new_rdn: str = ""
    delete_old_rdn: bool = False
    new_superior: str | None = None


@dataclass(frozen=True, slots=True)
class Reference:
    """A search reference among the records (RFC 4511 section 4.5.3): entries that are not in the file."""

    place: str
    uri: str

    def __str__(self) -> str:
        return f"{self.place}: ref: {self.text}"

    @property
    def text(self) -> str:
        """What it means, without the place."""
        return f"{self.uri!r} was not followed, the entries there are missing"


def read_records(
    data: bytes, source: str, refer: Callable[[Reference], None] = lambda reference: None
) -> Iterator[Record]:
    """All records of a file, one after the other; `source` is its name in errors.

    `refer` is called with each search reference in it.
    """
    refuse_utf_16(data, source)
    names = _Names()
    for line, block in _blocks(data):
        reader = _Reader(block, line, source, names)
        if not reader.left():
            continue
        match reader.lines[reader.at].partition(":")[0].lower():
            case "ref":
                reader.references(refer)
            case "search":
                reader.result()
            case _:
                yield reader.record()


def refuse_utf_16(data: bytes, source: str) -> None:
    """Raises InputError for what an editor or a shell of Windows has saved as "Unicode"."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:2]:
        raise InputError(f"{source}:1: UTF-16, expected UTF-8")


def _blocks(data: bytes) -> Iterator[tuple[int, bytes]]:
    """What stands between empty lines, with the number of its first line."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\r\n" in data:
        data = data.replace(b"\r\n", b"\n")
    at, line, size = 0, 1, len(data)
    while at < size:
        if data[at] == 0x0A:
            at, line = at + 1, line + 1
            continue
        end = data.find(b"\n\n", at)
        block = data[at : end if end >= 0 else size].removesuffix(b"\n")
        yield line, block
        at, line = at + len(block) + 1, line + block.count(b"\n") + 1


class _Names:
    """The attribute names of one file that have been looked at, and whether one has several spellings."""

    __slots__ = ("ambiguous", "folded", "known")

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.folded: set[str] = set()
        self.ambiguous = False

    def learn(self, name: str) -> None:
        self.known.add(name)
        self.folded.add(name.lower())
        self.ambiguous = len(self.folded) < len(self.known)


class _Reader:
    """The logical lines of one record: unfolded, without comments; `at` is the next one to be read."""

    __slots__ = ("at", "block", "line", "lines", "names", "source")

    def __init__(self, block: bytes, line: int, source: str, names: _Names) -> None:
        self.block = block
        self.line = line
        self.source = source
        self.names = names
        self.at = 0
        unfolded = block.replace(b"\n ", b"") if b"\n " in block else block
        self.lines = unfolded.decode("utf-8", "surrogateescape").split("\n")
        if block.startswith(b"#") or b"\n#" in block:
            self.lines = [text for text in self.lines if not text.startswith("#")]
        if b"\r" in block or b"\0" in block:
            raise self.error_in_block()

    def left(self) -> bool:
        """Whether a record starts here: not at the end of a block of comments or a lone version."""
        if self.at == 0 and self.lines and self.lines[0][:8].lower() == "version:":
            version = self.value(self.lines[0][8:])
            if version != "1":
                raise self.error(f"version {version!r}, expected 1")
            self.at = 1
        return self.at < len(self.lines)

    def references(self, refer: Callable[[Reference], None]) -> None:
        """What ldapsearch(1) prints of a search reference."""
        while self.at < len(self.lines):
            uri = self.named("ref")
            refer(Reference(self.place(back=1), uri))

    def result(self) -> None:
        """What ldapsearch(1) prints at the end; controls and texts may follow the code."""
        self.named("search")
        result = self.named("result")
        if result.partition(" ")[0] != "0":
            raise self.error(f"result {result!r}, expected '0 Success': entries are missing", back=1)

    def record(self) -> Record:
        line = self.number()
        name, dn = self.pair()
        if name.lower() != "dn":
            raise self.error(f"{self.lines[self.at - 1]!r}, expected 'dn:' at the start of a record", back=1)
        following = self.lines[self.at][:11].lower() if self.at < len(self.lines) else ""
        if following.startswith("control:"):
            raise self.error("a control, expected none: controls are not supported")
        if following == "changetype:":
            return self.change(line, dn)
        return Record(line, dn, None, self.attributes())

    def change(self, line: int, dn: str) -> Record:
        given = self.pair()[1]
        changetype = given.lower()
        if changetype not in CHANGE_TYPES:
            raise self.error(f"changetype {given!r}, expected one of {', '.join(CHANGE_TYPES)}", back=1)
        if changetype == "add":
            return Record(line, dn, changetype, self.attributes())
        if changetype == "modify":
            return Record(line, dn, changetype, modifications=tuple(self.modifications()))
        if changetype == "delete":
            self.end()
            return Record(line, dn, changetype)
        return self.rename(line, dn, changetype)

    def attributes(self) -> dict[str, tuple[str, ...]]:
        """The rest of the record as an entry's attributes. The loop that a million entries go through."""
        found: dict[str, list[str]] = {}
        names, lines = self.names, self.lines
        if self.at == len(lines):
            raise self.error("no attributes, expected at least one", back=1)
        for text in lines[self.at :]:
            name, separator, value = text.partition(": ")
            if separator and name in names.known:
                value = value.lstrip(" ")
            else:  # a new name, base64, no space, or an error
                name, colon, value = text.partition(":")
                self.check_name(name, colon)
                value = self.value(value)
            if name in found:
                found[name].append(value)
            else:
                found[name] = [value]
            self.at += 1
        if names.ambiguous:
            found = _joined(found)
        return {name: tuple(values) for name, values in found.items()}

    def modifications(self) -> Iterator[Modification]:
        while self.at < len(self.lines):
            operation, attr = self.pair()
            if operation.lower() not in OPERATIONS:
                raise self.error(f"{operation!r}, expected one of {', '.join(OPERATIONS)}", back=1)
            self.check_form(attr, back=1)
            values = []
            while self.at < len(self.lines) and self.lines[self.at].rstrip(" ") != "-":
                name, value = self.pair()
                if name.lower() != attr.lower():
                    raise self.error(f"{name!r}, expected {attr!r} or '-'", back=1)
                values.append(value)
            self.at += 1
            yield operation.lower(), attr, tuple(values)

    def rename(self, line: int, dn: str, changetype: str) -> Record:
        new_rdn = self.named("newrdn")
        delete = self.named("deleteoldrdn")
        if delete not in ("0", "1"):
            raise self.error(f"deleteoldrdn {delete!r}, expected 0 or 1", back=1)
        superior = self.named("newsuperior") if self.at < len(self.lines) else None
        self.end()
        return Record(
            line, dn, changetype, new_rdn=new_rdn, delete_old_rdn=delete == "1", new_superior=superior
        )

    def named(self, expected: str) -> str:
        if self.at == len(self.lines):
            raise self.error(f"the end of the record, expected '{expected}:'", back=1)
        name, value = self.pair()
        if name.lower() != expected:
            raise self.error(f"{name!r}, expected '{expected}:'", back=1)
        return value

    def end(self) -> None:
        if self.at < len(self.lines):
            raise self.error(f"{self.lines[self.at]!r}, expected the end of the record")

    def pair(self) -> tuple[str, str]:
        """One line as name and value."""
        name, colon, rest = self.lines[self.at].partition(":")
        if not colon:
            raise self.error(f"{self.lines[self.at]!r}, expected 'attribute: value'")
        value = self.value(rest)
        self.at += 1
        return name, value

    def value(self, rest: str) -> str:
        """What stands behind an attribute's colon."""
        if rest.startswith("<"):
            raise self.error(f"a value by URL {rest[1:].strip()!r}, expected it in the file")
        if not rest.startswith(":"):
            return rest.lstrip(" ")
        text = rest[1:].strip(" ")
        try:
            return base64.b64decode(text, validate=True).decode("utf-8", "surrogateescape")
        except (binascii.Error, ValueError):  # ValueError: characters that are not ASCII
            raise self.error(f"{text!r}, expected base64") from None

    def check_name(self, name: str, colon: str) -> None:
        if not colon:
            raise self.error(f"{name!r}, expected 'attribute: value'")
        if name in self.names.known:
            return
        if name.lower() in _FIRST_OF_RECORD_ONLY:
            raise self.error(f"'{name}:' within a record, expected it only at the start of one")
        self.check_form(name)
        self.names.learn(name)

    def check_form(self, name: str, back: int = 0) -> None:
        """Raises InputError for what is no attribute, or a part of one."""
        if not _NAME.fullmatch(name):
            raise self.error(f"{name!r}, expected an attribute", back)
        if _RANGE.search(name):
            raise self.error(f"{name!r}, expected all values: a range is a part of them", back)

    def number(self) -> int:
        """The number in the file of the line at `at`."""
        return self.line if self.at == 0 and not self.block.startswith(b"#") else self.numbers()[self.at]

    def numbers(self) -> list[int]:
        """The number of each logical line, and of the last line for what is missing behind it."""
        raw = self.block.split(b"\n")
        starts = [i for i, text in enumerate(raw) if i == 0 or not text.startswith(b" ")]
        return [self.line + i for i in starts if not raw[i].startswith(b"#")] or [self.line]

    def error(self, what: str, back: int = 0) -> InputError:
        """An error in the line at `at`, or (`back` 1) in the one before it, which was just read."""
        return InputError(f"{self.place(back)}: {what}")

    def place(self, back: int) -> str:
        """The file and the number of the line at `at`, or of one before it."""
        numbers = self.numbers()
        return f"{self.source}:{numbers[min(self.at - back, len(numbers) - 1)]}"

    def error_in_block(self) -> InputError:
        at = next(i for i, text in enumerate(self.block.split(b"\n")) if b"\r" in text or b"\0" in text)
        what = "a carriage return or NUL within a line, expected it in base64"
        return InputError(f"{self.source}:{self.line + at}: {what}")


def _joined(found: dict[str, list[str]]) -> dict[str, list[str]]:
    """`mail` and `Mail` are one attribute, under its first spelling."""
    spelling: dict[str, str] = {}
    joined: dict[str, list[str]] = {}
    for name, values in found.items():
        joined.setdefault(spelling.setdefault(name.lower(), name), []).extend(values)
    return joined


class Printable(Protocol):
    """What `format_entry` needs to know of an entry (`entry.Entry` has it)."""

    @property
    def dn(self) -> str:
        """The DN as spelled."""
        ...

    def items(self) -> Iterable[tuple[str, Iterable[str]]]:
        """Attributes with their values."""
        ...


def format_entry(entry: Printable) -> str:
    """An entry as a content record; between two records belongs an empty line."""
    return format_record(entry.dn, entry.items())


def format_record(dn: str, attributes: Iterable[tuple[str, Iterable[str]]]) -> str:
    """A content record from its parts, with base64 where RFC 2849 demands it."""
    lines = [_line("dn", dn)]
    lines += [_line(name, value) for name, values in attributes for value in values]
    return "".join(lines)


def _line(name: str, value: str) -> str:
    if _SAFE.fullmatch(value):
        text = f"{name}: {value}" if value else f"{name}:"
    else:
        octets = value.encode("utf-8", "surrogateescape")
        text = f"{name}:: {base64.b64encode(octets).decode('ascii')}"
    # A continuation line starts with a space, which counts.
    cuts = [0, *range(_WIDTH, len(text), _WIDTH - 1), len(text)]
    return "\n ".join(text[start:end] for start, end in pairwise(cuts)) + "\n"
