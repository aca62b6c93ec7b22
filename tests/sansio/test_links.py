"""Which links may be followed, and which parts of a link may be shown."""

from __future__ import annotations

import inspect
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segments_async import SegmentsClient
from segments_async._sansio.api.credentials import is_loopback
from segments_async._sansio.api.redaction import redact
from segments_async._sansio.files.links import S3_HOSTS, LinkRefused, check_addresses, check_link

S3 = ("*.amazonaws.com",)
SIGNED = "https://bucket.s3.eu-west-1.amazonaws.com/a/b.csv?X-Amz-Signature=5ec4e7&X-Amz-Date=1"
ANY_HOST = ("*",)


def check(
    link: str, file_hosts: tuple[str, ...] | list[str] = S3, *, loopback: bool = False
) -> str:
    return check_link(link, file_hosts=file_hosts, loopback=loopback)


def refusal(
    link: str, file_hosts: tuple[str, ...] | list[str] = S3, *, loopback: bool = False
) -> str:
    with pytest.raises(LinkRefused) as caught:
        check(link, file_hosts, loopback=loopback)
    return str(caught.value)


# What no setting admits.

ADDRESSES = [
    "169.254.169.254",
    "127.0.0.1",
    "10.0.0.1",
    "8.8.8.8",
    "2130706433",
    "017700000001",
    "0177.0.0.1",
    "127.1",
    "127.0.1",
    "0x7f000001",
    "0X7F000001",
    "0x7f.1",
    "127.0.0.0x1",
    "1.2.3.4.",
    "0",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[fd00:ec2::254]",
    "[fe80::1%25eth0]",
]


@pytest.mark.parametrize("host", ADDRESSES)
@pytest.mark.parametrize("port", ["", ":443", ":8080"])
def test_an_address_is_no_host(host: str, port: str) -> None:
    """An IP address is refused in all its shorthands, also where every host is admitted."""
    assert "address" in refusal(f"https://{host}{port}/key", ANY_HOST)


@pytest.mark.parametrize("scheme", ["http", "s3", "ftp", "file", "javascript", "data", "gopher"])
def test_only_https(scheme: str) -> None:
    """A link of another scheme is refused by its scheme, whatever the host."""
    assert repr(scheme) in refusal(f"{scheme}://bucket.s3.amazonaws.com/key", ANY_HOST)


@pytest.mark.parametrize("link", ["", "key.csv", "/key.csv", "//bucket.s3.amazonaws.com/key"])
def test_a_link_is_absolute(link: str) -> None:
    """A link without a scheme is refused."""
    assert "no scheme" in refusal(link)


@pytest.mark.parametrize("user", ["user@", "user:password@", ":@", "@", "bucket.amazonaws.com@"])
@pytest.mark.parametrize("loopback", [False, True])
def test_no_user_information(user: str, loopback: bool) -> None:
    """A link with user information is refused: the part before the @ looks like the host."""
    host = "127.0.0.1" if loopback else "bucket.s3.amazonaws.com"
    assert "user information" in refusal(f"https://{user}{host}/key", loopback=loopback)


@pytest.mark.parametrize("character", [*map(chr, range(33)), "\x7f", "\x85", "\u2028", "\u202e"])
@pytest.mark.parametrize("place", ["{}https://b.amazonaws.com/k", "https://b{}.amazonaws.com/k"])
def test_no_control_character(character: str, place: str) -> None:
    """White space and control characters are refused, which URL parsers drop without a word."""
    refusal(place.format(character), ANY_HOST)


@pytest.mark.parametrize(
    "host",
    [
        "b\u00fccket.amazonaws.com",
        "bucket.amazonaws\u3002com",  # an ideographic full stop
        "bucket\uff0eamazonaws.com",  # a full-width one
        "\uff42ucket.amazonaws.com",
        "\u0661\u0662\u0667.1",
        "bucket.amazonaws.com\u2100",  # becomes a/c under NFKC
        "\ud800.amazonaws.com",
    ],
)
def test_no_character_beyond_ascii(host: str) -> None:
    """A host that another parser might normalize into another host is refused."""
    assert refusal(f"https://{host}/key", ANY_HOST) == "not a URL"


