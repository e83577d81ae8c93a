"""The reply, case by case: the rules of section 6, what is sent, and what one reply cannot say.

`test_residue_model` holds replies to a model of smtpd(8); here stand the sentences of the page.
"""

import pytest

from tests.language import (
    CONFIGURATION_ERROR,
    Site,
    acting,
    answer,
    classes,
    policy,
    tables,
)

P, P2 = "permit_inet_interfaces", "permit_tls_clientcerts"
R, R2 = "reject_unknown_sender_domain", "reject_unlisted_recipient"
G = "reject_rbl_client x.example"


# ---------------------------------------------------------------- what is sent


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ("permit", "DUNNO"),
        (acting("OK"), "DUNNO"),
        (acting("DUNNO"), "DUNNO"),
        (acting("1234"), "DUNNO"),
        (acting("RELAY text"), "DUNNO"),
        (acting(""), CONFIGURATION_ERROR),
        (acting("INFO hello"), "DUNNO"),
        (acting("WARN"), "DUNNO"),
        ("reject", "reject,"),
        ("defer", "defer,"),
        (acting("reject,"), "reject,"),
        (acting("defer,"), "defer,"),
        (acting("reject"), "REJECT"),
        (acting("defer"), "DEFER"),
        (acting("Reject no: really"), "REJECT no: really"),
        (acting("550 5.7.1 no"), "550 5.7.1 no"),
        (acting("550 5.7.1"), "550 5.7.1 Access denied"),
        (acting("450 later"), "450 later"),
        (acting("defer_if_permit"), "DEFER_IF_PERMIT"),
        (acting("DEFER_IF_PERMIT wait"), "DEFER_IF_PERMIT wait"),
        (acting("DEFER_IF_REJECT wait"), "DEFER_IF_REJECT wait"),
        ("defer_if_permit", "defer_if_permit,"),
        ("defer_if_reject", "defer_if_reject,"),
        (acting("hold"), "HOLD"),
        (acting("discard gone"), "DISCARD gone"),
        (acting("filter x:y"), "FILTER x:y"),
        (acting("Redirect a@b"), "REDIRECT a@b"),
        (acting("BCC a@b"), "BCC a@b"),
        (acting("prepend X-A: b"), "PREPEND X-A: b"),
        (acting("FILTER nowhere"), "DUNNO"),
        ("reject_non_fqdn_sender", "reject_non_fqdn_sender, reject"),
        ("reject_plaintext_session", "reject_plaintext_session, defer"),
        (R, f"{R},"),
        (f"{R}, {R2}", f"{R}, {R2}"),
        (G, G),
        (f"{R}, permit", f"{R},"),
        ("nosuch", CONFIGURATION_ERROR),
        ("", "DUNNO"),
    ],
)
def test_what_is_sent(listed: str, expected: str) -> None:
    """Every row of the page's table of outcomes."""
    assert expected == answer(listed, sender="nobody")


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        pytest.param({"recipient": "permit"}, "OK", id="the last list permits"),
        pytest.param({"recipient": acting("OK")}, "OK", id="by a table"),
        pytest.param({"recipient": "c"}, "OK", id="by a class"),
        pytest.param({"recipient": "permit_sasl_authenticated"}, "DUNNO", id="it runs out"),
        pytest.param({"sender": "permit", "recipient": acting("DUNNO")}, "DUNNO", id="another permits"),
        pytest.param({"sender": acting("DUNNO"), "recipient": "permit"}, "OK", id="the last alone counts"),
        pytest.param({"recipient": f"{acting('HOLD')}, permit"}, "HOLD", id="an effect"),
        pytest.param({"recipient": "defer_if_permit, permit"}, "defer_if_permit,", id="a deferral"),
        pytest.param({"recipient": f"{R}, permit"}, f"{R}, permit", id="the final permit stays"),
        pytest.param({"recipient": f"{P}, permit"}, "OK", id="P before a permit"),
        pytest.param({"recipient": P}, f"{P},", id="P at the end may permit"),
        pytest.param({"recipient": "reject"}, "reject,", id="a refusal"),
    ],
)
def test_permit_reply(lists: dict[str, str], expected: str) -> None:
    """With permit_reply OK a permit of the last list is OK on the wire."""
    assert expected == Site(policy(**lists), classes(c="permit"), permit_ok=True).action()


