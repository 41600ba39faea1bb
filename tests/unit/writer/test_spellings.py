"""In whatever spelling common programs print a secret, it is masked; and what isn't one of its own isn't."""

import base64
import html
import itertools
import json
import os
import shlex
import subprocess
import urllib.parse
from collections.abc import Callable

import pytest

from ci_eventstore.writer.masking import MASK, Masker
from ci_eventstore.writer.spellings import LONG_CHARACTERS, spellings

SECRETS = {
    "plain": "hunter2-Zaehler",
    "short": "p4ss",
    "symbols": 'it\'s\\a "séc/ret" & $x%<`~>+!?=#{|}*;,()[]^@:_.',
    "controls": "tab\there, bell\a, escape\x1b[0m, and \x7f",
    "old bytes": "caf\udce9 au lait",
    "key": "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC/+\nAbCdEfGh/+xy==\n-----END KEY-----",
    "long": "0123456789/+'\"\\ é&<" * (LONG_CHARACTERS // 8),
}


def as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def as_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def wrapped(secret: str) -> str:
    """Do as the command `base64` does."""
    encoded = base64.b64encode(as_bytes(secret)).decode()
    return "\n".join(encoded[start : start + 76] for start in range(0, len(encoded), 76))


#: What is printed, and what of it may be left: quotes, padding, and the characters that hold bits of other text.
SPELL: dict[str, tuple[Callable[[str], str], int]] = {
    "raw": (lambda secret: secret, 0),
    "base64": (lambda secret: base64.b64encode(as_bytes(secret)).decode(), 2),
    "base64, with a line end": (lambda secret: base64.b64encode(as_bytes(secret) + b"\n").decode(), 2),
    "base64, URL-safe": (lambda secret: base64.urlsafe_b64encode(as_bytes(secret)).decode(), 2),
    "URL": (lambda secret: urllib.parse.quote(as_bytes(secret)), 0),
    "URL, all of it": (lambda secret: urllib.parse.quote(as_bytes(secret), safe=""), 0),
    "form": (lambda secret: urllib.parse.quote_plus(as_bytes(secret)), 0),
    "JSON": (json.dumps, 2),
    "JSON, as it is": (lambda secret: json.dumps(secret, ensure_ascii=False), 2),
    "HTML": (html.escape, 0),
    "HTML, without quotes": (lambda secret: html.escape(secret, quote=False), 0),
    "shlex": (shlex.quote, 2),
    "repr": (repr, 2),
    "repr of bytes": (lambda secret: repr(as_bytes(secret)), 3),
    "terminal": (lambda secret: secret.replace("\n", "\r\n"), 0),
}
USERS = ("", "a", "ab", "abc", "ada@example.com")
AFTERS = (b"", b"\n", b"x", b"xy", b"xyz")
PATH = os.environ["PATH"]
SHELLS = (
    ("bash", "-c", 'set -x; : "$1"'),
    ("bash", "-c", 'printf "%q" "$1"'),
    ("bash", "-c", 'export NAME="$1"; export -p | grep -a -A9 NAME'),
    ("sh", "-c", 'set -x; : "$1"'),
    ("sh", "-c", 'export NAME="$1"; export -p | grep -a -A9 NAME'),
)
#: These are for secrets that aren't long.
OTHERS: dict[str, tuple[Callable[[str], str], int]] = {
    "base64, wrapped": (wrapped, 2),
    "URL, small letters": (lambda secret: _small(urllib.parse.quote(as_bytes(secret), safe="")), 0),
    "encodeURIComponent": (lambda secret: urllib.parse.quote(as_bytes(secret), safe="!'()*"), 0),
    "JSON of PHP": (lambda secret: json.dumps(secret).replace("/", "\\/"), 2),
    "HTML of Go": (lambda secret: html.escape(secret).replace("&quot;", "&#34;").replace("&#x27;", "&#39;"), 0),
    "repr among quotes": (lambda secret: repr(f"'\"{secret}"), 5),
    "ascii": (ascii, 2),
}


def _small(quoted: str) -> str:
    parts = quoted.split("%")
    return parts[0] + "".join(f"%{part[:2].lower()}{part[2:]}" for part in parts[1:])


def left(masker: Masker, printed: str) -> str:
    return masker.mask_all(printed).replace(MASK, "")


@pytest.mark.parametrize("name", SECRETS)
def test_every_spelling_is_masked(name: str) -> None:
    """Alone or between other words, nothing of it is left but what may be; of a long secret, the usual spellings."""
    secret = SECRETS[name]
    masker = Masker([secret])
    for print_, most in (SPELL if name == "long" else SPELL | OTHERS).values():
        printed = print_(secret)
        assert len(left(masker, printed)) <= most, printed
        assert len(left(masker, f"before {printed} after\n")) <= most + len("before  after\n"), printed


@pytest.mark.parametrize("name", SECRETS)
def test_the_secret_of_basic_authentication(name: str) -> None:
    """Of `user:secret` in base64, no character is left that holds six bits of the secret."""
    secret = SECRETS[name]
    masker = Masker([secret])
    for user, after, encode in itertools.product(USERS, AFTERS, (base64.b64encode, base64.urlsafe_b64encode)):
        before = as_bytes(f"{user}:")
        masked = masker.mask_all(f"Basic {encode(before + as_bytes(secret) + after).decode()}\n")
        assert masked.count(MASK) == 1, (masked, after)
        begin, end = masked.removeprefix("Basic ").removesuffix("\n").split(MASK)
        assert len(begin) <= -(-len(before) * 8 // 6)
        assert len(end.rstrip("=")) <= -(-len(after) * 8 // 6) + 1


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SECRETS if name != "long"])
def test_shells(name: str) -> None:
    """What real shells print of a secret has nothing of it; slow, since it starts many of them."""
    secret = SECRETS[name]
    masker = Masker([secret])
    for locale, command in itertools.product(("C", "C.UTF-8"), SHELLS):
        done = subprocess.run(
            [*command, "-", as_bytes(secret)], capture_output=True, env={"LC_ALL": locale, "PATH": PATH}, check=True
        )
        printed = as_text(done.stdout + done.stderr)
        assert MASK in masker.mask_all(printed), printed
        rest = left(masker, printed)
        for start in range(len(secret) - 3):
            assert secret[start : start + 4] not in rest, (printed, rest)


def test_the_values_of_a_json_secret() -> None:
    """Each text in it is a secret, in all spellings, but for names and short ones; so is each line of it."""
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\n-----END KEY-----\n"
    account = {"type": "robot", "deep": [{"private_key": key}, "tëxt-value-1"], "number": 12345678, "ok": True}
    masker = Masker([json.dumps(account, indent=2)])
    assert masker.mask_all(f"{key}|") == f"{MASK}|"
    assert masker.mask_all(base64.b64encode(key.encode()).decode()) == MASK
    assert masker.mask_all("tëxt-value-1 t\\u00ebxt-value-1 robot true deep private_key") == (
        f"{MASK} {MASK} robot true deep private_key"
    )
    assert masker.mask_all('{\n}\n  {"a": 1},\n  ]') == '{\n}\n  {"a": 1},\n  ]'
    assert masker.mask_all('"number": 12345678,') == MASK


@pytest.mark.parametrize("document", ["{", "[" * 100_000, '{"a": "b"', "[1, 2]", '["short"]', "[NaN]"])
def test_what_is_no_json_or_has_no_texts(document: str) -> None:
    """It is a secret like others."""
    assert Masker([document * 2]).mask_all(f"<{document * 2}>") == f"<{MASK}>"


def test_no_spelling_is_too_common() -> None:
    """Nothing that is derived from a secret is found in other text by chance."""
    for secret in SECRETS.values():
        assert all(len(spelling) >= 4 for spelling in spellings(secret))
    plain = "a log { with } == some ---- text\nand more\n\n{\n}\n"
    for secret in [*SECRETS.values(), '{\n "a": "b",\n\n "c": {\n }\n}']:
        assert Masker([secret]).mask_all(plain) == plain
