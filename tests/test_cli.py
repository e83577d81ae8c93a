"""The command line as such, and `eval`: forms, exit statuses, one line for an error."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ldappolicy import __version__
from ldappolicy.cli import EX_CONFIG, EX_DATAERR, EX_TEMPFAIL, EX_UNAVAILABLE, EX_USAGE, cli, run
from ldappolicy.protocol import TEXT_BYTES, encode_reply
from tests.labs.server import tree_of
from tests.labs.slapd import PLAIN, SUFFIX, Slapd, free_port, require_slapd

ROOT = Path(__file__).parents[1]
DEMONSTRATION = ("-c", str(ROOT / "deploy" / "example.toml"))
COMMANDS = ["serve", "eval", "lint", "schema", "load", "import"]

Said = tuple[int, list[str], str]


class Terminal:
    """Runs commands here, in this process, and tells what they said."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def run(self, *arguments: str | Path) -> Said:
        """Exit status, the lines of standard output, standard error."""
        status = run(list(map(str, arguments)))
        said = self._capsys.readouterr()
        return status, said.out.splitlines(), said.err.rstrip("\n")


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal without $LDAPPOLICY_CONFIG."""
    monkeypatch.delenv("LDAPPOLICY_CONFIG", raising=False)
    return Terminal(capsys)


def program(*arguments: str, given: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a command as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "ldappolicy", *arguments],
        input=given,
        capture_output=True,
        check=False,
        env={**os.environ, **environment},
    )


# The command line as such


def test_help(terminal: Terminal) -> None:
    """Every command is listed, with a sentence."""
    status, lines, error = terminal.run("--help")

    assert (0, "") == (status, error)
    listed = [line.split(maxsplit=1) for line in lines[lines.index("Commands:") + 1 :]]
    assert COMMANDS == [name for name, _ in listed]


@pytest.mark.parametrize(
    "arguments",
    [[name] for name in COMMANDS] + [["schema", name] for name in ("list", "show", "install")],
    ids=" ".join,
)
def test_help_of_a_command(terminal: Terminal, arguments: list[str]) -> None:
    """Each has a help of its own, with -h too, and needs no configuration for it."""
    status, lines, error = terminal.run(*arguments, "--help")

    assert (0, "") == (status, error)
    assert lines[0].startswith(f"Usage: ldappolicy {' '.join(arguments)} ")
    assert (0, lines, "") == terminal.run(*arguments, "-h")


def test_version(terminal: Terminal) -> None:
    """The version is that of the package."""
    assert (0, [f"ldappolicy, version {__version__}"], "") == terminal.run("--version")


USAGE = {
    "no command": ([], "missing command"),
    "unknown command": (["reload"], "no such command 'reload'"),
    "unknown option": (["--quiet"], "no such option '--quiet'"),
    "unknown option of a command": (["eval", "--quiet"], "no such option '--quiet'"),
    "option without its value": (["-c"], "option '-c' requires an argument"),
    "argument too many": (["serve", "now"], "got unexpected extra argument (now)"),
    "attribute without a value": (
        ["eval", "sender"],
        "'sender' is no request attribute, expected ATTR=VALUE",
    ),
    "unknown attribute": (
        ["eval", "from=a@b"],
        "'from' is no request attribute, expected one that Postfix sends",
    ),
    "attribute twice": (
        ["eval", "recipient=a", "recipient=b"],
        "'recipient' is given twice, expected one value",
    ),
    "stream and attributes": (
        ["eval", "-", "sender=a@b"],
        "'-' is no request attribute, expected ATTR=VALUE",
    ),
}


@pytest.mark.parametrize(("arguments", "said"), USAGE.values(), ids=USAGE.keys())
def test_usage(terminal: Terminal, arguments: list[str], said: str) -> None:
    """A command line that means nothing is one line, and 64."""
    given = DEMONSTRATION if arguments[:1] == ["eval"] else ()
    assert (EX_USAGE, [], f"ldappolicy: {said} (see ldappolicy --help)") == terminal.run(*given, *arguments)


@pytest.mark.parametrize(
    "arguments", [["serve"], ["eval"], ["lint"], ["schema", "install"], ["load", "x.ldif"]]
)
def test_missing_configuration(terminal: Terminal, tmp_path: Path, arguments: list[str]) -> None:
    """Every command that needs it says which file it looked for."""
    path = tmp_path / "none.toml"

    expected = f"ldappolicy: {path}: cannot be read: no such file or directory"
    assert (EX_CONFIG, [], expected) == terminal.run("-c", path, *arguments)


def test_every_complaint_about_the_configuration(terminal: Terminal, tmp_path: Path) -> None:
    """Each is a line with file and line of its own."""
    path = tmp_path / "config.toml"
    path.write_text("[server]\nlisten = 1\n\n[cache]\nflavour = 'x'\n")

    status, lines, error = terminal.run("-c", path, "eval")

    assert (EX_CONFIG, []) == (status, lines)
    assert [f"ldappolicy: {path}:2", f"ldappolicy: {path}:5"] == [
        ":".join(line.split(":")[:3]) for line in error.split("\n")
    ]


def test_which_configuration(terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """-c comes before $LDAPPOLICY_CONFIG, which comes before the file in /etc."""
    one, other = str(tmp_path / "one.toml"), str(tmp_path / "other.toml")

    option = next(one for one in cli.params if one.name == "config")
    assert "/etc/ldappolicy/config.toml" == option.default
    monkeypatch.setattr(option, "default", f"{tmp_path}/none.toml")  # this machine may have that one
    assert terminal.run("eval")[2].startswith(f"ldappolicy: {tmp_path}/none.toml: cannot be read")
    monkeypatch.setenv("LDAPPOLICY_CONFIG", one)
    assert terminal.run("eval")[2].startswith(f"ldappolicy: {one}: cannot be read")
    assert terminal.run("-c", other, "eval")[2].startswith(f"ldappolicy: {other}: cannot be read")
    assert terminal.run("--config", other, "eval")[2].startswith(f"ldappolicy: {other}: cannot be read")


@pytest.mark.servers
def test_errors_without_a_traceback(tmp_path: Path) -> None:
    """As a program too: the exit status, and one line on standard error."""
    done = program("-c", str(tmp_path / "none.toml"), "eval")

    assert (EX_CONFIG, b"") == (done.returncode, done.stdout)
    assert 1 == done.stderr.count(b"\n")


@pytest.mark.servers
def test_nobody_reads() -> None:
    """A reader that goes away, as in `| head -1`, is no error."""
    ends, start = os.pipe()
    os.close(ends)
    with os.fdopen(start, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "ldappolicy", "schema", "show", "example"],
            stdout=closed,
            stderr=subprocess.PIPE,
            check=False,
        )

    assert done.returncode in (0, 1)
    assert b"" == done.stderr


# Shell completion

COMPLETED = {
    "commands": ("ldappolicy ", COMMANDS),
    "a command": ("ldappolicy sch", ["schema"]),
    "commands of schema": ("ldappolicy schema ", ["install", "list", "show"]),
    "a shipped file": (
        "ldappolicy schema show ac",
        ["active_directory", "access_openldap", "access_389ds", "access_active_directory"],
    ),
    "an option": ("ldappolicy load --d", ["--dry-run"]),
}


@pytest.mark.servers
@pytest.mark.parametrize(("typed", "offered"), COMPLETED.values(), ids=COMPLETED.keys())
def test_completion(typed: str, offered: list[str]) -> None:
    """The shell is offered commands, names and options."""
    words = str(len(typed.split(" ")) - 1)
    done = program(_LDAPPOLICY_COMPLETE="bash_complete", COMP_WORDS=typed, COMP_CWORD=words)

    assert (0, b"") == (done.returncode, done.stderr)
    assert offered == [line.split(",")[1] for line in done.stdout.decode().splitlines()]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str) -> None:
    """The script for a shell comes from the command itself."""
    script = program(_LDAPPOLICY_COMPLETE=f"{shell}_source").stdout

    assert b"_LDAPPOLICY_COMPLETE" in script


# eval, over the demonstration

ANSWERED = {
    "all defaults, nothing known": ([], "DUNNO"),
    "rejected": (["sender=stranger@elsewhere.example", "recipient=all@my.domain"], "reject,"),
    "residue": (
        ["sender=joe@my.domain", "recipient=jane@my.domain"],
        "reject_unknown_sender_domain, reject_unknown_client_hostname",
    ),
    "sasl_method is set for a login": (
        ["sasl_username=amy", "sender=amy@my.domain", "recipient=friend@elsewhere.example"],
        "reject,",
    ),
    "state of its own": (
        ["protocol_state=CONNECT", "sender=stranger@elsewhere.example", "recipient=all@my.domain"],
        "DUNNO",
    ),
    "value with =": (["sender=a=b@elsewhere.example", "recipient=joe@my.domain"], "DUNNO"),
    "another policy": (
        ["policy_context=exercise", "sender=stranger@elsewhere.example", "recipient=all@my.domain"],
        "DUNNO",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("attributes", "action"), ANSWERED.values(), ids=ANSWERED.keys())
def test_eval(terminal: Terminal, attributes: list[str], action: str) -> None:
    """One request is one line."""
    assert (0, [f"action={action}"], "") == terminal.run(*DEMONSTRATION, "eval", *attributes)


def test_eval_explained(terminal: Terminal) -> None:
    """The reply comes first, then the path, indented."""
    status, lines, _ = terminal.run(
        *DEMONSTRATION, "eval", "--explain", "sender=stranger@elsewhere.example", "recipient=all@my.domain"
    )

    assert 0 == status
    assert ["action=reject,", "policy default", "  list sender"] == lines[:3]
    assert any(f"in cn=all,ou=lists,{SUFFIX}" in line and " s old" in line for line in lines)


def test_eval_json(terminal: Terminal) -> None:
    """One object a line, with these keys."""
    status, lines, _ = terminal.run(
        *DEMONSTRATION, "eval", "--json", "sender=stranger@elsewhere.example", "recipient=all@my.domain"
    )
    (found,) = map(json.loads, lines)

    assert 0 == status
    assert ["action", "shadowed", "policy", "revision", "restriction", "dn", "trace"] == list(found)
    assert ("reject,", "default") == (found["action"], found["policy"])
    assert found["revision"]
    assert {"depth": 0, "list": "sender"} == found["trace"][0]


def request(**attributes: str) -> bytes:
    """A request as Postfix sends it."""
    given = {"request": "smtpd_access_policy", "protocol_state": "RCPT", **attributes}
    return "".join(f"{name}={value}\n" for name, value in given.items()).encode() + b"\n"


STRANGER = request(sender="stranger@elsewhere.example", recipient="all@my.domain")
JOE = request(sender="joe@my.domain", recipient="jane@my.domain")


@pytest.mark.servers
def test_eval_stream() -> None:
    """Each request on standard input is answered by a line, in order."""
    done = program(*DEMONSTRATION, "eval", "-", given=STRANGER + JOE + STRANGER)

    assert (0, b"") == (done.returncode, done.stderr)
    restrictive = "action=reject_unknown_sender_domain, reject_unknown_client_hostname"
    assert ["action=reject,", restrictive, "action=reject,"] == done.stdout.decode().splitlines()


@pytest.mark.servers
def test_eval_empty_stream() -> None:
    """Nothing asked, nothing answered."""
    done = program(*DEMONSTRATION, "eval", "-")

    assert (0, b"", b"") == (done.returncode, done.stdout, done.stderr)


@pytest.mark.servers
@pytest.mark.parametrize(
    "rest", [b"request=smtpd_access_policy\nsender=x", b"nonsense\n\n"], ids=["cut off", "not a request"]
)
def test_eval_bad_stream(rest: bytes) -> None:
    """What is no request ends the stream; what came before it is answered."""
    done = program(*DEMONSTRATION, "eval", "--json", "-", given=STRANGER + rest)

    assert EX_DATAERR == done.returncode
    (answered,) = done.stdout.splitlines()
    assert "reject," == json.loads(answered)["action"]
    assert done.stderr.startswith(b"ldappolicy: standard input: ")
    assert 1 == done.stderr.count(b"\n")


# eval: the other exit statuses


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A configuration for tree.ldif beside it."""
    path = tmp_path / "config.toml"
    path.write_text("[directory]\nuri = ['ldif:tree.ldif']\n")
    return path


