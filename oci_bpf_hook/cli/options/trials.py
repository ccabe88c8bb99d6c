"""Tries a request of a container whose name, or whose pod's name, nobody has given yet.

A policy's rules may match some of the names that it can get and not others.  So the request is
tried once for each set of rules that can match, and the results are put together here.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product

from ...delegation.annotations import PREFIX
from ...errors import quote
from ...formats.container import Asker
from ...policy.decide import holds
from ...policy.forms import Form, may_differ, samples
from ...policy.subject import CLAIMS
from ...policy.subjects import set_by_engine
from .trial import NOTE, WARNING, Finding, Setting, Trial, attempt, described

# At most so many different results are named, each with an example.
_EXAMPLES = 4


def try_out(one: Asker, given: Setting, lines: Sequence[str] = ()) -> Trial:
    """The trial of the request of `one`, which is from a file with these `lines`."""
    unknown = _Unnamed(one, given)
    return unknown.result([attempt(one, given, lines, names) for names in unknown.names()])


class _Unnamed:
    """What isn't known yet of the names of `one`."""

    def __init__(self, one: Asker, given: Setting) -> None:
        self._asker = one
        self._given = given
        told = one.told if given.engine is None else set_by_engine(given.engine)
        self._forms = {
            key: form
            for key, form in one.forms.items()
            if key in told and key not in given.attributes
        }
        self._withheld = [
            key
            for key in CLAIMS
            if key in {*one.subject, *one.forms} - {*told, *given.attributes}
            and key in given.policy.uses
        ]
        # If the manifest names no namespace, kubectl's option or context does.
        self._nowhere = (
            {"container", "namespace"}.issubset(told)
            and "container" in one.subject
            and "namespace" not in {*one.subject, *given.attributes}
            and "namespace" in given.policy.uses
        )

    def names(self) -> Iterator[dict[str, str]]:
        """Names, by attribute, for each of which the result may be another; likely ones first."""
        found = [samples(form, self._globs(key)) for key, form in self._forms.items()]
        for each in product(*found):
            yield dict(zip(self._forms, each, strict=True))

    def _globs(self, attribute: str) -> Iterator[str]:
        """What the names are compared with: globs of rules, and names in keys of annotations."""
        if attribute == "container":
            names = (key.partition("/")[2] for key in self._asker.annotations if PREFIX in key)
            # Those are no globs.
            yield from (name for name in names if name and "*" not in name and "?" not in name)
        if attribute not in self._given.policy.uses:
            return
        examples = {key: form.example for key, form in self._forms.items()}
        who = described(self._asker, self._given, examples)
        for rule in self._given.policy.rules(who):
            match = rule["match"]
            globs = may_differ(self._forms[attribute], match.get(attribute, ()))
            known = {key: wanted for key, wanted in match.items() if key not in self._forms}
            if globs and holds({**rule, "match": known}, who):
                yield from globs

    def result(self, trials: Sequence[Trial]) -> Trial:
        """What is to be said of the `trials`, of which there is one for each of the names."""
        different = {_result(one): one for one in reversed(trials)}
        first = next((one for one in trials if one.code), trials[0])
        if len(different) > 1:
            return self._depending(first, [*reversed(different.values())])
        if not self._given.judged:
            return first  # No rule is asked.
        notes = [*self._assumed(first), *self._not_told(first)]
        return _changed(first, notes, "")

    def _assumed(self, one: Trial) -> Iterator[Finding]:
        """Notes on the names with which it was decided, if a rule could have been about them."""
        for attribute, form in self._forms.items():
            if attribute in self._given.policy.uses and (one.request or one.code):
                example = _plain(str(getattr(one.subject, attribute)))
                text = (
                    f"{form.what} can't be known yet; this was decided for {example} or the like"
                    f"{_advice(attribute, form)}"
                )
                yield self._finding(NOTE, text)

    def _not_told(self, one: Trial) -> Iterator[Finding]:
        """A note on what the file says and rules match, but no engine tells the hook."""
        if self._withheld and (one.request or one.code):
            engine = self._given.engine or "the engine"
            listed = " and ".join(self._withheld)
            text = f"{engine} doesn't tell the hook the {listed}, and so no rule matches by that"
            yield self._finding(NOTE, text)
        if self._nowhere and (one.request or one.code):
            text = (
                "the manifest names no namespace, and so no rule matches by that; --attr "
                "namespace=NAME tries one"
            )
            yield self._finding(NOTE, text)

    def _depending(self, first: Trial, different: Sequence[Trial]) -> Trial:
        """The trial `first` with a warning that others have another result."""
        # There are several names of one kind only.
        attribute, form = next(
            (key, form)
            for key, form in self._forms.items()
            if len({getattr(one.subject, key) for one in different}) > 1
        )
        said = "; ".join(
            f"for {_plain(str(getattr(one.subject, attribute)))} {_outcome(one)}"
            for one in different[:_EXAMPLES]
        )
        text = (
            f"it depends on {form.what}, which can't be known yet: {said}{_advice(attribute, form)}"
        )
        return _changed(first, [self._finding(WARNING, text)], attribute)

    def _finding(self, level: str, text: str) -> Finding:
        spot = self._asker.named if self._asker.where else None
        return Finding(level=level, code=0, lint="", key="", spot=spot, text=text, doubt=None)


def _result(one: Trial) -> tuple[object, ...]:
    """All that makes a difference between trials; refusals are all alike."""
    if one.code or one.decision is None:
        return one.code, one.request is None
    grant = one.decision.grant
    masks = tuple(sorted(grant.masks.items()))
    return 0, False, masks, grant.path, one.decision.confined, one.decision.trimmed, one.dropped


def _outcome(one: Trial) -> str:
    if one.code:
        by = f" by rule {one.rule}" if one.rule else ""
        return f"it is refused{by}"
    if one.request is None:
        return "it asks for nothing"
    if one.decision is None:
        return "it asks for a delegation"  # No rule is asked.
    return f"it is granted by rule {one.decision.rule}"


def _advice(attribute: str, form: Form) -> str:
    """The end of a sentence: how a rule matches all of the names, or how the name is known."""
    parts = [form.advice] if form.advice else []
    if form.glob:
        parts.insert(0, f'a rule for all of them matches {attribute}: "{form.glob}"')
    return "".join(f"; {part}" for part in parts)


def _plain(name: str) -> str:
    """The `name`, made safe for a line of text, because the file's author has chosen most of it."""
    return quote(name)[1:-1]


def _changed(one: Trial, more: Iterable[Finding], depends: str) -> Trial:
    fields: Mapping[str, object] = {name: getattr(one, name) for name in Trial.__slots__}
    findings = (*more, *one.findings)
    return Trial(**{**fields, "findings": findings, "depends": depends})  # type: ignore[arg-type]
