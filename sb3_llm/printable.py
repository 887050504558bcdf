"""Texts of an environment as a person may safely look at them, in a terminal or on a page."""

import unicodedata

REPLACED = "\ufffd"
PLAIN = "\n\t"


def visible(text: str) -> str:
    """
    Show what can't be seen: a terminal carries out control characters, and bidi marks show words in another order.

    :param text: any
    :return: the same, character by character, with control characters as their pictures (U+2400 to U+2421) and other
        invisible ones as U+FFFD
    """
    return "".join(map(_visible, text)) if not text.isprintable() else text


def _visible(sign: str) -> str:
    if sign in PLAIN or sign.isprintable() or unicodedata.category(sign) == "Zs":
        return sign
    code = ord(sign)
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else REPLACED
