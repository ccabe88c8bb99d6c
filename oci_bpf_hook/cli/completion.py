"""Writes the completions for bash, zsh and fish from the table of commands."""

import shlex
from collections.abc import Iterator

from ..delegation.annotations import KEYS, PREFIX
from .main import PROGRAM
from .options.table import ENTRIES, Argument
from .tree import (
    COMMAND,
    DIRECTORY,
    FILE,
    KEY,
    Leaf,
    choices,
    is_option,
    kind,
    leaves,
    metavar,
    others,
    repeats,
    takes_value,
)

_MADE = "# Made by contrib/generate-docs from the table of commands."
_TOP = ("--help", "--version")
_ANNOTATIONS = tuple(f"{PREFIX}{key}=" for key in KEYS)


def _by_first_word() -> dict[str, list[Leaf]]:
    """The leaves by their first word; a command without subcommands is its only leaf."""
    found: dict[str, list[Leaf]] = {}
    for leaf in leaves():
        found.setdefault(leaf.words[0], []).append(leaf)
    return found


def _parents() -> dict[str, list[Leaf]]:
    """The first words that have subcommands, with these."""
    return {
        name: group
        for name, group in _by_first_word().items()
        if any(len(one.words) > 1 for one in group)
    }


def _first_words() -> list[str]:
    return [word for entry in ENTRIES for word in (entry.name, *entry.aliases)]


# --------------------------------------------------------------------- bash

_BASH = """\
{made}
_oci_bpf_hook_words() {{
    mapfile -t COMPREPLY < <(compgen -W "$1" -- "$cur")
}}
_oci_bpf_hook_paths() {{
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen "$1" -- "$cur")
}}
_oci_bpf_hook_keys() {{
    compopt -o nospace 2>/dev/null
    _oci_bpf_hook_words "$1"
}}
_oci_bpf_hook() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD - 1]}}
    local at=1 path='' word
    COMPREPLY=()
    # The command has two words if the first one has subcommands.
    while [ "$at" -lt "$COMP_CWORD" ]; do
        word=${{COMP_WORDS[at]}}
        at=$((at + 1))
        case $word in -*) continue ;; esac
        path=${{path:+$path }}$word
        case $path in {parents}) ;; *) break ;; esac
    done
    case $path in
{aliases}    esac
    # The value of an option; for bash = and : are words of their own.
    case "$path $prev" in
{values}    esac
    case $path in
{words}    esac
}}
complete -F _oci_bpf_hook {program}
"""
_BASH_VALUES = {FILE: "_oci_bpf_hook_paths -f", DIRECTORY: "_oci_bpf_hook_paths -d"}


def bash() -> str:
    """The completion for bash, /usr/share/bash-completion/completions/oci-bpf-hook."""
    values: list[str] = []
    words = [_bash_case("''", _bash_words((*_first_words(), *_TOP)))]
    for name, group in _parents().items():
        words.append(_bash_case(_quoted(name), _bash_words([one.words[1] for one in group])))
    for leaf in leaves():
        path = " ".join(leaf.words)
        options = [one for one in leaf.command.arguments if is_option(one)]
        values += [
            _bash_case(_quoted(f"{path} {one.names[0]}"), _bash_value(one))
            for one in options
            if takes_value(one)
        ]
        # An operand is a file or a command of ours.
        kinds = [kind(one) for one in leaf.command.arguments if not is_option(one)]
        words.append(_bash_case(_quoted(path), _bash_leaf(options, kinds)))
    aliases = [
        _bash_case(_quoted(alias), f"path={_quoted(entry.name)}")
        for entry in ENTRIES
        for alias in entry.aliases
    ]
    return _BASH.format(
        made=_MADE,
        program=PROGRAM,
        parents="|".join(("''", *map(_quoted, _parents()))),
        aliases="".join(aliases),
        values="".join(values),
        words="".join(words),
    )


def _bash_case(pattern: str, action: str) -> str:
    return f"    {pattern}) {action} ;;\n"