@pytest.mark.parametrize(
    "lists",
    [{"recipient": "permit"}, {"recipient": f"{P}, permit"}, {"recipient": P}, {"client": P, "sender": P2}],
)
def test_permit_is_dunno(lists: dict[str, str]) -> None:
    """By default a permit is DUNNO, and what could only permit is dropped."""
    assert "DUNNO" == Site(policy(**lists)).action()


# ---------------------------------------------------------------- rules 1 to 6


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        # rule 1
        pytest.param(f"{G}, check_sender_access ldap:in, reject", f"{G}, reject", id="the page's outsider"),
        pytest.param(f"{R}, {P}, {R2}, reject", f"{R}, {P}, {R2}, reject", id="order"),
        pytest.param(f"{R}, {P}", f"{R},", id="P at the end"),
        pytest.param(f"{R}, {P}, {P2}, permit", f"{R},", id="several P at the end"),
        pytest.param(f"{P}, {R}", f"{P}, {R}", id="P before R"),
        pytest.param(
            f"{R}, defer_if_permit, {R2}", f"{R}, defer_if_permit, {R2}", id="defer_if_permit in its place"
        ),
        pytest.param(
            f"{R}, defer_if_reject, {R2}", f"{R}, defer_if_reject, {R2}", id="defer_if_reject in its place"
        ),
        pytest.param(f"{P}, defer_if_permit, permit", f"{P}, defer_if_permit", id="P before defer_if_permit"),
        pytest.param(f"warn_if_reject {R}, {R2}", f"warn_if_reject {R}, {R2}", id="warn_if_reject"),
        pytest.param(
            "warn_if_reject c, reject", f"warn_if_reject {R}, warn_if_reject {G}, reject", id="of a class"
        ),
        pytest.param(f"c, {R2}", f"{R}, {G}, {R2}", id="a class is put in its place"),
        # rule 2
        pytest.param("reject_non_fqdn_sender", "reject_non_fqdn_sender, reject", id="a built-in"),
        pytest.param(
            "reject_plaintext_session", "reject_plaintext_session, defer", id="a built-in with a 4xx"
        ),
        pytest.param(f"{R}, reject_non_fqdn_sender", f"{R}, reject_non_fqdn_sender, reject", id="behind R"),
        pytest.param(
            f"{P}, reject_plaintext_session", f"{P}, reject_plaintext_session, defer", id="behind P"
        ),
        # rule 3
        pytest.param(f"{G}, {acting('REJECT no')}", "REJECT no", id="text behind what is always permanent"),
        pytest.param(
            f"{G}, reject_unauth_pipelining, {acting('550 no')}", "550 no", id="behind two of those"
        ),
        pytest.param(
            f"warn_if_reject {R}, {acting('550 no')}", "550 no", id="behind anything under warn_if_reject"
        ),
        pytest.param(f"{R}, {acting('REJECT no')}", f"{R}, reject", id="behind what may be temporary"),
        pytest.param(f"{G}, {R}, {acting('550 no')}", f"{G}, {R}, reject", id="behind both"),
        pytest.param(f"{R}, {acting('450 later')}", "450 later", id="a 4xx keeps its text"),
        pytest.param(f"{R}, {acting('DEFER later')}", "DEFER later", id="so does DEFER"),
        pytest.param(f"{R}, nosuch", CONFIGURATION_ERROR, id="so does an error"),
        # rule 4
        pytest.param(f"{P}, {acting('REJECT no')}", f"{P}, reject", id="text behind P"),
        pytest.param(f"{P}, {acting('450 later')}", f"{P}, defer", id="4xx behind P"),
        pytest.param(f"{P}, nosuch", f"{P}, defer", id="an error behind P"),
        pytest.param(f"{P}, {G}, {acting('550 no')}", f"{P}, {G}, reject", id="behind P and R"),
        pytest.param(
            f"warn_if_reject {P}, {acting('550 no')}", f"warn_if_reject {P}, reject", id="P under warn"
        ),
        pytest.param(
            f"{acting('DEFER_IF_PERMIT x')}, {R}", f"defer_if_permit, {R}", id="its text is given up"
        ),
        pytest.param(
            f"{R}, {acting('DEFER_IF_REJECT x')}", f"{R}, defer_if_reject", id="that of the other, too"
        ),
        # nothing behind what decides
        pytest.param(f"reject, {R}", "reject,", id="behind a reject"),
        pytest.param(f"permit, {R}", "DUNNO", id="behind a permit"),
        pytest.param(f"{acting('REJECT no')}, {R}, {P}", "REJECT no", id="behind a text"),
    ],
)
def test_one_list(listed: str, expected: str) -> None:
    """What remains of one list."""
    entries = [*tables(**{"in": ["insider.example OK"]}), *classes(c=f"{R}, {G}")]
    assert expected == answer(listed, entries, sender="nobody")


