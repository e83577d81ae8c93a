"""The files of schema/: held to the design's tables, to one another, and to a real slapd.

`ATTRIBUTES`, `CLASSES` and `SHIPPED` are the design's tables, word for word. `ldappolicy.schema` is
compared with them, and the other forms with `ldappolicy.schema`.
"""

import base64
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from textwrap import indent
from typing import NamedTuple

import pytest

from ldappolicy.entry import normal_dn

from .labs.slapd import CONFIG_DN, PLAIN, SUFFIX, Slapd, require_slapd
from .readme import quoted, table

SCHEMA = Path(__file__).parents[1] / "schema"
ARC = "2.25.288501390150123640940408713397554904698"
AD_ARC = "1.2.840.113556.1.8000.2554.9840.56368.15588.18656.48344.2791780.14767382"

STRING = "1.3.6.1.4.1.1466.115.121.1.15"
DN = "1.3.6.1.4.1.1466.115.121.1.12"
BOOLEAN = "1.3.6.1.4.1.1466.115.121.1.7"
INTEGER = "1.3.6.1.4.1.1466.115.121.1.27"
EXACT, IGNORE, SAME_DN = "caseExactMatch", "caseIgnoreMatch", "distinguishedNameMatch"
SINGLE, MANY = True, False

ATTRIBUTES = {
    1: ("smtpdRestrictions", STRING, EXACT, SINGLE),
    2: ("smtpdClientRestrictions", STRING, EXACT, SINGLE),
    3: ("smtpdHeloRestrictions", STRING, EXACT, SINGLE),
    4: ("smtpdSenderRestrictions", STRING, EXACT, SINGLE),
    5: ("smtpdRelayRestrictions", STRING, EXACT, SINGLE),
    6: ("smtpdRecipientRestrictions", STRING, EXACT, SINGLE),
    7: ("smtpdDataRestrictions", STRING, EXACT, SINGLE),
    8: ("smtpdEndOfDataRestrictions", STRING, EXACT, SINGLE),
    9: ("smtpdEtrnRestrictions", STRING, EXACT, SINGLE),
    10: ("smtpdMynetworks", STRING, IGNORE, SINGLE),
    11: ("smtpdLocalDomains", STRING, IGNORE, SINGLE),
    12: ("smtpdParentDomainMatchesSubdomains", BOOLEAN, "booleanMatch", SINGLE),
    13: ("smtpdRecipientDelimiter", STRING, IGNORE, SINGLE),
    14: ("smtpdAccess", STRING, EXACT, MANY),
    15: ("smtpdAccessType", STRING, IGNORE, SINGLE),
    16: ("smtpdAccessMember", DN, SAME_DN, MANY),
    17: ("smtpdAccessURL", STRING, EXACT, MANY),
    18: ("smtpdAccessAction", STRING, EXACT, SINGLE),
    19: ("smtpdSenderAccess", STRING, EXACT, SINGLE),
    20: ("smtpdRecipientAccess", STRING, EXACT, SINGLE),
    21: ("smtpdMemberSenderAccess", STRING, EXACT, SINGLE),
    22: ("smtpdMemberRecipientAccess", STRING, EXACT, SINGLE),
    23: ("smtpdPriority", INTEGER, "integerMatch", SINGLE),
    24: ("smtpdAllowedSender", STRING, IGNORE, MANY),
    25: ("smtpdAllowedSenderDN", DN, SAME_DN, MANY),
    26: ("smtpdDeniedSender", STRING, IGNORE, MANY),
    27: ("smtpdDeniedSenderDN", DN, SAME_DN, MANY),
    28: ("smtpdModerator", DN, SAME_DN, MANY),
    29: ("smtpdSendAs", DN, SAME_DN, MANY),
    30: ("smtpdMyorigin", STRING, IGNORE, SINGLE),
}


def names(first: int, last: int) -> set[str]:
    """The attribute types with these numbers."""
    return {ATTRIBUTES[number][0] for number in range(first, last + 1)}


