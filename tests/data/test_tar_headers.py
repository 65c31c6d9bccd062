"""Headers of tar archives: against Python's tarfile, and bounded."""

import io
import random
import tarfile

import pytest

from mmjax.data.tar_headers import members, scan

NAMES = ["a.jpg", "folder/b.txt", "é.json", "x" * 99 + ".png", "d/" * 70 + "long.jpg"]
NAMES += ["n" * 101, "empty.txt", "d/" * 40 + "ü" * 60]


def written(path, form, **settings):
    with tarfile.open(path, "w", format=form) as tar:
        for i, name in enumerate(NAMES):
            if form == tarfile.USTAR_FORMAT and len(name.rpartition("/")[2].encode()) > 100:
                continue  # which this form has no place for
            member = tarfile.TarInfo(name)
            member.size = 0 if name == "empty.txt" else 511 + i
            for key, value in settings.items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(bytes([65 + i]) * member.size))
        for kind, name in ((tarfile.DIRTYPE, "folder/"), (tarfile.SYMTYPE, "link")):
            other = tarfile.TarInfo(name)
            other.type, other.linkname = kind, "t" * 150 if form != tarfile.USTAR_FORMAT else "t"
            tar.addfile(other)
        tar.addfile(tarfile.TarInfo("last"))
    return path


def expected(path):
    with tarfile.open(path, "r:") as tar:
        return [(m.name, m.offset_data, m.size) for m in tar.getmembers() if m.isfile()]


@pytest.mark.parametrize(
    "form, settings",
    [
        (tarfile.USTAR_FORMAT, {}),
        (tarfile.GNU_FORMAT, {}),
        (tarfile.GNU_FORMAT, {"uid": 10**9, "uname": "ü"}),
        (tarfile.PAX_FORMAT, {}),
        (tarfile.PAX_FORMAT, {"pax_headers": {"comment": "a=b\nc", "uid": "1"}, "mtime": 0.5}),
    ],
)
def test_the_files_are_those_of_tarfile(form, settings, tmp_path):
    path = written(tmp_path / "a.tar", form, **settings)
    assert [tuple(m) for m in members(path)] == expected(path)
    with path.open("rb") as file:
        for member in members(path):
            file.seek(member.offset)
            assert len(set(file.read(member.size))) == min(1, member.size)


def test_a_size_of_pax_counts_and_one_of_base_256_is_read(tmp_path):
    path = tmp_path / "a.tar"
    member = tarfile.TarInfo("a.bin")
    member.size = 3
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\x80" + (3).to_bytes(11, "big")
    path.write_bytes(summed(header) + b"abc".ljust(512, b"\0"))  # without an end
    assert list(members(path)) == [("a.bin", 512, 3)]
    member.pax_headers, member.size = {"size": "600"}, 0
    path.write_bytes(member.tobuf(tarfile.PAX_FORMAT) + bytes(3 * 512))
    assert list(members(path)) == [("a.bin", 3 * 512, 600)]


def summed(header, first=148):
    header = bytearray(header)
    header[148:156] = b" " * 8
    header[first : first + 8] = b"%06o\0 " % sum(header)
    return bytes(header)


def header(**fields):
    block = bytearray(tarfile.TarInfo("a.jpg").tobuf(tarfile.USTAR_FORMAT))
    for at, value in fields.items():
        at = int(at[1:])
        block[at : at + len(value)] = value
    return summed(block)


@pytest.mark.parametrize(
    "data, said",
    [
        (b"", "it is empty"),
        (b"no archive " * 100, "does not begin with a header of a tar file"),
        (b"\x1f\x8b" + bytes(600), "does not begin with a header"),
        (header()[:300], "cut off in the header at byte 0"),
        (header(_124=b"00000001000\0"), "has 512 bytes, and the archive ends at 512"),
        (header(_124=b"\xff" * 12), "no number"),
        (header(_124=b"\x80" + b"\xff" * 11), "it is cut off"),
        (header(_124=b"000000000-1\0"), "no number"),
        (header(_124=b"00000000_10\0"), "no number"),
        (header(_124=b"00000000008\0"), "no number"),
        (header() + header()[:-1] + b"\1", "header at byte 512 has a wrong checksum"),
        (header(_156=b"S"), "sparse"),
        (header(_156=b"L", _124=b"77777777777\0"), "cut off"),
        (header(_156=b"x", _124=b"00010000000\0") + bytes(1 << 22), "extended header .* has 2,097"),
        *(
            (header(_156=b"x", _124=b"00000000040\0") + record.ljust(512, b"\0"), said)
            for record, said in (
                (b"99 path=a\n", "pax header at byte 512 is damaged"),
                (b"0 path=a\n", "is damaged"),
                (b"-5 path=a\n", "is damaged"),
                (b"12 pathabcde\n", "is damaged"),
                (b"21 GNU.sparse.major=1\n"[:22], "is damaged|sparse"),
            )
        ),
        (
            header(_156=b"x", _124=b"00000000040\0")
            + b"32 size=99999999999999999999999\n".ljust(512, b"\0")
            + header(),
            "has the size b'9999",
        ),
    ],
)
def test_a_damaged_archive_is_refused(data, said, tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=said):
        list(members(path))


def test_checksums_of_signed_bytes_are_accepted(tmp_path):
    block = bytearray(tarfile.TarInfo("é.jpg").tobuf(tarfile.GNU_FORMAT))
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(x - 256 * (x > 127) for x in block)
    (tmp_path / "a.tar").write_bytes(block)
    assert [m.name for m in members(tmp_path / "a.tar")] == ["é.jpg"]


@pytest.mark.parametrize("window", [512, 1536, 8192, 1 << 20])
def test_windows_of_any_size_read_the_same(window, tmp_path):
    """Times as the webdataset library writes them, between names of all lengths."""
    rng, path = random.Random(window), tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for i in range(300):
            name = f"{'d/' * rng.choice([0, 0, 0, 3, 60])}{i}{rng.choice(['', 'é'])}.jpg"
            member = tarfile.TarInfo(name)
            member.size = rng.choice([0, 1, 511, 512, 513, 700, 5000])
            member.mtime = rng.choice([3, 1e9 + 0.5, 1e9 + i / 7, 1e9 + i / 7])
            tar.addfile(member, io.BytesIO(rng.randbytes(member.size)))
    data = path.read_bytes()
    found = list(scan(lambda at, size: data[at : at + size], len(data), window))
    assert [(name, *file[:2]) for name, file in found] == expected(path)
    for _, (at, size, content) in found:
        assert content in (None, data[at : at + size])
    assert window == 512 or any(file[2] for _, file in found)
    wrong = bytearray(data)
    wrong[found[200][1][0] - 512] ^= 1  # in a name: the headers before it are right
    with pytest.raises(ValueError, match=f"byte {found[200][1][0] - 512:,} has a wrong checksum"):
        list(scan(lambda at, size: bytes(wrong[at : at + size]), len(wrong), window))
