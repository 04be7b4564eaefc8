"""Certificate and key, where HTTPS is configured."""

from __future__ import annotations

import subprocess

import pytest

from edwin.doctor.certificate import check_tls
from tests.doctor.conftest import told


@pytest.fixture
def files(tmp_path):
    """Return a certificate and its key, made by openssl."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"),
            *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=localhost"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    key.chmod(0o600)
    return certificate, key


def look(make_config, certificate, key):
    """Return what is found of them."""
    tls = {"certFile": str(certificate), "keyFile": str(key)}
    return list(check_tls(make_config({"tls": tls})))


def test_doctor_likes_a_certificate(make_config, files):
    """A certificate with its key is right; without HTTPS there is nothing to see."""
    (finding,) = look(make_config, *files)
    assert finding.level == "ok"
    assert list(check_tls(make_config())) == []


@pytest.mark.parametrize(("mode", "level"), [(0o640, "ok"), (0o644, "problem")])
def test_doctor_finds_a_key_that_all_can_read(make_config, files, mode, level):
    """The key may be a group's, and not everybody's."""
    files[1].chmod(mode)
    ((found, what),) = told(look(make_config, *files))
    assert found == level
    assert str(files[1 if level == "problem" else 0]) in what


def test_doctor_finds_what_cannot_be_served_with(make_config, files, tmp_path):
    """A start that would fail is told before."""
    certificate, key = files
    for pair in ((certificate, tmp_path / "none.pem"), (key, certificate)):
        ((level, what),) = told(look(make_config, *pair))
        assert level == "problem"
        assert ".pem" in what
