"""Read pickles of arrays as data: nothing in the file is called, imported or constructed.

A pickle is a program for a stack machine (Python's ``pickletools`` describes its operations). This one only knows the
operations that build numbers, text, lists, tuples, dicts and NumPy arrays. A name of a class or function stays a name,
and names that are not listed here are refused. An `Unpickler` that restricts names does not suffice: ten bytes make it
allocate 64 GiB for its memo, a nested tuple as a key is hashed for ever, and attributes of what it allows can be set.
"""

import io
import pickletools
import warnings
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from graphcast_batch.text import brief

_MOST_OPERATIONS: Final = 500_000
"""Largest number of operations; the weights of the published network with their optimizer's state need some 30 000."""
_LONGEST_KEY: Final = 200
"""Largest number of characters of a key; those of the published weights have up to 76."""
_MOST_DIMENSIONS: Final = 64
"""Largest number of dimensions of an array of NumPy 2."""
_PROTOCOLS: Final = (3, 4, 5)
"""Those that Python 3 has written by default; older ones write bytes as calls that encode text."""


class RefusedPickleError(ValueError):
    """A pickle is damaged, or holds something else than numbers, text, containers and arrays."""


@dataclass(eq=False)
class PickledDtype:
    """The type of the values of an array, as it stands in the file and unchecked.

    Attributes:
        code: kind and number of bytes, such as ``f4``.
        byte_order: one of ``<``, ``>``, ``=`` and ``|``.
    """

    code: str
    byte_order: str = "="


@dataclass(eq=False)
class PickledArray:
    """An array of NumPy or JAX as it stands in the file: no field has been compared with another.

    Attributes:
        dtype: type of the values.
        shape: dimensions; not negative.
        order: whether the last index changes fastest (``C``) or the first one (``F``).
        content: bytes of the values.
    """

    dtype: PickledDtype
    shape: tuple[int, ...]
    order: str
    content: bytes | bytearray


def read_pickle(content: bytes) -> Any:  # noqa: ANN401 - what the file holds
    """Return what a pickle of protocol 3 to 5 holds, with arrays as `PickledArray`; keys of dicts are text.

    The states of optimizers, which training programs store beside weights, are returned as tuples of what they hold.

    Raises:
        RefusedPickleError: the pickle is truncated or damaged, or holds something that is not listed here; the message
            names it.
    """
    if not content.startswith(b"\x80"):
        raise RefusedPickleError(_OLD.format("is none, or of an older protocol"))
    machine = _Machine()
    try:
        with warnings.catch_warnings():
            # Python warns of odd escapes in names, which are refused here as any other name.
            warnings.simplefilter("ignore", DeprecationWarning)
            for count, (operation, argument, _) in enumerate(pickletools.genops(io.BytesIO(content))):
                if count == _MOST_OPERATIONS:
                    raise RefusedPickleError(f"must have at most {_MOST_OPERATIONS} operations, but has more")
                machine.execute(operation.name, argument)
        return machine.result()
    except RefusedPickleError:
        raise
    except (ValueError, LookupError) as error:  # what pickletools, an empty stack and a wrong place in the memo raise
        raise RefusedPickleError(f"is truncated or damaged ({brief(str(error))})") from error


