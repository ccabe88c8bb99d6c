"""header.py: C headers as a compiler reads them, with all that line-wise readers trip over."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oci_bpf_hook.bpf.header import HeaderError, enums
from oci_bpf_hook.bpf.names import ATTACHS, CMDS, KINDS, PROGS, Kind
from oci_bpf_hook.kernel.enums import table

LINUX_BPF_H = Path("/usr/include/linux/bpf.h")
LATEST = table().enums(KINDS)


def cmds(body: str) -> dict[str, int]:
    return dict(enums(f"enum bpf_cmd {{ {body} }};", (CMDS,))[CMDS.option].values)


def refused(body: str, says: str) -> None:
    with pytest.raises(HeaderError, match=says):
        cmds(body)


def as_header(kind: Kind) -> str:
    """The table's enum as linux/bpf.h has it."""
    lines: list[str] = []
    seen: dict[int, str] = {}
    for name, value in LATEST[kind.option].values.items():
        full = kind.prefix + name.upper()
        lines.append(f"\t{full} = {seen[value]}," if value in seen else f"\t{full},")
        seen.setdefault(value, full)
    return f"enum {kind.enum} {{\n" + "\n".join(lines) + f"\n\t__MAX_{kind.enum.upper()}\n}};\n"


# ---- real headers


def test_the_installed_header_is_understood() -> None:
    if not LINUX_BPF_H.exists():
        pytest.skip(f"there is no {LINUX_BPF_H} (Debian's linux-libc-dev)")
    found = enums(LINUX_BPF_H.read_text(), KINDS)
    for kind in KINDS:
        assert found[kind.option].values.items() <= LATEST[kind.option].values.items()
        assert len(found[kind.option].values) > 30


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.enum)
def test_a_header_of_today(kind: Kind) -> None:
    text = "#ifndef X\n#define X\n" + "".join(map(as_header, KINDS)) + "#endif\n"
    assert list(enums(text, (kind,))[kind.option].values.items()) == list(
        LATEST[kind.option].values.items()
    )


def test_bpftools_dump_of_btf_is_a_header_too() -> None:
    # bpftool btf dump file /sys/kernel/btf/vmlinux format c
    body = ",\n".join(
        f"\tBPF_{name.upper()} = {value}" for name, value in LATEST[CMDS.option].values.items()
    )
    text = f"typedef unsigned int u32;\n\nenum bpf_cmd {{\n{body},\n\t__MAX_BPF_CMD = 39,\n}};\n\n"
    assert enums(text, (CMDS,))[CMDS.option].values == LATEST[CMDS.option].values


def test_systemds_bug_a_comment_behind_a_name() -> None:
    # systemd v258 and later: its generator drops the line with the comment and counts on, so
    # BPFDelegatePrograms=BPFProgTypeNetfilter delegates SYSCALL.
    text = as_header(PROGS).replace(
        "\tBPF_PROG_TYPE_SYSCALL,\n",
        "\tBPF_PROG_TYPE_SYSCALL, /* a program that can execute syscalls */\n",
    )
    assert "/*" in text
    found = enums(text, (PROGS,))[PROGS.option]
    assert found.values["syscall"] == 31
    assert found.values["netfilter"] == 32
    assert found.find("bpfprogtypenetfilter") == 32


# ---- traps


