"""The mapping: profiles, overrides, and that it says what the schema documents."""

import pytest

from ldappolicy.errors import ConfigError
from ldappolicy.mapping import KEYS, PROFILES, Mapping, mapping_for


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_profile(profile: str) -> None:
    """Both profiles read plain mail, uid and member attributes, and the schema's own for the rest."""
    mapping = mapping_for(profile, {})
    assert mapping.mail == ("mail", "mailAlternateAddress", "mailLocalAddress")
    assert mapping.login == ("uid",)
    assert mapping.member == ("member", "uniqueMember", "memberUid", "memberURL")
    assert mapping.login_required == ()
    assert mapping.sender_access == ("smtpdSenderAccess",)
    assert mapping.member_of == ("memberOf",)


def test_overrides() -> None:
    """What the site names replaces the profile's list as a whole, the rest stays."""
    mapping = mapping_for("generic", {"mail": ("email",), "owner": ()})
    expected = ("email",), (), Mapping().login
    assert expected == (mapping.mail, mapping.owner, mapping.login)


@pytest.mark.parametrize("key", KEYS)
def test_every_key_can_be_overridden(key: str) -> None:
    """Each key of the mapping is a concept that a site can name otherwise."""
    assert getattr(mapping_for("generic", {key: ("x", "y")}), key) == ("x", "y")


@pytest.mark.parametrize(
    ("profile", "overrides", "complaint"),
    [
        ("novell", {}, "no such profile: expected one of generic, openldap, got 'novell'"),
        ("generic", {"member_of": ("x",)}, "got 'member_of'"),
        ("generic", {"mial": ("x",)}, "got 'mial'"),
    ],
)
def test_refused(profile: str, overrides: dict[str, tuple[str, ...]], complaint: str) -> None:
    """A profile or key that nobody knows is an error of the configuration."""
    with pytest.raises(ConfigError) as error:
        mapping_for(profile, overrides)
    assert str(error.value).endswith(complaint)
