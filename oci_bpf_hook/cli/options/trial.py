"""Tries a request: takes the hook's own steps, but mounts nothing.

The hook stops at the first step that finds something wrong.  Here every step is tried as far as
possible, so that all problems are reported at once.  The exit code is the hook's.  The steps have
the numbers of `hook.main`.
"""

import argparse
import os
from collections.abc import Iterable, Mapping, Sequence

from ...bpf.names import Enum
from ...delegation import lint as linter
from ...delegation.annotations import (
    KEYS,
    LISTS,
    PREFIX,
    AnnotationError,
    Request,
    container_name,
    parse,
    parse_item,
    split,
)
from ...delegation.masks import Grant
from ...errors import DONE, NO_USER_NAMESPACE, REFUSED, HookError
from ...formats.container import Asker, asker
from ...formats.content import Source
from ...formats.means import Lack
from ...kernel import releases as kernel_source
from ...oci.state import visible
from ...pipeline.case import Case
from ...policy import decide as policy
from ...policy.compiled import Compiled
from ...policy.subject import CLAIMS, Subject
from ...policy.subjects import of_description, set_by_engine
from ...text.places import Fault, Spot, find_word
from ...values import Value
from . import kernel as kernel_options
from . import policy as policy_options
from . import request
from .beside import Directory
from .lacking import Known, lacking
from .table import argument

PROBLEM = "problem"
WARNING = "warning"
HINT = "hint"
NOTE = "note"

_NO_USER_NAMESPACE = (
    "the container has no user namespace of its own, and BPF tokens exist only in one; add a "
    "namespace of the type user, and mappings, to its linux section"
)

# How much of a line is looked at for an annotation's words: so many characters, or as many for each
# character of the annotation as an escape in JSON may take.
_NEAR = 4096
_WIDEST = 12

_ANOTHER = "--kernel 6.12 tries the request for a kernel that can"

FILE = argument(
    *("--file",),
    metavar="FILE",
    help="an OCI config.json or state, a Kubernetes manifest, a compose.yaml or a Quadlet "
    "*.container, *.pod or *.kube; - means stdin",
    exclusive="request",
    one_of_them=True,
)
ARGUMENTS = (
    *request.ARGUMENTS,
    FILE,
    *kernel_options.ARGUMENTS,
    *policy_options.ARGUMENTS,
)


class Finding(Value):
    """Something wrong (PROBLEM), what to do about it (HINT), or something doubtful (WARNING).

    A NOTE says what was assumed.
    `code` is the exit code for a problem and its hint, and DONE for anything else.  `lint` is the
    doubt's own code, or empty, and `doubt` the doubt itself, or None.  `key` is the annotation that
    the finding is about, or empty, and `spot` its place in the file.
    """

    __slots__ = ("code", "doubt", "key", "level", "lint", "spot", "text")
    code: int
    doubt: linter.Finding | Lack | None
    key: str
    level: str
    lint: str
    spot: Spot | None
    text: str


class Setting(Value):
    """What requests are tried with: a kernel, a policy, and what is known of who asks.

    `here` says that the kernel is the running one and that we are root.  Only then can we see
    whether the guard is in force; otherwise it is assumed to be.  If not `judged`, the policy's
    profiles are used, and its rules aren't asked.  `known` keeps what is found out once.
    """

    __slots__ = ("attributes", "engine", "here", "judged", "known", "policy", "source")
    here: bool
    judged: bool
    source: kernel_source.Source
    policy: Compiled
    engine: str | None
    attributes: dict[str, object]
    known: Known


class Trial(Value):
    """The result of one container's request; `code` is the hook's exit code.

    `request` is None if nothing is asked for or the annotations are wrong; `wanted` and `decision`
    are None if an earlier step failed.  `depends` is the name, such as "pod", on which the result
    depends and which isn't known yet, or empty.
    """

    __slots__ = (
        *("asker", "code", "decision", "depends", "dropped", "enums", "findings", "request"),
        *("rule", "subject", "wanted"),
    )
    asker: Asker
    enums: dict[str, Enum]
    request: Request | None
    wanted: Grant | None
    dropped: tuple[str, ...]
    rule: str | None
    subject: Subject
    decision: policy.Decision | None
    depends: str
    findings: tuple[Finding, ...]
    code: int


def setting(options: argparse.Namespace) -> Setting:
    """The setting that the command line asks for.  Raises HookError."""
    compiled = policy_options.read_policy(options.policy)
    return Setting(
        source=kernel_options.source(options),
        here=not (options.kernel or options.header or options.btf or os.geteuid()),
        judged=True,
        policy=compiled,
        engine=options.engine or compiled.engine,
        attributes=policy_options.attributes(options),
        known=Known(),
    )


