"""README.md is held to the program: what it shows is run, and its tables are the code's.

How it is read is `tests.readme`'s.
"""

import dataclasses
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import pytest

from ldappolicy import cli, config, identity, ldif, mapping, rewriting, service, vocabulary
from ldappolicy.directory import plan
from ldappolicy.entry import Entry
from ldappolicy.vocabulary import Residue
from tests.abuse.__main__ import SCENES
from tests.conftest import ROOT
from tests.floors import FLOORS
from tests.labs.ds389 import DS389, needs_389ds
from tests.labs.ldappolicy import Ldappolicy, program
from tests.labs.postfix import Postfix, require_postfix
from tests.labs.server import tree_of
from tests.labs.slapd import CONFIG_DN, PLAIN, ROOT_PW, SUFFIX, Slapd, require_slapd
from tests.readme import README, WALK, block, blocks, quoted, section, table

PROSE = re.sub(r"(?ms)^```.*?^```$", "", README)


def test_restrictions_are_shown() -> None:
    """Behind every restriction stand the tests that show it, and they are there."""
    for names, _, shown_by in table("restrictions"):
        assert quoted(shown_by), names
        for name in quoted(shown_by):
            file, _, test = name.partition("::")
            assert f"\ndef {test}(" in (ROOT / "tests" / file).read_text("utf-8"), name


def test_every_mark_is_read() -> None:
    """A mark that no test reads holds nothing to anything."""
    readers = ("test_readme.py", "test_cannot_be_said.py", "test_metrics.py", "test_schema.py")
    here = "".join((ROOT / "tests" / name).read_text("utf-8") for name in readers)
    marks = re.findall(r"<!-- (test|table|walk): (\S+) -->", README)
    assert [] == [mark for kind, mark in marks if kind != "walk" and f'"{mark}")' not in here]
    assert {name for kind, name in marks if kind == "walk"} == {name for name, _ in WALK}


# --- what it shows ----------------------------------------------------------------------------------


def shown() -> Iterator[tuple[str, str]]:
    """Each command of the console blocks, and what it prints."""
    for text in blocks("run"):
        for command in re.split(r"(?m)^\$ ", text)[1:]:
            line, _, output = command.partition("\n")
            yield line, output


SHOWN = list(shown())