@pytest.mark.parametrize(
    "link",
    [
        "https://[::1/key",
        "https://bucket.s3.amazonaws.com:http/key",
        "https://bucket.s3.amazonaws.com:99999/key",
        "https://bucket.s3.amazonaws.com:-1/key",
    ],
)
def test_what_does_not_parse(link: str) -> None:
    """A link that can't be taken apart is refused, not raised as a ValueError."""
    assert refusal(link, ANY_HOST) == "not a URL"


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".amazonaws.com",
        "bucket..amazonaws.com",
        "bucket.amazonaws.com..",
        "evil.example\\.amazonaws.com",
        "evil.example%2f.amazonaws.com",
        "evil.example%00.amazonaws.com",
        "*.amazonaws.com",
        "a,b.amazonaws.com",
        "a;b.amazonaws.com",
        "a" * 64 + ".amazonaws.com",
        "a." * 130 + "amazonaws.com",
    ],
    ids=lambda host: host[:40],
)
def test_a_host_is_a_name(host: str) -> None:
    """A host that is no valid name is refused, even if a pattern matches the host."""
    assert refusal(f"https://{host}/key", ANY_HOST) == "not a host's name"


# What the patterns don't admit.


@pytest.mark.parametrize(
    "host",
    [
        "amazonaws.com",
        "evilamazonaws.com",
        "bucket.amazonaws.com.evil.example",
        "bucket.amazonaws.com-evil.example",
        "bucket.amazonaws.co",
        "bucket.amazonaws.comx",
        "xn--bucket-.example",
        "metadata.google.internal",
        "localhost",
    ],
)
def test_a_host_beside_the_patterns(host: str) -> None:
    """A host that no pattern matches as a whole is refused, and named with its option."""
    message = refusal(f"https://{host}/key")
    assert repr(host) in message
    assert "file_hosts" in message


@pytest.mark.parametrize(
    "link",
    [
        "https://amazonaws.com?bucket.s3.amazonaws.com",
        "https://evil.example#.amazonaws.com",
        "https://evil.example/.amazonaws.com",
        "https:/bucket.amazonaws.com/",
        "https:bucket.amazonaws.com",
    ],
)
def test_only_the_host_counts(link: str) -> None:
    """The path, query or fragment of a link doesn't make its host."""
    refusal(link)


def test_no_pattern_admits_nothing() -> None:
    """Without patterns, no link is followed."""
    assert "file_hosts" in refusal(SIGNED, ())


def test_a_pattern_for_every_host_does_not_admit_this_machine() -> None:
    """The pattern `*` admits localhost only if the vendor itself is on this machine."""
    refusal("https://localhost/key", ANY_HOST)
    refusal("https://localhost./key", ANY_HOST)


def test_a_refusal_has_no_query() -> None:
    """The message says which host, and nothing of the path or query: that is a credential."""
    message = refusal("https://files.example/path?X-Amz-Signature=5ec4e7")
    assert "5ec4e7" not in message
    assert "path" not in message


# Loopback.


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "LOCALHOST", "[::1]"])
def test_loopback_needs_a_loopback_vendor(scheme: str, host: str) -> None:
    """A link to this machine is followed where the vendor is on loopback, and only there."""
    link = f"{scheme}://{host}:8080/key"
    assert check(link, loopback=True) == link
    refusal(link, ANY_HOST, loopback=False)


@pytest.mark.parametrize(
    "link",
    [
        "http://bucket.s3.amazonaws.com/key",
        "http://10.0.0.1/key",
        "http://localhost.evil.example/key",
        "http://127.0.0.1.evil.example/key",
        "http://0.0.0.0/key",
        "http://127.1/key",
        "ftp://127.0.0.1/key",
        "file://localhost/etc/passwd",
    ],
)
def test_a_loopback_vendor_admits_nothing_else(link: str) -> None:
    """A vendor on loopback may link to loopback; to others by the same rules as any vendor."""
    refusal(link, ANY_HOST, loopback=True)


@pytest.mark.parametrize("host", ["", "localhost.", "localhost.localdomain", "0.0.0.0", "127.1"])
def test_what_is_not_known_to_be_loopback(host: str) -> None:
    """Only `localhost` and whole loopback addresses count as this machine."""
    assert not is_loopback(host)