CONTROL = names(19, 29)
POLICY_MAKING = names(14, 29)
CLASSES = {
    1: ("smtpdPolicy", "STRUCTURAL", {"cn"}, names(2, 13) | {"smtpdMyorigin", "description"}),
    2: ("smtpdRestrictionClass", "STRUCTURAL", {"cn", "smtpdRestrictions"}, {"description"}),
    3: ("smtpdAccessTable", "STRUCTURAL", {"cn"}, names(14, 18) | {"description"}),
    4: (
        "smtpdAccessControl",
        "AUXILIARY",
        set[str](),
        CONTROL | {"mail", "associatedDomain", "owner", "description"},
    ),
}
SHIPPED = {
    "local_only": "check_recipient_access ldap:local_domains, reject",
    "external_allowed": "check_sender_access static:DUNNO",
    "known_logins": "check_sasl_access directory:nobody",
    "insiders_only": "check_sender_access ldap:insiders, reject",
    "members_only": "check_sasl_access recipient:members, reject",
    "owners_only": "check_sasl_access recipient:owners, reject",
    "members_only_by_envelope": "check_sender_access recipient:members, reject",
    "allowed_only": (
        "check_sasl_access recipient:denied, check_sender_access recipient:denied, "
        "check_sasl_access recipient:allowed, reject"
    ),
    "moderated": (
        "check_sasl_access recipient:moderators, check_recipient_access static:{HOLD waits for a moderator}"
    ),
    "permissive": "permit",
    "restrictive": "reject_unknown_sender_domain, reject_unknown_client_hostname",
}


# Reading the forms


class AttributeType(NamedTuple):
    """What all forms of an attribute type say."""

    number: int
    name: str
    description: str
    syntax: str
    matching: str
    single: bool


class ObjectClass(NamedTuple):
    """What all forms of an object class say."""

    number: int
    name: str
    description: str
    kind: str
    superior: str
    must: frozenset[str]
    may: frozenset[str]


@dataclass(frozen=True)
class Definitions:
    """Everything that one form defines."""

    attributes: list[AttributeType]
    classes: list[ObjectClass]


Record = list[tuple[str, str]]


def ldif_records(text: str) -> list[Record]:
    """LDIF as lists of (name, value), for content and changes alike; `-` is a name without a value."""
    unfolded = re.sub(r"\n ", "", re.sub(r"(?m)^#.*\n", "", text))
    return [
        [ldif_line(line) for line in block.splitlines()] for block in re.split(r"\n\n+", unfolded.strip())
    ]


def ldif_line(line: str) -> tuple[str, str]:
    """One unfolded line."""
    name, _, value = line.partition(":")
    if value.startswith(":"):
        return name, base64.b64decode(value[1:].strip()).decode("utf-8")
    return name, value.lstrip(" ")


def values(record: Record, wanted: str) -> list[str]:
    """The values of one attribute, in order."""
    return [value for name, value in record if name.lower() == wanted.lower()]


def value_of(record: Record, wanted: str) -> str:
    """The one value of an attribute that must have one."""
    (value,) = values(record, wanted)
    return value


def clauses(definition: str) -> dict[str, list[str]]:
    """An RFC 4512 definition in brackets: keyword to words; the number under "OID"."""
    words = re.findall(r"'[^']*'|[()]|[^\s()$']+", definition)[1:-1]
    found: dict[str, list[str]] = {"OID": [words[0]]}
    keyword = ""
    for word in words[1:]:
        if re.fullmatch("[A-Z][A-Z-]+", word):
            keyword = word
            found[keyword] = []
        elif word not in "()":
            found[keyword].append(word.strip("'"))
    return found


def number_in(arc: str, oid: str) -> int:
    """The last number of an identifier directly under `arc`."""
    assert oid.rpartition(".")[0] == arc
    return int(oid.rpartition(".")[2])


def attribute_type(definition: str) -> AttributeType:
    """An RFC 4512 AttributeTypeDescription, with nothing in it that is not compared."""
    said = clauses(definition)
    assert set(said) <= {"OID", "NAME", "DESC", "EQUALITY", "SYNTAX", "SINGLE-VALUE", "X-ORIGIN"}
    return AttributeType(
        number_in(ARC + ".1", said["OID"][0]),
        said["NAME"][0],
        said["DESC"][0],
        said["SYNTAX"][0],
        said["EQUALITY"][0],
        "SINGLE-VALUE" in said,
    )


def object_class(definition: str) -> ObjectClass:
    """An RFC 4512 ObjectClassDescription, with nothing in it that is not compared."""
    said = clauses(definition)
    (kind,) = said.keys() & {"STRUCTURAL", "AUXILIARY", "ABSTRACT"}
    assert said.keys() <= {"OID", "NAME", "DESC", "SUP", kind, "MUST", "MAY", "X-ORIGIN"}
    return ObjectClass(
        number_in(ARC + ".2", said["OID"][0]),
        said["NAME"][0],
        said["DESC"][0],
        kind,
        said["SUP"][0],
        frozenset(said.get("MUST", [])),
        frozenset(said.get("MAY", [])),
    )