@pytest.mark.parametrize(
    "body",
    [
        "BPF_A, BPF_B, BPF_C",
        "BPF_A, BPF_B, BPF_C,",
        "BPF_A,BPF_B,BPF_C,",
        "BPF_A,\n\tBPF_B, BPF_C\n",
        "BPF_A\n,BPF_B\n,BPF_C",
        "BPF_A, /* BPF_X, */ BPF_B, // BPF_Y,\n BPF_C",
        "BPF_A, /* two\n * lines, BPF_X,\n */ BPF_B, BPF_C",
        "/**/BPF_A,/***/BPF_B,/* // */BPF_C/*,*/",
        "BPF_A, // /* BPF_X,\n BPF_B, // */\n BPF_C",
        "BPF_A, BPF_B, BPF_C // the last\n",
        "BPF_A, // continued \\\n BPF_X,\n BPF_B, BPF_C",
        "BPF_A, // continued \\\r\n BPF_X,\r\n BPF_B, BPF_C",
        "BPF_A, // continued \\ \t\n BPF_X,\n BPF_B, BPF_C",
        "BPF_A, BPF_\\\nB, /\\\n/ BPF_X,\n BPF_C",
        "BPF_A /* = 7 */, BPF_B, BPF_C",
        "BPF_A = 0, BPF_B = 1, BPF_C = 2",
        "BPF_A=0x0,BPF_B=0X1,BPF_C=02",
        "BPF_A = 0U, BPF_B = 1UL, BPF_C = 2ull",
        "BPF_A, BPF_B, BPF_C = BPF_B + 1",
        "BPF_A, BPF_B = (1 << 0), BPF_C = (1 << 1)",
        "BPF_A, BPF_B = 0x3 & 1, BPF_C = 3 - 1",
        "BPF_A, BPF_B = 4 >> 2, BPF_C = -(-2)",
        "BPF_A, BPF_B, BPF_C = (BPF_A | BPF_B) * 2",
        "BPF_A, BPF_B, BPF_C = 2, __MAX_BPF_CMD",
        "BPF_A, BPF_B, BPF_C, __MAX_BPF_CMD = 3,",
        "\n#define BPF_A BPF_A\nBPF_A,\n#define X 1, 2\nBPF_B,\n# undef X\nBPF_C",
        "\n#define X(a, b) \\\n\ta, \\\n\tb\nBPF_A, BPF_B, BPF_C",
        "\n\t#pragma GCC poison X\n\t#\nBPF_A, BPF_B, BPF_C",
        "\r\n\tBPF_A,\r\n\tBPF_B, /* x */\r\n\tBPF_C,\r\n",
    ],
)
def test_ways_to_write_one_enum(body: str) -> None:
    assert cmds(body) == {"a": 0, "b": 1, "c": 2}


def test_octal_numbers_are_octal() -> None:
    body = ", ".join(f"BPF_N{value} = 0{value:o}{'uL' if value % 2 else ''}" for value in range(20))
    assert cmds(body)["n19"] == 19
    refused("BPF_A = 08", "a value reads '08'")


def test_aliases_share_a_value_and_counting_goes_on_behind_them() -> None:
    body = "BPF_A, BPF_B, BPF_OLD = BPF_B, BPF_C, BPF_FIRST = 0, BPF_D = BPF_C + 1"
    assert cmds(body) == {"a": 0, "b": 1, "old": 1, "c": 2, "first": 0, "d": 3}


def test_a_number_behind_an_alias_is_one_more_than_the_alias() -> None:
    # So does C; here it makes C = 1, which repeats B.
    assert cmds("BPF_A, BPF_B, BPF_X = BPF_A, BPF_C") == {"a": 0, "b": 1, "x": 0, "c": 1}


@pytest.mark.parametrize("directive", ["#if 1", "#ifdef X", "# ifndef X", "#else", "\t#  endif"])
def test_a_conditional_inside_is_refused(directive: str) -> None:
    refused(f"BPF_A,\n{directive}\nBPF_B\n", "conditional #")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("", "too early"),
        (",", "reads ''"),
        ("BPF_A,, BPF_B", "reads ''"),
        ("BPF_A BPF_B", "reads 'BPF_A BPF_B'"),
        ("BPF_A = ", "reads"),
        ("BPF_A = X", "a value reads 'X'"),
        ("BPF_A = BPF_B, BPF_B = 0", "a value reads 'BPF_B'"),
        ("BPF_A = sizeof(int)", "a value reads"),
        ("BPF_A = F(0, 1)", "reads"),
        ("BPF_A = 'A'", "a value reads"),
        ("BPF_A = 0.0", "a value reads"),
        ("BPF_A = 1 ? 0 : 1", "a value reads"),
        ("BPF_A = 0 / 1", "a value reads"),
        ("BPF_A = 1 << -1", "a value reads"),
        ("BPF_A = True", "a value reads 'True'"),
        ("BPF_A = __import__", "a value reads"),
        ("BPF_A = 1", "out of place"),
        ("BPF_A = -1", "out of place"),
        ("BPF_A, BPF_B = 2", "out of place"),
        ("BPF_A, BPF_A", "out of place"),
        ("XDP_A", "doesn't begin with BPF_"),
        ("BPF_A, __MAX_BPF_CMD = 2", "__MAX_BPF_CMD is 2, not 1"),
        ("BPF_A, __MAX_BPF_CMD, BPF_B", "comes after __MAX_BPF_CMD"),
        ("BPF_A = " + "9" * 5000, "a value reads"),
        ("BPF_A = 0x" + "f" * 5000, "reads"),
        ("BPF_A = " + "(" * 100_000 + "0" + ")" * 100_000, "a value reads"),
        ("BPF_A = " + "-" * 100_000 + "0", "a value reads"),
        ("BPF_A = 1 << 0xffffffffffff", "BPF_A has more than 64 bits"),
        ("BPF_A = 0 - (1 << 64)", "BPF_A has more than 64 bits"),
        ("BPF_A = 1" + " << 64" * 100_000, "a value reads"),
    ],
)
def test_what_makes_no_sense(body: str, says: str) -> None:
    refused(body, says)