def askers(options: argparse.Namespace, engine: str | None) -> tuple[tuple[Asker, ...], Source]:
    """The containers whose requests the command line gives, and where these are from.

    `engine` will run them, if that is known.  Raises HookError.
    """
    if not options.file:
        found = asker("the request", request.annotations(options), {})
        return (found,), Source(name="", lines=(), others=(), parts=())
    from ...formats.containers import read_all  # This may import PyYAML.

    stdin = options.file == "-"
    name = "standard input" if stdin else options.file
    beside = None if stdin else Directory(name)
    whole = read_all(request.read(options.file), name, beside, engine=engine)
    lines = whole.text.split("\n")
    return whole.askers, Source(name=name, lines=lines, others=whole.others, parts=whole.parts)


def attempt(one: Asker, given: Setting, lines: Sequence[str], names: Mapping[str, str]) -> Trial:
    """The trial of the request of `one`, which is from a file with these `lines`.

    `names` has what its pod or container will be called, as far as the file doesn't say that.
    """
    case = Case(one.name, one.annotations, lambda: given.policy, enums=given.source.enums)
    # 6. subject, which says what KEY/NAME is about
    who = described(one, given, names)
    name = who.container or container_name(one.annotations) or ""
    findings = _Findings(one, lines, name)
    # 3. request
    asked = _parsed(one, case, name, findings)
    if asked is not None or findings.code:
        # A rootless engine is in a user namespace of its own, which a container may share.
        if one.user_namespace is False and not who.rootless:
            findings.problems(HookError(NO_USER_NAMESPACE, _NO_USER_NAMESPACE))
        findings.doubts(one.lacks)
    findings.doubts(one.doubts)
    if asked is not None:
        try:
            visible(asked.path, one.masked, one.remounted)
        except HookError as error:
            findings.problems(error)
        # 4. policy, 5. masks, 7. grant
        _judge(case, asked, who, findings, given)
    if asked is not None and given.judged and not given.source.tokens:
        # 8. halves, which would fail
        findings.problems(kernel_options.cannot(given.source, _ANOTHER))
    if asked is not None or findings.code:
        masks = _granted(case)
        # A CDI device sets libbpf's variable itself.
        path = asked.path if asked and who.cdi is None else None
        findings.lacks(path, given.known.types(masks, given.source.enums), given)
        confined = case.decision is None or case.decision.confined
        doubtful = given.known.doubts(masks, given.source.enums, confined=confined)
        findings.lint(doubtful, given.source.enums)
    return Trial(
        asker=one,
        enums=given.source.enums,
        request=asked,
        wanted=case.wanted,
        dropped=case.dropped,
        rule=case.decision.rule if case.decision else findings.rule,
        subject=who,
        decision=case.decision,
        depends="",
        findings=tuple(findings.found),
        code=findings.code,
    )


def described(one: Asker, given: Setting, names: Mapping[str, str]) -> Subject:
    """Who asks: what the file says of that, as far as the engine tells it, the `names`, and --attr.

    What --attr says is another's word, and no glob stands for it.
    """
    told = one.told if given.engine is None else set_by_engine(given.engine)
    said = {key: value for key, value in one.subject.items() if key in told or key not in CLAIMS}
    globs = {**one.globs, **{key: form.glob for key, form in one.forms.items()}}
    lasting = {key: glob for key, glob in globs.items() if key not in given.attributes}
    more = (said, names, given.attributes, {"globs": lasting})
    return of_description(one.annotations, given.engine, *more, inside=one.inside)


def _parsed(one: Asker, case: Case, name: str, findings: "_Findings") -> Request | None:
    """The request, or None if there is none or its annotations are wrong."""
    try:
        return parse(one.annotations, lambda: name)
    except HookError as error:
        findings.problems(error)
        try:
            if isinstance(error, AnnotationError):
                case.resolve(error.rest)
        except HookError as names:
            findings.problems(names)
    return None


def _judge(case: Case, asked: Request, who: Subject, findings: "_Findings", given: Setting) -> None:
    """Add what the kernel and the policy say about the request to `findings`."""
    try:
        if given.judged:
            case.judge(asked, lambda _: who, guarded=given.here)
            case.close()
        else:
            case.wanted, case.dropped = case.resolve(asked)
    except HookError as error:
        findings.problems(error)


def _granted(case: Case) -> dict[str, int]:
    """The masks that are granted, or else asked for; {} if the names couldn't be resolved."""
    if case.decision:
        return case.decision.grant.masks
    return case.wanted.masks if case.wanted else {}


