"""Files of torch.save, read without torch: tests/golden/make_torch_files.py."""

import fractions
import io
import pickle
import pickletools
import struct
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
from parity import GOLDEN, expected

from mmjax.weights import torch_pickle
from mmjax.weights.torch_file import TorchFile

FOLDER = GOLDEN / "torch_files"
DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8")
DTYPES += ("uint8", "bool")


@pytest.mark.parametrize("container", ["", "_stream"])
@pytest.mark.parametrize("name", ["tensors", "module"])
def test_every_tensor_is_what_torch_wrote(name, container):
    found = TorchFile(FOLDER / f"{name}{container}.pth")
    wanted = {
        k.removeprefix(f"{name}/"): x
        for k, x in expected("torch_files").items()
        if k.startswith(f"{name}/")
    }
    assert found.shapes == {k: x.shape for k, x in wanted.items()}
    for key, want in wanted.items():
        x = found.read(key)
        assert x.dtype == (jnp.dtype(key) if key in DTYPES else want.dtype), key
        np.testing.assert_array_equal(x.astype(want.dtype), want, err_msg=key)


@pytest.mark.parametrize("name", ["tensors.pth", "tensors_stream.pth"])
def test_a_file_cut_anywhere_is_refused_in_one_sentence(name, tmp_path):
    data, path = (FOLDER / name).read_bytes(), tmp_path / name
    for size in (*range(0, len(data) - 1, 61), len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match=r"get it again|save the model") as error:
            TorchFile(path)
        assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_a_changed_byte_of_a_value_is_found_in_a_zip(tmp_path):
    data = bytearray((FOLDER / "module.pth").read_bytes())
    weight = expected("torch_files")["module/0.weight"].tobytes()
    data[data.index(weight) + 5] ^= 1
    (tmp_path / "x.pth").write_bytes(data)
    with pytest.raises(ValueError, match="damaged .*CRC"):
        TorchFile(tmp_path / "x.pth").read("0.weight")


def test_an_encrypted_entry_is_refused(tmp_path):
    data = bytearray((FOLDER / "module.pth").read_bytes())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = data.index(signature)
        data[at + flags] |= 1
    (tmp_path / "x.pth").write_bytes(data)
    with pytest.raises(ValueError, match="damaged .*encrypted"):
        TorchFile(tmp_path / "x.pth")


def test_other_contents_are_named():
    with pytest.raises(ValueError, match="holds a int as 'epoch' and not a dict of tensors alone"):
        TorchFile(FOLDER / "other.pth")
    with pytest.raises(ValueError, match=r"'x' of .* shape \[1000\] with the strides \[0\]"):
        TorchFile(FOLDER / "repeated.pth")
    with pytest.raises(ValueError, match="There is no file"):
        TorchFile(FOLDER / "missing.pth")
    with pytest.raises(ValueError, match="is no file of torch.save"):
        TorchFile(FOLDER / "expected.safetensors")


def follow(data):
    return torch_pickle.read(io.BytesIO(data), "x.pth")


def test_whatever_rebuilds_no_tensor_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="the name 'fractions.Fraction', which is not needed"):
        follow(pickle.dumps({"x": fractions.Fraction(1, 2)}, 2))
    with pytest.raises(ValueError, match="the instruction FRAME"):
        follow(pickle.dumps({"x": 1}, 4))
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps(fractions.Fraction(1, 2), 2))
    with pytest.raises(ValueError, match="x.pth' is a pickle with the name 'fractions.Fraction'"):
        TorchFile(tmp_path / "x.pth")


ALLOWED = torch_pickle._CONSTANTS.keys() | torch_pickle._METHODS.keys() | {"STOP"}
ALLOWED |= torch_pickle._NUMBERS_AND_TEXTS
ARGUMENTS = {  # of the instructions that have any: something that can be decoded
    -1: b"1\n",
    -2: b"\0",
    -3: b"\0\0\0\0",
    -4: b"\0\0\0\0",
    -5: b"\0" * 8,
}
TEXTS = {"STRING": b"'a'\n", "GLOBAL": b"a\nb\n", "INST": b"a\nb\n", "LONG": b"1L\n"}


def test_every_other_instruction_of_pickle_is_refused_by_name():
    refused = []
    for opcode in pickletools.opcodes:
        if opcode.name in ALLOWED:
            continue
        size = 0 if opcode.arg is None else opcode.arg.n
        argument = TEXTS.get(opcode.name, ARGUMENTS.get(size, b"\0" * max(size, 0)))
        with pytest.raises(ValueError, match=f"the instruction {opcode.name},"):
            follow(opcode.code.encode("latin-1") + argument + b".")
        refused.append(opcode.name)
    assert {"INST", "OBJ", "NEWOBJ", "STACK_GLOBAL", "EXT1", "DUP"} <= set(refused)


STORAGE = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x02tQ"  # of two values


def rebuilt(shape=b"K\x02\x85", strides=b"K\x01\x85", storage=STORAGE, offset=b"K\0"):
    """The pickle of a tensor of a storage of two values."""
    head = b"\x80\x02}U\x01xctorch._utils\n_rebuild_tensor_v2\n("
    return head + storage + offset + shape + strides + b"\x89}tRs."


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02R.",  # calls on an empty stack
        b"\x80\x02h\x05.",  # from an empty memo
        b"\x80\x02}K\x01K\x02s.",  # a key that is no text
        b"\x80\x02K\x01K\x02\x86K\x01R.",  # a call of a number
        b"\x80\x02ccollections\nOrderedDict\n(K\x01tR.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"\x80\x02(K\x01Q.",
        b"\x80\x02K\x01Q.",
        b"\x80\x02X\xff\xff\xff\x7fabc",  # a text of 2 GB that is not there
        b"\x80\x02\x8b\xff\xff\xff\x7f1",
        rebuilt(shape=b"J\xff\xff\xff\xff\x85"),
        rebuilt(strides=b"G\0\0\0\0\0\0\0\0\x85"),
        rebuilt(strides=b")"),
        rebuilt(storage=b"K\x01"),
    ],
)
def test_instructions_that_do_not_fit_are_an_error_in_one_sentence(data):
    with pytest.raises(ValueError, match="x.pth' is ") as error:
        follow(data)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "sizes"),
    [
        ({}, (2, 2)),
        ({"shape": b"K\x03\x85"}, (2, 2)),  # beyond its storage
        ({"offset": b"K\x01"}, (2, 2)),
        ({"strides": b"K\x02\x85"}, (2, 2)),
        ({}, (2, 2**60)),  # values that the file does not have
        ({}, (2, -1)),
        ({}, (2, 1)),
    ],
)
def test_sizes_are_bounded_by_the_file(change, sizes, tmp_path):
    wanted, stored = sizes
    start = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
    start += b"\x80\x02}U\x0dlittle_endian\x88s."
    data = start + rebuilt(**change) + b"\x80\x02]U\x010a." + struct.pack("<q", stored)
    (tmp_path / "x.pth").write_bytes(data + np.arange(wanted, dtype=np.float32).tobytes())
    if not change and stored == wanted:
        np.testing.assert_array_equal(TorchFile(tmp_path / "x.pth").read("x"), [0, 1])
        return
    with pytest.raises(ValueError, match=r"do not fit its 2 stored|truncated at|are needed"):
        TorchFile(tmp_path / "x.pth").read("x")