def test_the_page_s_insider() -> None:
    """An insider gets what is left, an outsider what is left and the refusal."""
    site = Site(
        policy(recipient=f"{G}, check_sender_access ldap:in, reject"),
        tables(**{"in": ["insider.example OK"]}),
    )
    assert [G, f"{G}, reject"] == [site.action(sender=f"a@{name}.example") for name in ("insider", "b")]


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        # rule 5
        pytest.param({"client": P, "recipient": "reject"}, "reject,", id="P dropped"),
        pytest.param({"client": f"{P}, {R}", "recipient": "reject"}, f"{R}, reject", id="R kept"),
        pytest.param(
            {"client": f"{P}, {R}", "recipient": acting("450 later")}, "450 later", id="any 4xx alone"
        ),
        pytest.param({"client": f"{P}, defer", "recipient": "reject"}, "defer,", id="a 4xx behind P alone"),
        pytest.param({"client": f"{P}, reject", "recipient": "defer"}, "defer,", id="a 4xx later alone"),
        pytest.param(
            {"client": f"{P}, reject", "recipient": acting("550 no")},
            "reject,",
            id="ends at the first refusal",
        ),
        pytest.param({"client": P, "recipient": acting("550 no")}, "550 no", id="its text"),
        pytest.param(
            {"client": f"{P}, {G}", "recipient": acting("550 no")}, "550 no", id="text, R always permanent"
        ),
        pytest.param(
            {"client": f"{P}, {R}", "recipient": acting("550 no")}, f"{R}, reject", id="text given up"
        ),
        pytest.param(
            {"client": P, "sender": P2, "recipient": "reject"}, "reject,", id="two P make no difference"
        ),
        pytest.param(
            {"client": f"{acting('HOLD')}, {P}", "recipient": "reject"}, "reject,", id="effects do not matter"
        ),
        pytest.param(
            {"client": f"{acting('HOLD')}, {R}", "recipient": "reject"}, f"{R}, reject", id="nor beside R"
        ),
        pytest.param({"client": R, "recipient": "reject"}, f"{R}, reject", id="without any P"),
        pytest.param(
            {"client": R, "recipient": acting("550 no")}, f"{R}, reject", id="text behind another list's R"
        ),
        pytest.param({"client": "reject", "recipient": R}, "reject,", id="nothing behind the first refusal"),
        # rule 6
        pytest.param({"client": R, "recipient": R2}, f"{R}, {R2}", id="several lists"),
        pytest.param({"client": f"{P}, {R}", "recipient": R2}, f"{R2}, {P}, {R}", id="those without P first"),
        pytest.param(
            {"client": R, "recipient": f"{P}, reject"}, f"{R}, {P}, reject", id="then the one with P"
        ),
        pytest.param({"client": f"{P}, {R}", "recipient": f"{P}, {R2}"}, f"{P}, {R}, {R2}", id="one head"),
        pytest.param(
            {"client": f"{P}, {R}", "relay": f"{P}, {G}", "recipient": f"{P}, reject"},
            f"{P}, {R}, {G}, reject",
            id="one head of three",
        ),
        pytest.param(
            {"client": f"{P}, {P2}, {R}", "recipient": f"{P}, {P2}, {R2}"},
            f"{P}, {P2}, {R}, {R2}",
            id="a longer head",
        ),
        pytest.param(
            {"client": f"{P}, {R}", "sender": G, "recipient": f"{P}, {R2}"},
            f"{G}, {P}, {R}, {R2}",
            id="head and others",
        ),
        pytest.param({"client": P, "recipient": f"{P}, {R}"}, f"{P}, {R}", id="a P at the end is none"),
        pytest.param({"client": P2, "recipient": f"{P}, {R}"}, f"{P}, {R}", id="nor is another one"),
        pytest.param({"client": f"{R}, permit", "recipient": R2}, f"{R}, {R2}", id="permits of known lists"),
        pytest.param(
            {"client": "defer_if_permit", "recipient": f"{P}, {R}"},
            f"defer_if_permit, {P}, {R}",
            id="deferral first",
        ),
        # what one reply cannot say
        pytest.param(
            {"client": f"{P}, {R}", "recipient": f"{P2}, {R}"}, CONFIGURATION_ERROR, id="two different P"
        ),
        pytest.param(
            {"client": f"{P}, {P2}, {R}", "recipient": f"{P}, {R}"}, CONFIGURATION_ERROR, id="a later P"
        ),
        pytest.param(
            {"client": f"{R}, {P}, {G}", "recipient": f"{R}, {P}, {G}"}, CONFIGURATION_ERROR, id="no head"
        ),
        pytest.param(
            {"client": f"warn_if_reject {P}, {R}", "recipient": f"{P}, {R}"},
            CONFIGURATION_ERROR,
            id="warned P",
        ),
        *(
            pytest.param(
                {"client": acting(effect), "recipient": R}, CONFIGURATION_ERROR, id=f"{effect} and R"
            )
            for effect in ("HOLD", "FILTER x:y", "REDIRECT a@b", "BCC a@b", "PREPEND X: y")
        ),
        pytest.param(
            {"client": acting("HOLD"), "recipient": f"{P}, reject"}, CONFIGURATION_ERROR, id="HOLD and P"
        ),
        pytest.param({"client": acting("HOLD"), "recipient": P}, "HOLD", id="HOLD and a P that is dropped"),
        pytest.param(
            {"recipient": f"{acting('DEFER_IF_REJECT x')}, {acting('HOLD')}"},
            CONFIGURATION_ERROR,
            id="HOLD and flag",
        ),
        pytest.param(
            {"client": R, "recipient": acting("DISCARD")}, CONFIGURATION_ERROR, id="DISCARD behind R"
        ),
        pytest.param({"recipient": f"{P}, {acting('DISCARD')}"}, CONFIGURATION_ERROR, id="DISCARD behind P"),
        pytest.param({"client": acting("DISCARD"), "recipient": R}, "DISCARD", id="R behind DISCARD"),
        pytest.param({"client": P, "recipient": acting("DISCARD")}, "DISCARD", id="a P that is dropped"),
        pytest.param(
            {"recipient": f"{acting('FILTER x:y')}, {acting('HOLD')}"}, CONFIGURATION_ERROR, id="two effects"
        ),
        pytest.param(
            {"client": acting("HOLD"), "recipient": acting("BCC a@b")}, CONFIGURATION_ERROR, id="in two lists"
        ),
    ],
)
def test_several_lists(lists: dict[str, str], expected: str) -> None:
    """What remains of several lists."""
    decision = Site(policy(**lists)).decide()
    assert expected == decision.action
    assert (expected == CONFIGURATION_ERROR) == bool(decision.error)


