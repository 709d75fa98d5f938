"""Canaries: secrets made for the suite, every spelling in which one could show, and the search for them."""

import base64
import json
import secrets
import string
import subprocess
import urllib.parse

# So many characters of a spelling in a row are enough to recognise it.
TELLING = 12
LETTERS = string.ascii_letters + string.digits
# What encodings change; each stands between random letters, so that no two secrets have a telling piece in common.
SPICE = '/+=&%:"\\'


class Canary:
    """A secret and the places where it belongs: (who received it, for which credential)."""

    def __init__(self, value, kind, homes=(), place=""):
        self.value, self.kind, self.homes, self.place = value, kind, frozenset(homes), place

    def __str__(self):
        return f"{self.kind}{' (' + self.place + ')' if self.place else ''}"


def word(length=40):
    return "cN7y" + "".join(secrets.choice(LETTERS) for _ in range(length - 4))


def spiced():
    return word(22) + "".join(sign + word(7)[4:] for sign in SPICE) + word(8)[4:]


def base64_inside(value):
    """base64 of it, wherever in a longer text it begins, without what its neighbours change."""
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + value.encode()).decode()
        inner = encoded[4 if shift else 0:].rstrip("=")[:-1]
        yield from (inner, inner.replace("+", "-").replace("/", "_"))


def spellings(value):
    quoted = [urllib.parse.quote(value, safe=""), urllib.parse.quote_plus(value)]
    found = {value, value.lower(), value.upper(), value[::-1], json.dumps(value)[1:-1], *quoted}
    found |= {text.replace("%2F", "%2f").replace("%3A", "%3a") for text in quoted}
    found |= {value.encode().hex(), value.encode().hex().upper()}
    for text in {value, *quoted}:
        found.update(base64_inside(text))
    # Twice: a Basic header in a form, or in an encoded token.
    for once in list(base64_inside(value)):
        found.add(urllib.parse.quote(once, safe=""))
    return found


class Canaries:
    """All of them, and an index of every telling piece of every spelling."""

    def __init__(self):
        self.all, self.pieces, self.bytes = [], {}, {}

    def add(self, value, kind, homes=(), place=""):
        canary = Canary(value, kind, homes, place)
        self.all.append(canary)
        for spelling in spellings(value):
            text = spelling.encode()
            for at in range(len(text) - TELLING + 1):
                self.pieces.setdefault(text[at:at + TELLING], canary)
        return canary

    def new(self, kind, homes=(), place=""):
        return self.add(word(), kind, homes, place)

    def private_key(self, kind, homes=(), place=""):
        """An Ed25519 key in PEM. What is looked for is its random part, as PEM has it and as numbers."""
        pem = subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519"], check=True, stdout=subprocess.PIPE,
                             text=True).stdout
        body = "".join(pem.splitlines()[1:-1])
        canary = self.add(body[22:].rstrip("="), kind, homes, place)
        raw = base64.b64decode(body)[16:]
        for spelling in [raw.hex(), raw.hex().upper(), ", ".join(map(str, raw))]:
            for at in range(len(spelling) - TELLING + 1):
                self.pieces.setdefault(spelling[at:at + TELLING].encode(), canary)
        return pem

    def seal_key(self, kind, place=""):
        """32 random bytes, as a store's key is written."""
        value = base64.b64encode(secrets.token_bytes(32)).decode()
        self.add(value, kind, (), place)
        return value

    def find(self, where, data, at_home=None):
        """Every canary in it that does not belong there: {canary: what stands around it}."""
        self.bytes[where] = self.bytes.get(where, 0) + len(data)
        pieces, found = self.pieces, {}
        for at in range(len(data) - TELLING + 1):
            canary = pieces.get(data[at:at + TELLING])
            if canary is None or canary in found or (at_home and at_home in canary.homes):
                continue
            found[canary] = data[max(0, at - 100):at + 60].decode(errors="replace")
        return found
