"""DNs compare as directories compare them; entries have attributes without case."""

import copy
import pickle
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ldappolicy.entry import Entry, is_below, normal_dn
from ldappolicy.errors import InputError

AMY = "cn=amy smith,ou=people,dc=example,dc=com"
COMMA = r"cn=smith\2c amy,dc=example,dc=com"

SAME = [
    # (what varies, DN, its normal form)
    ("as it is", "cn=amy smith,ou=people,dc=example,dc=com", AMY),
    ("case of values", "cn=Amy SMITH,ou=People,dc=Example,dc=COM", AMY),
    ("case of types", "CN=amy smith,OU=people,DC=example,Dc=com", AMY),
    ("space behind commas", "cn=amy smith, ou=people,  dc=example, dc=com", AMY),
    ("space before commas", "cn=amy smith ,ou=people ,dc=example,dc=com", AMY),
    ("space around equals", "cn = amy smith,ou= people,dc =example,dc=com", AMY),
    ("space around everything", "  cn=amy smith,ou=people,dc=example,dc=com  ", AMY),
    ("several spaces within", "cn=amy   smith,ou=people,dc=example,dc=com", AMY),
    ("semicolons", "cn=amy smith;ou=people;dc=example;dc=com", AMY),
    ("semicolons and commas", "cn=amy smith; ou=people, dc=example;dc=com", AMY),
    ("quotes", 'cn="amy smith",ou="people",dc=example,dc=com', AMY),
    ("quotes and spaces around them", 'cn= "amy smith" , ou=people,dc=example,dc=com', AMY),
    ("spaces in quotes", 'cn=" amy  smith ",ou=people,dc=example,dc=com', AMY),
    ("escaped space at the end", r"cn=amy smith\ ,ou=people,dc=example,dc=com", AMY),
    ("escaped space at the start", r"cn=\ amy smith,ou=people,dc=example,dc=com", AMY),
    ("hex of a letter", r"cn=\61my smith,ou=people,dc=example,dc=com", AMY),
    ("hex of a space", r"cn=amy\20smith,ou=people,dc=example,dc=com", AMY),
    ("no-break space", "cn=amy\u00a0smith,ou=people,dc=example,dc=com", AMY),
    ("full-width letters", "cn=ａｍｙ smith,ou=people,dc=example,dc=com", AMY),
    ("long names of types", "commonName=amy smith,organizationalUnitName=people,dc=example,dc=com", AMY),
    ("object identifiers", "2.5.4.3=amy smith,2.5.4.11=people,domainComponent=example,dc=com", AMY),
    ("OID. and digits", "OID.2.5.4.3=amy smith,oid.2.5.4.11=people,dc=example,dc=com", AMY),
    (
        "other object identifiers",
        "2.5.4.4=b,2.5.4.6=c,2.5.4.7=d,2.5.4.8=e,2.5.4.9=f,2.5.4.10=g,1.2.840.113549.1.9.1=k",
        "sn=b,c=c,l=d,st=e,street=f,o=g,email=k",
    ),
    (
        "object identifiers of RFC 4524",
        "0.9.2342.19200300.100.1.1=i,0.9.2342.19200300.100.1.25=j",
        "uid=i,dc=j",
    ),
    (
        "long names of places",
        "surname=b,countryName=c,localityName=d,stateOrProvinceName=e,streetAddress=f",
        "sn=b,c=c,l=d,st=e,street=f",
    ),
    (
        "long names of people",
        "organizationName=g,userid=i,emailAddress=k,E=l",
        "o=g,uid=i,email=k,email=l",
    ),
    ("BER of a string", "cn=#0409616d7920736d697468,ou=people,dc=example,dc=com", AMY),
    ("BER with a long length", "cn=#0c8109616d7920536d697468,ou=people,dc=example,dc=com", AMY),
    ("escaped comma", r"cn=Smith\, Amy,dc=example,dc=com", COMMA),
    ("hex of a comma", r"cn=Smith\2C Amy,dc=example,dc=com", COMMA),
    ("quoted comma", 'cn="Smith, Amy",dc=example,dc=com', COMMA),
    ("escaped comma in quotes", r'cn="Smith\, Amy",dc=example,dc=com', COMMA),
    ("escaped quote", r"cn=\"amy\",dc=com", r"cn=\22amy\22,dc=com"),
    ("escaped quote in quotes", r'cn="\"amy\"",dc=com', r"cn=\22amy\22,dc=com"),
    ("escaped backslash", r"cn=a\\b,dc=com", r"cn=a\5cb,dc=com"),
    ("backslash before a comma", r"cn=a\\,dc=com", r"cn=a\5c,dc=com"),
    ("escaped sharp", r"cn=\#1,dc=com", r"cn=\231,dc=com"),
    ("quoted sharp", 'cn="#0403616263",dc=com', r"cn=\230403616263,dc=com"),
    ("sharp within", "cn=a#1,dc=com", r"cn=a\231,dc=com"),
    ("equals within", "cn=a=b,dc=com", "cn=a=b,dc=com"),
    ("escaped equals", r"cn=a\=b,dc=com", "cn=a=b,dc=com"),
    ("equals and a space", "cn=a= b,dc=com", "cn=a= b,dc=com"),
    ("full-width comma", "cn=a，b,dc=com", r"cn=a\2cb,dc=com"),
    ("UTF-8", "cn=MÜLLER,dc=com", "cn=müller,dc=com"),
    ("hex of UTF-8", r"cn=m\C3\BCller,dc=com", "cn=müller,dc=com"),
    ("decomposed letters", "cn=mu\u0308ller,dc=com", "cn=müller,dc=com"),
    ("bytes that are not UTF-8", r"cn=a\FFb,dc=com", "cn=a\udcffb,dc=com"),
    ("a raw byte that is not UTF-8", "cn=a\udcffb,dc=com", "cn=a\udcffb,dc=com"),
    ("sigma at the end", "cn=ΟΔΟΣ,dc=com", "cn=οδοσ,dc=com"),
    ("pairs in order", "cn=amy+uid=1,dc=com", "cn=amy+uid=1,dc=com"),
    ("pairs out of order", "UID=1 + cn=Amy,dc=com", "cn=amy+uid=1,dc=com"),
    ("escaped plus", r"cn=a\+uid=1,dc=com", r"cn=a\2buid=1,dc=com"),
    (
        "other types",
        "employeeNumber=7+mail=A@example.com,dc=com",
        "employeenumber=7+mail=a@example.com,dc=com",
    ),
    ("mail addresses", "emailAddress=a@b.c,e=A@B.C,dc=com", "email=a@b.c,email=a@b.c,dc=com"),
    ("BER of a number", "cn=#020105,dc=com", "cn=#020105,dc=com"),
    ("an empty value", "cn=,dc=com", "cn=,dc=com"),
    ("an empty value in quotes", 'cn="",dc=com', "cn=,dc=com"),
    ("NUL", r"cn=a\00b,dc=com", r"cn=a\00b,dc=com"),
    ("the root", "", ""),
    ("nothing but spaces", "  ", ""),
]