def policy(*lines: str) -> str:
    """A directory with the policy `default`, with these restrictions."""
    default = f"dn: cn=default,ou=policy,{SUFFIX}\nobjectClass: smtpdPolicy\ncn: default\n"
    return tree_of("policy") + default + "".join(f"{line}\n" for line in lines)


def test_eval_server_configuration_error(terminal: Terminal, tree: Path) -> None:
    """A class that nobody defined is what Postfix says about it, and 78."""
    tree.with_name("tree.ldif").write_text(policy("smtpdRecipientRestrictions: no_such_class"))

    status, lines, _ = terminal.run("-c", tree, "eval", "recipient=a@my.domain")

    assert EX_CONFIG == status
    assert "action=451 4.3.5 Server configuration error" == lines[0]

    status, lines, _ = terminal.run("-c", tree, "eval", "--json", "recipient=a@my.domain")
    assert EX_CONFIG == status
    assert "no_such_class" in json.loads(lines[0])["error"]


@pytest.mark.parametrize("letter", ["x", "ü"])
def test_eval_prints_what_serve_sends(terminal: Terminal, tree: Path, letter: str) -> None:
    """A text of 700 characters is cut as in a reply, in each form of the answer."""
    action = f"REJECT {letter * 700}"
    listed = f"smtpdRecipientRestrictions: check_recipient_access static:{{{action}}}"
    # LDIF in UTF-8 as it stands: the reader takes what ldapsearch would put in base64.
    tree.with_name("tree.ldif").write_text(policy(listed), "utf-8")
    sent = encode_reply(action).decode().rstrip("\n")
    assert TEXT_BYTES >= len(sent.removeprefix("action=").encode())

    assert (0, [sent], "") == terminal.run("-c", tree, "eval", "recipient=a@my.domain")
    status, lines, _ = terminal.run("-c", tree, "eval", "--explain", "recipient=a@my.domain")
    assert (0, sent) == (status, lines[0])
    status, lines, _ = terminal.run("-c", tree, "eval", "--json", "recipient=a@my.domain")
    assert (0, sent.removeprefix("action=")) == (status, json.loads(lines[0])["action"])


