"""Reads BPF's enums from a C header, `linux/bpf.h` or a copy of it.

It is used for kernels without BTF, and to bring the shipped table up to date.  A header
can't be read line by line: it has comments after enumerators, several enumerators on a
line, aliases, values that are expressions, and preprocessor lines.  So this works as a
compiler does: comments are removed, enumerators are split at commas, and each value is
evaluated.
"""

import ast
import re
from collections.abc import Callable, Sequence

from .enumerators import NamesError, make_enum
from .names import Enum, Kind

# A backslash at a line's end joins it with the next one, before anything else is done; compilers
# allow blanks and a carriage return after the backslash.
_JOINED = re.compile(r"\\[ \t\r]*\n")
_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_DIRECTIVE = re.compile(r"^[ \t]*#[ \t]*(\w*)[^\n]*", re.MULTILINE)
_ENUMERATOR = re.compile(r"(\w+)\s*(?:=\s*(.+))?", re.DOTALL)
_NUMBER = re.compile(r"\b(0[xX][0-9a-fA-F]+|\d+)([uUlL]*)\b")
_OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.BitOr: lambda a, b: a | b,
    ast.BitAnd: lambda a, b: a & b,
    # The shift is bounded, so that a header can't make us compute a number of a gigabyte.
    ast.LShift: lambda a, b: a << min(b, 64),
    ast.RShift: lambda a, b: a >> b,
}


class HeaderError(ValueError):
    """This text isn't a C header with these enums."""


def enums(text: str, kinds: Sequence[Kind]) -> dict[str, Enum]:
    """The enums of `kinds` in the C header `text`, by their option's name.

    Raises HeaderError if one is missing, given twice, or can't be understood.
    """
    plain = _COMMENT.sub(" ", _JOINED.sub("", text))
    found: dict[str, Enum] = {}
    for kind in kinds:
        bodies = re.findall(rf"\benum\s+{kind.enum}\s*\{{([^{{}}]*)\}}", plain)
        if len(bodies) != 1:
            raise HeaderError(f"enum {kind.enum} is defined {len(bodies)} times, not once")
        try:
            found[kind.option] = make_enum(kind, _enumerators(kind, bodies[0]), guarded=False)
        except NamesError as error:
            raise HeaderError(str(error)) from None
    return found


def _enumerators(kind: Kind, body: str) -> list[tuple[str, int]]:
    for directive in _DIRECTIVE.finditer(body):
        # The value of a macro doesn't matter here, but which branch is taken does.
        if directive[1] not in ("define", "undef", "pragma", ""):
            raise HeaderError(f"enum {kind.enum} has a conditional #{directive[1]} in it")
    values: dict[str, int] = {}
    found: list[tuple[str, int]] = []
    following = 0
    pieces = [piece.strip() for piece in _DIRECTIVE.sub("", body).split(",")]
    if pieces[-1] == "":
        pieces.pop()
    for piece in pieces:
        match = _ENUMERATOR.fullmatch(piece)
        if match is None:
            what = f"{piece[:60]!r}, and not NAME or NAME = VALUE"
            raise HeaderError(f"enum {kind.enum} has an enumerator that reads {what}")
        value = following if match[2] is None else _value(match[2], values)
        if value.bit_length() > 64:  # Repeated multiplication could fill the memory.
            raise HeaderError(f"enum {kind.enum}: the value of {match[1]} has more than 64 bits")
        values[match[1]] = value
        found.append((match[1], value))
        following = value + 1
    return found


def _value(expression: str, values: dict[str, int]) -> int:
    """The value of a C constant expression over earlier enumerators."""
    try:
        tree = ast.parse(_NUMBER.sub(_decimal, expression.strip()), mode="eval")
        return _evaluate(tree.body, values)
    except (SyntaxError, ValueError, KeyError, RecursionError, MemoryError):
        what = f"{expression[:60]!r}, which can't be computed"
        raise HeaderError(f"a value reads {what}") from None


def _decimal(number: re.Match[str]) -> str:
    digits = number[1]
    octal = len(digits) > 1 and digits[0] == "0" and digits[1] not in "xX"
    return str(int(digits, 8 if octal else 0))


def _evaluate(node: ast.expr, values: dict[str, int]) -> int:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.Name):
        return values[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_evaluate(node.operand, values)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _evaluate(node.left, values), _evaluate(node.right, values)
        return _OPERATORS[type(node.op)](left, right)
    raise ValueError