@pytest.mark.servers
@pytest.mark.parametrize(("command", "output"), SHOWN, ids=[command for command, _ in SHOWN])
def test_console(command: str, output: str) -> None:
    """What is shown as typed prints what is shown below it."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    typed = command.replace(".venv/bin/ldappolicy", shlex.quote(program()))
    actual = without_ages(output_of(["sh", "-c", typed], environment))
    if not re.fullmatch(pattern(output), actual):
        assert without_ages(output) == actual


def output_of(command: list[str], environment: Mapping[str, str]) -> str:
    """What a terminal would show."""
    out, err = subprocess.PIPE, subprocess.STDOUT
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err, check=False
    )
    return done.stdout.decode("utf-8")


def without_ages(text: str) -> str:
    """How old an answer is differs from run to run."""
    return re.sub(r"\b[0-9.e-]+ s old\b", "N s old", text)


def pattern(output: str) -> str:
    """`...` alone on a line is any lines, everything else is itself."""
    lines = without_ages(output).splitlines()
    return "".join("(?:.*\n)*" if line == "..." else re.escape(line) + "\n" for line in lines)


def test_targets_exist() -> None:
    """What README says to make, the Makefile has; no figure is left to be filled in."""
    made = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8")))
    assert set(re.findall(r"`make ([a-z-]+)", README)) <= made
    assert [] == re.findall(r"@[A-Z]+@", README)


def test_paths_exist() -> None:
    """What is named of the checkout is there."""
    tops = {path.name for path in ROOT.iterdir() if path.is_dir()}
    named = {word for text in quoted(PROSE) for word in re.findall(r"[\w.-]+/[\w./-]*", text)}
    named |= set(re.findall(r"\]\(([^)#:]+)\)", README))
    named |= set(re.findall(r"-c (\S+\.toml)", README))
    ours = {path for path in named if path.split("/")[0] in tops - {".venv"}}
    assert len(ours) > 5
    assert [] == sorted(path for path in ours if not (ROOT / path).exists())


# --- the recipes ------------------------------------------------------------------------------------


def named_entries(ldif_file: Path, kind: str) -> dict[str, Entry]:
    """The entries of an object class, by cn."""
    records = ldif.read_records(ldif_file.read_bytes(), ldif_file.name)
    entries = [Entry(record.dn, record.attributes) for record in records]
    return {entry.values("cn")[0]: entry for entry in entries if kind in entry.values("objectClass")}


def test_policy_of_the_example(example_ldif: Path) -> None:
    """The policy that is shown is the one that is served."""
    (record,) = ldif.read_records(block("entry").encode(), "README.md")
    assert named_entries(example_ldif, "smtpdPolicy")["default"] == Entry(record.dn, record.attributes)


def test_recipes_name_classes(example_ldif: Path) -> None:
    """The recipes are made of the classes of the example, all of them, and of built-in restrictions."""
    classes = named_entries(example_ldif, "smtpdRestrictionClass").keys()
    attributes = {name for names, *_ in table("attributes") for name in quoted(names)}
    words: set[str] = set()
    for _, how, proof in table("recipes"):
        for text in quoted(how + proof):
            name, _, value = text.rpartition(": ")
            assert not name or name in attributes, text
            words |= (
                set(re.findall(r"\b[a-z]+(?:_[a-z]+)*\b(?!:)", value)) if name != "smtpdModerator" else set()
            )
    tables = named_entries(example_ldif, "smtpdAccessTable").keys()
    others = vocabulary.RESERVED | tables | set(policy_tables()) | {"postsuper", "members", "recipient"}
    assert set(classes) == words - others


def policy_tables() -> list[str]:
    """The types of tables, and what `recipient:` and `directory:` can name."""
    return [word for row in table("tables") for text in quoted(row[0]) for word in re.findall("[a-z]+", text)]


def test_recipes_are_tested() -> None:
    """Each recipe rests on a proof that is named, and has tests of its own."""
    tests = (ROOT / "tests" / "test_recipes.py").read_text(encoding="utf-8")
    tested = {
        number for name in re.findall(r"def test_([\d_and]+)", tests) for number in re.findall(r"\d", name)
    }
    rows = table("recipes")
    assert [str(number) for number in range(1, 8)] == [name.split(".")[0] for name, _, _ in rows]
    assert tested >= {name[0] for name, _, _ in rows}
    assert all(proof for _, _, proof in rows)


# --- the language -----------------------------------------------------------------------------------

DECIDED = {
    "here": vocabulary.EVALUATED | vocabulary.CHECKS.keys(),
    "left to Postfix; can permit": {
        name for name, kind in vocabulary.LEFT_TO_POSTFIX.items() if kind is Residue.PERMITS
    },
    "left to Postfix; can only refuse": {
        name for name, kind in vocabulary.LEFT_TO_POSTFIX.items() if kind is Residue.REFUSES
    },
    "left to Postfix; can only refuse, always permanently": {
        name for name, kind in vocabulary.LEFT_TO_POSTFIX.items() if kind is Residue.REFUSES_FOR_GOOD
    },
    "an error": vocabulary.ONLY_IN_MAIN_CF,
    "old names": vocabulary.OLD_NAMES.keys(),
}


def test_restrictions() -> None:
    """Every restriction stands in the table, once, where it is decided."""
    found: dict[str, set[str]] = {where: set() for where in DECIDED}
    seen: list[str] = []
    for names, decided, _ in table("restrictions"):
        # Longest first: one text begins with another.
        where = next(text for text in sorted(DECIDED, key=len, reverse=True) if decided.startswith(text))
        names = re.sub(r" \([^)]*\)", "", names)
        found[where].update(quoted(names))
        seen += quoted(names)
    assert {where: set(names) for where, names in DECIDED.items()} == found
    assert len(seen) == len(set(seen))


def test_old_names() -> None:
    """Behind each old name stands the one that it means."""
    (row,) = [names for names, decided, _ in table("restrictions") if decided == "old names"]
    assert vocabulary.OLD_NAMES == dict(re.findall(r"`(\w+)` \(`(\w+)`\)", row))


def test_mapping() -> None:
    """The table of the mapping is what the profiles are, key by key."""
    columns = (("generic", "openldap", "389ds"), ("freeipa",), ("active_directory",))
    assert {name for column in columns for name in column} == set(mapping.PROFILES)
    rows = {quoted(key)[0]: cells for key, *cells in table("mapping")}
    assert set(rows) == set(mapping.KEYS)
    for key, cells in rows.items():
        for names, cell in zip(columns, cells, strict=True):
            plain, *others = (cells[0] if cell == "=" else cell).split("; ")
            told = {name: tuple(quoted(plain)) for name in names}
            told |= {name: tuple(quoted(text)) for name, _, text in (one.partition(": ") for one in others)}
            assert {name: getattr(mapping.PROFILES[name], key) for name in names} == told, key


def test_limits_that_are_numbers() -> None:
    """The bounds on what is looked up are those of the code."""
    rewritten = (rewriting.LONGEST, rewriting.MOST_ROUNDS)
    bounds = (*rewritten, plan.LONGEST_VALUE, identity.MAX_NESTING, service.MAX_ROUNDS)
    assert bounds == tuple(int(number) for number in re.findall(r"\b\d{3,4}\b(?= [cgdr])", section("Limits")))


# --- the configuration ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Key:
    """A key of the configuration, as the README has it."""

    section: str
    name: str
    default: str
    meaning: str

    def __str__(self) -> str:
        return f"[{self.section}] {self.name}"


def keys() -> Iterator[Key]:
    """The rows of the table, one for each key; an empty section is the one above."""
    name = ""
    for row in table("configuration"):
        name = row[0] or name
        for key in quoted(row[1]):
            yield Key(name, key, quoted(row[2])[0], row[3])


KEYS = list(keys())
every_key = pytest.mark.parametrize("key", KEYS, ids=map(str, KEYS))


def test_keys() -> None:
    """The table has every key, in the order of the code, and no other."""
    expected = [
        f"[{part.name}] {key.name}"
        for part in dataclasses.fields(config.Config)
        for key in dataclasses.fields(getattr(config.Config(), part.name))
    ]
    assert expected == [str(key) for key in KEYS]


@every_key
def test_default(key: Key) -> None:
    """The default in the table means what the code has."""
    told = config.parse(f"[{key.section}]\n{key.name} = {key.default}\n", "README.md")
    assert value_of(config.Config(), key) == value_of(told, key)


def value_of(told: config.Config, key: Key) -> object:
    """What a configuration says of the key."""
    return getattr(getattr(told, key.section), key.name)


def test_configuration_of_a_site() -> None:
    """The example configuration is one."""
    told = config.parse(block("config"), "/etc/ldappolicy/config.toml")
    assert ("simple", "/etc/ldappolicy/password") == (told.directory.bind, told.directory.bind_pw_file)


# --- in operation -----------------------------------------------------------------------------------


@pytest.mark.servers
def test_line_of_a_decision() -> None:
    """The fields of the line that is shown are those of a line that is written, in its order."""
    with Ldappolicy() as service:
        assert "reject," == service.ask(sender="stranger@elsewhere.example", recipient="team@my.domain")
        written = service.wait_for_log("decision: .*team@my.domain")
    shown = block("decision").rstrip("\n")
    assert list(fields_of(written)) == list(fields_of(shown))
    alike = ("state", "policy", "sender", "recipient", "login", "action", "restriction", "dn")
    assert {name: fields_of(written)[name] for name in alike} == {
        name: fields_of(shown)[name] for name in alike
    }


def fields_of(line: str) -> dict[str, str]:
    """The fields of a decision's line."""
    return dict(re.findall(r"""(\w+)=('(?:[^'\\\\]|\\\\.)*'|\S*)""", line.partition(": ")[2]))