@pytest.mark.parametrize(("dn", "expected"), [row[1:] for row in SAME], ids=[row[0] for row in SAME])
def test_spellings_of_one_dn_have_one_normal_form(dn: str, expected: str) -> None:
    """What a directory takes for one name is one key."""
    assert expected == normal_dn(dn)


@pytest.mark.parametrize("dn", [row[1] for row in SAME], ids=[row[0] for row in SAME])
def test_a_normal_form_is_its_own_normal_form(dn: str) -> None:
    """Keys can be stored, printed and read again."""
    normal = normal_dn(dn)
    assert normal == normal_dn(normal)


DIFFERENT = [
    ("sharp s is not ss", "cn=strauß,dc=com", "cn=strauss,dc=com"),
    ("an accent", "cn=rené,dc=com", "cn=rene,dc=com"),
    ("a space or none", "cn=amy smith,dc=com", "cn=amysmith,dc=com"),
    ("order of RDNs", "ou=a,ou=b,dc=com", "ou=b,ou=a,dc=com"),
    ("one RDN or two", "cn=a+ou=b,dc=com", "cn=a,ou=b,dc=com"),
    ("a comma in the value", r"cn=a\,ou=b,dc=com", "cn=a,ou=b,dc=com"),
    ("types", "cn=a,dc=com", "uid=a,dc=com"),
    ("BER or its hex as text", "cn=#020105,dc=com", r"cn=\#020105,dc=com"),
    ("a tab is no space", "cn=a\tb,dc=com", "cn=a b,dc=com"),
    ("a soft hyphen stays", "cn=a\u00adb,dc=com", "cn=ab,dc=com"),
]


