"""What is put on record of one request: a line of the audit trail, and one of the log.

A grant is recorded before it is one: where the policy wants every grant on record, what
can't be recorded isn't given.  A refusal costs whoever asks nothing, and so there is only so much
room for the refusals of one user (`allowance`), and for one of them.
"""

from .annotations import PREFIX
from .errors import BAD_POLICY, DONE, LISTED, HookError, quote
from .log import FITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .compiled import Compiled
    from .guard import Guard
    from .policy import Decision


# A request may be a megabyte, and a line of the trail is its author's to cause: so much of a
# text, and so many texts of a kind, are put on record.  They are less and less until the line is
# short enough.  The last is enough for a prefix, and for escapes of twelve characters each to fit.
_CUTS = ((2048, 32), (256, 32), (64, 16), (32, 8), (10, 4))
# Bytes of a refusal's line with its end.  Others are as long as the log's, whose end would be lost.
LONGEST = 4096
# As long as an engine's ids.
_ID = 64
# Longer than any text, and more than there are.
_ALL = 1 << 30
# What a requester may tell of itself, and isn't believed.
_CLAIMS = ("container", "image", "namespace", "pod")


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}..."


def _first(texts: tuple[str, ...], most: int = LISTED) -> list[str]:
    rest = len(texts) - most
    return [*texts[:most], *([f"and {rest} more"] if rest > 0 else ())]


def say_more(to: str, *, every: bool = False) -> None:
    """Put on record, in the trail `to` and in the log, how many refusals are not.

    That is of the minutes that are over, or of `every` one.
    """
    from .allowance import due
    from .audit import line, write
    from .log import ERROR, log

    for more in due(every=every):
        whose = "others" if more.user is None else f"user {more.user}"
        said = f"and {more.count} more refusals of {whose}, which are not on record one by one"
        fields = {"outcome": "more", "user": more.user, "refused": more.count, "problems": [said]}
        write(to, line(fields), required=False)
        log(ERROR, said)


