"""Recorded requests of real Postfix: a folder a version, a file a situation, the bytes that smtpd(8) sent.

`situations` is the table of what is said to Postfix; `python -m tests.requests.record` says it, and writes
what a policy service on loopback was asked. A file holds the requests that the last step of its situation
made: one, but where several restriction lists ask at the same time.
"""
