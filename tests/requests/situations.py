"""What is said to Postfix so that it asks: SMTP dialogues, and which of its answers to us may differ.

A step is an SMTP command as it is sent, or one of these:

    AUTH LOGIN              AUTH PLAIN with that login
    STARTTLS CERTIFICATE    a TLS client without a certificate ("none"), with one of a chain that Postfix
                            trusts ("trusted"), or with one that nobody but itself has signed ("self-signed")
    XCLIENT                 the client that the situation names (Postfix XCLIENT_README)
    .                       a message, after DATA
    BDAT, BDAT LAST         a message or a part of one, as a chunk (RFC 3030)

The names are those of the example company (schema/example.ldif), so that decisions mean something.
"""

from collections.abc import Mapping
from typing import NamedTuple

OUTSIDE = {
    "name": "mail.outside.example",
    "addr": "198.51.100.7",
    "port": "52525",
    "destaddr": "192.0.2.25",
    "destport": "25",
}
INSIDE = {**OUTSIDE, "name": "pc10.my.domain", "addr": "192.0.2.10"}
IPV6 = {**OUTSIDE, "name": "mail6.outside.example", "addr": "2001:db8::25", "destaddr": "2001:db8::1"}
NAMELESS = {**OUTSIDE, "name": "[UNAVAILABLE]", "reverse_name": "[UNAVAILABLE]"}
UNVERIFIED = {**OUTSIDE, "name": "[UNAVAILABLE]", "reverse_name": "Claimed.Outside.example"}
PROXIED = {**OUTSIDE, "login": "mia", "proto": "SMTP", "helo": "behind.example"}

# What another run, another key or another TLS library makes different; whether it is empty stays.
VOLATILE = {
    "instance",
    "queue_id",
    "ccert_fingerprint",
    "ccert_pubkey_fingerprint",
    "encryption_protocol",
    "encryption_cipher",
    "encryption_keysize",
}
# And what is the machine's own where the client is not said by XCLIENT.
CONNECTION = {"client_name", "reverse_client_name", "client_port", "server_port"}


class Situation(NamedTuple):
    """A dialogue; its last step is the one whose requests are recorded. Without a step: the client itself."""

    steps: tuple[str, ...] = ()
    client: Mapping[str, str] = OUTSIDE
    service: str = "early"

    @property
    def volatile(self) -> set[str]:
        """The attributes that another run has otherwise."""
        return VOLATILE if self.client else VOLATILE | CONNECTION

    @property
    def dialogue(self) -> tuple[str, ...]:
        """All of the steps."""
        return (*(("EHLO xclient.invalid", "XCLIENT") if self.client else ()), *self.steps)


HELO = "HELO mail.outside.example"
EHLO = "EHLO mail.outside.example"
MAIL = "MAIL FROM:<eva@outside.example>"
NOBODY = "MAIL FROM:<>"
JOE = "RCPT TO:<joe@my.domain>"
JANE = "RCPT TO:<jane@my.domain>"
ALL = "RCPT TO:<all@my.domain>"
TEAM = "RCPT TO:<team@my.domain>"
ANYBODY = "RCPT TO:<friend@elsewhere.example>"
TLS = (EHLO, "STARTTLS none", EHLO)
TRUSTED = (EHLO, "STARTTLS trusted", EHLO)
SELF_SIGNED = (EHLO, "STARTTLS self-signed", EHLO)
AMY = (EHLO, "AUTH amy", "MAIL FROM:<amy@my.domain>")