def read_slapd_conf(text: str) -> Definitions:
    """slapd.conf(5): a directive goes on in lines that begin with white space."""
    directives = re.sub(r"\n[ \t]+", " ", re.sub(r"(?m)^#.*\n", "", text)).split("\n")
    pairs = [directive.partition(" ") for directive in directives if directive]
    assert {keyword for keyword, _, _ in pairs} == {"attributetype", "objectclass"}
    return Definitions(
        [attribute_type(text) for keyword, _, text in pairs if keyword == "attributetype"],
        [object_class(text) for keyword, _, text in pairs if keyword == "objectclass"],
    )


def read_schema_entry(text: str, attributes: str, classes: str) -> Definitions:
    """One LDIF entry with the definitions in two attributes."""
    (record,) = ldif_records(text)
    return Definitions(
        [attribute_type(value) for value in values(record, attributes)],
        [object_class(value) for value in values(record, classes)],
    )


def read(name: str) -> str:
    """The text of a file of schema/."""
    return (SCHEMA / name).read_text("utf-8")


SOURCE = read_slapd_conf(read("ldappolicy.schema"))


# The forms and the design


def test_source_has_the_attribute_types_of_the_design() -> None:
    """Numbers, names, syntax, matching rule and SINGLE-VALUE are those of the table, no more, no less."""
    found = {each.number: (each.name, each.syntax, each.matching, each.single) for each in SOURCE.attributes}

    assert found == ATTRIBUTES
    assert len(SOURCE.attributes) == len(ATTRIBUTES)


def test_source_has_the_object_classes_of_the_design() -> None:
    """Numbers, names, kinds and the attributes of each class are those of the table."""
    found = {each.number: (each.name, each.kind, set(each.must), set(each.may)) for each in SOURCE.classes}

    assert found == CLASSES
    assert len(SOURCE.classes) == len(CLASSES)
    assert {each.superior for each in SOURCE.classes} == {"top"}


@pytest.mark.parametrize(
    ("name", "attributes", "classes", "dn"),
    [
        ("ldappolicy.ldif", "olcAttributeTypes", "olcObjectClasses", "cn=ldappolicy,cn=schema,cn=config"),
        ("99ldappolicy.ldif", "attributeTypes", "objectClasses", "cn=schema"),
    ],
)
def test_ldif_form_says_what_the_source_says(name: str, attributes: str, classes: str, dn: str) -> None:
    """Both LDIF forms define the same, in the same order, in the entry where it belongs."""
    (record,) = ldif_records(read(name))

    assert read_schema_entry(read(name), attributes, classes) == SOURCE
    assert value_of(record, "dn") == dn


def test_389ds_form_has_no_empty_line() -> None:
    """389-ds takes comments before an empty line for an entry, and exits without a word."""
    assert "\n\n" not in read("99ldappolicy.ldif").rstrip("\n")


AD_SYNTAXES = {  # attributeSyntax, oMSyntax, and oMObjectClass as in [MS-ADTS] 3.1.1.2.2.2
    STRING: ("2.5.5.12", "64", []),
    DN: ("2.5.5.1", "127", [base64.b64decode("KwwCh3McAIVK").decode("latin-1")]),
    BOOLEAN: ("2.5.5.8", "1", []),
    INTEGER: ("2.5.5.9", "2", []),
}
AD_SCHEMA = "CN=Schema,CN=Configuration,DC=X"


def ad_records(kind: str = "") -> list[Record]:
    """The records of the Active Directory form, or those of one object class."""
    text = read("ldappolicy-ad.ldif").replace(
        # A value that is not text: decoded here as latin-1, so that the reader above stays simple.
        "oMObjectClass:: KwwCh3McAIVK",
        "oMObjectClass:: " + base64.b64encode(AD_SYNTAXES[DN][2][0].encode()).decode(),
    )
    return [record for record in ldif_records(text) if not kind or kind in values(record, "objectClass")]


def test_active_directory_attributes_say_what_the_source_says() -> None:
    """Names, numbers, descriptions, SINGLE-VALUE and the nearest syntax, under the other arc."""
    found = [
        (
            number_in(AD_ARC + ".1", value_of(record, "attributeID")),
            value_of(record, "lDAPDisplayName"),
            value_of(record, "adminDescription"),
            (
                value_of(record, "attributeSyntax"),
                value_of(record, "oMSyntax"),
                values(record, "oMObjectClass"),
            ),
            value_of(record, "isSingleValued"),
        )
        for record in ad_records("attributeSchema")
    ]

    assert found == [
        (each.number, each.name, each.description, AD_SYNTAXES[each.syntax], str(each.single).upper())
        for each in SOURCE.attributes
    ]


