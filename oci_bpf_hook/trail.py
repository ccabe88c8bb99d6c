"""What is put on record of one request: a line of the audit trail, and one of the log.

A grant is recorded before it is one: where the policy wants every grant on record, what
can't be recorded isn't given.
"""

from .annotations import PREFIX
from .errors import BAD_POLICY, DONE, LISTED, HookError, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .guard import Guard
    from .policy import Compiled, Decision


# A request may be a megabyte, and a line of the trail is its author's to cause: so much of a
# text, and so many annotations, are put on record.  The log's lines are short, and what is
# behind their end is lost: there it is less and less, until all of it fits.  The last is
# enough for a prefix, and for escapes of twelve characters each to fit.
_TEXTS = (2048, 256, 32, 10)
_ANNOTATIONS = 32
# As long as an engine's ids.
_ID = 64
# What a requester may tell of itself, and isn't believed.
_CLAIMS = ("container", "image", "namespace", "pod")


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}..."


def _first(texts: tuple[str, ...]) -> list[str]:
    rest = len(texts) - LISTED
    return [*texts[:LISTED], *([f"and {rest} more"] if rest > 0 else ())]


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
    ) -> None:
        """For the container with this id, which asks by `annotations`.

        `policy` finds the policy in force; `engine` is the command line's; `peer` tells of the
        process that asked a broker.
        """
        self._container = container
        self._annotations = annotations
        self._find_policy = policy
        self._engine = engine
        self._peer = peer
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
            "trimmed": trimmed,
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

    def refused(self, error: HookError) -> None:
        """Record why there is no grant, as far as that is possible."""
        # Without a policy nobody says where; the log still has it.  One that is no good isn't
        # read again to find out the same.
        if self.off or error.code == BAD_POLICY:
            return
        try:
            to = self.policy().audit_to
        except HookError:
            return
        fields = {"granted": None, "rule": error.rule, "problems": _first(error.problems)}
        from .audit import write

        write(to, self._record("refused", error.code, fields), required=False)

    def _record(self, outcome: str, code: int, fields: "Mapping[str, object]") -> str:
        """The audit trail's line."""
        from .audit import line
        from .log import FITS

        to_log = self.policy().audit_to == "syslog"
        text = ""
        for longest in _TEXTS:
            text = line(self._fields(outcome, code, fields, longest))
            if not to_log or len(text) <= FITS:
                break
        return text

    def _fields(
        self, outcome: str, code: int, fields: "Mapping[str, object]", longest: int
    ) -> dict[str, object]:
        """What is on record, with no text of the request that is longer than `longest`."""
        from .policy import ENGINES

        policy = self.policy()
        engine = self.subject.get("engine", self._engine or policy.engine)
        requester = {
            key: _cut(value, longest) if isinstance(value, str) else value
            for key, value in self.subject.items()
            if key not in ("annotations", "claimed", "engine")
        }
        if "claimed" in self.subject:
            requester["claimed"] = [key for key in _CLAIMS if requester.get(key) is not None]
        asked_for = {
            _cut(key, longest): _cut(text, longest)
            for key, text in self._annotations.items()
            if key.startswith(PREFIX)
        }
        if len(asked_for) > _ANNOTATIONS:
            asked_for = dict(list(asked_for.items())[: min(_ANNOTATIONS, longest)])
        return {
            "container": _cut(self._container, max(longest, _ID)),
            "engine": engine if engine in ENGINES else None,
            **({"peer": self._peer} if self._peer else {}),
            "requester": requester,
            "requested": asked_for,
            **{
                key: [_cut(text, longest) for text in value] if isinstance(value, list) else value
                for key, value in fields.items()
            },
            "outcome": outcome,
            "code": code,
        }
