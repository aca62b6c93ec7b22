"""Input of hostile servers and damaged disks, drawn from a seed.

Mostly something valid with a thing or two wrong, since plain noise is refused at the first byte.
"""

from __future__ import annotations

import json
import math
import random
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

#: Planted where a credential may stand. No error may show it.
SECRET = "SECRETSECRET"
_SIGNED = f"X-Amz-Signature={SECRET}"

#: A link's ways to turn up in a text, each with a secret that a reader could use.
SECRET_TEXTS = (
    f"https://bucket.s3.amazonaws.com/a.csv?X-Amz-Algorithm=AWS4-HMAC-SHA256&{_SIGNED}",
    f"https://bucket.s3.amazonaws.com/a.csv?{_SIGNED}&X-Amz-Expires=900",
    f"https://bucket.s3.amazonaws.com/a.csv?versionId={SECRET}",
    f"https://bucket.s3.amazonaws.com/a.csv?a='b'&{_SIGNED}",  # a quote ends no query
    f'https://bucket.s3.amazonaws.com/a.csv?a="b"&{_SIGNED}',
    f"https://bucket.s3.amazonaws.com/a b.csv? &{_SIGNED}",
    f"https://bucket.s3.amazonaws.com/a.csv#{_SIGNED}",
    f"https://user:{SECRET}@bucket.s3.amazonaws.com/a.csv",
    f"https://user:p@{SECRET}@bucket.s3.amazonaws.com/a.csv",  # the last @ counts
    f"https://user:it's{SECRET}@bucket.s3.amazonaws.com/a.csv",
    rf"https:\/\/user:{SECRET}@bucket.s3.amazonaws.com\/a.csv",
    rf"https:\/\/bucket.s3.amazonaws.com\/a.csv?{_SIGNED}",  # as some write JSON
    rf"https://bucket.s3.amazonaws.com/a.csv\u003fa=b\u0026X-Amz-Signature\u003d{SECRET}",
    f"https%3A%2F%2Fbucket.s3.amazonaws.com%2Fa.csv%3FX-Amz-Signature%3D{SECRET}",
    f"https://bucket.s3.amazonaws.com/a.csv&#63;a=b&amp;X-Amz-Signature&#61;{SECRET}",
    f"s3://bucket/a.csv?{_SIGNED}",
    f"Authorization: Basic {SECRET}",
    f"authorization:bearer\t{SECRET}",
)

#: Texts that some parser somewhere takes for something else.
ODD_TEXTS = (
    "",
    " ",
    "0",
    "-1",
    "null",
    "..",
    "../../etc/passwd",
    "CON",
    "~2",
    "\0",
    "\x1b[31m",
    "\r\nX-Injected: 1",
    "\u202egnp.exe",
    "\u2028",
    "\u00a0",
    "\ufeff",
    "\ud800",
    "\udfff\ud800",
    "\U0001f600",
    "\u0661\u0662",  # digits, in Arabic
    "\uff0e\uff0f",  # full width
    "a\u0301" * 3,
    "NaN",
    "Infinity",
    "1e400",
    "1_000",
    "9" * 400,
    "0x7f.1",
    "%00%2e%2e%2f",
    "${jndi:ldap://x}",
    "<!ENTITY a 'b'>",
    "]]>",
    "'\"`",
    "\\",
)

ODD_NUMBERS = (
    0,
    -1,
    1,
    2**31,
    2**53 + 1,
    2**63 - 1,
    2**63,
    -(2**63),
    10**300,
    0.5,
    -0.0,
    1e308,
    5e-324,
    math.nan,
    math.inf,
    -math.inf,
)

#: JSON that json.dumps doesn't write.
_ODD_JSON = (b"1e999999", b"-", b"NaN", b"-Infinity", b"01", b"9" * 5000, b'"\\ud800"', b"\x00")

_ODD_BYTES = (
    b"\x00",
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",  # a surrogate, in what would be UTF-8
    b"\xf8\x88\x80\x80\x80",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\x7f",
    b"\x1b]0;title\x07",
    b"\r\n",
    b"\n",
    b"\r",
    b'"',
    b"\\",
    b",",
    b"<",
    b"{",
    b"[",
)