def test_active_directory_classes_say_what_the_source_says() -> None:
    """The structural classes are there; the auxiliary one is not."""
    found = [
        ObjectClass(
            number_in(AD_ARC + ".2", value_of(record, "governsID")),
            value_of(record, "lDAPDisplayName"),
            value_of(record, "adminDescription"),
            {"1": "STRUCTURAL"}[value_of(record, "objectClassCategory")],
            value_of(record, "subClassOf"),
            frozenset(values(record, "mustContain")),
            frozenset(values(record, "mayContain")),
        )
        for record in ad_records("classSchema")
    ]

    assert found == [each for each in SOURCE.classes if each.kind == "STRUCTURAL"]


def test_active_directory_names_are_consistent() -> None:
    """DN, cn and the names for display agree, and every DN ends with the placeholder."""
    for record in ad_records("attributeSchema") + ad_records("classSchema"):
        name = value_of(record, "cn")
        assert value_of(record, "dn") == f"CN={name},{AD_SCHEMA}"
        assert {value_of(record, "lDAPDisplayName"), value_of(record, "adminDisplayName")} == {name}
        assert values(record, "defaultObjectCategory") in ([], [f"CN={name},{AD_SCHEMA}"])


def test_active_directory_classes_of_the_site_may_carry_access_control() -> None:
    """Attributes 19 to 29 go into mayContain of the five classes."""
    found = {
        value_of(record, "dn"): set(values(record, "mayContain"))
        for record in ad_records()
        if values(record, "add") == ["mayContain"]
    }

    assert found == {
        f"CN={name},{AD_SCHEMA}": CONTROL
        for name in ("User", "Group", "Contact", "Organizational-Unit", "Domain-DNS")
    }


def test_active_directory_reads_its_schema_again_between_the_steps() -> None:
    """Attributes, update, classes, update, mayContain, update: a step needs what the last one added."""

    def step(record: Record) -> str:
        return (values(record, "objectClass") + values(record, "add"))[0]

    steps = [step(record) for record in ad_records()]
    runs = [name for number, name in enumerate(steps) if steps[number - 1 : number] != [name]]

    update = "schemaUpdateNow"
    assert runs == ["attributeSchema", update, "classSchema", update, "mayContain", update]


def test_active_directory_arc_has_small_numbers_only() -> None:
    """Active Directory refuses an arc above 2^32-1."""
    assert max(int(part) for part in AD_ARC.split(".")) < 2**32


# The forms and slapd


def run(*command: str, text: str = "") -> str:
    """Run a program; its standard output, and a failed test with its complaints if it fails."""
    path = "/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/bin:/bin"
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, env={"PATH": path}, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


CORE = ("core", "cosine", "inetorgperson", "nis", "dyngroup", "misc")


@pytest.fixture
def slapd_conf(tmp_path: Path) -> Path:
    """A slapd.conf that includes `ldappolicy.schema`, with an empty database."""
    require_slapd()
    core = next(place for place in ("/etc/ldap/schema", "/etc/openldap/schema") if Path(place).is_dir())
    (tmp_path / "db").mkdir()
    includes = [f"{core}/{name}.schema" for name in CORE]
    includes.append(str(SCHEMA / "ldappolicy.schema"))
    modules = [path for path in ("/usr/lib/ldap", "/usr/lib64/openldap") if Path(path).is_dir()]
    lines = [
        *(f"include {name}" for name in includes),
        *(f"modulepath {path}\nmoduleload back_mdb" for path in modules),
        f'database mdb\nsuffix "{SUFFIX}"\ndirectory {tmp_path}/db',
    ]
    conf = tmp_path / "slapd.conf"
    conf.write_text("\n".join(lines) + "\n", "utf-8")
    return conf


def test_slapd_conf_form_loads(slapd_conf: Path) -> None:
    """slaptest accepts `ldappolicy.schema`, and slapadd the example on top of it."""
    run("slaptest", "-u", "-f", str(slapd_conf))
    run("slapadd", "-f", str(slapd_conf), "-l", str(SCHEMA / "example.ldif"))

    found = run("slapcat", "-f", str(slapd_conf), "-o", "ldif-wrap=no")

    assert len(ldif_records(found)) == len(EXAMPLE)


def search(slapd: Slapd, *arguments: str, who: str = "") -> list[Record]:
    """What ldapsearch finds, as the administrator of cn=config or of the database."""
    identity = ("-D", who or slapd.root_dn, "-w", slapd.root_pw)
    found = run(
        "ldapsearch", "-x", "-LLL", "-o", "ldif-wrap=no", "-H", slapd.ldapi_uri, *identity, *arguments
    )
    return ldif_records(found) if found.strip() else []