def _bash_value(one: Argument) -> str:
    if choices(one):
        return f"{_bash_words(choices(one))}; return"
    if kind(one) == KEY:
        return f"_oci_bpf_hook_keys {_quoted(' '.join(_ANNOTATIONS))}; return"
    return f"{_BASH_VALUES.get(kind(one), ':')}; return"


def _bash_words(words: "list[str] | tuple[str, ...]") -> str:
    return f"_oci_bpf_hook_words {_quoted(' '.join(words))}"


def _bash_leaf(options: list[Argument], operands: list[str]) -> str:
    names = [one.names[0] for one in options] + ["--help"]
    values = {FILE: _BASH_VALUES[FILE], COMMAND: _bash_words(_first_words())}
    for operand in operands:
        if operand in values:
            return f"case $cur in -*) {_bash_words(names)} ;; *) {values[operand]} ;; esac"
    return _bash_words(names)


def _quoted(text: str) -> str:
    return f"'{text}'"


# --------------------------------------------------------------------- zsh

# For a command with subcommands: their names, and then the arguments of each.
_ZSH_COMMANDS = """\
    case $state in
    command)
        local -a commands=(
{commands}        )
        _describe command commands
        ;;
    argument)
        case $line[1] in
{cases}        esac
        ;;
    esac
"""
_ZSH = (
    """\
#compdef {program}
{made}
_oci_bpf_hook() {{
    local context state state_descr line
    typeset -A opt_args
    _arguments -C '(- *)--help[show the commands]' '(- *)--version[show the version]' \\
        '1:command:->command' '*::argument:->argument'
"""
    + _ZSH_COMMANDS
    + """\
}}
{functions}
# zsh's autoload runs this file as the function; if it is sourced it only registers the function.
if [ "$funcstack[1]" = _{program} ]; then
    _oci_bpf_hook "$@"
else
    compdef _oci_bpf_hook {program}
fi
"""
)
_ZSH_PARENT = (
    """
_oci_bpf_hook_{name}() {{
    local context state state_descr line
    typeset -A opt_args
    _arguments -C '(- *)--help[show the commands]' '1:command:->command' '*::argument:->argument'
"""
    + _ZSH_COMMANDS
    + """\
}}
"""
)
_ZSH_VALUES = {FILE: "_files", DIRECTORY: "_files -/"}


def zsh() -> str:
    """The completion for zsh, /usr/share/zsh/site-functions/_oci-bpf-hook."""
    parents = _parents()
    cases: list[str] = []
    functions: list[str] = []
    for entry in ENTRIES:
        names = "|".join((entry.name, *entry.aliases))
        if entry.name in parents:
            cases.append(f"        {names}) _oci_bpf_hook_{entry.name} ;;\n")
            functions.append(_zsh_parent(entry.name, parents[entry.name]))
        else:
            (leaf,) = _by_first_word()[entry.name]
            cases.append(f"        {names}) {_zsh_arguments(leaf)} ;;\n")
    commands = ((entry.name, entry.help) for entry in ENTRIES)
    return _ZSH.format(
        made=_MADE,
        program=PROGRAM,
        commands=_zsh_commands(commands),
        cases="".join(cases),
        functions="".join(functions),
    )


def _zsh_parent(name: str, group: list[Leaf]) -> str:
    return _ZSH_PARENT.format(
        name=name,
        commands=_zsh_commands((one.command.name, one.command.help) for one in group),
        cases="".join(f"        {one.command.name}) {_zsh_arguments(one)} ;;\n" for one in group),
    )


def _zsh_commands(commands: "Iterator[tuple[str, str]]") -> str:
    return "".join(
        f"            {shlex.quote(f'{name}:{_zsh_escaped(text)}')}\n" for name, text in commands
    )


def _zsh_arguments(leaf: Leaf) -> str:
    specs = ["(- *)--help[show the options]"]
    specs += [_zsh_spec(one, others(one, leaf.command)) for one in leaf.command.arguments]
    return "_arguments " + " ".join(map(shlex.quote, specs))


