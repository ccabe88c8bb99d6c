"""Takes one request for a delegation through its steps, from the request to the record.

The hook, the broker's worker, `delegate` and `record` all use it, and so do `check` and `explain`,
which stop before anything is mounted.  The steps have the numbers of `hook.main`.

A grant is recorded before the container may keep the mount: if the policy wants all grants on
record, a grant that can't be recorded isn't given.  What else can become of a case is in
`outcomes`.
"""

from ..delegation.annotations import PREFIX
from ..errors import DONE, LISTED, HookError, quote
from ..policy.subject import CLAIMS, ENGINES, unnamed
from ..syslog import FITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..bpf.names import Enum
    from ..bpf.table import Table
    from ..container.namespaces import Container
    from ..delegation.annotations import Request
    from ..delegation.masks import Grant
    from ..guard.pinned import Guard
    from ..policy.compiled import Compiled
    from ..policy.decide import Decision
    from ..policy.subject import Subject


# A request may be a megabyte long, so a line of the trail has only the first characters of each
# text, and the first texts of each kind.  These are the numbers to try until the line is short
# enough.  With the last ones it always is, even if each character is escaped as twelve; they still
# show the prefix of a key.
_CUTS = ((2048, 32), (256, 32), (64, 16), (32, 8), (10, 4))
# The length of an engine's ids.
_ID = 64
# With this number as the limit nothing is cut.
_ALL = 1 << 30


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}..."


def _first(texts: tuple[str, ...], most: int = LISTED) -> list[str]:
    rest = len(texts) - most
    return [*texts[:most], *([f"and {rest} more"] if rest > 0 else ())]


def table() -> "Table":
    """The table of all kernels' names, to look up a name that this kernel doesn't know."""
    from ..kernel.enums import table

    return table()