# What a host resolves to.

NO_PLACE = [
    "0.0.0.0",
    "0.1.2.3",
    "169.254.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "224.0.0.1",
    "239.255.255.250",
    "100.100.100.200",
    "100.96.0.96",
    "168.63.129.16",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "febf::1",
    "ff02::1",
    "fd00:ec2::254",
    "fd00:ec2::23",
    "fd20:ce::254",
    "::ffff:169.254.169.254",
    "::ffff:0.0.0.0",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1:a83f:81:1000:808:808",
    "64:ff9b:1:a8:3f:8110:808:808",
    "64:ff9b:1:808:a9:fea9:fe08:808",
    "64:ff9b:1:808:8:808:a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "",
    "localhost",
]


@pytest.mark.parametrize("loopback", [False, True])
@pytest.mark.parametrize("address", NO_PLACE)
def test_no_place_for_files(address: str, loopback: bool) -> None:
    """Link-local, multicast, unspecified and metadata addresses are refused, in whatever dress."""
    with pytest.raises(LinkRefused, match=r"'b\.example' resolves to"):
        check_addresses("b.example", [address], loopback=loopback)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_a_name_for_this_machine(address: str) -> None:
    """A loopback address is refused like a loopback name, unless the vendor is on this machine."""
    with pytest.raises(LinkRefused, match="this machine"):
        check_addresses("b.example", [address], loopback=False)
    check_addresses("b.example", [address], loopback=True)


@pytest.mark.parametrize(
    "address",
    [
        *("52.218.1.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1"),
        *("fd12::1", "2600:1f::1", "::ffff:10.0.0.5", "2600:1fa0:80c0:4e1:34d8:a9fe:a9fe:0"),
    ],
)
def test_public_and_private_addresses_pass(address: str) -> None:
    """S3 behind PrivateLink has private addresses, and S3's own have IPv4 in their middle."""
    check_addresses("b.example", [address], loopback=False)
    check_addresses("b.example", [], loopback=False)


@given(st.lists(st.ip_addresses().map(str), max_size=3), st.sampled_from(NO_PLACE), st.data())
def test_one_of_several_is_enough(addresses: list[str], bad: str, data: st.DataObject) -> None:
    """One bad address among several refuses the host: any address may be connected to."""
    addresses.insert(data.draw(st.integers(0, len(addresses))), bad)
    with pytest.raises(LinkRefused):
        check_addresses("b.example", addresses, loopback=True)


@given(st.ip_addresses(v=4), st.booleans())
def test_a_mapped_address_is_judged_as_what_it_maps(
    address: ipaddress.IPv4Address, loopback: bool
) -> None:
    """An IPv6 address that maps a refused IPv4 address is refused, too."""

    def refused(text: str) -> bool:
        try:
            check_addresses("b.example", [text], loopback=loopback)
        except LinkRefused:
            return True
        return False

    assert refused(f"::ffff:{address}") == refused(f"64:ff9b::{address}") == refused(str(address))


# What is admitted.


@pytest.mark.parametrize(
    "link",
    [
        SIGNED,
        "https://bucket.s3.amazonaws.com/key",
        "https://my_old_bucket.s3.amazonaws.com/key",
        "https://bucket.s3.amazonaws.com./key",
        "https://BUCKET.S3.AmazonAWS.com/key",
        "HTTPS://bucket.s3.amazonaws.com/key",
        "https://bucket.s3.amazonaws.com:443/key",
        "https://bucket.s3.amazonaws.com:8443/key",
        "https://bucket.s3.amazonaws.com:/key",
        "https://bucket.s3.amazonaws.com",
    ],
)
def test_a_link_to_s3_is_returned_as_it_is(link: str) -> None:
    """Whatever case, port or one trailing dot its host has, an admitted link isn't changed."""
    assert check(link) == link


@pytest.mark.parametrize(
    ("pattern", "host"),
    [
        ("files.example", "files.example"),
        ("FILES.Example", "files.example"),
        ("files.example", "Files.EXAMPLE"),
        ("*.files.example", "a.b.files.example"),
        ("eu-?.files.example", "eu-1.files.example"),
    ],
)
def test_patterns(pattern: str, host: str) -> None:
    """A pattern matches the whole host, without regard to case."""
    link = f"https://{host}/key"
    assert check(link, [*S3, pattern]) == link