SITUATIONS = {
    "connect": Situation(client={}),
    "xclient": Situation(),
    "xclient-ipv6": Situation(client=IPV6),
    "xclient-nameless": Situation(client=NAMELESS),
    "xclient-unverified-name": Situation(client=UNVERIFIED),
    "xclient-login": Situation(client=PROXIED),
    "helo": Situation((HELO,)),
    "helo-odd": Situation(("HELO (joe) <x>;@Y",)),
    # smtputf8_enable=no lets any byte through.
    "helo-latin-1": Situation(("HELO j\udcf6rg.example",), service="bytes"),
    "ehlo": Situation((EHLO,)),
    "ehlo-address-literal": Situation(("EHLO [IPv6:2001:db8::25]",), IPV6),
    "ehlo-again-after-tls": Situation(TRUSTED),
    "mail": Situation((EHLO, MAIL)),
    "mail-without-helo": Situation((MAIL,)),
    "mail-null-sender": Situation((EHLO, NOBODY)),
    "mail-size": Situation((EHLO, MAIL + " SIZE=123456 BODY=8BITMIME")),
    "mail-source-route": Situation((EHLO, "MAIL FROM:<@relay.example,@hop.example:Eva@Outside.example>")),
    "mail-sasl-auth": Situation((EHLO, "AUTH amy", "MAIL FROM:<amy@my.domain> AUTH=amy+2Bx@my.domain")),
    "mail-smtputf8": Situation((EHLO, "MAIL FROM:<jörg@bücher.example> SMTPUTF8")),
    "rcpt": Situation((EHLO, MAIL, JOE)),
    "rcpt-smtp": Situation((HELO, MAIL, JOE)),
    "rcpt-helo-odd": Situation(("HELO (joe) <x>;@Y", MAIL, JOE)),
    "rcpt-insiders": Situation((EHLO, MAIL, ALL)),
    "rcpt-insider": Situation((EHLO, "MAIL FROM:<pat@Partner.Example>", ALL)),
    "rcpt-inside": Situation((EHLO, MAIL, "RCPT TO:<internal@my.domain>"), INSIDE),
    "rcpt-outside": Situation((EHLO, MAIL, "RCPT TO:<internal@my.domain>")),
    "rcpt-residue": Situation((EHLO, MAIL, JANE)),
    "rcpt-null-sender": Situation((EHLO, NOBODY, ALL)),
    "rcpt-held": Situation((EHLO, MAIL, "RCPT TO:<announce@my.domain>")),
    "rcpt-second": Situation((EHLO, MAIL + " SIZE=2000", JOE, JANE)),
    "rcpt-next-transaction": Situation((*AMY, TEAM, "RSET", NOBODY, JOE)),
    "rcpt-extension": Situation((EHLO, "MAIL FROM:<eva+x@outside.example>", "RCPT TO:<All+News@my.domain>")),
    "rcpt-quoted": Situation(
        (EHLO, 'MAIL FROM:<"eva e=e"@outside.example>', 'RCPT TO:<"ann starr"@my.domain>')
    ),
    "rcpt-quoted-at": Situation((EHLO, 'MAIL FROM:<"eva@x"@outside.example>', 'RCPT TO:<"all"@my.domain>')),
    "rcpt-local-part": Situation((EHLO, "MAIL FROM:<amy>", "RCPT TO:<joe>"), INSIDE),
    "rcpt-routed": Situation((EHLO, MAIL, "RCPT TO:<joe%my.domain@my.domain>")),
    "rcpt-address-literal": Situation((EHLO, "MAIL FROM:<eva@[IPv6:2001:db8::25]>", JOE)),
    "rcpt-ipv6": Situation((EHLO, MAIL, JOE), IPV6),
    "rcpt-nameless": Situation((EHLO, MAIL, JOE), NAMELESS),
    "rcpt-smtputf8": Situation((EHLO, "MAIL FROM:<jörg@bücher.example> SMTPUTF8", "RCPT TO:<zoë@my.domain>")),
    "rcpt-sasl": Situation((*AMY, ANYBODY)),
    "rcpt-sasl-member": Situation((*AMY, TEAM)),
    "rcpt-sasl-odd": Situation((EHLO, "AUTH joe=x,y zoë@dom", MAIL, TEAM)),
    "rcpt-xclient-login": Situation((MAIL, "RCPT TO:<board@my.domain>"), PROXIED),
    "rcpt-tls": Situation((*TLS, MAIL, JOE)),
    "rcpt-tls-trusted": Situation((*TRUSTED, MAIL, JOE)),
    "rcpt-tls-self-signed": Situation((*SELF_SIGNED, MAIL, JOE)),
    "rcpt-tls-sasl": Situation((*TRUSTED, *AMY[1:], ANYBODY)),
    "rcpt-policy-context": Situation((EHLO, MAIL, JOE), service="context"),
    "rcpt-stress": Situation((EHLO, MAIL, JOE), service="stress"),
    "rcpt-every-list": Situation((EHLO, MAIL, JOE), service="late"),
    "vrfy": Situation((EHLO, "VRFY joe@my.domain")),
    "data": Situation((EHLO, MAIL, JOE, "DATA")),
    "data-several": Situation((EHLO, MAIL + " SIZE=2000", JOE, JANE, ALL, "DATA")),
    "data-null-sender": Situation((EHLO, NOBODY, JOE, "DATA")),
    "data-tls-sasl": Situation((*TRUSTED, *AMY[1:], TEAM, "DATA")),
    "data-bdat": Situation((EHLO, MAIL, JOE, "BDAT")),
    "end-of-message": Situation((EHLO, MAIL, JOE, "DATA", ".")),
    "end-of-message-several": Situation((EHLO, MAIL + " SIZE=2000", JOE, JANE, "DATA", ".")),
    "end-of-message-bdat": Situation((EHLO, MAIL, JOE, JANE, "BDAT", "BDAT LAST")),
    "bdat-at-once": Situation((EHLO, MAIL, JOE, "BDAT LAST")),
    "end-of-message-smtputf8": Situation(
        (EHLO, "MAIL FROM:<jörg@bücher.example> SMTPUTF8", "RCPT TO:<zoë@my.domain>", "DATA", ".")
    ),
    "etrn": Situation((EHLO, "ETRN my.domain")),
}
