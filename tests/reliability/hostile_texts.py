"""Texts that mean something to SQL, to Redis or to a search, that some encoding loses, or that are just long."""

from __future__ import annotations

import random

MEGABYTE = 2**20

SQL = [
    "'; DROP TABLE agents; --",
    '" OR ""="',
    "' OR 1=1 --",
    "1; SELECT pg_sleep(10)",
    "$1",
    "%(tenant_id)s",
    ":tenant_id",
    "{tenant_id}",
    "E'\\\\x00'",
    "$$; DELETE FROM rules; $$",
    "') RETURNING *; --",
    "/* comment */",
    "NULL",
    "DEFAULT",
    "COPY agents TO PROGRAM 'true'",
    "U&'\\0000'",
    "b'1'",
    "ARRAY[1]",
    "{1,2,3}",
    "[1,2,3]",
    "(1,2)",
    "infinity",
    "-infinity",
    "now()",
    "epoch",
]
PATTERNS = [
    "%",
    "_",
    "\\",
    "\\\\",
    "%%%",
    "a%b_c\\",
    "\\%",
    "[a-z]*",
    "(a|b)+",
    "a & b | !c",
    "a <-> b",
    "a:*",
    "'a':1A",
    "&",
    "|",
    "!",
    "<->",
    "(",
    ")",
    "((((((((((",
    "*",
    "?",
    "a" + "?a" * 500,
    "%" * 1_000,
    "KEYS *",
    "\r\nFLUSHALL\r\n",
    "{other}",
    "session:hot:{x}",
    "*3\r\n$3\r\nSET\r\n",
]
UNICODE = [
    "\u202etxt.exe",
    "\u2066\u2069\u200f\u200e",
    "e\u0301",
    "\u00e9",
    "Z\u0351\u036b\u0343\u036a\u0302a\u0336l\u0348go",
    "👩‍👩‍👧‍👦",
    "🏳️‍🌈🇩🇪",
    "ﷺ",
    "ẞßſ",
    "İıI",  # noqa: RUF001 - it is what is meant.
    "ǅ",
    "Ω\u2126",
    "\ufeff",
    "\ufffe\uffff",
    "\ufdd0",
    "\U0010ffff",
    "\U0001f600" * 50,
    "\u200b",
    "\u00a0",
    "\u2028\u2029",
    "\x01\x02\x1f\x7f",
    "\x85",
    "\t\n\r\v\f",
    "\u0000\u0001",
    "한글",
    "עברית العربية",
    "नमस्ते",
    "\u0334" * 200,
]
UNSTORABLE_TEXTS = [
    "\0",
    "a\0b",
    "\0" * 100,
    "trailing\0",
    "\ud800",
    "\udfff",
    "x\udc00y",
    "\udc00\ud800",
    "\ud83d",
    "\ude00\ud83d",
    "ok \ud800\0",
]
OTHER_TEXTS = [
    "",
    " ",
    "   ",
    "\n",
    "0",
    "-1",
    "1e309",
    "true",
    "null",
    "None",
    "undefined",
    "NaN",
    "{}",
    "[]",
    '{"a": 1}',
    '"',
    "'",
    "`",
    "<script>alert(1)</script>",
    "../../etc/passwd",
    "${jndi:ldap://x}",
    "%00",
    "\\u0000",
    "\\ud800",
    "&#0;",
    "C:\\con",
    "00000000-0000-0000-0000-000000000000",
    "2026-02-30",
    "a" * 50,
    "a" * 51,
    "a" * 100,
    "a" * 101,
    "ä" * 1_000,
    "ä" * 1_001,
    "a" * 2_000,
    "a" * 2_001,
    "a" * 2_700,
    "a" * 8_192,
    "x y " * 5_000,
    "a" * MEGABYTE,
    "".join(map(chr, range(1, 0x800))) * 500,
]
HUGE_TEXTS = ["\u00e4 " * (5 * MEGABYTE), "x" * (10 * MEGABYTE)]


def generated(count: int) -> list[str]:
    """Texts of all kinds of characters, the same ones each time."""
    dice = random.Random(2026)  # noqa: S311 - to be repeated, not to be safe.
    ranges = [(0, 0x20), (0x20, 0x7F), (0x80, 0x250), (0x300, 0x370), (0x600, 0x700), (0x2000, 0x2070)]
    ranges += [(0xD800, 0xE000), (0xFE00, 0x10000), (0x1F300, 0x1F700), (0x10FF00, 0x110000)]

    def text() -> str:
        low_and_highs = [dice.choice(ranges) for _ in range(dice.randrange(1, 30))]
        return "".join(chr(dice.randrange(*low_and_high)) for low_and_high in low_and_highs)

    return [text() for _ in range(count)]


TEXTS = [*SQL, *PATTERNS, *UNICODE, *UNSTORABLE_TEXTS, *OTHER_TEXTS, *generated(60)]