REGIONS = ("us-east-1", "eu-central-2", "ap-southeast-5", "us-gov-west-1", "cn-north-1")

S3_FORMS = [
    "s3.amazonaws.com",
    "{b}.s3.amazonaws.com",
    "s3-external-1.amazonaws.com",
    "{b}.s3-accelerate.amazonaws.com",
    "{b}.s3-accelerate.dualstack.amazonaws.com",
    "s3.{r}.amazonaws.com",
    "{b}.s3.{r}.amazonaws.com",
    "s3-{r}.amazonaws.com",
    "{b}.s3-{r}.amazonaws.com",
    "s3.dualstack.{r}.amazonaws.com",
    "{b}.s3.dualstack.{r}.amazonaws.com",
    "s3-fips.{r}.amazonaws.com",
    "{b}.s3-fips.{r}.amazonaws.com",
    "s3-fips-{r}.amazonaws.com",
    "s3-fips.dualstack.{r}.amazonaws.com",
    "{b}.s3-fips.dualstack.{r}.amazonaws.com",
    "point-123456789012.s3-accesspoint.{r}.amazonaws.com",
    "point-123456789012.s3-accesspoint.dualstack.{r}.amazonaws.com",
    "point-123456789012.s3-accesspoint-fips.{r}.amazonaws.com",
    "alias.mrap.accesspoint.s3-global.amazonaws.com",
    "vpce-0a1b2c3d-4e5f.s3.{r}.vpce.amazonaws.com",
    "vpce-0a1b2c3d-4e5f-{r}a.s3.{r}.vpce.amazonaws.com",
    "bucket.vpce-0a1b2c3d-4e5f.s3.{r}.vpce.amazonaws.com",
    "{b}.bucket.vpce-0a1b2c3d-4e5f.s3.{r}.vpce.amazonaws.com",
    "accesspoint.vpce-0a1b2c3d-4e5f.s3.{r}.vpce.amazonaws.com",
    "point-1.accesspoint.vpce-0a1b2c3d-4e5f.s3.{r}.vpce.amazonaws.com",
]


@pytest.mark.parametrize("form", S3_FORMS)
def test_each_form_of_s3_is_admitted_by_default(form: str) -> None:
    """With and without dots in the bucket's name, in every partition, on port 443."""
    for region in REGIONS:
        for bucket in ("bucket", "my_old.bucket-1", "s3", "vpce"):
            host = form.format(b=bucket, r=region) + (".cn" if region == "cn-north-1" else "")
            for link in (f"https://{host}/k?X-Amz-Signature=1", f"https://{host.upper()}:443/k"):
                assert check(link, S3_HOSTS) == link


NOT_S3 = [
    "amazonaws.com",
    "xs3.amazonaws.com",
    "s3x.amazonaws.com",
    "s3.amazonaws.com.evil.example",
    "vpc-customers-abc123.us-east-1.es.amazonaws.com",
    "s3.us-east-1.es.amazonaws.com",
    "vpce-0a1b.execute-api.us-east-1.vpce.amazonaws.com",
    "s3.vpce-0a1b.execute-api.us-east-1.vpce.amazonaws.com",
    "vpce-svc-0a1b.us-east-1.vpce.amazonaws.com",
    "s3.us-east-1.vpce.amazonaws.com",
    "s3.vpce-svc-0a1b.us-east-1.vpce.amazonaws.com",
    "attacker1.execute-api.us-east-1.amazonaws.com",
    "s3.execute-api.us-east-1.amazonaws.com",
    "ABCDEF.gr7.us-east-1.eks.amazonaws.com",
    "internal-app-1.us-east-1.elb.amazonaws.com",
    "s3-1.us-east-1.elb.amazonaws.com",
    "s3.us-east-1.elb.amazonaws.com",
    "ec2-203-0-113-7.compute-1.amazonaws.com",
    "ec2.us-east-1.amazonaws.com",
    "s3.abc.us-east-1.rds.amazonaws.com",
    "s3.eu-west-1.compute.amazonaws.com",
    "b.s3-website-us-east-1.amazonaws.com",
    "b.s3-website.us-east-1.amazonaws.com",
    "123456789012.s3-control.us-east-1.amazonaws.com",
    "f-123456789012.s3-object-lambda.us-east-1.amazonaws.com",
    "p-123456789012.op-1.s3-outposts.us-east-1.amazonaws.com",
    "s3-deprecated.us-east-1.amazonaws.com",
    "s3.us-east.amazonaws.com",
    "s3.cafe.amazonaws.com",
    "s3.us-east-1.amazonaws.com.evil.example",
    "s3.us-east-1.amazonaws.eu",
    "sts.amazonaws.com",
    "queue.amazonaws.com",
]


