"""Sends mail to the demonstration of docker-compose.yml, and shows what was refused and accepted.

    python3 deploy/compose/demonstrate.py [PORT]

Needs nothing but Python. The status is 1 when an answer is not the expected one.
"""

import smtplib
import sys

# Login (password "secret"), sender, recipient, the class of the reply, and why.
TRIES = (
    ("", "stranger@elsewhere.example", "all@my.domain", 5, "all: from insider domains only"),
    ("", "joe@my.domain", "all@my.domain", 2, "all: from insider domains only"),
    ("", "stranger@elsewhere.example", "team@my.domain", 5, "team: from members who logged in"),
    ("", "amy@my.domain", "team@my.domain", 5, "team: a sender address can be forged, a login is needed"),
    ("amy", "amy@my.domain", "team@my.domain", 2, "team: Amy is a member"),
    ("carol", "carol@my.domain", "team@my.domain", 2, "team: Carol is in a group that is a member"),
    ("amy", "amy@my.domain", "friend@elsewhere.example", 5, "Amy may write to our own domains only"),
    ("mia", "mia@my.domain", "friend@elsewhere.example", 2, "Mia may write anywhere"),
    ("ned", "ned@my.domain", "board@my.domain", 5, "board: from its owner, who is Mia"),
    ("mia", "mia@my.domain", "board@my.domain", 2, "board: from its owner, who is Mia"),
    ("", "stranger@elsewhere.example", "friend@faraway.example", 5, "Postfix itself: no relaying"),
)


def reply(port: int, login: str, sender: str, recipient: str) -> str:
    """Send a message; the reply to its recipient, or to its end."""
    with smtplib.SMTP("127.0.0.1", port, "client.example", timeout=60) as smtp:
        smtp.ehlo()
        if login:
            smtp.login(login, "secret")
        smtp.mail(sender)
        code, text = smtp.rcpt(recipient)
        if code == 250:
            code, text = smtp.data(f"From: {sender}\r\nTo: {recipient}\r\nSubject: a try\r\n\r\nHello.\r\n")
    return f"{code} {text.decode()}"


def main() -> int:
    """A line for each; whether something was not as expected."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 2525
    wrong = 0
    for login, sender, recipient, expected, why in TRIES:
        said = reply(port, login, sender, recipient)
        wrong += said[:1] != str(expected)
        who = f"{sender} (as {login})" if login else sender
        mark = "" if said[:1] == str(expected) else "   UNEXPECTED"
        print(f"{who} -> {recipient}: {why}\n    {said}{mark}")  # noqa: T201  # what it is for
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