@pytest.mark.servers
def test_cn_config_form_loads_with_slapadd() -> None:
    """`ldappolicy.ldif` is part of the cn=config that slapadd -n0 makes, and the example loads."""
    require_slapd()
    with Slapd(schema="ldappolicy", overlays=PLAIN) as slapd:
        slapd.load(SCHEMA / "example.ldif")

        assert len(search(slapd, "-b", SUFFIX, "1.1")) == len(EXAMPLE)


@pytest.mark.servers
def test_cn_config_form_is_imported_by_a_running_server() -> None:
    """Imported over ldapi, the server shows what the source says, and takes the example at once."""
    require_slapd()
    with Slapd(schema="none", overlays=PLAIN) as slapd:
        slapd.configure(read("ldappolicy.ldif"))

        where = ("-b", "cn=schema,cn=config", "(cn=*ldappolicy)")
        (record,) = search(slapd, *where, who=CONFIG_DN)
        unordered = [(name, re.sub(r"^\{\d+\}", "", value)) for name, value in record]
        slapd.load(SCHEMA / "example.ldif")

    assert [attribute_type(value) for value in values(unordered, "olcAttributeTypes")] == SOURCE.attributes
    assert [object_class(value) for value in values(unordered, "olcObjectClasses")] == SOURCE.classes


@pytest.mark.servers
def test_classes_load_into_an_empty_company() -> None:
    """`classes.ldif` needs nothing but the entry above its base."""
    require_slapd()
    with Slapd(schema="ldappolicy", overlays=PLAIN) as slapd:
        slapd.load(f"dn: {SUFFIX}\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: x\n")
        slapd.load(SCHEMA / "classes.ldif")

        found = search(slapd, "-b", SUFFIX, "(objectClass=smtpdRestrictionClass)", "cn")

    assert {value_of(record, "cn") for record in found} == set(SHIPPED)


# The entries that are shipped


EXAMPLE = ldif_records(read("example.ldif"))
SHIPPED_RECORDS = ldif_records(read("classes.ldif"))


def test_classes_are_those_of_the_design() -> None:
    """Names and bodies of the shipped classes, in the design's order."""
    found = [record for record in SHIPPED_RECORDS if values(record, "smtpdRestrictions")]

    assert {value_of(record, "cn"): value_of(record, "smtpdRestrictions") for record in found} == SHIPPED
    assert [value_of(record, "cn") for record in found] == list(SHIPPED)


def test_example_has_the_classes_as_shipped() -> None:
    """Every entry of `classes.ldif` stands in the example as it is, and the example has no other class."""
    assert [record for record in SHIPPED_RECORDS if record not in EXAMPLE] == []
    in_example = [record for record in EXAMPLE if "smtpdRestrictionClass" in values(record, "objectClass")]
    assert in_example == [record for record in SHIPPED_RECORDS if values(record, "smtpdRestrictions")]


def test_example_has_parents_before_children() -> None:
    """It can be loaded from top to bottom; no entry stands there twice."""
    seen = [normal_dn(value_of(record, "dn")) for record in EXAMPLE]

    assert len(seen) == len(set(seen))
    for number, dn in enumerate(seen[1:], start=1):
        parent = re.split(r"(?<!\\),", dn, maxsplit=1)[1]
        assert parent in seen[:number]


def test_example_names_entries_that_exist() -> None:
    """A member, owner or moderator that is none would be a hole in a recipe."""
    there = {normal_dn(value_of(record, "dn")) for record in EXAMPLE}
    dn_valued = {"member", "owner"} | {name for name, syntax, _, _ in ATTRIBUTES.values() if syntax == DN}
    named = [value for record in EXAMPLE for name, value in record if name in dn_valued]

    assert [value for value in named if normal_dn(value) not in there] == []
    assert len(named) > 20


@pytest.mark.parametrize("attributes", [("mail", "mailLocalAddress"), ("uid",), ("associatedDomain",)])
def test_example_gives_nothing_to_two_entries(attributes: tuple[str, ...]) -> None:
    """An address, a login or a domain with two owners would make lookups unavailable."""
    found = [value.lower() for record in EXAMPLE for name in attributes for value in values(record, name)]

    assert len(found) == len(set(found))


def test_example_shows_every_recipe() -> None:
    """Each of the seven recipes has a heading, and says what proof it rests on."""
    headings = re.findall(r"(?m)^# ---- Recipe (\d)(?:.*\n#)*?.*Proof:", read("example.ldif"))

    assert headings == [str(number) for number in range(1, 8)]


# Access rules

MAPPED = {"mail", "mailAlternateAddress", "mailLocalAddress", "uid", "associatedDomain"}
MAPPED_389DS = MAPPED - {"mailLocalAddress"}  # which its schema does not have, so that no aci may name it
LOOKED_AT = {"memberURL", "departmentNumber"}
"""Whom the dynamic groups of the example cover, and by what."""
AD_MAPPED = {"mail", "proxyAddresses", "userPrincipalName", "sAMAccountName", "associatedDomain"}


