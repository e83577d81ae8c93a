"""main.cf and master.cf: lines, expansion, defaults, services, compared with postconf(1) where that is."""

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ldappolicy.errors import InputError
from ldappolicy.main_cf import DEFAULTS, HOST_KNOWS, MainCf, read_main_cf, read_master_cf
from ldappolicy.oracle.programs import program, run

# mail_name and the like are known to postconf(1) and hold any text; it shows runs of spaces as one.
TEXTS: Mapping[str, tuple[str, str, str]] = {
    "plain": ("mail_name = a b\n", "mail_name", "a b"),
    "no space around the equals sign": ("mail_name=x=y\n", "mail_name", "x=y"),
    "empty": ("mail_name =\n", "mail_name", ""),
    "continued": ("mail_name = a,\n  b,\n\tc\n", "mail_name", "a, b, c"),
    "comment between continuation lines": ("mail_name = a\n# no\n  # no\n\n  b\n", "mail_name", "a b"),
    "blank line does not end a line": ("mail_name = a\n\n b\nmail_owner = c\n", "mail_name", "a b"),
    "hash sign within a line": ("mail_name = a # b\n", "mail_name", "a # b"),
    "value on the next line": ("mail_name =\n    a\n    b\n", "mail_name", "a b"),
    "last one wins": ("mail_name = a\nmail_name = b\n", "mail_name", "b"),
    "no newline at the end": ("mail_name = a", "mail_name", "a"),
    "carriage returns": ("mail_name = a\r\nmail_owner = b\r\n", "mail_name", "a"),
    "continuation of nothing": ("  x\nmail_name = a\n", "mail_name", "a"),
    "$name": ("mail_owner = x\nmail_name = $mail_owner-y\n", "mail_name", "x-y"),
    "${name}": ("mail_owner = x\nmail_name = ${mail_owner}y\n", "mail_name", "xy"),
    "$(name)": ("mail_owner = x\nmail_name = $(mail_owner)y\n", "mail_name", "xy"),
    "space within braces": ("mail_owner = x\nmail_name = ${ mail_owner }\n", "mail_name", "x"),
    "undefined": ("mail_name = a${nobody_has_it}b\n", "mail_name", "ab"),
    "$$": ("mail_name = a$$mail_owner\n", "mail_name", "a$mail_owner"),
    "nested": (
        "a1 = $b1\nb1 = c$mail_owner\nmail_owner = d\nmail_name = $a1\n",
        "mail_name",
        "cd",
    ),
    "defined later": ("mail_name = $a1\na1 = x\n", "mail_name", "x"),
    "?": ("mail_owner = x\nmail_name = ${mail_owner?yes $mail_owner}\n", "mail_name", "yes x"),
    "? of the empty": ("a1 =\nmail_name = a${a1?yes}b\n", "mail_name", "ab"),
    ":": ("a1 =\nmail_name = ${a1:none {x}}\n", "mail_name", "none {x}"),
    ": of a value": ("a1 = b\nmail_name = x${a1:none}y\n", "mail_name", "xy"),
    "?:": ("a1 = b\nmail_name = ${a1?{t$a1}:{f}}\n", "mail_name", "tb"),
    "?: of the empty": ("mail_name = ${a1?{t} : {f }}g\n", "mail_name", "f g"),
    "the old form holds any text": ("a1 = b\nmail_name = ${a1?:foo:{b}ar}\n", "mail_name", ":foo:{b}ar"),
    "==": ("a1 = b\nmail_name = ${{$a1} == {b} ? {same} : {other}}\n", "mail_name", "same"),
    "!=": ("a1 = b\nmail_name = ${{$a1} != {b} ? {other} : {same}}\n", "mail_name", "same"),
    "numbers": ("mail_name = ${{9} < {10} ? {less} : {more}}\n", "mail_name", "less"),
    "strings": ("mail_name = ${{x9} < {x10} ? {less} : {more}}\n", "mail_name", "more"),
    ">= and alone": ("mail_name = a${{1} >= {2}}b${{1} <= {2}}\n", "mail_name", "abtrue"),
    "levels": (
        "compatibility_level = 3.10\nmail_name = ${{$compatibility_level} <level {3.9} ? {old} : {new}}\n",
        "mail_name",
        "new",
    ),
    "default by level": (
        "compatibility_level = 2\n",
        "smtpd_relay_restrictions",
        "permit_mynetworks, permit_sasl_authenticated, defer_unauth_destination",
    ),
    "default before levels": ("compatibility_level = 0\n", "smtpd_relay_restrictions", ""),
    "mydomain": ("myhostname = mx.my.domain\n", "mydomain", "my.domain"),
    "mydomain of a name without dots": ("myhostname = mx\n", "mydomain", "localdomain"),
    "myhostname on mydomain": ("mydomain = b.c\nmyhostname = a.$mydomain\n", "myhostname", "a.b.c"),
    "mydestination": ("myhostname = mx.a.b\n", "mydestination", "mx.a.b, localhost.a.b, localhost"),
    "myorigin": ("myhostname = mx.a.b\nmyorigin = $mydomain\n", "myorigin", "a.b"),
    "relay_domains": (
        "myhostname = mx.a.b\ncompatibility_level = 0\n",
        "relay_domains",
        "mx.a.b, localhost.a.b, localhost",
    ),
    "virtual domains of maps": ("virtual_alias_maps = hash:/x\n", "virtual_alias_domains", "hash:/x"),
}
every_text = pytest.mark.parametrize(("text", "name", "value"), TEXTS.values(), ids=TEXTS)