_CHARACTERS = string.ascii_letters + string.digits + " .-_/:?&=%@#'\"<>\\,;"


class Inputs(random.Random):
    """The chance of one input.

    Attributes:
        planted: whether a secret is in what was drawn.
    """

    planted = False

    def one_in(self, number: int) -> bool:
        return self.random() * number < 1.0

    def some(self, most: int) -> int:
        """From 0 to `most`, small ones far more often."""
        return int(most ** self.random()) - self.one_in(2) if most else 0

    # ------------------------------------------------------------------ texts

    def text(self) -> str:
        """Any text."""
        match self.randrange(8):
            case 0 | 1 | 2:
                return self.choice(ODD_TEXTS)
            case 3:
                return "".join(map(chr, self.choices(range(0x3000), k=self.some(40) + 1)))
            case 4:
                return self.stretched(self.choice(ODD_TEXTS) or "a", 4096)
            case _:
                return "".join(self.choices(_CHARACTERS, k=self.some(60) + 1))

    def identifier(self) -> str:
        """An id as the vendor's might be; some share their beginning, or differ in case only."""
        match self.randrange(4):
            case 0:
                return f"82200474-{self.getrandbits(48):012x}"
            case 1:
                return "".join(self.choices("aA-_", k=self.randint(1, 12)))
            case 2:
                return self.choice(("CON", "nul", "-rf", "_", "a" * 128, "a", "A"))
            case _:
                letters = string.ascii_letters + string.digits + "-_"
                return "".join(self.choices(letters, k=self.randint(1, 128)))

    def stretched(self, text: str, most: int) -> str:
        """A part of the text many times, which is slow for a quadratic pattern."""
        start = self.randrange(len(text))
        part = text[start : start + self.some(12) + 1]
        return text[:start] + part * (most // len(part)) + text[start:]

    def header(self, known: Sequence[str]) -> str:
        """A header's value: latin-1, as they arrive."""
        text = self.changed(self.choice(known)) if self.one_in(2) else self.choice(known)
        return text.encode("latin-1", "replace").decode("latin-1")

    def headers(self, known: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """Some of these headers, each with one of its values, or something near it."""
        headers = {name: self.header(values) for name, values in known.items() if self.one_in(2)}
        if self.one_in(20):
            headers = {name: self.planting(value) for name, value in headers.items()}
        return headers

    def changed(self, text: str) -> str:
        """The text with something wrong."""
        for _ in range(self.randint(1, 3)):
            at = self.randint(0, len(text))
            to = at + self.some(8)
            match self.randrange(7):
                case 0:
                    text = text[:at]
                case 1:
                    text = text[:at] + text[to:]
                case 2:
                    text = text[:to] + text[at:]
                case 3:
                    text = text[:at] + chr(self.choice((0, 9, 10, 13, 32, 127, 160))) + text[to:]
                case 4:
                    text = text[:at] + self.choice(_CHARACTERS) + text[at + 1 :]
                case 5 if self.one_in(50) and text:
                    text = self.stretched(text, 2 ** self.randint(4, 16))
                case _:
                    text = text[:at] + self.choice(ODD_TEXTS) + text[to:]
        return text

    def planting(self, text: str) -> str:
        """The text with a secret in it. From then on only the text around it may be changed."""
        self.planted = True
        at = self.randint(0, len(text))
        return f"{text[:at]} {self.choice(SECRET_TEXTS)} {text[at:]}"

    # ------------------------------------------------------------------ bytes

    def changed_bytes(self, data: bytes) -> bytes:
        """The bytes with something wrong."""
        for _ in range(self.randint(1, 3)):
            at = self.randint(0, len(data))
            to = at + self.some(32)
            match self.randrange(8):
                case 0:
                    data = data[:at]
                case 1:
                    data = data[:at] + data[to:]
                case 2:
                    data = data[:to] + data[at:]
                case 3 if at < len(data):
                    data = data[:at] + bytes([data[at] ^ 1 << self.randrange(8)]) + data[at + 1 :]
                case 4:
                    data = data[:at] + self.randbytes(self.some(16)) + data[to:]
                case 5 if self.one_in(50) and data:
                    part = data[at : to + 1] or data
                    data = data[:at] + part * (2 ** self.randint(4, 16) // len(part)) + data[at:]
                case 6 if self.one_in(8):
                    data = self.choice(_ODD_BYTES[5:7]) + data
                case _:
                    data = data[:at] + self.choice(_ODD_BYTES) + data[to:]
        return data

    def noise(self) -> bytes:
        return self.randbytes(self.some(2000))

    def pieces(self, data: bytes) -> list[bytes]:
        """The data, cut anywhere, as a network does."""
        count = self.choice((0, 1, 2, min(20, len(data))))
        cuts = sorted(self.randint(0, len(data)) for _ in range(count))
        return [data[i:j] for i, j in zip([0, *cuts], [*cuts, len(data)], strict=True)]

    # ------------------------------------------------------------------- JSON

    def json_value(self, depth: int = 2) -> Any:
        """Any JSON value."""
        match self.randrange(9 if depth else 6):
            case 0:
                return None
            case 1:
                return self.one_in(2)
            case 2:
                return self.choice(ODD_NUMBERS)
            case 3 | 4 | 5:
                return self.text()
            case 6:
                return [self.json_value(depth - 1) for _ in range(self.some(6))]
            case 7:
                return {self.text(): self.json_value(depth - 1) for _ in range(self.some(6))}
            case _:
                return _nested(self.choice((10, 100, 900)), as_list=self.one_in(2))

    def changed_json(self, value: Any) -> Any:
        """The JSON value with something wrong somewhere in it. The original stays as it is."""
        if isinstance(value, dict) and value and not self.one_in(12):
            name = self.choice(list(value))
            match self.randrange(8):
                case 0:
                    return {key: inner for key, inner in value.items() if key != name}
                case 1:
                    return {**value, self.text(): self.json_value()}
                case 2:
                    return {**value, name: value[self.choice(list(value))]}
                case _:
                    return {**value, name: self.changed_json(value[name])}
        if isinstance(value, list) and value and not self.one_in(12):
            at = self.randrange(len(value))
            match self.randrange(4):
                case 0:
                    return value[:at] + value[at + 1 :]
                case 1:
                    return value[: at + 1] + value[at:]
                case _:
                    return [*value[:at], self.changed_json(value[at]), *value[at + 1 :]]
        if isinstance(value, str) and self.one_in(2):
            return self.planting(value) if self.one_in(6) else self.changed(value)
        return self.json_value()

    def json_text(self, value: Any) -> bytes:
        """JSON of something near the value."""
        if self.one_in(4):
            for _ in range(self.randint(1, 3)):
                value = self.changed_json(value)
        elif self.one_in(8):
            value = self.json_value(4)
        text = json.dumps(value, ensure_ascii=self.one_in(2), indent=1 if self.one_in(20) else None)
        data = text.encode(self.choice(("utf-8", "utf-8", "utf-8", "utf-16")), "surrogatepass")
        if self.planted:
            return data[: self.randint(0, len(data))] if self.one_in(8) else data
        match self.randrange(12):
            case 0 | 1 | 2:
                return self.changed_bytes(data)
            case 3:
                return self._twice(data)
            case 4:
                at = data.find(b":", self.randint(0, len(data))) + 1
                return data[:at] + self.choice(_ODD_JSON) + data[at:].lstrip(b'"')
            case 5 if self.one_in(20):
                depth = self.choice((900, 10_000, 200_000))
                return self.choice((b"[", b'{"a":', b'[{"segment":')) * depth
            case 6 if self.one_in(4):
                return self.noise()
            case _:
                return data

    def _twice(self, data: bytes) -> bytes:
        """A key of the first object twice."""
        key = self.choice((b'"segmentId"', b'"status"', b'"filename"', b'"export"', b'"total"'))
        value = json.dumps(self.json_value(0)).encode()
        return data.replace(b"{", b"{" + key + b": " + value + b", ", 1)

    def weighted(self, *choices: tuple[int, Callable[[], T]]) -> T:
        """One of the values, each as often as its number says."""
        weights = [weight for weight, _ in choices]
        return self.choices(choices, weights)[0][1]()


def _nested(depth: int, *, as_list: bool) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value] if as_list else {"a": value}
    return value
