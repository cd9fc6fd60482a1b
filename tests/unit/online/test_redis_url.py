"""A Redis URL is understood, or refused without showing what may be secret."""

import traceback
from pathlib import Path

import pytest

from konveyer.core.settings import BadSettings
from konveyer.feature_store.online.redis_url import parse_redis_url

ROOT = Path("/workspace")


def test_a_plain_url() -> None:
    address = parse_redis_url("redis://localhost", ROOT)
    assert address.connection == {"host": "localhost", "port": 6379, "db": 0}
    assert (address.place, address.prefix) == ("redis://localhost:6379", "konveyer")
    assert not address.is_cluster


def test_a_url_with_everything() -> None:
    address = parse_redis_url(
        "rediss://ana:p%40ss%2Fword@[::1]:7000/3?prefix=risk.dev&socket_timeout=0.5"
        "&max_connections=7&ssl_ca_certs=tls/ca.pem&ssl_certfile=/etc/me.pem&ssl_check_hostname=no",
        ROOT,
    )
    assert address.connection == {
        "host": "::1",
        "port": 7000,
        "db": 3,
        "username": "ana",
        "password": "p@ss/word",
        "ssl": True,
        "socket_timeout": 0.5,
        "max_connections": 7,
        "ssl_ca_certs": "/workspace/tls/ca.pem",
        "ssl_certfile": "/etc/me.pem",
        "ssl_check_hostname": False,
    }
    assert (address.place, address.prefix) == ("rediss://[::1]:7000", "risk.dev")
    assert "p@ss" not in repr(address)


def test_a_cluster() -> None:
    address = parse_redis_url("rediss+cluster://:pw@redis.bank:7001", ROOT)
    assert address.is_cluster
    assert address.connection == {
        "host": "redis.bank",
        "port": 7001,
        "ssl": True,
        "password": "pw",
    }
    assert address.place == "rediss+cluster://redis.bank:7001"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis://", "no host"),
        ("redis:state/online", "no host"),
        ("redis+sentinel://host", "no kind of Redis"),
        ("redis://host/zero", "no database"),
        ("redis+cluster://host/1", "no numbered databases"),
        ("redis://host?socket_timeot=1", "did you mean 'socket_timeout'"),
        ("redis://host?socket_timeout=soon", "'socket_timeout'"),
        ("redis://host?socket_timeout=-1", "'socket_timeout'"),
        ("redis://host?socket_timeout=inf", "'socket_timeout'"),
        ("redis://host?max_connections=0", "'max_connections'"),
        ("redis://host?max_connections=-5", "'max_connections'"),
        ("redis://host?decode_responses=true", "'decode_responses'"),
        ("redis://host?ssl_ca_certs=ca.pem", "does not use TLS"),
        ("rediss://host?ssl_cert_reqs=perhaps", "'ssl_cert_reqs'"),
        ("rediss://host?ssl_check_hostname=maybe", "'ssl_check_hostname'"),
        ("redis://host?prefix={a}", "prefix"),
        ("redis://host?prefix=a*", "prefix"),
        ("redis://host?prefix=", "prefix"),
    ],
)
def test_what_cannot_be_used_is_refused(url: str, message: str) -> None:
    with pytest.raises(BadSettings) as caught:
        parse_redis_url(url, ROOT)
    assert message in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    "url",
    [
        "redis://ana:SECRET@host:port",
        "redis://ana:12/SECRET@host",
        "redis://ana:12?SECRET@host",
        "redis://ana:12#SECRET@host",
        "redis://:SECRET@host:99999999",
        "redis://:SECRET]@host",
        "redis://ana:SECRET\u2100@host",
        "redis://ana:SECRET@host?sockettimeout=1",
        "redis://ana:SECRET@host?socket_timeout=x",
        "redis+what://ana:SECRET@host",
    ],
)
def test_a_refusal_shows_nothing_secret(url: str) -> None:
    with pytest.raises(BadSettings) as caught:
        parse_redis_url(url, ROOT)
    shown = "".join(traceback.format_exception(caught.value))
    assert "SECRET" not in shown
    assert "SECRET" not in str(caught.value.as_dict())