@pytest.mark.parametrize(
    ("name", "pattern", "expected"),
    [
        ("access-openldap.ldif", r"to attrs=(\w+[\w,]*)", POLICY_MAKING | MAPPED | LOOKED_AT),
        ("access-389ds.ldif", r'targetattr = "([\w |]{2,})"', POLICY_MAKING | MAPPED_389DS | LOOKED_AT),
        (
            "access-ad.md",
            r"@'\n([\w\s]+)'@",
            POLICY_MAKING
            | {"mail", "proxyAddresses", "userPrincipalName", "sAMAccountName", "associatedDomain"},
        ),
    ],
)
def test_access_rules_name_every_attribute(name: str, pattern: str, expected: set[str]) -> None:
    """Attributes 14 to 29, and the addresses, logins and domains of the mapping."""
    unfolded = re.sub(r"\n ", "", read(name)) if name.endswith(".ldif") else read(name)

    assert {word for found in re.findall(pattern, unfolded) for word in re.findall(r"\w+", found)} == expected


def test_389ds_denies_selfwrite_wherever_it_denies_write() -> None:
    """A user who puts the own DN into a DN-valued attribute is asked for that right instead."""
    denied = re.findall(r"deny \(([^)]+)\)", read("access-389ds.ldif"))

    assert [rights for rights in denied if "write" in rights.split(", ") and "selfwrite" not in rights] == []
    assert len(denied) == 5


def test_389ds_refuses_new_entries_by_the_same_attributes() -> None:
    """An entry that is added is matched by a filter there: it names what the attribute rule names."""
    unfolded = re.sub(r"\n ", "", read("access-389ds.ldif"))
    found = [
        set(re.findall(r"\((\w+)=\*\)", text)) for text in re.findall(r'targetfilter = "([^"]+)"', unfolded)
    ]

    assert found == [POLICY_MAKING | MAPPED_389DS | LOOKED_AT, names(21, 23)]


AMY = f"uid=amy,ou=people,{SUFFIX}"
BOB = f"uid=bob,ou=people,{SUFFIX}"
PAULA = f"uid=paula,ou=people,{SUFFIX}"
CONTRACTORS = f"cn=contractors,ou=groups,{SUFFIX}"
RESTRICTED = f"cn=restricted,ou=groups,{SUFFIX}"
REFUSED = r"Insufficient access \(50\)"
DISALLOWED = {
    "smtpdAccess": "amy@my.domain OK",
    "smtpdAccessType": "hash",
    "smtpdAccessMember": AMY,
    "smtpdAccessURL": f"ldap:///{SUFFIX}?mail?sub?(uid=amy)",
    "smtpdAccessAction": "OK",
    "smtpdSenderAccess": "permit",
    "smtpdRecipientAccess": "permit",
    "smtpdMemberSenderAccess": "permit",
    "smtpdMemberRecipientAccess": "permit",
    "smtpdPriority": "1",
    "smtpdAllowedSender": "amy@my.domain",
    "smtpdAllowedSenderDN": AMY,
    "smtpdDeniedSender": "bob@my.domain",
    "smtpdDeniedSenderDN": BOB,
    "smtpdModerator": AMY,
    "smtpdSendAs": AMY,
    "mail": "gina.too@my.domain",
    "mail;lang-en": "gina.too@my.domain",
    "uid": "gina.too",
    "associatedDomain": "amy.example",
    "mailLocalAddress": "gina.too@my.domain",
}
LAX = {
    "self": "to * by self write by * read",
    "users": "to * by users write by * read",
}
"""Rules of sites that go furthest: users write all of their own entry, or all there is."""


def modify(dn: str, *lines: str) -> str:
    """A change record."""
    return "\n".join((f"dn: {dn}", "changetype: modify", *lines, ""))


def prepared(access: str) -> Slapd:
    """A server with such a rule and the example; two users have passwords, Amy room for any attribute."""
    require_slapd()
    return Slapd(
        schema="ldappolicy",
        overlays=PLAIN,
        access=("to attrs=userPassword by anonymous auth by * none", access),
    )


def fill(slapd: Slapd) -> None:
    """Load the example, and what the tests need beside it."""
    slapd.load(SCHEMA / "example.ldif")
    for dn in (AMY, PAULA):
        slapd.load(modify(dn, "replace: userPassword", "userPassword: pw"))
    # A class that allows attributes 14 to 18 too, so that a refusal is not the schema's.
    slapd.load(modify(AMY, "add: objectClass", "objectClass: extensibleObject"))