def test_eval_fail_table(terminal: Terminal, tree: Path) -> None:
    """A fail: table is 78 and one line, which tells the policy's DN and the list."""
    tree.with_name("tree.ldif").write_text(policy("smtpdRecipientRestrictions: check_recipient_access fail:"))

    said = (
        f"ldappolicy: server configuration error: cn=default,ou=policy,{SUFFIX}: recipient: "
        "fail: stands for a table that failed"
    )
    expected = (EX_CONFIG, ["action=451 4.3.5 Server configuration error"], said)
    assert expected == terminal.run("-c", tree, "eval", "recipient=a@my.domain")


def test_eval_fail_table_under_warn_if_reject(terminal: Terminal, tree: Path) -> None:
    """It is a refusal that a table asks for: a warning does not refuse."""
    listed = "smtpdRecipientRestrictions: warn_if_reject check_recipient_access fail:"
    tree.with_name("tree.ldif").write_text(policy(listed))

    assert (0, ["action=DUNNO"], "") == terminal.run("-c", tree, "eval", "recipient=a@my.domain")


NO_POLICY = {
    "no file": (None, "tree.ldif: cannot be read: no such file or directory, expected an LDIF file"),
    "not LDIF": ("nonsense\n", "tree.ldif:1: 'nonsense', expected 'attribute: value'"),
    "changes": (
        f"dn: {SUFFIX}\nchangetype: delete\n",
        "tree.ldif:1: changetype 'delete', expected entries or changetype 'add'",
    ),
}


