"""s3:// links: names, keys and hosts."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segments_async._sansio.files.links import LinkRefused, check_link
from segments_async._sansio.files.s3_links import (
    LONGEST_KEY,
    S3Object,
    S3Place,
    is_s3_link,
    object_url,
    parse_s3_link,
)

AWS = S3Place()


def refusal(link: str) -> str:
    with pytest.raises(LinkRefused) as caught:
        parse_s3_link(link)
    return str(caught.value)


# Buckets.


@pytest.mark.parametrize(
    "bucket",
    [
        "",
        "ab",
        "a" * 64,
        "Upload-Bucket",
        "upload_bucket",
        "-bucket",
        "bucket-",
        ".bucket",
        "bucket.",
        "buc..ket",
        "buc.-ket",
        "buc-.ket",
        "192.168.5.4",
        "169.254.169.254",
        "xn--bucket",
        "user@bucket",
        "bucket:443",
        "bucket?x=1",
        "bucket#x",
        "bucket%2fother",
        "bucket\\other",
        "buck\u00e9t",
        "bucket\n",
        "evil.example\u3002s3",
        "arn:aws:s3:eu-west-1:1:accesspoint",
    ],
)
def test_a_bucket_has_a_name_as_s3_allows_it(bucket: str) -> None:
    """Other texts before the first slash are refused: they would become part of a host's name."""
    assert "bucket's name" in refusal(f"s3://{bucket}/key.csv")


def test_a_directory_bucket_is_refused_by_its_kind() -> None:
    """A directory bucket is refused, with its name in the message."""
    assert "S3 Express" in refusal("s3://name--euw1-az1--x-s3/key.csv")


@pytest.mark.parametrize("bucket", ["abc", "a" * 63, "my.own.bucket", "1a1", "b-2--3", "a-s3alias"])
def test_a_buckets_name(bucket: str) -> None:
    """Each name that S3 allows is admitted."""
    assert parse_s3_link(f"s3://{bucket}/k") == S3Object(bucket, "k")


# Keys.


@pytest.mark.parametrize(
    "key", ["", "k" * (LONGEST_KEY + 1), "\u00fc" * 513, "a\nb", "a\x00b", "a\x7fb", "\ud800"]
)
def test_what_is_no_key(key: str) -> None:
    """A key has 1 to 1024 bytes of UTF-8, and no control characters."""
    refusal(f"s3://bucket/{key}")


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("a/b.csv", "/a/b.csv"),
        ("a b.csv", "/a%20b.csv"),
        ("a+b.csv", "/a%2Bb.csv"),
        ("100%.csv", "/100%25.csv"),
        ("a%20b.csv", "/a%2520b.csv"),
        ("a?versionId=1", "/a%3FversionId%3D1"),
        ("a#b", "/a%23b"),
        ("//a///b/", "///a///b/"),
        ("../a/./..", "/../a/./.."),
        ("~a-b_c.d", "/~a-b_c.d"),
        ("\u00fc\u20ac\U0001f600", "/%C3%BC%E2%82%AC%F0%9F%98%80"),
        ("a:b@c,d;e=f&g'h(i)*j!", "/a%3Ab%40c%2Cd%3Be%3Df%26g%27h%28i%29%2Aj%21"),
    ],
)
def test_quoted_as_s3_signs_it(key: str, path: str) -> None:
    """Every byte but RFC 3986's unreserved and the slash is quoted, and no segment is dropped."""
    url = object_url(parse_s3_link(f"s3://bucket/{key}"), AWS, "eu-west-1")
    assert url == f"https://bucket.s3.eu-west-1.amazonaws.com{path}"


KEYS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=250)


@given(KEYS)
def test_a_key_comes_back(key: str) -> None:
    """The path of the URL, unquoted, is the key; and the URL has no query and no fragment."""
    url = object_url(parse_s3_link(f"s3://bucket/{key}"), AWS, "eu-west-1")
    parts = urlsplit(url)
    assert unquote(parts.path) == f"/{key}"
    assert (parts.query, parts.fragment, parts.username) == ("", "", None)
    assert check_link(url, file_hosts=("*.amazonaws.com",), loopback=False) == url


@given(st.text().map("s3://{}".format))
def test_any_link_is_an_object_or_refused(link: str) -> None:
    """Each admitted link leads to S3's hosts; for any other, only LinkRefused is raised."""
    try:
        target = parse_s3_link(link)
    except LinkRefused:
        return
    url = object_url(target, AWS, "eu-west-1")
    assert (urlsplit(url).hostname or "").endswith("s3.eu-west-1.amazonaws.com")


@pytest.mark.parametrize(
    ("link", "is_one"),
    [("s3://b/k", True), ("S3://b/k", True), ("s3:/b", False), ("https://b/k", False), ("", False)],
)
def test_which_links_are_signed(link: str, is_one: bool) -> None:
    """The scheme marks an s3:// link, in upper or lower case."""
    assert is_s3_link(link) is is_one


# Hosts.


@pytest.mark.parametrize(
    ("bucket", "place", "region", "start"),
    [
        ("bucket", AWS, "eu-west-1", "https://bucket.s3.eu-west-1.amazonaws.com/k"),
        ("my.bucket", AWS, "eu-west-1", "https://s3.eu-west-1.amazonaws.com/my.bucket/k"),
        ("bucket", AWS, "cn-north-1", "https://bucket.s3.cn-north-1.amazonaws.com.cn/k"),
        (
            "bucket",
            S3Place(fips=True),
            "us-gov-west-1",
            "https://bucket.s3-fips.us-gov-west-1.amazonaws.com/k",
        ),
        (
            "bucket",
            S3Place(dualstack=True),
            "eu-west-1",
            "https://bucket.s3.dualstack.eu-west-1.amazonaws.com/k",
        ),
        (
            "bucket",
            S3Place(endpoint="https://minio.example:9000/"),
            "eu-west-1",
            "https://minio.example:9000/bucket/k",
        ),
        (
            "bucket",
            S3Place(endpoint="https://host.example/s3", fips=True),
            "eu-west-1",
            "https://host.example/s3/bucket/k",
        ),
    ],
)
def test_where_an_object_is(bucket: str, place: S3Place, region: str, start: str) -> None:
    """A host per bucket on AWS; the bucket in the path where it has dots, and at an endpoint."""
    assert object_url(S3Object(bucket, "k"), place, region) == start


@pytest.mark.parametrize(
    "endpoint",
    ["", "minio:9000", "ftp://host", "https://", "https://h/?x", "https://h/#", "https://[::1"],
)
def test_an_endpoint_is_a_url(endpoint: str) -> None:
    """An endpoint that can't take a path is refused with its variable's name."""
    with pytest.raises(LinkRefused, match="AWS_ENDPOINT_URL_S3"):
        object_url(S3Object("bucket", "k"), S3Place(endpoint=endpoint), "eu-west-1")