def test_no_header_makes_us_compute_a_giant() -> None:
    squares = ", ".join(f"BPF_N{n + 1} = BPF_N{n} * BPF_N{n}" for n in range(64))
    refused(f"BPF_A, BPF_N0 = 1 << 60, {squares}", "BPF_N1 has more than 64 bits")


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("", 0),
        ("enum bpf_cmd;", 0),
        ("enum bpf_cmd cmd;", 0),
        ("/* enum bpf_cmd { BPF_A }; */", 0),
        ("// enum bpf_cmd { BPF_A };", 0),
        ("// \\\nenum bpf_cmd { BPF_A };", 0),
        ("enum bpf_cmds { BPF_A };", 0),
        ("enum xbpf_cmd { BPF_A };", 0),
        ("xenum bpf_cmd { BPF_A };", 0),
        ("enum bpf_cmd { BPF_A", 0),
        ("#ifdef X\nenum bpf_cmd { BPF_A };\n#else\nenum bpf_cmd { BPF_B };\n#endif", 2),
        ("enum bpf_cmd { BPF_A }; enum bpf_cmd { BPF_A };", 2),
    ],
)
def test_an_enum_is_in_it_once(text: str, times: int) -> None:
    with pytest.raises(HeaderError, match=f"enum bpf_cmd is defined {times} times"):
        enums(text, (CMDS,))


def test_only_what_is_asked_for_must_be_in_it() -> None:
    assert set(enums(as_header(CMDS), (CMDS,))) == {CMDS.option}
    with pytest.raises(HeaderError, match="bpf_attach_type"):
        enums(as_header(CMDS), (CMDS, ATTACHS))


def test_what_uses_the_enum_is_no_enum() -> None:
    text = """
    enum bpf_cmd f(enum bpf_cmd cmd) { return cmd; }
    struct x { enum bpf_cmd cmd; };
    enum
    bpf_cmd
    {BPF_A};
    static enum bpf_cmd last = { BPF_A };
    """
    assert dict(enums(text, (CMDS,))[CMDS.option].values) == {"a": 0}


# ---- for all inputs


SPACES = ["", " ", "\t", "\n", "/* , */", "// ,\n", "\n#define X ,\n", "/*\n{*/", " \\\n", "\r\n"]


@settings(deadline=None)
@given(st.lists(st.sampled_from(SPACES), min_size=1, max_size=10))
def test_white_space_and_comments_mean_nothing(spaces: list[str]) -> None:
    space = itertools.cycle(spaces)
    head, body = as_header(ATTACHS).split("{")
    names = body.partition("}")[0].split(",")
    text = ",".join(f"{next(space)}{name.strip()}{next(space)}" for name in names)
    assert enums(f"{head} {{{text}}};", (ATTACHS,))[ATTACHS.option].values == (
        LATEST[ATTACHS.option].values
    )


FRAGMENTS = [
    *("enum", "bpf_cmd", " ", "{", "}", ",", "=", "BPF_A", "BPF_B", "__MAX_BPF_CMD", "0", "1"),
    *("0x1", "(", ")", "<<", "*", "-", "/*", "*/", "//", "\n", "\\\n", "#if", "#define", ";", "\0"),
    *(
        "\ud800",
        "\u212a",
        "1u",
        "9" * 30,
        "1if 1else 1",
        "lambda:",
        "'",
        '"',
        "\\N",
        "08",
        "[",
        "`",
    ),
]


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from(FRAGMENTS)), st.booleans())
def test_anything_else_is_a_header_error(fragments: list[str], inside: bool) -> None:
    text = "".join(fragments)
    try:
        found = enums(f"enum bpf_cmd {{ {text} }};" if inside else text, (CMDS,))
    except HeaderError as error:
        said = str(error)
        assert len(said) < 300
    else:
        assert found[CMDS.option].values