def test_deploy() -> None:
    """Everything in deploy/ is in the table: by its name, or by that of its folder."""
    told = {name for names, _ in table("deploy") for name in quoted(names)}
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "deploy").rglob("*") if path.is_file()}
    folders = tuple(name for name in told if name.endswith("/"))
    assert told - set(folders) == {name for name in files if not name.startswith(folders)}
    assert all((ROOT / name).is_dir() for name in folders)


def test_number_of_alerts() -> None:
    """As many as the table says."""
    alerts = (ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text("utf-8").count("- alert:")
    assert f"{alerts} alerts" in section("What is in deploy/")


def test_abuse() -> None:
    """The table has a row for each scene, and every one held."""
    rows = table("abuse")
    assert len(SCENES) == len(rows)
    assert all(seen and not how.startswith(("failed", "not done")) for _, how, seen in rows)


# --- the command line -------------------------------------------------------------------------------


def commands(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by its words."""
    with click.Context(group) as context:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None, name
            if isinstance(command, click.Group):
                yield from commands(command, f"{before}{name} ")
            else:
                yield before + name, command


def options(command: click.Command) -> set[str]:
    """The long options of a command, but for what is its own business; --help is everywhere."""
    shown = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]
    spelled = [spelling for option in shown for spelling in option.opts]
    return {spelling for spelling in spelled if spelling.startswith("--")} - {"--help"}


def test_commands() -> None:
    """The table has every command and every option, and no other."""
    rows = {}
    for typed, does in table("commands"):
        (words,) = quoted(typed)
        name = re.match(r"[a-z]+(?: [a-z]+)*", words)
        assert name, words
        rows[name[0]] = set(re.findall(r"--[a-z-]+", does))
    assert {name: options(command) for name, command in commands(cli.cli)} == rows


def test_arguments() -> None:
    """An argument that has to be given stands behind its command, one that need not in brackets."""
    typed = [quoted(cell)[0] for cell, _ in table("commands")]
    for name, command in commands(cli.cli):
        arguments = [each for each in command.params if isinstance(each, click.Argument)]
        (line,) = [text for text in typed if re.match(rf"{name}(?![a-z])(?! [a-z])", text)]
        assert bool(arguments) == (line != name), line
        assert any(not each.required for each in arguments) == ("[" in line), line


def test_options_before_the_command() -> None:
    """The options of the program itself are explained above or below the table."""
    said = set(re.findall(r"(?<![\w-])--?[a-z]+", section("Commands")))
    spelled = {spelling for option in cli.cli.params for spelling in option.opts}
    assert {"-c", "--version"} <= said & spelled
    assert cli.DEFAULT_CONFIG in section("Commands")


def test_exit_status() -> None:
    """Every exit status that the command line has a name for is in the list."""
    named = {value for name, value in vars(cli).items() if name.startswith("EX_")}
    (sentence,) = re.findall(r"(?s)Exit status, .*?\n\n", section("Commands"))
    assert named == {int(number) for number in re.findall(r"\b\d\d\b", sentence)}


# --- the house --------------------------------------------------------------------------------------


def test_house() -> None:
    """The picture of the house has every room of every floor."""
    rooms: dict[int, set[str]] = {}
    for floor, modules, owns in table("house"):
        rooms[int(floor)] = set(quoted(modules))
        assert owns, floor
    expected: dict[int, set[str]] = {floor: rooms - {""} for floor, rooms in enumerate(FLOORS)}
    assert expected == rooms


# --- slapd ------------------------------------------------------------------------------------------

# What slapd has to index by itself for the README to be right: Debian's postinst does.
DEBIANS = "objectClass eq", "cn,uid eq", "uidNumber,gidNumber eq", "member,memberUid eq"
MAIN_DATABASE = "dn: olcDatabase={1}mdb,cn=config\nchangetype: modify\n"
REQUEST = {"sender": "dave@my.domain", "sasl_username": "dave", "recipient": "sales@my.domain"}


@pytest.fixture
def slapd(example_ldif: Path) -> Iterator[Slapd]:
    """A slapd with Debian's indexes, and the example company in it."""
    require_slapd()
    indexes = "".join(f"olcDbIndex: {index}\n" for index in DEBIANS)
    with Slapd(schema="ldappolicy", overlays=PLAIN, size_limit="500") as slapd:
        slapd.configure(f"{MAIN_DATABASE}replace: olcDbIndex\n{indexes}-\n")
        slapd.load(example_ldif)
        yield slapd


def asked(slapd: Slapd) -> set[tuple[str, str]]:
    """The attributes in the filters that slapd gets while the service works, and the index each wants."""
    before = len(slapd.log.read_text("utf-8", "replace"))
    with Ldappolicy({"directory": {"uri": [slapd.uri], "profile": "openldap"}}) as service:
        assert service.ask(**REQUEST) == "reject,"
    said = slapd.log.read_text("utf-8", "replace")[before:]
    filters = " ".join(re.findall(r' SRCH base=.* scope=[12] .* filter="(.*)"', said))
    # slapd writes "?name" for an attribute that it does not know.
    assertions = re.findall(r"\(([A-Za-z]\w*)=(\*\))?", filters)
    searched = {(name.lower(), "pres" if any_value else "eq") for name, any_value in assertions}
    return searched - {("objectclass", "pres")} - looked_for_once()  # slapd takes the first for true


def looked_for_once() -> set[tuple[str, str]]:
    """What `reach` looks for when the service starts, and nobody waits for: worth no index."""
    names = mapping.Mapping()
    of_requests = {"memberURL", *names.member_access}
    return {(name.lower(), "pres") for name in {*names.read_attributes, *names.member} - of_requests}


def indexed(slapd: Slapd) -> set[tuple[str, str]]:
    """The attributes that the main database has an index for, and of which kind."""
    command = ["ldapsearch", "-x", "-LLL", "-o", "ldif-wrap=no", "-H", slapd.ldapi_uri]
    who = ["-D", CONFIG_DN, "-w", ROOT_PW, "-b", "olcDatabase={1}mdb,cn=config", "-s", "base"]
    done = subprocess.run([*command, *who, "olcDbIndex"], capture_output=True, text=True, check=True)
    lines = re.findall(r"(?m)^olcDbIndex: (\S+) (\S+)$", done.stdout)
    return {(name.lower(), kind) for names, kind in lines for name in names.split(",")}


@pytest.mark.servers
def test_indexes(slapd: Slapd) -> None:
    """Every attribute that the service searches by has an index, and without the record had none."""
    asks = asked(slapd)
    lacking = asks - indexed(slapd)
    slapd.configure(block("slapd"))
    assert added_indexes() == lacking
    assert set() == asks - indexed(slapd)


def added_indexes() -> set[tuple[str, str]]:
    """What the record in the README adds."""
    lines = re.findall(r"(?m)^olcDbIndex: (\S+) (\S+)$", block("slapd"))
    return {(name.lower(), kind) for name, kind in lines}


def test_indexes_of_the_mapping() -> None:
    """What is searched by is indexed by the record, or by Debian, or is not in OpenLDAP's schema."""
    names = mapping.Mapping()
    searched = {*names.mail, *names.login, *names.domain, *names.member, "objectClass", "cn"}
    own = {name for index in DEBIANS for name in index.split()[0].split(",")}
    there = {name.lower() for name in own} | {name for name, _ in added_indexes()}
    assert {"mailAlternateAddress"} == {name for name in searched if name.lower() not in there}


@pytest.mark.servers
def test_limits(slapd: Slapd) -> None:
    """Whom the record names gets more than 500 entries, others do not."""
    slapd.configure(block("slapd"))
    slapd.load(account() + "".join(people(600)))
    assert 0 == search(slapd, "cn=ldappolicy,dc=example,dc=com")
    assert 4 == search(slapd, "cn=other,dc=example,dc=com")


def account() -> str:
    """The service's own entry, as it is told, and another one."""
    own = block("account").replace("{SSHA}...", "secret")
    return f"{own}\n{own.replace('cn=ldappolicy', 'cn=other').replace('cn: ldappolicy', 'cn: other')}\n"


@pytest.mark.servers
@needs_389ds
def test_account_of_389ds() -> None:
    """The same entry is one to bind with there."""
    with DS389() as server:
        server.load(tree_of() + account())
        command = ["ldapwhoami", "-x", "-H", server.uri, "-D", f"cn=ldappolicy,{SUFFIX}", "-w", "secret"]
        assert subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(("check", "key"), [("sender", "mail"), ("sasl", "uid")])
def test_a_directory_as_it_is(example_ldif: Path, tmp_path: Path, check: str, key: str) -> None:
    """Whom the filter of a table finds has its class, by the address or by the login; others have not."""
    asked = f"check_{check}_access ldap:interns"
    people = example_ldif.read_text("utf-8").replace("uid: joe\n", "uid: joe\nemployeeType: intern\n")
    policy = f"dn: cn=interns,ou=policy,{SUFFIX}\nobjectClass: smtpdPolicy\ncn: interns\n"
    table_ = block("as it is").replace("?mail?", f"?{key}?")
    text = f"{people}\n{table_}\n{policy}smtpdSenderRestrictions: {asked}\n"
    (tmp_path / "tree.ldif").write_text(text, "utf-8")
    (tmp_path / "config.toml").write_text(
        f"[directory]\nuri = ['ldif:{tmp_path}/tree.ldif']\n[policy]\nname = 'interns'\n", "utf-8"
    )

    def action(who: str) -> str:
        words = [f"sasl_username={who}", f"sender={who}@my.domain", "recipient=friend@elsewhere.example"]
        return ran(["-c", str(tmp_path / "config.toml"), "eval", *words]).strip()

    assert [action("joe"), action("mia")] == ["action=reject,", "action=DUNNO"]


def people(count: int) -> Iterator[str]:
    """Entries, as many."""
    for number in range(count):
        yield f"dn: ou={number},dc=example,dc=com\nobjectClass: organizationalUnit\nou: {number}\n\n"


def search(slapd: Slapd, who: str) -> int:
    """The result code of a search for everything."""
    command = ["ldapsearch", "-x", "-LLL", "-H", slapd.uri, "-D", who, "-w", "secret", "-b", SUFFIX, "1.1"]
    return subprocess.run(command, capture_output=True, check=False).returncode


@pytest.mark.servers
def test_steps(example_ldif: Path, tmp_path: Path) -> None:
    """What is told about a server of one's own brings an empty slapd into service, from schema to lint."""
    require_slapd()
    with Slapd(schema="none", overlays=PLAIN, size_limit="500") as slapd:
        slapd.configure(f"{MAIN_DATABASE}replace: olcDbIndex\nolcDbIndex: {DEBIANS[0]}\n-\n")
        slapd.configure(ran(["schema", "show", "openldap"]))
        slapd.configure(block("slapd"))
        slapd.load(COMPANY + account())
        administrator = site(tmp_path, "administrator", slapd.uri, slapd.root_dn)
        service = site(tmp_path, "service", slapd.uri, "cn=ldappolicy,dc=example,dc=com")
        assert "added: cn=members_only" in ran(["-c", administrator, "schema", "install", "classes"])
        assert " unchanged" in ran(["-c", administrator, "load", "--replace", str(example_ldif)])
        assert "" == ran(["-c", service, "lint"])
        request = ["sender=stranger@elsewhere.example", "recipient=all@my.domain"]
        assert "action=reject,\n" == ran(["-c", service, "eval", *request])


COMPANY = """\
dn: dc=example,dc=com
objectClass: dcObject
objectClass: organization
dc: example
o: Example Company

"""


def site(folder: Path, name: str, uri: str, who: str) -> str:
    """The configuration in the README, for this server and this identity."""
    text = re.sub(r"(?m)^uri = .*$", f'uri = ["{uri}"]', block("config"))
    text = re.sub(r"(?m)^bind_dn = .*$", f'bind_dn = "{who}"', text)
    (folder / "password").write_text("secret")
    path = folder / f"{name}.toml"
    path.write_text(text.replace("start_tls = true", "start_tls = false"))
    return str(path)


def ran(arguments: list[str]) -> str:
    """What the command prints, where it ends well."""
    done = subprocess.run([program(), *arguments], capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stderr), arguments
    return done.stdout


# --- Postfix ----------------------------------------------------------------------------------------

CALLS = dict(zip(("one call", "a call for each list"), blocks("main.cf"), strict=True))
FRIEND = "friend@elsewhere.example"


def parameters(text: str) -> Mapping[str, str]:
    """The parameters of a piece of main.cf."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}


@pytest.fixture(scope="module")
def postfix() -> Iterator[Postfix]:
    """One that has a service for each piece."""
    require_postfix()
    with Ldappolicy() as service:
        texts = {name: text.replace("inet:127.0.0.1:10040", service.inet) for name, text in CALLS.items()}
        with Postfix({name.replace(" ", "-"): parameters(text) for name, text in texts.items()}) as running:
            yield running


@pytest.mark.servers
@pytest.mark.parametrize("name", CALLS)
def test_main_cf(postfix: Postfix, name: str) -> None:
    """Postfix takes what is shown for main.cf, without a warning, and the policy is in force."""
    smtpd = name.replace(" ", "-")
    assert "554 5.7.1 <all@my.domain>: Recipient address rejected: Access denied" == rcpt(
        postfix, smtpd, "stranger@elsewhere.example", "all@my.domain"
    )
    assert "250 2.1.5 Ok" == rcpt(postfix, smtpd, "joe@my.domain", "all@my.domain")
    assert rcpt(postfix, smtpd, "amy@my.domain", FRIEND, login="amy").startswith("554 5.7.1 <")
    assert f"554 5.7.1 <{FRIEND}>: Relay access denied" == rcpt(postfix, smtpd, "a@b.example", FRIEND)
    assert [] == postfix.log("warning|fatal")


def rcpt(postfix: Postfix, smtpd: str, sender: str, recipient: str, **client: str) -> str:
    """The reply to RCPT, in a session from outside."""
    with postfix.session(smtpd, name="mail.outside.example", addr="198.51.100.7", **client) as session:
        session.ehlo()
        session.mail(sender)
        return session.rcpt(recipient)
