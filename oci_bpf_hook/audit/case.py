"""One request for a delegation, from what is asked for to what is given, and the record of it.

It is the same walk whoever walks it: the hook, the broker's worker, `delegate`, a recording, and
`check` and `explain`, which do nothing.  The steps have the numbers of `hook.main`.

A grant is recorded before it is one: where the policy wants every grant on record, what
can't be recorded isn't given.  A refusal costs whoever asks nothing, and so there is only so much
room for the refusals of one user (`allowance`), and for one of them.
"""

from ..delegation.annotations import PREFIX
from ..errors import BAD_POLICY, DONE, LISTED, HookError, quote
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


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}..."


def _first(texts: tuple[str, ...], most: int = LISTED) -> list[str]:
    rest = len(texts) - most
    return [*texts[:most], *([f"and {rest} more"] if rest > 0 else ())]


def say_more(to: str, *, every: bool = False) -> None:
    """Put on record, in the trail `to` and in the log, how many refusals are not.

    That is of the minutes that are over, or of `every` one.
    """
    from ..syslog import ERROR, log
    from .allowance import due
    from .write import line, write

    for more in due(every=every):
        whose = "others" if more.user is None else f"user {more.user}"
        said = f"and {more.count} more refusals of {whose}, which are not on record one by one"
        fields = {"outcome": "more", "user": more.user, "refused": more.count, "problems": [said]}
        write(to, line(fields), required=False)
        log(ERROR, said)


def table() -> "Table":
    """The names of newer kernels, for what this one doesn't know."""
    from ..kernel.enums import table

    return table()


class Case:
    """One request of one container: what is asked, who asks, what is decided, and what is told.

    `wanted` and `dropped` are what the request means on this kernel, `subject` who asks, `decision`
    what is given and `guard` what its mount is to be marked with: None each until the case has come
    to that step.
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
        """For the container with this id, which asks by `annotations`.

        `policy` finds the policy in force; `engine` is the command line's; `peer` tells of the
        process that asked a broker, and `user` whose refusals this one's is counted among;
        `find_name` finds the container's name where no annotation tells it; `enums` are the
        names of another kernel than the policy was compiled for.
        """
        self._container = container
        self._annotations = annotations
        self._find_policy = policy
        self._engine = engine
        self._peer = peer
        self._user = user
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
        """The policy in force, read once."""
        if self._policy is None:
            self._policy = self._find_policy()
        return self._policy

    def engine(self) -> str | None:
        """The engine that runs the hook: by the command line, or else by the policy."""
        return self.policy().engine if self._engine is None else self._engine

    def enums(self) -> "Mapping[str, Enum]":
        """The kernel's names."""
        return self._enums or self.policy().enums

    def name(self) -> str | None:
        """The container's name where no annotation tells it, looked for once."""
        if self._name is None:
            self._name = (self._find_name(),)
        return self._name[0]

    def request(self, parse: "Callable[[], Request | None]") -> "Request | None":
        """What is asked for, as `parse` reads it; None where that is nothing.

        Raises HookError with all that is wrong, names that are unknown beside what `parse` raises.
        """
        # 3. request
        try:
            return parse()
        except HookError as error:
            from ..delegation.problems import joined

            raise joined(error, self.resolve) from None

    def resolve(self, request: "Request") -> "tuple[Grant, tuple[str, ...]]":
        """What is asked for on this kernel and by this policy's profiles, and what was dropped.

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
    ) -> "Decision | None":
        """What the policy gives of `request`; None where that asks nothing.

        `subject` says who asks.  Without `guarded` the guard is taken to be in force, for whoever
        can't see that.  Raises HookError.
        """
        from ..policy.decide import decide

        # 4. policy
        policy = self.policy()
        # 5. masks
        self.wanted, self.dropped = wanted, _ = self.resolve(request)
        if not wanted.masks and not request.record:
            return None
        # 6. subject
        self.subject = who = subject(policy)
        # 7. grant
        return self.settle(
            lambda: decide(policy, who, request, wanted, self.enums()), guarded=guarded
        )

    def settle(self, decide: "Callable[[], Decision]", *, guarded: bool = True) -> "Decision":
        """What `decide` gives the subject, with the guard that this takes.

        Raises HookError (REFUSED), where a confined grant takes a guard and none is in force, too.
        """
        assert self.subject is not None
        try:
            self.decision = decision = decide()
            if guarded and decision.confined:
                from ..guard.confine import guard_for

                self.guard = guard_for(decision, self.subject, self.enums())
        except HookError:
            # On record, too, the container has the name that the rule to paste has.
            self.subject = self.subject.named()
            raise
        return decision

    def close(self) -> None:
        """Give the guard back, for whoever goes on without it."""
        if self.guard is not None:
            with self.guard:
                self.guard = None

    def give(self, container: "Container", root: str, *, alone: bool = False) -> bool:
        """Mount into `container` what was decided, mark it and put it on record.

        `root` is where its root filesystem is (container_half.RUNNING once it runs); `alone` is
        HostHalf.mount's.  Returns whether anything was mounted, which it isn't where just
        that was there already.  Raises HookError, with nothing done.
        """
        from ..mount.host_half import HostHalf

        decision = self.prepare()
        # 8. halves: nothing of ours is in the container before it is decided.
        with HostHalf(container, root) as half:
            # 9. read-back: the container half doesn't mount what isn't as it was granted.
            mounted = half.mount(decision.grant, self.enums(), guard=self.guard, alone=alone)
            # 10. record
            if mounted:
                self.granted()
                half.keep()
            self.say(mounted=mounted)
        return mounted

    def prepare(self) -> "Decision":
        """Have ready what will be on record of the decision once it has been done."""
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
        return decision

    def granted(self) -> None:
        """Record the grant that was prepared.  Raises HookError if that has to be and can't."""
        from .write import write

        policy = self.policy()
        write(policy.audit_to, self._line, required=policy.audit_required)

    def say(self, *, mounted: bool) -> None:
        """Log the grant that was prepared; without `mounted`, that it was there already."""
        from ..syslog import INFO, log

        # A broker's peer may call itself what it likes.
        who = quote(self._container)[1:-1]
        log(INFO, f"{who}: {'granted' if mounted else 'already has'} {self._said}")

    def revoked(self, path: str) -> None:
        """Record that what was delegated at `path` was covered, as far as that is possible."""
        from ..syslog import INFO, log
        from .write import write

        who = quote(self._container)[1:-1]
        log(INFO, f"{who}: revoked what was delegated at {quote(path)}")
        line = self._record("revoked", DONE, {"granted": None, "rule": None})
        write(self.policy().audit_to, line, required=False)

    def refused(self, error: HookError, said: str = "") -> None:
        """Record why there is no grant, and log what is `said` of it, as far as that is possible.

        Whoever has been refused too often in this minute is only counted.
        """
        from ..syslog import ERROR, log
        from .allowance import spend
        from .write import write

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
        if error.code == BAD_POLICY:
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
        from .write import line

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
        """What of the record whoever asks has a say in."""
        known = self.subject.known() if self.subject else {}
        requester = {
            key: _shortened(value, longest, most) for key, value in known.items() if key != "engine"
        }
        if self.subject and self.subject.by_broker():
            requester["claimed"] = [key for key in CLAIMS if requester[key] is not None]
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