@pytest.mark.parametrize("host", NOT_S3)
def test_nothing_else_of_aws_is_admitted_by_default(host: str) -> None:
    """Databases, private APIs and machines of a customer's have names there, too."""
    for suffix in ("", ".cn"):
        assert "file_hosts" in refusal(f"https://{host}{suffix}/_search?q=*", S3_HOSTS)


@pytest.mark.parametrize("port", [0, 22, 80, 8443, 9000])
def test_only_port_443_is_admitted_by_default(port: int) -> None:
    """The message names the pattern that would admit the port."""
    message = refusal(f"https://b.s3.amazonaws.com:{port}/k", S3_HOSTS)
    assert f"file_hosts=[..., 'b.s3.amazonaws.com:{port}']" in message
    link = f"https://b.s3.amazonaws.com:{port}/k"
    assert check(link, [*S3_HOSTS, f"b.s3.amazonaws.com:{port}"]) == link


def test_the_default_is_s3() -> None:
    """The constructor, the only place with a default, admits S3's own names."""
    assert inspect.signature(SegmentsClient).parameters["file_hosts"].default is S3_HOSTS


@pytest.mark.parametrize(
    "address",
    [
        "::ffff:{v4}",
        "::{v4}",
        "::ffff:0:{v4}",
        "64:ff9b::{v4}",
        "64:ff9b:1::{v4}",
        "64:ff9b:1:0:{hex64}",
        "2002:{hex}::1",
        "2001:0:4136:e378:8000:63bf:{inverted}",
        "fe81::1:0:5efe:{v4}",
        "2600:1f00::5efe:{v4}",
        "2600:1f00::200:5efe:{v4}",
    ],
)
@pytest.mark.parametrize(
    "v4",
    ["127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "100.100.100.200", "255.255.255.255"],
)
def test_an_ipv6_address_is_judged_by_the_ipv4_that_it_leads_to(address: str, v4: str) -> None:
    """Mapped, compatible, translated, NAT64, 6to4, Teredo, ISATAP."""
    number = int(ipaddress.IPv4Address(v4))
    inverted = number ^ 0xFFFFFFFF
    text = address.format(
        v4=v4,
        hex=f"{number >> 16:x}:{number & 0xFFFF:x}",
        hex64=f"{number >> 24:x}:{number >> 8 & 0xFFFF:x}:{(number & 0xFF) << 8:x}:0",
        inverted=f"{inverted >> 16:x}:{inverted & 0xFFFF:x}",
    )
    with pytest.raises(LinkRefused, match="resolves to"):
        check_addresses("h", [text], loopback=False)


@pytest.mark.parametrize("text", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "", "none"])
def test_what_is_no_address_is_no_place(text: str) -> None:
    """A resolver's answer that can't be read is no pass."""
    with pytest.raises(LinkRefused):
        check_addresses("h", [text], loopback=False)


# Anything at all.

LINKS = st.one_of(
    st.text(),
    st.builds(
        "{}://{}{}{}".format,
        st.sampled_from(["https", "http", "s3", ""]),
        st.sampled_from(["", "user@", "user:pw@"]),
        st.one_of(st.sampled_from([*ADDRESSES, "localhost", "b.amazonaws.com"]), st.text()),
        st.one_of(st.just(""), st.text().map("/{}".format), st.text().map(":{}".format)),
    ),
)