class _Findings:
    """Collects findings, each with the annotation that it is about and its place."""

    def __init__(self, one: Asker, lines: Sequence[str], name: str) -> None:
        self._asker = one
        self._name = name
        self._lines = lines
        self._known: dict[str, dict[str, str]] = {}
        self.found: list[Finding] = []
        self.code = DONE
        # The rule that refused.
        self.rule: str | None = None

    def problems(self, error: HookError) -> None:
        self.code = self.code or error.code
        self.rule = self.rule or error.rule
        for one in error.problems:
            key = self._annotation(one.key)
            names = () if one.item is None else (one.item.strip(), _plain(one.item))
            words = self._words(key)
            spot = self._spot(key, [words[name] for name in names if name in words])
            self._add(PROBLEM, str(one), code=error.code, key=key, spot=spot)
        if error.hint is not None:
            # This hint is about the whole request.
            self._add(HINT, error.hint, code=error.code, spot=self._spot("", ()))

    def doubts(self, doubts: Iterable[Fault]) -> None:
        for one in doubts:
            self._add(WARNING, one.text, spot=Spot(line=one.line, column=one.column))

    def lacks(self, path: str | None, types: dict[str, list[str]], given: Setting) -> None:
        """Add what the container lacks to use these `types`, and a bpffs at `path`."""
        one = self._asker
        if one.means is None and self.code:
            return  # What a container would need that isn't even started is left out.
        key = self._annotation("path")
        at = one.where.get(key, one.here)
        # Of a request without a container it may not be so.
        level = WARNING if one.means else HINT
        for lack in lacking(one, path, at, types, engine=given.engine, known=given.known):
            about = key if lack.option == "path" else ""
            self._add(level, str(lack), lint=lack.code, key=about, spot=lack.spot, doubt=lack)

    def lint(self, doubtful: Iterable[linter.Finding], enums: dict[str, Enum]) -> None:
        for one in doubtful:
            key = self._annotation(one.option)
            enum = enums[one.option]
            values = {enum.values[name] for name in one.names}
            # A profile's items are in the policy.
            words = self._words(key) if one.option in key else {}
            given = [word for name, word in words.items() if enum.find(name) in values]
            spot = self._spot(key, given)
            self._add(WARNING, str(one), lint=one.code, key=key, spot=spot, doubt=one)

    def _add(
        self,
        level: str,
        text: str,
        *,
        code: int = DONE,
        lint: str = "",
        key: str = "",
        spot: Spot | None,
        doubt: linter.Finding | Lack | None = None,
    ) -> None:
        self.found.append(
            Finding(level=level, code=code, lint=lint, key=key, spot=spot, text=text, doubt=doubt)
        )

    def _annotation(self, key: str | None) -> str:
        """The annotation that a problem's `key` names, or that has this part of the request.

        KEY/NAME comes before KEY, and an item of a list may also come from a profile.
        """
        if key not in KEYS:
            return key if key in self._asker.annotations else ""
        found = [f"{PREFIX}{key}/{self._name}", f"{PREFIX}{key}"]
        if key in LISTS:
            found += [f"{PREFIX}profile/{self._name}", f"{PREFIX}profile"]
        return next((one for one in found if one in self._asker.annotations), "")

    def _words(self, key: str) -> dict[str, str]:
        """The whole text of the annotation `key` and each of its items, as they are written.

        Each is found by itself, and by the name under which it is looked up.
        """
        words = self._known.get(key)
        if words is None:
            words = self._known[key] = {}
            text = self._asker.annotations.get(key, "")
            for word in filter(None, (text.strip(), *split(text))):
                words.setdefault(word, word)
                words.setdefault(_plain(word), word)
        return words

    def _spot(self, key: str, words: Iterable[str]) -> Spot | None:
        """The place of the first of `words` that is in the annotation `key`, or of its value."""
        if not self._asker.where:
            return None
        spot = self._asker.where.get(key, self._asker.here)
        line = self._lines[spot.line - 1] if spot.line <= len(self._lines) else ""
        # All containers of a file may be in one line, so only so much of it is looked at as may be
        # this annotation.
        text = self._asker.annotations.get(key, "")
        end = spot.column + max(_NEAR, _WIDEST * (len(key) + len(text)))
        for word in words:
            at = find_word(word, line, spot.column - 1, end)
            if at >= 0:
                return Spot(line=spot.line, column=at + 1)
        return spot


def _plain(word: str) -> str:
    """The name under which an item is looked up."""
    return parse_item(word, "")[0].lstrip("!")


def exit_code(trials: Iterable[Trial], *, strict: bool = False) -> int:
    """The exit code of a command with these `trials`: the first one that isn't DONE.

    With `strict` a warning counts as a refusal.  A note doesn't, nor does a hint, since what it
    says may not hold.
    """
    found: Sequence[Trial] = list(trials)
    code = next((one.code for one in found if one.code), DONE)
    if strict and code == DONE and any(x.level == WARNING for one in found for x in one.findings):
        return REFUSED
    return code