@pytest.mark.parametrize(("text", "said"), NO_POLICY.values(), ids=NO_POLICY.keys())
def test_eval_without_a_directory(terminal: Terminal, tree: Path, text: str | None, said: str) -> None:
    """An LDIF file that cannot be used is a configuration error, with its name and line."""
    if text is not None:
        tree.with_name("tree.ldif").write_text(text)

    status, lines, error = terminal.run("-c", tree, "eval")

    assert (EX_CONFIG, []) == (status, lines)
    assert error.startswith(f"ldappolicy: {tree.parent}/{said}")
    assert "\n" not in error


@pytest.mark.parametrize("command", ["eval", "lint"])
def test_search_base_that_the_file_has_not(terminal: Terminal, tree: Path, command: str) -> None:
    """Nothing would be found below it: a configuration error."""
    tree.with_name("tree.ldif").write_text(policy())
    bases = f"search_base = 'dc=elsewhere'\npolicy_base = 'ou=policy,{SUFFIX}'\n"
    tree.write_text(tree.read_text() + bases)

    status, lines, error = terminal.run("-c", tree, command)

    assert (EX_CONFIG, []) == (status, lines)
    assert error.startswith("ldappolicy: [directory] search_base: expected a DN that ")
    assert error.endswith("tree.ldif holds, got 'dc=elsewhere'")
    assert "\n" not in error