class _Name(NamedTuple):
    """The name of a class or function, which is all that is known of it here."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class _UnfilledArray:
    """An array between the operation that makes it and the one that fills it; `filled` is None until then."""

    filled: PickledArray | None = None


_NDARRAY, _DTYPE = _Name("numpy", "ndarray"), _Name("numpy", "dtype")
# NumPy 2 renamed numpy.core.
_UNFILLED: Final = {_Name(f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")}
_SCALAR: Final = {_Name(f"numpy.{core}.multiarray", "scalar") for core in ("core", "_core")}
_FROM_BUFFER: Final = {_Name(f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")}
_JAX_ARRAY: Final = _Name("jax._src.array", "_reconstruct_array")
_ORDERED_DICT: Final = _Name("collections", "OrderedDict")
_FLAT_MAPPING: Final = _Name("haiku._src.data_structures", "FlatMapping")
"""The immutable dict of Haiku."""
_OPTIMIZER_STATES: Final = {
    _Name("optax._src.base", "EmptyState"),
    _Name("optax._src.transform", "ScaleByAdamState"),
    _Name("optax._src.transform", "ScaleByScheduleState"),
}
"""The parts of the state of ``optax.adamw``, with and without a schedule."""
_NAMES: Final = frozenset(
    {_NDARRAY, _DTYPE, _JAX_ARRAY, _ORDERED_DICT, _FLAT_MAPPING}
    | _UNFILLED
    | _SCALAR
    | _FROM_BUFFER
    | _OPTIMIZER_STATES
)

_WORDS: Final[dict[type, str]] = {_Name: "name", PickledArray: "array", _UnfilledArray: "array", PickledDtype: "dtype"}
_OLD: Final = "must be a pickle of protocol 3 to 5, but {}; load it where it comes from and write it again"
_VALUES: Final = frozenset(
    {"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"}
    | {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
    | {"SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"}
)
"""Operations that push a number, text or bytes."""


class _Machine:
    """The stack, and the memo of what is referred to again."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def result(self) -> Any:  # noqa: ANN401 - what the file holds
        if len(self._stack) != 1:
            raise RefusedPickleError(f"must end with one object, but ends with {len(self._stack)}")
        return _complete(self._stack.pop())

    def execute(self, operation: str, argument: Any) -> None:  # noqa: ANN401 - a number, text or bytes
        """Execute one operation on the stack."""
        stack = self._stack
        match operation:
            case "PROTO" if argument not in _PROTOCOLS:
                raise RefusedPickleError(_OLD.format(f"is of protocol {argument}"))
            case "PROTO" | "FRAME" | "STOP":
                pass
            case _ if operation in _VALUES:
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[operation])
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[operation]())
            case "MARK":
                self._marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(map(_complete, self._since_mark())))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(map(_complete, self._popped(int(operation[-1])))))
            case "APPEND" | "APPENDS":
                items = self._popped(1) if operation == "APPEND" else self._since_mark()
                _expect(list, stack[-1]).extend(map(_complete, items))
            case "SETITEM" | "SETITEMS":
                items = self._popped(2) if operation == "SETITEM" else self._since_mark()
                pairs = zip(map(_key, items[::2]), map(_complete, items[1::2]), strict=True)
                _expect(dict, stack[-1]).update(pairs)
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "GLOBAL":
                stack.append(_named(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                stack.append(_named(*(_expect(str, part) for part in self._popped(2))))
            case "REDUCE" | "NEWOBJ":
                function, arguments = self._popped(2)
                stack.append(_made(_expect(_Name, function), _expect(tuple, arguments)))
            case "BUILD":
                (state,) = self._popped(1)
                _fill(stack[-1], state)
            case _:
                raise RefusedPickleError(
                    f"must hold numbers, text, containers and arrays alone, but holds the operation {operation}"
                )

    def _popped(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise RefusedPickleError("is damaged: an operation lacks its operands")
        items = self._stack[-count:]
        del self._stack[-count:]
        return items

    def _since_mark(self) -> list[Any]:
        mark = self._marks.pop()
        items = self._stack[mark:]
        del self._stack[mark:]
        return items


def _expect(kind: type, value: Any) -> Any:  # noqa: ANN401 - a value of ``kind``
    if type(value) is not kind:
        needed = _WORDS.get(kind, kind.__name__)
        raise RefusedPickleError(f"is damaged: a {needed} is needed where a value of type {_kind(value)} stands")
    return value


def _kind(value: object) -> str:
    return _WORDS.get(type(value), type(value).__name__)


def _complete(value: Any) -> Any:  # noqa: ANN401 - any value but an array that was not filled
    """Return a value as it is put into a container: in place of an array that was filled, what filled it."""
    if type(value) is not _UnfilledArray:
        return value
    if value.filled is None:
        raise RefusedPickleError("is damaged: an array has no values")
    return value.filled


def _key(value: object) -> str:
    if type(value) is not str or len(value) > _LONGEST_KEY:
        what = f"text of {len(value)}" if type(value) is str else f"of type {_kind(value)}"
        raise RefusedPickleError(f"must have text of at most {_LONGEST_KEY} characters as keys, but one key is {what}")
    return value


def _named(module: str, name: str) -> _Name:
    found = _Name(module, name)
    if found not in _NAMES:
        raise RefusedPickleError(
            f"must hold numbers, text, containers and arrays of NumPy or JAX alone, but holds {brief(str(found))}, "
            "which was not called"
        )
    return found


def _made(function: _Name, arguments: tuple[Any, ...]) -> Any:  # noqa: ANN401 - a value, as the name says
    """Return what stands for the result of a call."""
    if function in _OPTIMIZER_STATES:
        return arguments
    match arguments:
        case (str(code), bool(), bool()) if function == _DTYPE:
            return PickledDtype(code)
        case (_Name() as name, tuple(), bytes()) if function in _UNFILLED and name == _NDARRAY:
            return _UnfilledArray()
        case (content, PickledDtype() as dtype, shape, str(order), *_) if function in _FROM_BUFFER:
            return _array(dtype, shape, order, content)
        case (PickledDtype() as dtype, content) if function in _SCALAR:
            return _array(dtype, (), "C", content)
        case (_Name() as inner, tuple(), tuple(state), dict()) if function == _JAX_ARRAY and inner in _UNFILLED:
            return _array_of_state(state)
        case () if function == _ORDERED_DICT:
            return {}
        case (dict() as items,) if function == _FLAT_MAPPING:
            return items
    raise RefusedPickleError(f"holds {function} of something else than numbers, which was not called")


def _fill(target: object, state: object) -> None:
    """Execute what follows the making of an array or of a type: set what it holds."""
    match target, state:
        case _UnfilledArray(), tuple():
            target.filled = _array_of_state(state)
        case PickledDtype(), (int(), "<" | ">" | "=" | "|" as byte_order, *_):
            target.byte_order = byte_order
        case _:
            raise RefusedPickleError(
                f"sets the state of a value of type {_kind(target)}, which arrays of numbers do not need"
            )


def _array_of_state(state: tuple[Any, ...]) -> PickledArray:
    match state:
        case (int(), shape, PickledDtype() as dtype, bool(fortran), content):
            return _array(dtype, shape, "F" if fortran else "C", content)
    raise RefusedPickleError("is damaged: the state of an array must have version, shape, type, order and values")


def _array(dtype: PickledDtype, shape: object, order: str, content: object) -> PickledArray:
    if not isinstance(content, bytes | bytearray):
        raise RefusedPickleError(
            f"must hold arrays of numbers, but holds an array of type {brief(dtype.code[:_LONGEST_KEY])} whose values "
            f"are of type {_kind(content)}"
        )
    if not isinstance(shape, tuple) or len(shape) > _MOST_DIMENSIONS or not all(map(_is_size, shape)):
        raise RefusedPickleError(
            f"is damaged: the shape of an array must be a tuple of up to {_MOST_DIMENSIONS} numbers from 0 to 2**63"
        )
    if order not in ("C", "F"):
        raise RefusedPickleError(f"must hold arrays in the order C or F, but one has {brief(order[:_LONGEST_KEY])}")
    return PickledArray(dtype, shape, order, content)


def _is_size(size: object) -> bool:
    return type(size) is int and 0 <= size < 2**63
