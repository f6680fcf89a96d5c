"""Files of arrays, pickled by NumPy's or torch's users, read without running them.

A pickle names the functions that rebuild its objects. For ``load`` each admitted name leads
to one of the classes below and never to NumPy's own function, so that not even a forged
dtype or shape reaches NumPy's C code unchecked. ``load_torch`` leaves the reading to torch,
which calls what it admits: of NumPy, the constructor of numbers, and for arrays and dtypes
``empty_array`` and ``plain_dtype``.
"""

import functools
import pickle
import pickletools
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, ClassVar, NoReturn

import numpy as np
import torch

from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.utils.reading import MOST, open_file

CORES = ('core', '_core')  # NumPy 1 and 2
DEEPEST = 100  # tuples in each other; torch's own files have three
DTYPES = ('b1', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8')


class PickledDtype:
    """What stands for ``numpy.dtype``: a plain number type."""

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        if code not in DTYPES:
            raise pickle.UnpicklingError(f'dtype {code!r}, expected a number type')
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        order, *structure = state[1:5]
        if order not in ('<', '>', '|', '=') or any(part is not None for part in structure):
            raise pickle.UnpicklingError('a structured dtype, expected a number type')
        self.dtype = self.dtype.newbyteorder(order)


class PickledArray:
    """What stands for ``numpy.ndarray`` and the function that rebuilds one."""

    array = np.empty(0)  # until its content follows; a pickle may make one without ``__init__``

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: tuple) -> None:
        _version, shape, dtype, is_fortran, content = state
        self._fill(content, dtype, shape, 'F' if is_fortran else 'C')

    def _fill(self, content: bytes | str, dtype: PickledDtype, shape: tuple, order: str) -> None:
        if isinstance(content, str):  # bytes of Python 2
            content = content.encode('latin1')
        self.array = np.frombuffer(content, dtype.dtype).reshape(shape, order=order)

    @functools.cached_property
    def native(self) -> np.ndarray:
        """A copy in the machine's byte order, rows first; one of it, whatever names it has."""
        return np.array(self.array, self.array.dtype.newbyteorder('='), order='C')


class PickledBuffer(PickledArray):
    """What stands for ``_frombuffer``, which rebuilds an array in protocol 5."""

    def __init__(self, content: bytes, dtype: PickledDtype, shape: tuple, order: str = 'C') -> None:
        self._fill(content, dtype, shape, order)


class PickledScalar(PickledArray):
    """What stands for ``scalar``, which rebuilds a single number."""

    def __init__(self, dtype: PickledDtype, content: bytes | str) -> None:
        self._fill(content, dtype, (), 'C')


class PickledBytes(bytes):
    """What stands for ``_codecs.encode``, by which protocol 2 of Python 3 writes bytes."""

    def __new__(cls, text: str = '', encoding: str = 'latin1') -> 'PickledBytes':
        return super().__new__(cls, text.encode('latin1'))

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError('bytes with a state')


class PickledDict(OrderedDict):
    """What stands for every dictionary; its keys are text or numbers.

    Attributes, which could take a method's place, are left. The hash of a tuple asks the tuples in
    it, at any depth, until the stack of C ends.
    """

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(key, str | bytes | int | float):
            raise pickle.UnpicklingError(f'a key of type {type(key).__name__}, expected text')
        super().__setitem__(key, value)

    def __setstate__(self, state: Any) -> None:
        pass


ADMITTED = {
    ('collections', 'OrderedDict'): PickledDict,
    ('numpy', 'ndarray'): PickledArray,
    ('numpy', 'dtype'): PickledDtype,
    ('_codecs', 'encode'): PickledBytes,
    **{(f'numpy.{home}.multiarray', '_reconstruct'): PickledArray for home in CORES},
    **{(f'numpy.{home}.multiarray', 'scalar'): PickledScalar for home in CORES},
    **{(f'numpy.{home}.numeric', '_frombuffer'): PickledBuffer for home in CORES},
}


class ArrayUnpickler(pickle._Unpickler):
    """Unpickles NumPy arrays, numbers, text and plain containers, and refuses the rest.

    It is Python's own in Python: that in C makes room for as many objects as one number in the
    file says, by which 16 bytes take gigabytes. There are no sets, whose members are hashed.
    """

    dispatch: ClassVar = {
        code: read
        for code, read in pickle._Unpickler.dispatch.items()
        if code not in (*pickle.EMPTY_SET, *pickle.ADDITEMS, *pickle.FROZENSET)
    }

    def load_dictionary(self) -> None:
        self.append(PickledDict())

    def load_filled_dictionary(self) -> None:
        items = iter(self.pop_mark())
        self.append(PickledDict(zip(items, items, strict=False)))

    dispatch[pickle.EMPTY_DICT[0]] = load_dictionary
    dispatch[pickle.DICT[0]] = load_filled_dictionary

    def find_class(self, module: str, name: str) -> type:
        try:
            return ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f'{module}.{name} is not admitted') from None


def load(path: Path) -> Any:
    """Read a pickle of NumPy arrays, numbers, text and plain containers.

    Returns:
        The pickled object; each array and each NumPy number in it is a ``PickledArray``.

    Raises:
        UserError: the file is damaged or asks for anything else, by its name.
    """
    damaged = (
        *(pickle.UnpicklingError, EOFError, MemoryError, OverflowError, RecursionError),
        *(AttributeError, IndexError, KeyError, TypeError, ValueError, struct.error),
    )
    with open_file(path, MOST) as file:
        try:
            return ArrayUnpickler(file, encoding='latin1').load()  # Python 2 wrote many of them
        except damaged as error:
            raise UserError(
                f'{path}: not read, expected a pickle with NumPy arrays only ({error})'
            ) from None