class Trail:
    """What is recorded of one request: the audit trail's line, and the log's."""

    def __init__(
        self,
        container: str,
        annotations: "Mapping[str, str]",
        policy: "Callable[[], Compiled]",
        *,
        engine: str | None = None,
        peer: "Mapping[str, int] | None" = None,
        user: int = 0,
    ) -> None:
        """For the container with this id, which asks by `annotations`.

        `policy` finds the policy in force; `engine` is the command line's; `peer` tells of the
        process that asked a broker, and `user` whose refusals this one's is counted among.
        """
        self._container = container
        self._annotations = annotations
        self._find_policy = policy
        self._engine = engine
        self._peer = peer
        self._user = user
        self._policy: Compiled | None = None
        self.subject: dict[str, object] = {}
        # Nothing was asked for after all.
        self.off = False
        # What was decided, if it came to that, and the guard that its mount is to be marked with.
        self.decision: Decision | None = None
        self.guard: Guard | None = None
        self._said = ""
        self._line = ""

    def policy(self) -> "Compiled":
        """The policy in force, read once."""
        if self._policy is None:
            self._policy = self._find_policy()
        return self._policy

    def prepare(self, decision: "Decision", dropped: tuple[str, ...]) -> None:
        """Have ready the guard that was decided on, and what will be on record if it can be done.

        Raises HookError (REFUSED) where a confined grant takes a guard, and none is in force.
        """
        from .lint import lint
        from .masks import show

        enums = self.policy().enums
        if decision.confined:
            from .confine import guard_for

            self.guard = guard_for(decision, self.subject, enums)
        self.decision = decision
        masks = decision.grant.masks
        shown = {option: show(mask, enums[option]) for option, mask in masks.items()}
        trimmed = _first(decision.trimmed)
        words = [f"{option}={text}" for option, text in shown.items()]
        said = f"{' '.join(words)} at {quote(decision.grant.path)} by rule {decision.rule}"
        if not decision.confined:
            said += ", unconfined"
        if dropped:
            said += f", dropped {' '.join(dropped)}"
        if trimmed:
            said += f", trimmed {', '.join(trimmed)}"
        # What nothing confines is said already, and that command is asked about confined grants.
        codes = dict.fromkeys(finding.code for finding in lint(masks, enums, confined=True))
        if codes:
            said += f"; doubtful, see oci-bpf-hook lint: {', '.join(codes)}"
        self._said = said
        fields = {
            "granted": shown,
            "rule": decision.rule,
            "confined": decision.confined,
            "trimmed": decision.trimmed,
        }
        self._line = self._record("granted", DONE, fields)

    def granted(self) -> None:
        """Record the grant that was prepared.  Raises HookError if that has to be and can't."""
        from .audit import write

        policy = self.policy()
        write(policy.audit_to, self._line, required=policy.audit_required)

    def say(self, *, mounted: bool) -> None:
        """Log the grant that was prepared; without `mounted`, that it was there already."""
        from .log import INFO, log

        # A broker's peer may call itself what it likes.
        who = quote(self._container)[1:-1]
        log(INFO, f"{who}: {'granted' if mounted else 'already has'} {self._said}")

    def revoked(self, path: str) -> None:
        """Record that what was delegated at `path` was covered, as far as that is possible."""
        from .audit import write
        from .log import INFO, log

        who = quote(self._container)[1:-1]
        log(INFO, f"{who}: revoked what was delegated at {quote(path)}")
        line = self._record("revoked", DONE, {"granted": None, "rule": None})
        write(self.policy().audit_to, line, required=False)

    def refused(self, error: HookError, said: str = "") -> None:
        """Record why there is no grant, and log what is `said` of it, as far as that is possible.

        Whoever has been refused too often in this minute is only counted.
        """
        from .allowance import spend
        from .audit import write
        from .log import ERROR, log

        to = self._refusals_to(error)
        line = self._refusal(error) if to != "none" else ""
        say_more(to)
        if not spend(self._user, len(line) + len(said)):
            return
        if line:
            write(to, line, required=False)
        if said:
            log(ERROR, said)

    def _refusals_to(self, error: HookError) -> str:
        """Where the refusal by that `error` is recorded, as the policy's `audit.to` has it."""
        # Without a policy nobody says where; the log still has it.  One that is no good isn't
        # read again to find out the same.
        if self.off or error.code == BAD_POLICY:
            return "none"
        try:
            return self.policy().audit_to
        except HookError:
            return "none"

    def _refusal(self, error: HookError) -> str:
        fields = {"granted": None, "rule": error.rule, "problems": error.sentences}
        return self._record("refused", error.code, fields, LONGEST - 1)

    def _record(
        self, outcome: str, code: int, fields: "Mapping[str, object]", most: int = FITS
    ) -> str:
        """The audit trail's line, of no more than `most` characters."""
        from .audit import line

        text = ""
        for cut in _CUTS:
            text = line(self._fields(outcome, code, fields, *cut))
            if len(text) <= most:
                break
        return text

    def _fields(
        self, outcome: str, code: int, fields: "Mapping[str, object]", longest: int, most: int
    ) -> dict[str, object]:
        """What is on record, with no text of the request that is longer than `longest`.

        Of texts of a kind there are `most`; where something was left out that is said.
        """
        from .policy import ENGINES

        policy = self.policy()
        engine = self.subject.get("engine", self._engine or policy.engine)
        parts = self._parts(fields, longest, most)
        cut = parts != self._parts(fields, _ALL, _ALL)
        return {
            "container": parts.pop("container"),
            "engine": engine if engine in ENGINES else None,
            **({"peer": self._peer} if self._peer else {}),
            **parts,
            "outcome": outcome,
            "code": code,
            **({"cut": True} if cut else {}),
        }

    def _parts(self, fields: "Mapping[str, object]", longest: int, most: int) -> dict[str, object]:
        """What of the record whoever asks has a say in."""
        requester = {
            key: _shortened(value, longest, most)
            for key, value in self.subject.items()
            if key not in ("annotations", "claimed", "engine")
        }
        if "claimed" in self.subject:
            requester["claimed"] = [key for key in _CLAIMS if requester.get(key) is not None]
        asked = [(key, text) for key, text in self._annotations.items() if key.startswith(PREFIX)]
        # KEY/NAME may be for others, and there may be any number of those.
        asked.sort(key=_is_for_one)
        return {
            "container": _cut(self._container, max(longest, _ID)),
            "requester": requester,
            "requested": {_cut(key, longest): _cut(text, longest) for key, text in asked[:most]},
            **{
                key: _shortened(value, longest, most) if isinstance(value, tuple) else value
                for key, value in fields.items()
            },
        }


def _is_for_one(asked: tuple[str, str]) -> bool:
    return "/" in asked[0]


def _shortened(value: object, longest: int, most: int) -> object:
    """A text, or texts, no longer than that; numbers are no texts, and there are fewer of them."""
    if isinstance(value, str):
        return _cut(value, longest)
    if isinstance(value, tuple | list):
        if any(not isinstance(one, str) for one in value):
            return list(value)[:most]
        return _first(tuple(_cut(text, longest) for text in value), min(most, LISTED))
    return value