def main_cf(folder: Path, text: str | bytes) -> MainCf:
    """A main.cf of that text."""
    path = folder / "main.cf"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_main_cf(path)


def postconf(*arguments: str | Path) -> str:
    """What Postfix's own postconf(1) says."""
    if shutil.which(program("postconf")) is None:
        pytest.skip("postconf is not installed: apt-get install postfix")
    return run(program("postconf"), *arguments)


def cool_down(path: Path) -> None:
    """Postfix waits until a file that it reads is two seconds old."""
    os.utime(path, (0, 0))


@every_text
def test_value(tmp_path: Path, text: str, name: str, value: str) -> None:
    """A value is read and expanded as postconf(5) says."""
    assert value == " ".join(main_cf(tmp_path, text).get(name).split())


@pytest.mark.servers
@every_text
def test_as_postconf(tmp_path: Path, text: str, name: str, value: str) -> None:
    """Postfix's own postconf(1) says the same."""
    (tmp_path / "main.cf").write_text(text, newline="")
    cool_down(tmp_path / "main.cf")
    assert value == " ".join(postconf("-c", tmp_path, "-x", "-h", name).split())


@pytest.mark.servers
def test_defaults_are_postfix_s() -> None:
    """The defaults in the table are those that are compiled into Postfix."""
    native = dict(line.split(" =", 1) for line in postconf("-d", *DEFAULTS).splitlines())
    # Spaces in conditions are free; what Postfix prints has other ones.
    expected = {name: value.replace(" ", "") for name, value in native.items()}
    assert expected == {name: DEFAULTS[name].replace(" ", "") for name in native}
    assert set(DEFAULTS) == set(native)


BAD: Mapping[str, tuple[str, str]] = {
    "no equals sign": ("a = b\n\nfoo bar\n", "main.cf:3: 'foo bar' has no '=' after its name, expected"),
    "two words before it": ("foo bar = baz\n", "main.cf:1: 'foo bar = baz' has no '=' after its name"),
    "no name": ("= b\n", "main.cf:1: '= b' has no name before its '='"),
}


@pytest.mark.parametrize(("text", "said"), BAD.values(), ids=BAD)
def test_bad_line(tmp_path: Path, text: str, said: str) -> None:
    """A line that Postfix ends at is one line of complaint, with file and line."""
    with pytest.raises(InputError) as caught:
        main_cf(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path}/{said}")
    assert "\n" not in str(caught.value)


BAD_VALUES = {
    "itself": "$x",
    "itself behind a name": "a $y",
    "no name": "a$",
    "no name in braces": "${}",
    "no end": "${y",
    "no round end": "$(y",
    "no name of a parameter": "${a-b}",
    "function": "${f{x}}",
    "operator": "${{a} =~ {b} ? {c}}",
    "one side": "${{a} == }",
    "unbalanced side": "${{a ? {c}}",
    "level": "${{a} <level {b} ? {c}}",
    "suffix": "${{1} <size {2} ? {c}}",
    "behind a comparison": "${{a} == {b} c}",
    "garbage behind ?{}": "${n?{a}b}",
    "garbage behind :{}": "${n:{a}b}",
    "too much": "$a $b $c",
}


@pytest.mark.parametrize("value", BAD_VALUES.values(), ids=BAD_VALUES)
def test_bad_value(tmp_path: Path, value: str) -> None:
    """A value that cannot be expanded is complained of when it is asked for, and not before."""
    doubling = "".join(
        f"{name} = ${following}${following}\n" for name, following in pairwise("abcdefghijklmnopqrs")
    )
    read = main_cf(
        tmp_path, f"other = fine\nx = {value}\ny = $x\n{doubling if value == '$a $b $c' else 'n = 1'}\n"
    )
    assert "fine" == read.get("other")
    with pytest.raises(InputError) as caught:
        read.get("x")
    assert str(caught.value).startswith(f"{tmp_path}/main.cf:2: x: ")
    assert "\n" not in str(caught.value)


