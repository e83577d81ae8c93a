"""Postfix itself, asked: what decides where the language is in doubt.

`postfix` runs a private one, `smtp` speaks to it, `dns` is its only resolver.
"""