# ---------------------------------------------------------------- effects


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        pytest.param("HOLD|HOLD again", "HOLD", id="HOLD twice"),
        pytest.param("HOLD first|HOLD", "HOLD first", id="HOLD twice, with a text"),
        pytest.param("FILTER a:b|FILTER c:d", "FILTER c:d", id="the last FILTER"),
        pytest.param("REDIRECT a@b|REDIRECT c@d", "REDIRECT c@d", id="the last REDIRECT"),
        pytest.param("DISCARD|REJECT", "DISCARD", id="DISCARD ends everything"),
        pytest.param("HOLD|DISCARD", "DISCARD", id="DISCARD behind HOLD"),
        pytest.param("HOLD|REJECT", "REJECT", id="a refused recipient has no effects"),
        pytest.param("DEFER_IF_PERMIT x|HOLD", "DEFER_IF_PERMIT x", id="nor a deferred one"),
        pytest.param("HOLD|DEFER_IF_PERMIT x", "DEFER_IF_PERMIT x", id="in either order"),
        pytest.param("DEFER_IF_PERMIT x|DISCARD", "DEFER_IF_PERMIT x", id="a deferral before DISCARD"),
        pytest.param("REJECT|HOLD", "REJECT", id="behind a refusal"),
        pytest.param("HOLD|OK", "HOLD", id="with a permit"),
        pytest.param("INFO x|HOLD", "HOLD", id="with a log line"),
        pytest.param("DEFER_IF_PERMIT x|DEFER_IF_PERMIT y", "DEFER_IF_PERMIT x", id="the first deferral"),
        pytest.param("DEFER_IF_REJECT x|REJECT", "DEFER x", id="a refusal becomes the deferral"),
        pytest.param("DEFER_IF_REJECT|REJECT", "DEFER Service unavailable", id="with its own default text"),
        pytest.param("DEFER_IF_REJECT 4.2.0|REJECT", "DEFER 4.2.0 Service unavailable", id="its code too"),
        pytest.param("DEFER_IF_REJECT x|DEFER_IF_REJECT y|REJECT", "DEFER x", id="the first one"),
        pytest.param("DEFER_IF_REJECT x|450 y", "450 y", id="a temporary refusal stays"),
        pytest.param(
            "DEFER_IF_REJECT x|DEFER_IF_PERMIT y|REJECT", "DEFER_IF_PERMIT y", id="both flags end the list"
        ),
        pytest.param("DEFER_IF_REJECT x|OK", "DEFER_IF_REJECT x", id="it is sent for what follows"),
    ],
)
def test_effects(listed: str, expected: str) -> None:
    """Side effects and deferrals after one another, in one list and over two."""
    actions = listed.split("|")
    assert expected == answer(", ".join(map(acting, actions)))
    if len(actions) == 2 and actions[1] != "OK":
        site = Site(policy(relay=acting(actions[0]), recipient=acting(actions[1])))
        assert expected == site.action()