def test_where_and_is_set(tmp_path: Path) -> None:
    """A parameter knows the line where its last definition begins."""
    read = main_cf(tmp_path, "a = 1\n\nb =\n  2\na = 3\n")
    path = tmp_path / "main.cf"
    assert (True, True, False) == (read.is_set("a"), read.is_set("b"), read.is_set("myorigin"))
    assert (f"{path}:5", f"{path}:3", str(path)) == (read.where("a"), read.where("b"), read.where("myorigin"))
    assert (f"{path}:5: a is set again, {path}:1 does not count",) == read.warnings


def test_continuation_of_nothing_is_warned_of(tmp_path: Path) -> None:
    """White space before the first line continues nothing."""
    assert (f"{tmp_path}/main.cf:1: 'x' continues no line, it is ignored",) == main_cf(
        tmp_path, " x\n"
    ).warnings


LACKING = [
    ("", "myhostname", ("myhostname",)),
    ("", "mydomain", ("mydomain",)),
    ("", "myorigin", ("myhostname",)),
    ("", "mydestination", ("mydomain", "myhostname")),
    ("", "mynetworks", ("mynetworks",)),
    ("mydestination = localhost\n", "mydestination", ()),
    ("myhostname = a.b\n", "mydestination", ()),
    ("mydomain = b\n", "mydestination", ("myhostname",)),
    ("x = ${myhostname?{a}:{b}}\n", "x", ("myhostname",)),
    ("", "recipient_delimiter", ()),
    # It may be one of the hundreds that Postfix has a default for.
    ("", "nobody_has_it", ("nobody_has_it",)),
    ("x = ${mail_version?reject}, permit\n", "x", ("mail_version",)),
]


@pytest.mark.parametrize(("text", "name", "lacking"), LACKING)
def test_lacking(tmp_path: Path, text: str, name: str, lacking: tuple[str, ...]) -> None:
    """What only the host knows is empty, and is named."""
    assert lacking == main_cf(tmp_path, text).lacking(name)


def test_config_directory(tmp_path: Path) -> None:
    """$config_directory is the folder of the file, also one with a dollar sign in its name."""
    folder = tmp_path / "a$b"
    folder.mkdir()
    assert f"hash:{folder}/x" == main_cf(folder, "t = hash:$config_directory/x\n").get("t")