def load_access_rules(slapd: Slapd) -> None:
    """`access-openldap.ldif`, without the records for attributes that a bare slapd does not know."""
    records = re.split(r"\n\n+", read("access-openldap.ldif"))
    slapd.configure("\n\n".join(takewhile(lambda text: "mailAlternateAddress" not in text, records)) + "\n")


@pytest.fixture(scope="module", params=sorted(LAX))
def ruled(request: pytest.FixtureRequest) -> Iterator[Slapd]:
    """A lax site after it has loaded the access rules."""
    with prepared(LAX[request.param]) as slapd:
        fill(slapd)
        load_access_rules(slapd)
        yield slapd


@pytest.fixture(scope="module")
def unruled() -> Iterator[Slapd]:
    """A lax site without them."""
    with prepared(LAX["self"]) as slapd:
        fill(slapd)
        yield slapd


def refuse(slapd: Slapd, ldif: str, who: str = AMY) -> None:
    """The change is refused for want of rights, not for another reason."""
    with pytest.raises(RuntimeError, match=REFUSED):
        slapd.load(ldif, bind_dn=who, bind_pw="pw")


@pytest.mark.servers
@pytest.mark.parametrize("operation", ["add", "replace"])
@pytest.mark.parametrize("attribute", DISALLOWED)
def test_user_cannot_write_policy_on_an_own_entry(ruled: Slapd, attribute: str, operation: str) -> None:
    """Neither adding nor replacing gets a value of a policy-making attribute into the own entry."""
    refuse(ruled, modify(AMY, f"{operation}: {attribute}", f"{attribute}: {DISALLOWED[attribute]}"))


@pytest.mark.servers
@pytest.mark.parametrize("attribute", sorted(CONTROL - {"smtpdSenderAccess"}))
def test_user_could_write_policy_without_the_rules(unruled: Slapd, attribute: str) -> None:
    """The refusals are the rules' work: without them "by self write" makes policy."""
    change = modify(AMY, f"add: {attribute}", f"{attribute}: {DISALLOWED[attribute]}")

    unruled.load(change, bind_dn=AMY, bind_pw="pw")


@pytest.mark.servers
@pytest.mark.parametrize("attribute", ["description", "telephoneNumber", "displayName"])
def test_user_still_writes_the_rest_of_an_own_entry(ruled: Slapd, attribute: str) -> None:
    """What makes no policy is written as the site's own rule says."""
    ruled.load(modify(AMY, f"replace: {attribute}", f"{attribute}: 42"), bind_dn=AMY, bind_pw="pw")

    (record,) = search(ruled, "-b", AMY, attribute)
    assert value_of(record, attribute) == "42"


LURE = "objectClass: inetOrgPerson\nobjectClass: smtpdAccessControl\ncn: x\nsn: x\n"
SIDE_DOORS = {
    "escape by deleting the restriction": modify(AMY, "delete: smtpdSenderAccess"),
    "escape by deleting the address": modify(AMY, "delete: mail"),
    "account of somebody else, gone": f"dn: {BOB}\nchangetype: delete\n",
    "new name, new login": f"dn: {AMY}\nchangetype: modrdn\nnewrdn: uid=gina.too\ndeleteoldrdn: 0\n",
    "entry below the own one, with an address": f"dn: cn=x,{AMY}\n{LURE}mail: gina.too@my.domain\n",
    "entry below the own one, with access": f"dn: cn=x,{AMY}\n{LURE}smtpdSendAs: {AMY}\n",
    "policy on somebody else": modify(BOB, "add: smtpdRecipientAccess", "smtpdRecipientAccess: reject"),
    "address of somebody else": modify(BOB, "add: mail", "mail: bobby@my.domain"),
    "out of a group that restricts": modify(RESTRICTED, "delete: member", f"member: {CONTRACTORS}"),
    "into a group that allows": modify(f"cn=offsite,ou=groups,{SUFFIX}", "add: member", f"member: {AMY}"),
    "a group that restricts, gone": f"dn: {RESTRICTED}\nchangetype: delete\n",
    "into the group that writes policy": modify(
        f"cn=postmasters,ou=groups,{SUFFIX}", "add: member", f"member: {AMY}"
    ),
    "into a group that a filter defines": modify(AMY, "add: departmentNumber", "departmentNumber: sales"),
    "a filter that defines a group": modify(
        f"cn=sales,ou=lists,{SUFFIX}", "replace: memberURL", f"memberURL: ldap:///{AMY}"
    ),
    "a policy": modify(f"cn=default,ou=policy,{SUFFIX}", "delete: smtpdSenderRestrictions"),
    "a class": modify(
        f"cn=local_only,ou=classes,ou=policy,{SUFFIX}",
        "replace: smtpdRestrictions",
        "smtpdRestrictions: permit",
    ),
    "a new class": (
        f"dn: cn=mine,ou=classes,ou=policy,{SUFFIX}\n"
        "objectClass: smtpdRestrictionClass\ncn: mine\nsmtpdRestrictions: permit\n"
    ),
}