def _zsh_spec(one: Argument, apart: tuple[str, ...]) -> str:
    words = (
        metavar(one).split(" ") if isinstance(one.settings.get("nargs"), int) else [metavar(one)]
    )
    value = "".join(f":{_zsh_escaped(word)}:{_zsh_value(one)}" for word in words)
    if not is_option(one):
        return f"{'*' if repeats(one) else '1'}{value}"
    name, text = one.names[0], _zsh_escaped(str(one.settings["help"]))
    before = "*" if repeats(one) else f"({' '.join((name, *apart))})"
    if repeats(one) and apart:
        before = f"({' '.join(apart)})*"
    return f"{before}{name}[{text}]{value if takes_value(one) else ''}"


def _zsh_value(one: Argument) -> str:
    if choices(one):
        return f"({' '.join(choices(one))})"
    if kind(one) == KEY:
        return f"compadd -S '' -- {' '.join(_ANNOTATIONS)}"
    if kind(one) == COMMAND:
        return f"({' '.join(_first_words())})"
    return _ZSH_VALUES.get(kind(one), " ")


def _zsh_escaped(text: str) -> str:
    for char in "\\[]:":
        text = text.replace(char, f"\\{char}")
    return text


# --------------------------------------------------------------------- fish

_FISH = """\
{made}
function __oci_bpf_hook_at -d 'whether the words on the command line begin with these'
    set -l words (commandline -opc)
    set -l found
    for word in $words[2..-1]
        string match -q -- '-*' $word; or set -a found $word
    end
    test "$found[1..$(count $argv)]" = "$argv"
end
function __oci_bpf_hook_only -d 'whether these words are all on the command line but options'
    set -l words (commandline -opc)
    set -l found
    for word in $words[2..-1]
        string match -q -- '-*' $word; or set -a found $word
    end
    test "$found" = "$argv"
end
complete -c {program} -f
{lines}"""
_FISH_VALUES = {FILE: "-r -F", DIRECTORY: "-x -a '(__fish_complete_directories)'"}


def fish() -> str:
    """The completion for fish, /usr/share/fish/vendor_completions.d/oci-bpf-hook.fish."""
    lines = [
        _fish("__oci_bpf_hook_only", f"-a {word}", entry.help)
        for entry in ENTRIES
        for word in (entry.name, *entry.aliases)
    ]
    lines.append(_fish("__oci_bpf_hook_only", "-l version", "show the version"))
    lines.append(f"complete -c {PROGRAM} -l help -s h -d 'show the options'\n")
    for name, group in _parents().items():
        lines += [
            _fish(f"__oci_bpf_hook_only {name}", f"-a {one.command.name}", one.command.help)
            for one in group
        ]
    for leaf in leaves():
        names = (leaf.words[0], *leaf.entry.aliases)
        for name in names:
            condition = f"__oci_bpf_hook_at {' '.join((name, *leaf.words[1:]))}"
            lines += [_fish_argument(condition, one) for one in leaf.command.arguments]
    return _FISH.format(made=_MADE, program=PROGRAM, lines="".join(lines))


def _fish(condition: str, what: str, text: str) -> str:
    return f"complete -c {PROGRAM} -n {shlex.quote(condition)} {what} -d {_fish_quoted(text)}\n"


def _fish_argument(condition: str, one: Argument) -> str:
    text = str(one.settings["help"])
    if not is_option(one):
        values = {FILE: "-F", COMMAND: f"-a '{' '.join(_first_words())}'"}
        return _fish(condition, values[kind(one)], text) if kind(one) in values else ""
    name = f"-l {one.names[0].lstrip('-')}"
    return _fish(condition, f"{name} {_fish_value(one)}".rstrip(), text)


def _fish_value(one: Argument) -> str:
    if not takes_value(one):
        return ""
    if choices(one):
        return f"-x -a '{' '.join(choices(one))}'"
    if kind(one) == KEY:
        return f"-x -a '{' '.join(_ANNOTATIONS)}'"
    return _FISH_VALUES.get(kind(one), "-x")


def _fish_quoted(text: str) -> str:
    return "'{}'".format(text.replace("\\", "\\\\").replace("'", "\\'"))


FILES = {"oci-bpf-hook.bash": bash, "_oci-bpf-hook": zsh, "oci-bpf-hook.fish": fish}