@given(LINKS, st.booleans(), st.sampled_from([S3, ANY_HOST, ()]))
def test_anything_is_a_link_or_refused(
    text: str, loopback: bool, file_hosts: tuple[str, ...]
) -> None:
    """Any text gives the link itself, or raises LinkRefused and no other error."""
    try:
        assert check(text, file_hosts, loopback=loopback) == text
    except LinkRefused as refused:
        reason = str(refused)
    else:
        return
    assert reason


@given(LINKS)
def test_what_is_admitted_is_https_and_ascii(text: str) -> None:
    """Whatever is admitted from a vendor on the internet is printable ASCII over https."""
    try:
        link = check(text, ANY_HOST)
    except LinkRefused:
        return
    assert link.isascii()
    assert link.isprintable()
    assert link.lower().startswith("https://")


def test_a_refusal_is_short() -> None:
    """A long scheme in a server's link doesn't fill a log."""
    with pytest.raises(LinkRefused) as caught:
        check("a" * 100_000 + "://b.amazonaws.com/k")
    assert len(str(caught.value)) < 100


# What may be shown.


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (SIGNED, "https://bucket.s3.eu-west-1.amazonaws.com/a/b.csv?..."),
        (
            f"GET {SIGNED} failed",
            "GET https://bucket.s3.eu-west-1.amazonaws.com/a/b.csv?... failed",
        ),
        ('{"url": "https:\\/\\/b\\/k?sig=5ec4e7"}', '{"url": "https:\\/\\/b\\/k?..."}'),
        ("<a href='https://b/k?sig=5ec4e7'>", "<a href='https://b/k?...>"),
        ("https://user:5ec4e7@host/k", "https://...@host/k"),
        ("Authorization: Basic NWVjNGU3Og==", "Authorization: Basic ..."),
        ('"authorization":"bearer 5ec4e7.x-y_z"', '"authorization":"bearer ..."'),
        ("https://user:p@5ec4e7@host/k", "https://...@host/k"),
        ("https://user:it's5ec4e7@host/k", "https://...@host/k"),
        (r"https:\/\/user:5ec4e7@host\/k", r"https:\/\/...@host\/k"),
        ("k?a='b'&X-Amz-Signature=5ec4e7&c=d", "k?..."),
        ("https://b/k?name='x'&token=5ec4e7", "https://b/k?..."),
        ("https://b/k;token='5ec4e7'", "https://b/k;..."),
        ("https://b/k;v=1?a=5ec4e7", "https://b/k;..."),
        ("https://b/k#'token=5ec4e7'", "https://b/k#..."),
        (r"https:\/\/b\/k#5ec4e7", r"https:\/\/b\/k#..."),
        ("see https://b/k; then", "see https://b/k; then"),
        (r"k\u003fX-Amz-Signature\u003d5ec4e7", r"k\u003fX-Amz-Signature: ..."),
        ("k%3FX-Amz-Credential%3D5ec4e7", "k%3FX-Amz-Credential: ..."),
        ("k&#63;X-Amz-Security-Token&#61;5ec4e7", "k&#63;X-Amz-Security-Token: ..."),
        ("design=round", "design=round"),
        ("two: https://a/k?x=1 https://b/k?y=2", "two: https://a/k?... https://b/k?..."),
    ],
)
def test_redacted(text: str, shown: str) -> None:
    """Queries, user information, signatures and Authorization's credentials go, no more."""
    assert redact(text) == shown


def test_what_has_no_secret_is_shown_as_it_is() -> None:
    """A plain sentence, and a link without a query, pass unchanged."""
    text = "What? No such segment; see https://docs.example/help"
    assert redact(text) == text


@given(st.text(), st.from_regex(r"[A-Za-z0-9&=%._-]{12,40}", fullmatch=True), st.text())
def test_a_query_is_never_shown(before: str, query: str, after: str) -> None:
    """Whatever stands around a link, no query of it is left."""
    assert query not in redact(f"{before} https://host/key?{query} {after}") or (
        query in before or query in after
    )


PIECES = ["?", "://", "@", "basic ", "Bearer ", "a", "b=", " ", "/", '"', "..."]


@given(st.lists(st.sampled_from(PIECES), max_size=16).map("".join))
def test_redacting_twice_is_redacting_once(text: str) -> None:
    """Redacting a redacted message changes nothing: messages are redacted in several places."""
    assert redact(redact(text)) == redact(text)