@pytest.mark.parametrize(("one", "other"), [row[1:] for row in DIFFERENT], ids=[row[0] for row in DIFFERENT])
def test_different_names_stay_different(one: str, other: str) -> None:
    """Nobody becomes somebody else by a spelling."""
    assert normal_dn(one) != normal_dn(other)


NOT_A_DN = [
    "amy",
    "=amy",
    "cn=amy,",
    ",cn=amy",
    "cn=amy,,dc=com",
    "cn=amy+,dc=com",
    "cn=amy\\",
    "cn=am\\y",
    "cn=\\é",
    'cn="amy',
    'cn="amy"x,dc=com',
    'cn=a"my,dc=com',
    "cn=a<b",
    "cn=a>b",
    "cn=a\0b",
    "cn=#",
    "cn=#0",
    "cn=#xx",
    "cn=#04",
    "cn=#0405616d79",
    "cn=#0480",
    "cn=#04ff00",
    "c n=amy",
    "ü=amy",
    "cn=\\20\ud800",
    "<GUID=0123>",
]


@pytest.mark.parametrize("dn", NOT_A_DN)
def test_what_is_not_a_dn_is_an_input_error(dn: str) -> None:
    """The error is one line, and names what was given and what was expected."""
    with pytest.raises(InputError) as caught:
        normal_dn(dn)
    assert str(caught.value).startswith(f"not a DN: {dn!r}, expected ")
    assert "\n" not in str(caught.value)


def test_the_error_says_where() -> None:
    """A person finds the character."""
    with pytest.raises(InputError, match=r"at character 8$"):
        normal_dn("cn=amy,dc")


@given(st.text())
@example("cn=\u1e9e,dc=com")
def test_any_text_is_a_dn_or_an_input_error(text: str) -> None:
    """Whatever stands in a directory, there are two outcomes, and a normal form is stable."""
    try:
        normal = normal_dn(text)
    except InputError:
        return
    assert normal == normal_dn(normal)


@given(st.binary())
def test_any_value_can_be_written_in_hex(value: bytes) -> None:
    """Every octet string is a value, and no value reaches beyond its RDN."""
    normal = normal_dn("cn=" + "".join(f"\\{octet:02x}" for octet in value) + ",dc=com")
    assert ("dc=com", 1) == (normal.partition(",")[2], normal.count(","))


@given(st.characters(exclude_categories=["Cs"]))
def test_a_character_means_the_same_raw_and_escaped(character: str) -> None:
    """A key does not depend on who escaped what."""
    escaped = "".join(f"\\{octet:02X}" for octet in character.encode())
    raw = f"\\{character}" if character in '"#+,;<=>\\ ' else character
    if character != "\0":
        assert normal_dn(f"cn=a{escaped}b") == normal_dn(f"cn=a{raw}b")


@pytest.mark.parametrize(
    "dn",
    ["cn=" + " " * 100000 + '"', 'cn="' + "a " * 100000, "cn" + " " * 100000, "cn=" + "\\ " * 100000 + "<"],
)
def test_a_long_dn_is_refused_in_linear_time(dn: str) -> None:
    """Input cannot keep the program busy."""
    start = time.process_time()
    with pytest.raises(InputError):
        normal_dn(dn)
    assert time.process_time() - start < 1


