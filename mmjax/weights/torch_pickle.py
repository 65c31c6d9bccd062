"""The pickles in torch's files, interpreted for what rebuilds named tensors, and nothing else.

No pickle is executed: `pickletools` splits the bytes into instructions, and the few that a dict of
tensors needs are followed here on plain values. Every other instruction, and every name of a
function or class that rebuilds no tensor, is refused.

Source of the format: torch 2.13, _utils.py (_rebuild_tensor_v2, _rebuild_parameter) and
serialization.py (persistent_load).
"""

import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

DTYPES = {
    "BFloat16Storage": ml_dtypes.bfloat16,
    "BoolStorage": np.bool_,
    "ByteStorage": np.uint8,
    "CharStorage": np.int8,
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "IntStorage": np.int32,
    "LongStorage": np.int64,
    "ShortStorage": np.int16,
}
ORDERED_DICT = "collections.OrderedDict"
TENSOR, PARAMETER = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"
GLOBALS = {ORDERED_DICT, TENSOR, PARAMETER, *(f"torch.{name}" for name in DTYPES)}
SAFER = "save the model as safetensors with the library that wrote it"


class Storage(NamedTuple):
    """A flat array in the file: its name there, and its number of values."""

    key: str
    dtype: np.dtype
    size: int


class Tensor(NamedTuple):
    """A view of a storage: offset and strides count values."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Global(NamedTuple):
    name: str


class _Mark(NamedTuple):
    """Where the values of a tuple, a list or a dict begin on the stack."""


class _Damaged(Exception):
    """Instructions that do not fit together."""


# A length in it may be larger than memory, and values may be within each other without end.
_DAMAGED = (_Damaged, ValueError, LookupError, TypeError, OverflowError)
_DAMAGED += (MemoryError, RecursionError)


def read(file: BinaryIO, name: str) -> Any:
    """The value of the pickle that begins here: numbers, texts, lists, tuples, dicts, `Tensor`.

    Args:
      name: of the file, for messages.

    Raises:
      ValueError: an instruction or a name that rebuilds no tensor, or a damaged pickle.
    """
    machine = _Machine(name)
    try:
        for instruction, argument, _ in pickletools.genops(_Bounded(file)):
            if instruction.name == "STOP":
                return machine.pop()
            machine.follow(instruction.name, argument)
    except _Refused:
        raise
    except _DAMAGED as error:
        what = str(error).splitlines()[0] if str(error) else "its instructions do not fit together"
        raise ValueError(f"'{name}' is truncated or damaged ({what}): get it again.") from None
    raise ValueError(f"'{name}' is truncated: get it again.")


class _Bounded:
    """A file of which no more is read than it has: a length is known before memory is taken."""

    def __init__(self, file: BinaryIO):
        self._file, start = file, file.tell()
        self._end = file.seek(0, 2)
        self.tell = file.tell
        file.seek(start)

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, self._end - self._file.tell()))

    def readline(self) -> bytes:
        return self._file.readline(1000)  # longer than any name


class _Refused(ValueError):
    """An instruction or a name that is not on the list."""


class _Machine:
    """The stack and the memo of a pickle."""

    def __init__(self, name: str):
        self._name, self._stack, self._memo = name, [], {}

    def pop(self) -> Any:
        """The value on top; raises `_Damaged` without one."""
        if not self._stack or isinstance(self._stack[-1], _Mark):
            raise _Damaged
        return self._stack.pop()

    def follow(self, instruction: str, argument: Any) -> None:
        """Follow one instruction.

        Raises:
          ValueError: one that is not on the list, or that does not fit.
        """
        if instruction in _CONSTANTS:
            self._stack.append(_CONSTANTS[instruction]())
        elif instruction in _NUMBERS_AND_TEXTS:
            self._stack.append(argument)
        elif instruction in _METHODS:
            _METHODS[instruction](self, argument)
        else:
            self._refuse(f"the instruction {instruction}")

    def _refuse(self, what: str) -> None:
        raise _Refused(
            f"'{self._name}' is a pickle with {what}, which is not needed to rebuild tensors: "
            f"nothing of it was executed; {SAFER}."
        )

    def _since_mark(self) -> list[Any]:
        """The values above the last mark, which is removed."""
        for place in range(len(self._stack) - 1, -1, -1):
            if isinstance(self._stack[place], _Mark):
                found = self._stack[place + 1 :]
                del self._stack[place:]
                return found
        raise _Damaged

    def _mark(self, _: None) -> None:
        self._stack.append(_Mark())

    def _put(self, place: int) -> None:
        value = self.pop()
        self._stack.append(value)
        self._memo[place] = value

    def _get(self, place: int) -> None:
        self._stack.append(self._memo[place])

    def _global(self, name: str) -> None:
        name = name.replace(" ", ".", 1)
        if name not in GLOBALS:
            self._refuse(f"the name {name!r}")
        self._stack.append(_Global(name))

    def _tuple(self, _: None) -> None:
        self._stack.append(tuple(self._since_mark()))

    def _tuple_of(self, count: int) -> None:
        self._stack.append(tuple([self.pop() for _ in range(count)][::-1]))

    def _append(self, several: bool) -> None:
        values = self._since_mark() if several else [self.pop()]
        self._top(list).extend(values)

    def _set(self, several: bool) -> None:
        values = self._since_mark() if several else [self.pop() for _ in range(2)][::-1]
        keys, target = values[::2], self._top(dict)
        if len(values) % 2 or not all(isinstance(key, str) for key in keys):
            raise _Damaged("a dict whose keys are not texts")
        target.update(zip(keys, values[1::2]))

    def _top(self, kind: type) -> Any:
        value = self.pop()
        if type(value) is not kind:
            raise _Damaged
        self._stack.append(value)
        return value

    def _build(self, _: None) -> None:
        """The attributes of a dict of tensors (torch's `_metadata`) are dropped."""
        if not isinstance(self.pop(), dict):
            self._refuse("the instruction BUILD of other than a dict")
        self._top(dict)

    def _persistent(self, _: None) -> None:
        kind, *given = self.pop()
        if kind != "storage":
            self._refuse(f"a reference to a {kind!r}")
        storage_type, key, _, size, *view = given
        ours = isinstance(storage_type, _Global) and storage_type.name.rpartition(".")[2]
        if ours not in DTYPES or any(x is not None for x in view) or not isinstance(key, str):
            raise _Damaged("a storage of an unknown kind")
        self._stack.append(Storage(key, np.dtype(DTYPES[ours]), _count(size)))

    def _call(self, _: None) -> None:
        given, function = self.pop(), self.pop()
        if not isinstance(function, _Global) or not isinstance(given, tuple):
            raise _Damaged
        if function.name == ORDERED_DICT and not given:
            self._stack.append({})
        elif function.name == PARAMETER:
            tensor, *_ = given
            if not isinstance(tensor, Tensor):
                raise _Damaged
            self._stack.append(tensor)
        elif function.name == TENSOR:
            storage, offset, shape, strides, _, hooks, *_ = given
            if not isinstance(storage, Storage) or hooks or len(shape) != len(strides):
                raise _Damaged
            shape, strides = (tuple(map(_count, x)) for x in (shape, strides))
            self._stack.append(Tensor(storage, _count(offset), shape, strides))
        else:
            self._refuse(f"a call of {function.name}")


def _count(value: Any) -> int:
    """A number of values: an int of at least 0."""
    if type(value) is not int or not 0 <= value < 2**63:
        raise _Damaged("a size that is no whole number")
    return value


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
}
_NUMBERS_AND_TEXTS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}
_NUMBERS_AND_TEXTS |= {"SHORT_BINSTRING"}  # of Python 2
_METHODS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, version: None,
    "MARK": _Machine._mark,
    "BINPUT": _Machine._put,
    "LONG_BINPUT": _Machine._put,
    "BINGET": _Machine._get,
    "LONG_BINGET": _Machine._get,
    "GLOBAL": _Machine._global,
    "TUPLE": _Machine._tuple,
    "TUPLE1": lambda machine, _: machine._tuple_of(1),
    "TUPLE2": lambda machine, _: machine._tuple_of(2),
    "TUPLE3": lambda machine, _: machine._tuple_of(3),
    "APPEND": lambda machine, _: machine._append(several=False),
    "APPENDS": lambda machine, _: machine._append(several=True),
    "SETITEM": lambda machine, _: machine._set(several=False),
    "SETITEMS": lambda machine, _: machine._set(several=True),
    "BUILD": _Machine._build,
    "BINPERSID": _Machine._persistent,
    "REDUCE": _Machine._call,
}
