"""What is put on record of one request: a line of the audit trail, and one of the log.

A grant is recorded before it is one: where the policy wants every grant on record, what
can't be recorded isn't given.
"""

from .annotations import PREFIX
from .errors import DONE, LISTED, HookError, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .policy import Compiled, Decision
    from .state import State


# A request may be a megabyte, and a line of the trail is its author's to cause: so much of a
# text, and so many annotations, are put on record.
_TEXT = 2048
_ANNOTATIONS = 32


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT else f"{text[:_TEXT]}..."


def _first(texts: tuple[str, ...]) -> list[str]:
    rest = len(texts) - LISTED
    return [*texts[:LISTED], *([f"and {rest} more"] if rest > 0 else ())]


class Trail:
    """What is recorded of one request: the audit trail's line, and the log's."""

    def __init__(self, state: "State", options: "Mapping[str, str]") -> None:
        self._state = state
        self._options = options
        self._policy: Compiled | None = None
        self.subject: dict[str, object] = {}
        # Nothing was asked for after all.
        self.off = False
        self._said = ""
        self._granted: Mapping[str, int] = {}

    def policy(self) -> "Compiled":
        """The policy in force, read once."""
        from .policycache import in_force

        if self._policy is None:
            self._policy = in_force(header=self._options.get("header"))
        return self._policy

    def granted(self, decision: "Decision", dropped: tuple[str, ...], *, mounted: bool) -> None:
        """Record a grant before it is one.  Raises HookError if it has to be and can't."""
        from .masks import show

        policy = self.policy()
        self._granted = decision.grant.masks
        shown = {
            option: show(mask, policy.enums[option])
            for option, mask in decision.grant.masks.items()
        }
        words = " ".join(f"{option}={text}" for option, text in shown.items())
        done = "granted" if mounted else "already has"
        path = quote(decision.grant.path)
        self._said = f"{done} {words} at {path} by rule {decision.rule}"
        if dropped:
            self._said += f", dropped {' '.join(dropped)}"
        if decision.trimmed:
            self._said += f", trimmed {', '.join(_first(decision.trimmed))}"
        if mounted:
            fields = {"granted": shown, "rule": decision.rule, "trimmed": _first(decision.trimmed)}
            self._record("granted", DONE, fields, required=policy.audit_required)

    def say(self) -> None:
        """Log what was granted, and what is doubtful about it."""
        from .lint import lint
        from .log import INFO, log

        codes = dict.fromkeys(one.code for one in lint(self._granted, self.policy().enums))
        doubtful = f"; doubtful, see oci-bpf-hook lint: {', '.join(codes)}" if codes else ""
        log(INFO, f"{self._state.id}: {self._said}{doubtful}")

    def refused(self, error: HookError) -> None:
        """Record why there is no grant, as far as that is possible."""
        if self.off:
            return
        try:
            self.policy()
        except HookError:
            # Without a policy nobody says where; the log still has it.
            return
        fields = {"granted": None, "rule": error.rule, "problems": _first(error.problems)}
        self._record("refused", error.code, fields, required=False)

    def _record(
        self, outcome: str, code: int, fields: "Mapping[str, object]", *, required: bool
    ) -> None:
        from .audit import record

        policy = self.policy()
        requester = {
            key: _cut(value) if isinstance(value, str) else value
            for key, value in self.subject.items()
            if key not in ("annotations", "engine")
        }
        asked_for = {
            _cut(key): _cut(text)
            for key, text in self._state.annotations.items()
            if key.startswith(PREFIX)
        }
        if len(asked_for) > _ANNOTATIONS:
            asked_for = dict(list(asked_for.items())[:_ANNOTATIONS])
        line = {
            "container": self._state.id,
            "engine": self.subject.get("engine", self._options.get("engine", policy.engine)),
            "requester": requester,
            "requested": asked_for,
            **fields,
            "outcome": outcome,
            "code": code,
        }
        record(policy.audit_to, line, required=required)