class Case:
    """One request of one container: what is asked for, who asks, and what is decided.

    `container` is the container's id; a refusal would count among those of the uid `user`.
    `wanted` and `dropped` are what the request means on this kernel, `subject` is who asks,
    `decision` is what the policy gives, and `guard` is what marks a confined mount.  Each is None,
    and `dropped` is empty, until the step that finds it.
    """

    def __init__(
        self,
        container: str,
        annotations: "Mapping[str, str]",
        policy: "Callable[[], Compiled]",
        *,
        engine: str | None = None,
        peer: "Mapping[str, int] | None" = None,
        user: int = 0,
        find_name: "Callable[[], str | None]" = unnamed,
        enums: "Mapping[str, Enum] | None" = None,
    ) -> None:
        """Begin the case of the container with the id `container`, which has these `annotations`.

        `policy` finds the policy in force.  `engine` is the engine that the command line names.
        `peer` has the pid, uid and gid of the process that asked a broker.  A refusal counts among
        those of the uid `user`.  `find_name` finds the container's name if no annotation tells it.
        `enums` are the kernel's names, if it isn't the kernel that the policy was compiled for.
        """
        self.container = container
        self._annotations = annotations
        self._find_policy = policy
        self._engine = engine
        self._peer = peer
        self.user = user
        self._find_name = find_name
        self._name: tuple[str | None] | None = None
        self._enums = enums
        self._policy: Compiled | None = None
        self.wanted: Grant | None = None
        self.dropped: tuple[str, ...] = ()
        self.subject: Subject | None = None
        self.decision: Decision | None = None
        self.guard: Guard | None = None
        self._said = ""
        self._line = ""

    def policy(self) -> "Compiled":
        """The policy in force, which is read only once."""
        if self._policy is None:
            self._policy = self._find_policy()
        return self._policy

    def engine(self) -> str | None:
        """The engine that runs the hook, from the command line or else from the policy."""
        return self.policy().engine if self._engine is None else self._engine

    def enums(self) -> "Mapping[str, Enum]":
        """The kernel's names."""
        return self._enums or self.policy().enums

    def name(self) -> str | None:
        """The name that `find_name` finds for the container; it is called only once."""
        if self._name is None:
            self._name = (self._find_name(),)
        return self._name[0]

    def request(self, parse: "Callable[[], Request | None]") -> "Request | None":
        """What is asked for, which `parse` reads; None if nothing is.

        Raises HookError with all problems: those that `parse` raises, and also the unknown names.
        """
        # 3. request
        try:
            return parse()
        except HookError as error:
            from ..delegation.problems import joined

            raise joined(error, self.resolve) from None

    def resolve(self, request: "Request") -> "tuple[Grant, tuple[str, ...]]":
        """What the request means on this kernel with this policy's profiles, and the names dropped.

        Raises HookError (UNKNOWN_NAME).
        """
        from ..delegation.masks import resolve

        return resolve(request, self.enums(), table, self.policy().profiles)

    def judge(
        self,
        request: "Request",
        subject: "Callable[[Compiled], Subject]",
        *,
        guarded: bool = True,
        empty: bool = False,
    ) -> "Decision | None":
        """What the policy gives of `request`; None if that asks for nothing, unless `empty`.

        `subject` finds out who asks.  If not `guarded`, it isn't checked whether the guard is in
        force, for a caller that can't find that out.  With `empty` a rule decides about nothing
        too.  Raises HookError.
        """
        from ..policy.decide import decide

        # 4. policy
        policy = self.policy()
        # 5. masks
        self.wanted, self.dropped = wanted, _ = self.resolve(request)
        if not wanted.masks and not request.record and not empty:
            return None
        # 6. subject
        self.subject = who = subject(policy)
        # 7. grant
        return self.settle(
            lambda: decide(policy, who, request, wanted, self.enums()), guarded=guarded
        )

    def settle(self, decide: "Callable[[], Decision]", *, guarded: bool = True) -> "Decision":
        """What `decide` gives the subject; also opens the guard if the decision is confined.

        Raises HookError (REFUSED), also if the grant needs the guard and it isn't in force.
        """
        assert self.subject is not None
        try:
            self.decision = decision = decide()
            if guarded and decision.confined:
                from ..guard.confine import guard_for

                self.guard = guard_for(decision, self.subject, self.enums())
        except HookError:
            # The record has the container's name, and so has the rule that the refusal advises.
            self.subject = self.subject.named()
            raise
        return decision

    def close(self) -> None:
        """Close the guard, for a caller that doesn't mount what was decided."""
        if self.guard is not None:
            with self.guard:
                self.guard = None

    def give(self, container: "Container", root: str, *, alone: bool = False) -> bool:
        """Mount into `container` what was decided, mark it if confined, and put it on record.

        `root` is where the root filesystem is (container_half.RUNNING if the container runs);
        `alone` is as for HostHalf.mount.  Returns False if the very same mount was there already.
        Raises HookError, with nothing done.
        """
        from ..mount.host_half import HostHalf

        decision = self.prepare()
        # 8. halves: the container half starts only after the decision.
        with HostHalf(container, root) as half:
            # 9. read-back: `mount` fails if the mount differs from the grant.
            mounted = half.mount(decision.grant, self.enums(), guard=self.guard, alone=alone)
            # 10. record
            if mounted:
                self.granted()
                half.keep()
            self.say(mounted=mounted)
        return mounted

    def prepare(self) -> "Decision":
        """Prepare what `granted` and `say` write about the decision; returns the decision."""
        from ..delegation.lint import lint
        from ..delegation.masks import show

        decision = self.decision
        assert decision is not None
        enums = self.enums()
        masks = decision.grant.masks
        shown = {option: show(mask, enums[option]) for option, mask in masks.items()}
        trimmed = _first(decision.trimmed)
        words = [f"{option}={text}" for option, text in shown.items()]
        said = f"{' '.join(words)} at {quote(decision.grant.path)} by rule {decision.rule}"
        if not decision.confined:
            said += ", unconfined"
        if self.dropped:
            said += f", dropped {' '.join(self.dropped)}"
        if trimmed:
            said += f", trimmed {', '.join(trimmed)}"
        # Whether it is unconfined is said already, so it is linted as a confined grant would be.
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
        self._line = self.record_line("granted", DONE, fields)
        return decision

    def granted(self) -> None:
        """Record the prepared grant.  Raises HookError if the policy requires it and it fails."""
        from ..audit.write import write

        policy = self.policy()
        write(policy.audit_to, self._line, required=policy.audit_required)

    def say(self, *, mounted: bool) -> None:
        """Log the prepared grant; if not `mounted`, log that the container already has it."""
        from ..syslog import INFO, log

        # A broker's peer can choose any id.
        who = quote(self.container)[1:-1]
        log(INFO, f"{who}: {'granted' if mounted else 'already has'} {self._said}")

    def record_line(
        self, outcome: str, code: int, fields: "Mapping[str, object]", most: int = FITS
    ) -> str:
        """A line for the audit trail with at most `most` characters.

        By default it may be as long as a line of the log, which would lose the rest.
        """
        from ..audit.write import line

        text = ""
        for cut in _CUTS:
            text = line(self._fields(outcome, code, fields, *cut))
            if len(text) <= most:
                break
        return text

    def _fields(
        self, outcome: str, code: int, fields: "Mapping[str, object]", longest: int, most: int
    ) -> dict[str, object]:
        """The fields of a line, with at most `most` texts of a kind, each cut to `longest`.

        If anything of the request was left out, the field `cut` says so.
        """
        engine = self.subject.engine if self.subject else self.engine()
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
        """Those fields of a line that the requester can influence, and so make long."""
        known = self.subject.known() if self.subject else {}
        requester = {
            key: _shortened(value, longest, most) for key, value in known.items() if key != "engine"
        }
        if self.subject and self.subject.by_broker():
            requester["claimed"] = [key for key in CLAIMS if requester[key] is not None]
        asked = [(key, text) for key, text in self._annotations.items() if key.startswith(PREFIX)]
        # Keys of the form KEY/NAME come last: there may be any number of them for other containers.
        asked.sort(key=_is_for_one)
        return {
            "container": _cut(self.container, max(longest, _ID)),
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
    """The text or texts of `value`, cut to `longest`; of a list, only the first `most` items."""
    if isinstance(value, str):
        return _cut(value, longest)
    if isinstance(value, tuple | list):
        if any(not isinstance(one, str) for one in value):
            return list(value)[:most]
        return _first(tuple(_cut(text, longest) for text in value), min(most, LISTED))
    return value