BELOW = [
    ("uid=amy,ou=people,dc=com", "ou=people,dc=com", True),
    ("uid=amy,ou=people,dc=com", "dc=com", True),
    ("ou=people,dc=com", "ou=people,dc=com", True),
    ("ou=people,dc=com", "", True),
    ("", "", True),
    ("", "dc=com", False),
    ("dc=com", "ou=people,dc=com", False),
    ("uid=amy,xou=people,dc=com", "ou=people,dc=com", False),
    ("uid=amy,dc=example,dc=com", "dc=example,dc=org", False),
    (r"uid=amy\,ou=people,dc=com", "ou=people,dc=com", False),
]


@pytest.mark.parametrize(("dn", "base", "expected"), BELOW)
def test_below_goes_by_whole_rdns(dn: str, base: str, expected: bool) -> None:
    """An entry is under a base when the base's RDNs end its DN."""
    assert expected is is_below(normal_dn(dn), normal_dn(base))


def test_names_have_no_case() -> None:
    """An attribute is asked for in any spelling, and stored in one."""
    amy = Entry("uid=amy,dc=com", {"MAIL": ["Amy@Example.com"], "objectClass": ["person"]})
    assert ("Amy@Example.com",) == amy.values("mail") == amy.values("Mail") == amy.values("mAIL")
    assert [("mail", ("Amy@Example.com",)), ("objectclass", ("person",))] == list(amy.items())


def test_an_absent_attribute_has_no_values() -> None:
    """An attribute without values is as one that was never there."""
    amy = Entry("uid=amy,dc=com", {"mail": []})
    assert ((), ()) == (amy.values("mail"), amy.values("cn"))
    assert [] == list(amy.items())


def test_options_are_dropped() -> None:
    """The values of all the options of an attribute are that attribute's."""
    amy = Entry("uid=amy,dc=com", {"cn": ["Amy"], "cn;lang-fr": ["Aimée"], "CN;lang-en;x-y": ["Amie"]})
    assert ("Amy", "Aimée", "Amie") == amy.values("cn")
    assert () == amy.values("cn;lang-fr")


def test_dn_as_spelled_and_key() -> None:
    """The DN is shown as the directory spells it, and compared by its normal form."""
    amy = Entry("UID=Amy, DC=com", {})
    assert ("UID=Amy, DC=com", "uid=amy,dc=com") == (amy.dn, amy.key)


def test_an_entry_needs_a_dn() -> None:
    """An entry whose name cannot be read is none."""
    with pytest.raises(InputError):
        Entry("amy", {})


def test_equality_is_by_key_and_attributes() -> None:
    """Two spellings of a DN are one entry; a changed value makes another."""
    amy = Entry("uid=amy,dc=com", {"mail": ["a@b.c"]})
    assert amy == Entry("UID=AMY,dc=com", {"Mail": ("a@b.c",)})
    assert hash(amy) == hash(Entry("UID=AMY,dc=com", {"Mail": ("a@b.c",)}))
    assert amy != Entry("uid=amy,dc=com", {"mail": ["A@b.c"]})
    assert amy != Entry("uid=bob,dc=com", {"mail": ["a@b.c"]})
    assert amy != "uid=amy,dc=com"


def test_an_entry_is_immutable() -> None:
    """Entries are shared between requests, so nobody writes to one."""
    amy = Entry("uid=amy,dc=com", {})
    with pytest.raises(AttributeError, match="immutable"):
        setattr(amy, "dn", "uid=bob,dc=com")  # noqa: B010 -- mypy refuses the plain form
    with pytest.raises(AttributeError, match="immutable"):
        del amy.key
    assert "uid=amy,dc=com" == amy.dn


def test_an_entry_survives_copy_and_pickle() -> None:
    """What refuses writing can still be stored and sent."""
    amy = Entry("UID=amy,dc=com", {"mail": ["a@b.c"]})
    again = pickle.loads(pickle.dumps(amy))  # noqa: S301 -- our own bytes
    assert (amy, amy.dn) == (again, again.dn)
    assert amy == copy.deepcopy(amy)


def test_repr_shows_everything() -> None:
    """A failed comparison in a test can be read."""
    assert "Entry('uid=amy', {'mail': ('a@b.c',)})" == repr(Entry("uid=amy", {"mail": ["a@b.c"]}))
