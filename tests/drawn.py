"""Policies, requests and outages that hypothesis draws, and a small directory with some of everything."""

from hypothesis import strategies as st

from ldappolicy.policy import LISTS
from tests.language import AMY, BOB, classes, dn, entry, group, person, table

URL = "ldap:///dc=example?mail,associatedDomain?sub?(employeeType=guest)"
DIRECTORY = [
    person("amy", "amy@my.domain", "amy.a@my.domain", memberOf=dn("cn=g,ou=groups")),
    person("bob", smtpdSenderAccess="b", smtpdSendAs=AMY, employeeType="guest"),
    person("twin", "bob@my.domain", "cal@my.domain"),
    entry("cn=other", uid="amy2", mail="cal@my.domain", smtpdRecipientAccess="HOLD"),
    group("g", [dn("cn=h,ou=groups"), BOB], smtpdMemberSenderAccess="c, reject", smtpdPriority="3"),
    group("h", [dn("cn=g,ou=groups")], smtpdMemberSenderAccess="DUNNO", smtpdMemberRecipientAccess="b"),
    entry(
        "cn=d,ou=groups", memberURL="ldap:///ou=people,dc=example??sub?(uid=a*)", member=dn("cn=h,ou=groups")
    ),
    group(
        "all",
        [AMY, dn("cn=d,ou=groups")],
        mail="all@my.domain",
        owner=BOB,
        smtpdRecipientAccess="c",
        smtpdAllowedSender="my.domain",
        smtpdDeniedSenderDN=dn("cn=d,ou=groups"),
    ),
    entry(
        "dc=my",
        associatedDomain="my.domain",
        smtpdSenderAccess="a",
        smtpdRecipientAccess="DUNNO",
        smtpdSendAs=dn("cn=h,ou=groups"),
    ),
    entry("dc=d", associatedDomain="domain", smtpdSenderAccess="FILTER x:y"),
    *classes(
        a="check_sasl_access recipient:members, check_sender_access ldap:t",
        b="warn_if_reject check_sender_access recipient:allowed, check_recipient_access directory:access",
        c="check_sender_access recipient:denied, reject_unknown_sender_domain, check_sasl_access ldap:t",
        loop="check_client_access static:loop",
    ),
    table(
        "t",
        "my.domain a",
        "b.example REJECT 5.1.1 no",
        smtpdAccessMember=dn("cn=g,ou=groups"),
        smtpdAccessURL=URL,
    ),
    table("local", "my.domain x", smtpdAccessURL=URL),
]

ITEMS = st.sampled_from(
    [
        *(
            "permit",
            "reject",
            "defer",
            "defer_if_permit",
            "defer_if_reject",
            "warn_if_reject",
            "a",
            "b",
            "c",
            "loop",
        ),
        *(
            "permit_mynetworks",
            "permit_inet_interfaces",
            "reject_rbl_client x",
            "reject_unknown_sender_domain",
        ),
        *("permit_sasl_authenticated", "reject_unauth_destination", "permit_auth_destination"),
        *("reject_sender_login_mismatch", "reject_known_sender_login_mismatch", "reject_non_fqdn_sender"),
        *(f"check_{who}_access directory:access" for who in ("sender", "sasl", "recipient")),
        *(f"check_sender_access recipient:{what}" for what in ("members", "owners", "allowed", "denied")),
        *(f"check_{who}_access ldap:t" for who in ("sender", "sasl", "recipient", "client")),
        "check_client_access static:HOLD",
        "check_client_access static:{DEFER_IF_REJECT x}",
        "check_recipient_access static:{b, c}",
        "nosuch",
    ]
)
LOCAL_DOMAINS = st.sampled_from([{}, {"smtpdLocalDomains": "ldap:local"}, {"smtpdMyorigin": "my.domain"}])


@st.composite
def policies(draw: st.DrawFn) -> dict[str, str]:
    """The settings of a policy with some lists."""
    names = draw(
        st.lists(st.sampled_from(["client", "sender", "relay", "recipient"]), min_size=1, max_size=3)
    )
    lists = {name: ", ".join(draw(st.lists(ITEMS, max_size=5))) for name in names}
    return {**lists, **draw(LOCAL_DOMAINS), "smtpdRecipientDelimiter": "+"}


ADDRESSES = st.sampled_from(
    [
        *(
            "",
            "amy@my.domain",
            "Amy.A+x@My.Domain.",
            "bob@my.domain",
            "cal@my.domain",
            "all@my.domain",
            "a@b.example",
        ),
        *("all%my.domain@my.domain", "my.domain!all", "x%y@foreign.example", "all", "x@sub.my.domain"),
    ]
)
REQUESTS = st.fixed_dictionaries(
    {
        "sender": ADDRESSES,
        "recipient": ADDRESSES,
        "login": st.sampled_from(["", "amy", "Bob", "amy.a@my.domain", "zoe"]),
    }
)
MISSED = st.sets(
    st.sampled_from(["mail", "login", "domain", "entry", "groups", "dynamic", "match", "url"]), max_size=2
)


# ---------------------------------------------------------------- one request after the other