def test_eval_without_the_default_policy(terminal: Terminal, tree: Path) -> None:
    """The policy that the configuration names has to be there."""
    tree.with_name("tree.ldif").write_text(policy().replace("default", "other"))

    status, _, error = terminal.run("-c", tree, "eval")

    assert EX_CONFIG == status
    assert "no policy named 'default'" in error


def test_eval_server_down(terminal: Terminal, tree: Path) -> None:
    """No policy could be read: 69."""
    uri = f"ldap://127.0.0.1:{free_port()}"
    tree.write_text(f"[directory]\nuri = ['{uri}']\n")

    status, lines, error = terminal.run("-c", tree, "eval")

    assert (EX_UNAVAILABLE, []) == (status, lines)
    assert error.startswith(f"ldappolicy: the directory is unavailable: {uri}")


@pytest.mark.servers
@pytest.mark.parametrize("command", ["eval", "lint"])
def test_server_down_is_one_line(tree: Path, command: str) -> None:
    """As a program too: what the rooms below log is not said a second time."""
    uri = f"ldap://127.0.0.1:{free_port()}"
    tree.write_text(f"[directory]\nuri = ['{uri}']\n")

    done = program("-c", str(tree), command)

    assert (EX_UNAVAILABLE, b"", 1) == (done.returncode, done.stdout, done.stderr.count(b"\n"))
    assert done.stderr.startswith(f"ldappolicy: the directory is unavailable: {uri}".encode())


@pytest.mark.servers
@pytest.mark.parametrize(
    ("choice", "line"),
    [
        ("defer", "action=DEFER_IF_PERMIT 4.3.0 Temporary lookup failure"),
        ("dunno", "action=DUNNO"),
        ("disconnect", "(the connection is closed)"),
    ],
)
def test_eval_unavailable(terminal: Terminal, tree: Path, choice: str, line: str) -> None:
    """Where on_unavailable decided it is 75, whatever it says: a lookup over the server's size limit."""
    require_slapd()
    people = "".join(
        f"\ndn: cn=p{number},{SUFFIX}\nobjectClass: inetOrgPerson\ncn: p{number}\nsn: p\nmail: p@my.domain\n"
        for number in range(9)
    )
    data = policy("smtpdRecipientRestrictions: check_recipient_access directory:access") + people
    with Slapd(schema="ldappolicy", overlays=PLAIN, size_limit="5", data=data) as server:
        tree.write_text(f"[directory]\nuri = ['{server.uri}']\n[policy]\non_unavailable = '{choice}'\n")

        status, lines, error = terminal.run("-c", tree, "eval", "recipient=p@my.domain")

    assert (EX_TEMPFAIL, [line]) == (status, lines)
    assert error.startswith("ldappolicy: unavailable: mail p@my.domain: ")
    assert "\n" not in error