def plain_dtype(code: str, align: bool = False, copy: bool = False) -> np.dtype:
    """What stands for ``numpy.dtype`` in a file of torch.

    It is NumPy's own and never a copy, which a file could give any structure: one of objects, and
    bytes of the file are taken for their addresses. NumPy does not let its own be changed; a
    number in another byte order than this machine's is not read as such.

    Raises:
        ValueError: it is no number type.
    """
    if code not in DTYPES:
        raise ValueError(f'dtype {code!r}, expected a number type')
    return np.dtype(code)


def array_type(*_: Any) -> NoReturn:
    """What stands for ``numpy.ndarray`` in a file of torch, where it is named and not called.

    Called, NumPy's own takes bytes of the file for an array of any type: one of objects as well.

    Raises:
        UnpicklingError: always.
    """
    raise pickle.UnpicklingError('a call of numpy.ndarray')


def empty_array(*_: Any) -> np.ndarray:
    """What stands for ``_reconstruct`` in a file of torch: NumPy checks what fills it."""
    return np.empty(0, np.int8)


def load_torch(path: Path, also: Sequence = (), map_location: Any = 'cpu') -> Any:
    """Load a file of ``torch.save`` with ``weights_only``.

    The trainer's wrapping holds the state of optimizer and schedule, in which plain NumPy
    numbers and arrays occur; these few constructors, under the names that NumPy 1 and 2
    pickle them by, are all that is admitted beyond torch's own list.

    Args:
        path: of the file.
        also: more to admit, as ``torch.serialization.add_safe_globals`` takes it.
        map_location: as for ``torch.load``.

    Raises:
        UserError: the file is missing, damaged or asks for anything else, by its name.
    """
    admitted = [*also, (array_type, 'numpy.ndarray'), (plain_dtype, 'numpy.dtype')]
    for home in CORES:
        admitted.append((empty_array, f'numpy.{home}.multiarray._reconstruct'))
        admitted.append((np._core.multiarray.scalar, f'numpy.{home}.multiarray.scalar'))
    # What is given a state, under names that no file can write: they end at a line's end.
    built = [np.ndarray, *(type(np.dtype(code)) for code in DTYPES)]
    admitted += [(kind, f'{kind.__name__}\n') for kind in built]
    _check_zip(path)
    try:
        _check_tuples(path)
        with torch.serialization.safe_globals(admitted):
            return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # torch's reader raises many kinds for a damaged file
        asked = re.search(r'GLOBAL (\S+)', str(error))  # of a message of many lines
        reason = f'{asked[1]} is not admitted' if asked else 'damaged, or of another kind'
        raise UserError(
            f'{path}: not read, expected a file of torch.save with tensors only ({reason})'
        ) from None


def _check_zip(path: Path) -> None:
    """Check the checksums of a file of ``torch.save``, which torch itself does not look at.

    Raises:
        UserError: one is wrong, or the file is packed, so that it could hold any amount.
    """
    with open_file(path) as file:
        if not zipfile.is_zipfile(file):
            return  # of torch before 1.6: without checksums
        try:
            with zipfile.ZipFile(file) as archive:
                packed = any(entry.compress_type for entry in archive.infolist())
                damaged = None if packed else archive.testzip()
        except Exception as error:  # of damaged names, sizes, offsets
            raise UserError(f'{path}: damaged ({error!s:.100}), expected a checkpoint') from None
    if packed or damaged:
        found = 'packed, as torch never writes it' if packed else f'damaged (checksum of {damaged})'
        raise UserError(f'{path}: {found}, expected a checkpoint')


def _check_tuples(path: Path) -> None:
    """Refuse tuples that lie too deep in each other.

    torch's reader takes them as keys, and the hash of a tuple asks those in it, at any depth, until
    the stack of C ends.

    Raises:
        ValueError: they do, or a pickle is damaged.
    """
    with open_file(path) as file:
        zipped = file.read(4) == b'PK\3\4'  # as torch tells the two kinds
        file.seek(0)
        if not zipped:
            for _ in range(5):  # of torch before 1.6: the fourth has the tensors, bytes follow
                _check_pickle(file)
            return
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                if entry.filename.endswith('data.pkl'):
                    with archive.open(entry) as pickled:
                        _check_pickle(pickled)


def _check_pickle(file: IO[bytes]) -> None:
    """Follow the stack of a pickle; on it stands how many tuples each object has in each other.

    All else ends the count: lists and dictionaries have no hash.
    """
    stack: list[int] = []
    marks: list[int] = []
    memo: dict[Any, int] = {}  # by numbers
    for code, argument, _ in pickletools.genops(file):
        taken, name = code.stack_before, code.name
        if name == 'MARK':
            marks.append(len(stack))
        elif name.endswith('PUT'):
            memo[argument] = stack[-1]
        elif name.endswith('GET'):
            stack.append(memo[argument])
        else:
            start = len(stack) - len(taken)
            if pickletools.markobject in taken:
                start = marks.pop() - taken.index(pickletools.markobject)
            depth = 1 + max(stack[start:], default=0) if name.startswith('TUPLE') else 0
            if depth > DEEPEST:
                raise ValueError(f'tuples in each other, {depth} times and more')
            del stack[start:]
            stack += [depth] * len(code.stack_after)


def check_tensor(value: torch.Tensor, where: str) -> None:
    """Refuse weights that are not finite, or more than the file holds (by a stride of 0).

    Raises:
        UserError: they are.
    """
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise UserError(f'{where} is {value.numel():,} values, expected as many as the file holds')
    if value.is_floating_point() and not torch.isfinite(value).all():
        raise UserError(f'{where} has values that are not finite; the file is damaged')