def test_discard_ends_everything() -> None:
    """Later lists are not evaluated any more, as in smtpd."""
    assert "DISCARD" == Site(policy(client=acting("DISCARD"), recipient="reject")).action()


@pytest.mark.parametrize(
    ("check", "attributes", "expected"),
    [
        ("check_sender_access", {}, "REJECT 5.1.1 x"),
        ("check_recipient_access", {}, "REJECT 5.1.1 x"),
        ("check_client_access", {}, "REJECT 5.0.0 x"),
        ("check_reverse_client_hostname_access", {}, "REJECT 5.0.0 x"),
        ("check_helo_access", {}, "REJECT 5.0.0 x"),
        ("check_sasl_access", {"login": "amy"}, "REJECT 5.0.0 x"),
        ("check_ccert_access", {"ccert_fingerprint": "aa"}, "REJECT 5.0.0 x"),
        ("check_etrn_access", {"etrn_domain": "b.example"}, "REJECT 5.0.0 x"),
    ],
)
def test_address_codes(check: str, attributes: dict[str, str], expected: str) -> None:
    """An x.1.y code is sent as written from an address check, as x.0.0 from any other."""
    assert expected == answer(f"{check} static:{{REJECT 5.1.1 x}}", **attributes)


def test_text_that_is_given_up_is_logged() -> None:
    """The text that gave way to a residue is in the notes."""
    decision = Site(policy(recipient=f"{R}, {acting('550 go away')}")).decide()
    assert f"{R}, reject" == decision.action
    assert any("550 go away" in note for note in decision.notes)


def test_what_cannot_be_said_is_explained() -> None:
    """Such an error says what one reply cannot say, and which list holds it."""
    decision = Site(policy(client=acting("HOLD"), recipient=f"{R}, {P}, {R2}")).decide()
    assert all(word in decision.error for word in ("HOLD", "recipient", R))


def test_one_list_at_a_time() -> None:
    """What two lists cannot say together, each can alone."""
    site = Site(policy(client=f"{P}, {R}", recipient=f"{P2}, {R2}"))
    actions = [site.action(policy_context=f"default/{name}") for name in ("client", "recipient")]
    assert [f"{P}, {R}", f"{P2}, {R2}"] == actions
