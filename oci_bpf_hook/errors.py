"""The errors of this project: the exit codes, HookError, and the Problems that it carries.

crun throws a hook's output away and reports the exit code alone, so every
outcome has a code of its own.  This module is the one place where they are listed:
the table of docs/troubleshooting and the tests are checked against `EXITS`.

The other modules raise; only an entry point turns an error into a line and an exit code.
"""

from .values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

DONE = 0
USAGE = 2
BAD_ANNOTATION = 10
UNKNOWN_NAME = 11
REFUSED = 12
KERNEL_CANNOT = 13
NO_USER_NAMESPACE = 14
NO_BROKER = 15
MOUNT_FAILED = 16
BAD_STATE = 17
BAD_POLICY = 18
NOT_AS_GRANTED = 19
FOUND = 20
BAD_OBJECT = 21
BUG = 70

EXITS = {
    DONE: "done, or nothing was asked",
    USAGE: "wrong command line",
    BAD_ANNOTATION: "bad annotation",
    UNKNOWN_NAME: "unknown name in an annotation",
    REFUSED: "refused by the policy",
    KERNEL_CANNOT: "the kernel can't delegate BPF",
    NO_USER_NAMESPACE: "the container has no user namespace of its own",
    NO_BROKER: "no privilege to delegate, and no broker to ask",
    MOUNT_FAILED: "the mount failed",
    BAD_STATE: "bad OCI state or bundle",
    BAD_POLICY: "bad policy file",
    NOT_AS_GRANTED: "what was mounted differs from what was granted",
    FOUND: "doctor found a problem",
    BAD_OBJECT: "a file with no BPF object that can be read",
    BUG: "a bug of ours",
}

# Text that came from a container's author ends up in root's logs.  So no item of it has more
# characters than this, and no report has more problems than that.
_QUOTED = 64
LISTED = 20


class Problem(Value):
    """One thing that is wrong: `text` says what and where, and `hint`, if any, what to do.

    `key` and `item` tell the place to a program, so that no program has to parse our sentences.
    `key` is an annotation's key or a command's option (--attr) as it is written; for a problem that
    is found after the annotations are read, it is the part of the Request: one of
    `annotations.KEYS`.  `item` is the part of the value that is wrong, in the form that it had when
    the problem was found.  They are None if the problem has no such place.
    """

    __slots__ = ("hint", "item", "key", "text")
    text: str
    key: str | None
    item: str | None
    hint: str | None

    def __init__(
        self,
        text: str,
        *,
        key: str | None = None,
        item: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(text=text, key=key, item=item, hint=hint)

    def __str__(self) -> str:
        """The whole sentence, for people."""
        return self.text if self.hint is None else f"{self.text}; {self.hint}"


class HookError(Exception):
    """A request that can't be granted.

    `code` is one of `EXITS`.  `problems` are one or more things that are wrong; a problem without a
    place may be given as a plain sentence.  `hint`, if any, says what to do about all of them.
    `rule` is the name of the policy's rule that decided, or None.
    """

    def __init__(
        self,
        code: int,
        *problems: "Problem | str",
        rule: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(code, *problems)
        self.code = code
        self.problems = tuple(one if isinstance(one, Problem) else Problem(one) for one in problems)
        self.rule = rule
        self.hint = hint

    @property
    def sentences(self) -> tuple[str, ...]:
        """What to print, for people: each problem, and then what to do about all of them."""
        found = tuple(map(str, self.problems))
        return found if self.hint is None else (*found, self.hint)

    def __str__(self) -> str:
        sentences = self.sentences
        line = "; ".join(sentences[:LISTED])
        rest = len(sentences) - LISTED
        return f"{line}; and {rest} more" if rest > 0 else line


def once(problems: "Iterable[Problem]") -> "Iterable[Problem]":
    """The `problems` without those that have the same sentence as an earlier one."""
    found: dict[str, Problem] = {}
    for one in problems:
        found.setdefault(str(one), one)
    return found.values()


def quote(text: str) -> str:
    """`text` in double quotes, in printable ASCII, cut after the first 64 characters.

    Whoever wrote an annotation must not be able to write a line of a log.
    """
    cut = text if len(text) <= _QUOTED else text[:_QUOTED] + "..."
    plain = ascii(cut)[1:-1].replace('"', '\\"')
    return f'"{plain}"'


def bug(error: Exception) -> str:
    """The sentence to print for an `error` that nobody meant to raise, with its place in code."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = ""
    if trace is not None:
        where = f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    return f"a bug of ours, please report it: {type(error).__name__}: {quote(str(error))}{where}"