@pytest.mark.servers
@pytest.mark.parametrize("change", SIDE_DOORS.values(), ids=SIDE_DOORS.keys())
def test_side_doors_are_shut(ruled: Slapd, change: str) -> None:
    """Deleting, renaming, adding entries, and the entries of others lead nowhere either."""
    refuse(ruled, change)


@pytest.mark.servers
def test_everybody_still_reads(ruled: Slapd) -> None:
    """A service without a bind finds addresses, policies and access attributes."""
    base = ("ldapsearch", "-x", "-LLL", "-H", ruled.ldapi_uri, "-b", SUFFIX)

    (user,) = ldif_records(run(*base, "(mail=amy@my.domain)", "smtpdSenderAccess"))
    (policy,) = ldif_records(run(*base, "(&(objectClass=smtpdPolicy)(cn=plain))", "smtpdMyorigin"))

    assert value_of(user, "smtpdSenderAccess") == "local_only"
    assert value_of(policy, "smtpdMyorigin") == "my.domain"


@pytest.mark.servers
@pytest.mark.parametrize(
    "change",
    [
        modify(BOB, "add: objectClass", "objectClass: smtpdAccessControl", "-", "add: smtpdRecipientAccess",
               "smtpdRecipientAccess: permissive"),
        modify(f"cn=default,ou=policy,{SUFFIX}", "replace: description", "description: changed"),
        modify(RESTRICTED, "replace: smtpdPriority", "smtpdPriority: 21"),
    ],
    ids=["user", "policy", "group"],
)  # fmt: skip
def test_postmaster_writes_policy(change: str) -> None:
    """The group that the rules name may write what nobody else may, where users write anyway."""
    with prepared(LAX["users"]) as slapd:
        fill(slapd)
        load_access_rules(slapd)

        slapd.load(change, bind_dn=PAULA, bind_pw="pw")


@pytest.mark.servers
def test_access_rules_go_on_without_an_attribute_that_is_not_there() -> None:
    """`ldapmodify -c` with the whole file: only the records of unknown attributes are refused."""
    with prepared(LAX["self"]) as slapd, tempfile.TemporaryFile("w+") as complaints:
        fill(slapd)
        identity = ("-D", CONFIG_DN, "-w", slapd.root_pw)
        command = ("ldapmodify", "-c", "-x", "-H", slapd.ldapi_uri, *identity)
        subprocess.run(
            (*command, "-f", str(SCHEMA / "access-openldap.ldif")),
            stdout=subprocess.DEVNULL,
            stderr=complaints,
            check=False,
        )
        complaints.seek(0)
        said = complaints.read()
        (database,) = search(slapd, "-b", "olcDatabase={1}mdb,cn=config", "-s", "base", who=CONFIG_DN)

    assert len(re.findall("ldap_modify:", said)) == 1, indent(said, "  ")
    assert len(values(database, "olcAccess")) == 2 + 9


# README's tables
KINDS = {
    STRING: "string",
    DN: "DN",
    BOOLEAN: "boolean",
    INTEGER: "integer",
}
OF = {"smtpdPolicy": "policy", "smtpdRestrictionClass": "class", "smtpdAccessTable": "table"}


def test_readme_explains_every_attribute_type() -> None:
    """Every attribute type is explained, with the object it stands on and the values it takes."""
    may = {name: OF.get(each.name, "entry") for each in SOURCE.classes for name in each.may | each.must}
    expected = {
        each.name: (may[each.name], KINDS[each.syntax] + "s" * (not each.single))
        for each in SOURCE.attributes
    }
    rows = [(name, (of, value)) for names, of, value, _ in table("attributes") for name in quoted(names)]
    assert expected == dict(rows)
    assert len(rows) == len(expected)
    assert all(meaning for *_, meaning in table("attributes"))


def test_readme_has_every_object_class() -> None:
    """Every object class is there, with what it must and may have."""
    ours = {each.name for each in SOURCE.attributes}
    expected = {
        each.name: (each.kind.lower(), set(each.must), set(each.may) - ours) for each in SOURCE.classes
    }
    rows = {
        quoted(name)[0]: (kind, set(quoted(must)), set(quoted(may)))
        for name, kind, must, may in table("classes")
    }
    assert expected == rows