WHO = ["", *(f"{one}.domain" for one in ("amy@my", "bob@my", "cal@my", "ned@my", "x@s.my", "x@r.my"))]
VARIED: dict[str, list[str]] = {
    "protocol_state": [*["RCPT"] * 8, "VRFY", "MAIL", "DATA", "ETRN", "CONNECT"],
    "policy_context": [*[""] * 6, "default/sender", "default/recipient", "default/nosuch"],
    "client_address": ["192.0.2.1", "192.0.2.9", "203.0.113.5"],
    "client_name": ["in.my.domain", "b.example", "unknown"],
    "reverse_client_name": ["b.example", "mail.outside.example"],
    "helo_name": ["", "b.example", "h", "-"],
    "sender": [*WHO, "a@b.example", "Amy.A+x@My.Domain."],
    "recipient": [
        "",
        "all@my.domain",
        "bob@my.domain",
        "cal@my.domain",
        "x@s.my.domain",
        "all%my.domain@my.domain",
    ],
    "login": ["", "amy", "Bob", "zoe"],
    "recipient_count": ["0", "1", "2"],
    "encryption_protocol": ["", "TLSv1.3"],
    "ccert_fingerprint": ["", "b.example", "ab"],
    "ccert_pubkey_fingerprint": ["", "b.example"],
    "etrn_domain": ["b.example", "my.domain"],
}
"""Attributes, and values of theirs that restrictions tell apart."""

SMALL = [
    person("amy", "amy@my.domain", "amy.a@my.domain", smtpdSenderAccess="inside"),
    person("bob", smtpdSendAs=AMY, smtpdRecipientAccess="known", employeeType="guest"),
    person("cal", memberOf=dn("cn=g,ou=groups")),
    person("ned"),
    group("g", [dn("cn=h,ou=groups")]),
    group("h", [dn("cn=g,ou=groups"), BOB]),
    entry("cn=d,ou=groups", cn="d", memberURL="ldap:///ou=people,dc=example??sub?(uid=c*)"),
    group(
        "all",
        [AMY, dn("cn=d,ou=groups")],
        mail="all@my.domain",
        owner=BOB,
        smtpdRecipientAccess="members",
        smtpdAllowedSender="b.example",
        smtpdDeniedSenderDN=dn("cn=h,ou=groups"),
    ),
    entry("dc=s", associatedDomain="s.my.domain", smtpdSenderAccess="REJECT"),
    entry("dc=r", associatedDomain="r.my.domain", smtpdRecipientAccess="helo"),
    *classes(
        inside="check_recipient_access ldap:local, reject",
        known="check_sasl_access ldap:t, check_sender_access ldap:t, reject",
        members="check_sasl_access recipient:members, check_sender_access recipient:owners, reject",
        helo="check_helo_access inline:{b.example=REJECT}, check_client_access inline:{192.0.2.9=HOLD}",
    ),
    table(
        "t", "b.example REJECT", "amy DEFER_IF_REJECT later", "zoe DEFER_IF_PERMIT", "192.0.2.1 PREPEND X: y"
    ),
    table("members", smtpdAccessMember=dn("cn=g,ou=groups"), smtpdAccessURL=URL, smtpdAccessAction="REJECT"),
    table("local", "my.domain x"),
]
"""Where most requests come to an answer of their own."""

CARRYING = group("board", [dn("uid=ned,ou=people")], smtpdMemberSenderAccess="REJECT", smtpdPriority="3")
"""With it, whoever has an entry is looked for in groups."""

ACCESS = [f"check_{who}_access directory:access" for who in ("sender", "recipient", "sasl")]
LOOKING = st.one_of(
    st.sampled_from(ACCESS),
    st.sampled_from(
        [
            *ACCESS,
            *(f"check_sender_access recipient:{what}" for what in ("members", "owners", "allowed", "denied")),
            *(f"check_{who}_access ldap:members" for who in ("sender", "sasl", "recipient")),
            *(f"check_{who}_access ldap:t" for who in ("sender", "recipient", "sasl", "client", "helo")),
            *(f"check_{who}_access ldap:t" for who in ("ccert", "reverse_client_hostname", "etrn")),
        ]
    ),
    st.sampled_from(
        [
            *("permit", "reject", "defer_if_permit", "defer_if_reject", "inside", "helo", "nosuch"),
            *("permit_mynetworks", "permit_sasl_authenticated", "permit_auth_destination"),
            *("permit_inet_interfaces", "reject_rbl_client x", "reject_unknown_sender_domain"),
            *("reject_unauth_destination", "reject_multi_recipient_bounce", "reject_plaintext_session"),
            *("reject_sender_login_mismatch", "reject_known_sender_login_mismatch"),
            *("reject_non_fqdn_sender", "reject_non_fqdn_recipient", "reject_invalid_helo_hostname"),
            *("warn_if_reject reject", "shadow reject", "shadow inside", "check_client_access static:WARN"),
            *("check_client_access static:HOLD", "check_recipient_access static:{PREPEND X: y}"),
        ]
    ),
)
LISTED = st.dictionaries(
    st.sampled_from([*["sender", "recipient"] * 3, *["helo"] * 2, *LISTS]),
    st.just(", ".join(ACCESS)) | st.lists(LOOKING, min_size=1, max_size=3).map(", ".join),
    min_size=1,
    max_size=3,
)
"""Lists of a policy, most of which look at who sends to whom, and some at anything else."""


CHANGED = st.lists(
    st.sets(st.sampled_from([*["sender", "recipient", "login"] * 5, *VARIED]), min_size=1, max_size=2),
    min_size=3,
    max_size=8,
)


@st.composite
def varied_requests(draw: st.DrawFn) -> list[dict[str, str]]:
    """Some requests, each of which differs from the one before in an attribute or two."""
    request = {name: draw(st.sampled_from(values)) for name, values in VARIED.items()}
    requests = [request]
    for names in draw(CHANGED):
        request = request | {name: draw(st.sampled_from(VARIED[name])) for name in sorted(names)}
        requests.append(request)
    return requests