def test_not_utf8(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 stay what they are."""
    assert b"\xe9".decode("utf-8", "surrogateescape") == main_cf(tmp_path, b"# caf\xe9\na = \xe9\n").get("a")


@pytest.mark.parametrize("name", ["", "nobody", "nobody/main.cf", "a\0b"])
def test_unreadable(tmp_path: Path, name: str) -> None:
    """A file that cannot be read is one line."""
    with pytest.raises(InputError, match=r"\A[^\n]*: cannot be read: [^\n]*\Z"):
        read_main_cf(tmp_path / name)


PIECES = st.sampled_from(
    [
        "a",
        "b",
        "=",
        " = ",
        "$",
        "${",
        "$(",
        "}",
        ")",
        "{",
        "?",
        ":",
        "==",
        "<",
        "level",
        "\n",
        "\n ",
        "#",
        " ",
        "1",
        "\0",
        "é",
    ]
)


@given(st.lists(PIECES, max_size=30).map("".join) | st.text(max_size=60))
@example("a = $a")
@example("myhostname = $mydomain\na = $myhostname")
@example("a = ${{${{" * 300)
@example("a = " + "${a?{" * 2000)
def test_any_text(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Any text is parameters or a complaint, never anything else."""
    folder = tmp_path_factory.mktemp("any")
    with suppress(InputError):
        read = main_cf(folder, text.encode("utf-8", "surrogatepass"))
        for name in {*read.definitions, *DEFAULTS, *HOST_KNOWS}:
            read.get(name)


# --- master.cf ------------------------------------------------------------------------------------

MASTER = """\
# service type  private unpriv  chroot  wakeup  maxproc command + args
smtp      inet  n       -       y       -       -       smtpd
submission inet n       -       y       -       -       smtpd -v
  -o syslog_name=postfix/submission
  # a comment

  -o smtpd_sasl_auth_enable=yes -o { smtpd_recipient_restrictions =
    permit_sasl_authenticated, reject }
  -o smtpd_client_restrictions=
127.0.0.1:10025 inet n  -       n       -       -       smtpd -osmtpd_tls=no -n x -o a=b=c
maildrop  unix  -       n       n       -       -       pipe
  flags=DRXhu user=vmail argv=/usr/bin/maildrop -d ${recipient} -o x=y
"""


def test_master_cf(tmp_path: Path) -> None:
    """Services with their overrides, in order; what is an argument of a program is none."""
    path = tmp_path / "master.cf"
    path.write_text(MASTER)
    services = read_master_cf(path)
    assert [
        ("smtp", "inet", "smtpd", {}, 2),
        (
            "submission",
            "inet",
            "smtpd",
            {
                "syslog_name": "postfix/submission",
                "smtpd_sasl_auth_enable": "yes",
                "smtpd_recipient_restrictions": "permit_sasl_authenticated, reject",
                "smtpd_client_restrictions": "",
            },
            3,
        ),
        ("127.0.0.1:10025", "inet", "smtpd", {"smtpd_tls": "no", "a": "b=c"}, 10),
        ("maildrop", "unix", "pipe", {}, 11),
    ] == [(one.name, one.kind, one.command, one.overrides, one.line) for one in services]


@pytest.mark.servers
def test_master_cf_as_postconf(tmp_path: Path) -> None:
    """postconf -P prints the same overrides."""
    (tmp_path / "main.cf").write_text("compatibility_level = 3.6\n")
    (tmp_path / "master.cf").write_text(MASTER)
    cool_down(tmp_path / "main.cf")
    said = postconf("-c", tmp_path, "-P")
    ours = {
        f"{service.name}/{service.kind}/{name} = {value}".rstrip()
        for service in read_master_cf(tmp_path / "master.cf")
        for name, value in service.overrides.items()
    }
    # postconf takes `-osmtpd_tls=no` for an option without a value.
    assert {" ".join(line.split()) for line in said.splitlines()} <= ours | {
        line for line in said.splitlines() if "smtpd_tls" in line
    }
    assert len(said.splitlines()) >= len(ours) - 1


BAD_MASTER: Mapping[str, tuple[str, str]] = {
    "few fields": ("smtp inet n\n", "1: 'smtp inet n' has 3 fields, expected at least 8"),
    "type": ("\nsmtp tcp n - n - - smtpd\n", "2: service type 'tcp', expected fifo, inet"),
    "no brace": ("smtp inet n - n - - smtpd -o { a = b\n", "1: '{ a = b' has a '{' without '}'"),
    "behind the brace": ("smtp inet n - n - - smtpd -o {a=b}c\n", "1: '{a=b}c' has text behind its '}'"),
    "no equals sign": ("smtp inet n - n - - smtpd -o a\n", "1: 'a' has no '=' after its name"),
    "no value": ("smtp inet n - n - - smtpd -o\n", "1: '' has no '=' after its name"),
}


@pytest.mark.parametrize(("text", "said"), BAD_MASTER.values(), ids=BAD_MASTER)
def test_bad_master_cf(tmp_path: Path, text: str, said: str) -> None:
    """A line that Postfix ends at is one line of complaint, with file and line."""
    path = tmp_path / "master.cf"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_master_cf(path)
    assert str(caught.value).startswith(f"{path}:{said}")


def test_parameters_of_a_service(tmp_path: Path) -> None:
    """A service has the parameters of main.cf but for its overrides, which may use them."""
    (tmp_path / "master.cf").write_text("587 inet n - n - - smtpd -o smtpd_sender_restrictions=$mua\n")
    (service,) = read_master_cf(tmp_path / "master.cf")
    read = main_cf(tmp_path, "mua = reject\nsmtpd_sender_restrictions = permit\n").of_service(service)
    assert "reject" == read.get("smtpd_sender_restrictions")
    assert f"{tmp_path}/master.cf:1" == read.where("smtpd_sender_restrictions")


@pytest.mark.parametrize(
    ("typed", "folder"), [("main.cf", "."), ("./main.cf", "."), ("../b/main.cf", "../b")]
)
def test_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, folder: str) -> None:
    """$config_directory is the folder from the root, however main.cf was named."""
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "main.cf").write_text("mynetworks = $config_directory/networks\n")
    monkeypatch.chdir(tmp_path / "b")
    read = read_main_cf(Path(typed))
    assert str(tmp_path / "b" / folder / "networks") == read.get("mynetworks")
    assert f"{Path(typed)}:1" == read.where("mynetworks")


@given(st.text(alphabet="smtp inet n-o={}#\n\t$", max_size=80))
def test_any_master_cf(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Any text is services or a complaint."""
    path = tmp_path_factory.mktemp("any") / "master.cf"
    path.write_text(text)
    with suppress(InputError):
        read_master_cf(path)
