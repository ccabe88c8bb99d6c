"""annotations.py: the public grammar, and that nobody can write more than that with it."""

import string
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oci_bpf_hook.bpf.names import KINDS, Kind
from oci_bpf_hook.delegation.annotations import (
    KEYS,
    LISTS,
    MODE,
    PATH,
    PREFIX,
    Request,
    asked,
    container_name,
    parse,
    split,
)
from oci_bpf_hook.errors import BAD_ANNOTATION, HookError

CRI_O = "io.kubernetes.container.name"
CONTAINERD = "io.kubernetes.cri.container-name"


def nobody() -> str | None:
    raise AssertionError("nothing here needs the container's name")


def io(**given: str) -> dict[str, str]:
    return {PREFIX + key: text for key, text in given.items()}


def understand(
    annotations: Mapping[str, str], name: Callable[[], str | None] = nobody
) -> Request | None:
    return parse(annotations, name)


def request(annotations: Mapping[str, str], name: Callable[[], str | None] = nobody) -> Request:
    found = parse(annotations, name)
    assert found is not None
    return found


def items(text: str) -> tuple[str, ...]:
    return request(io(delegate_cmds=text)).lists["delegate_cmds"]


def problems(
    annotations: Mapping[str, str], name: Callable[[], str | None] = nobody
) -> tuple[str, ...]:
    with pytest.raises(HookError) as caught:
        parse(annotations, name)
    assert caught.value.code == BAD_ANNOTATION
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()
    return caught.value.sentences


def problem(annotations: Mapping[str, str], name: Callable[[], str | None] = nobody) -> str:
    (only,) = problems(annotations, name)
    return only


# ---- what is asked, and what isn't


@pytest.mark.parametrize(
    "annotations",
    [{}, {"io.bpffs": "x"}, {"io.bpffsx": "x"}, {"IO.BPFFS.PATH": "x"}, {" io.bpffs.path": "x"}],
)
def test_other_annotations_ask_for_nothing(annotations: dict[str, str]) -> None:
    assert not asked(annotations)
    assert understand(annotations) is None


@pytest.mark.parametrize("key", [*KEYS, "", "typo", "path/web"])
def test_every_annotation_of_ours_asks(key: str) -> None:
    assert asked({"org.example": "1", PREFIX + key: ""})


def test_the_defaults() -> None:
    found = request(io(delegate_cmds="prog_load"))
    assert found == Request(
        lists={"delegate_cmds": ("prog_load",)},
        path="/sys/fs/bpf",
        mode=0o1777,
        drop_unknown=False,
        profiles=(),
        record="",
    )


def test_every_list_is_its_own() -> None:
    found = request(
        io(
            delegate_cmds="map_create",
            delegate_maps="hash:array",
            delegate_progs="xdp",
            delegate_attachs="any",
        )
    )
    assert found.lists == {
        "delegate_cmds": ("map_create",),
        "delegate_maps": ("hash", "array"),
        "delegate_progs": ("xdp",),
        "delegate_attachs": ("any",),
    }


@pytest.mark.parametrize("text", ["", " ", ",", ":", " , : \t\n", "::::"])
def test_an_empty_list_is_the_same_as_none(text: str) -> None:
    assert understand(io(delegate_cmds=text)) is None
    assert request(io(delegate_cmds=text, delegate_maps="hash")).lists == {
        "delegate_maps": ("hash",)
    }


# ---- lists


@pytest.mark.parametrize(
    "text",
    [
        "map_create,prog_load",
        "map_create:prog_load",
        "map_create prog_load",
        "map_create\tprog_load\n",
        " map_create , prog_load ",
        ",,map_create::,: prog_load,",
        "map_create\r\n,\r\nprog_load",
        "map_create,prog_load,map_create",
        "MAP_CREATE:Prog_Load",
    ],
)
def test_separators_and_case(text: str) -> None:
    assert items(text) == ("map_create", "prog_load")
    assert len(split(text)) in (2, 3)


def test_items_are_kept_as_written_but_in_lower_case() -> None:
    text = "any !kprobe !0xF BPF_PROG_LOAD BPFProgLoad prog_load !BPFProgRun"
    assert items(text) == (
        *("any", "!kprobe", "!0xf", "bpf_prog_load", "bpfprogload", "prog_load", "!bpfprogrun"),
    )


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("0x0", "0x0"),
        ("0X1F", "0x1f"),
        ("0x0000000000000000000000000001", "0x1"),
        ("0xffffffffffffffff", "0xffffffffffffffff"),
        ("0x" + "0" * 100_000 + "8000000000000000", "0x8000000000000000"),
    ],
)
def test_masks_are_hexadecimal(text: str, item: str) -> None:
    assert items(text) == (item,)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0x", "write 0x and hexadecimal digits"),
        ("0xg", "write 0x and hexadecimal digits"),
        ("0x-1", "write 0x and hexadecimal digits"),
        ("0x1_0", "write 0x and hexadecimal digits"),
        ("0x10000000000000000", "the largest mask is 0xffffffffffffffff"),
        ("0x" + "f" * 1_000_000, "the largest mask is 0xffffffffffffffff"),
        ("5", "is a decimal number, which the kernel would take for a mask and not for a command"),
        ("010", "is a decimal number"),
        ("1" * 1_000_000, "is a decimal number"),
        ("\u0665", "is a decimal number"),
        ("-1", "can't be the name of a command"),
        ("prog-load", "can't be the name of a command"),
        ("prog_load=1", "can't be the name of a command"),
        ("*", "can't be the name of a command"),
        ("any;prog_load", "can't be the name of a command"),
        ("prog_l\u00f6ad", "can't be the name of a command"),
        ("prog_load\x00", "can't be the name of a command"),
        ("any,!", "can't be the name of a command"),
        ("any,!!prog_load", "can't be the name of a command"),
        ("any,!any", "leaves nothing of the list"),
        ("!prog_load", 'begin with "any" or with names'),
        ("!prog_load !0x1", 'begin with "any" or with names'),
    ],
)
def test_what_is_no_item(text: str, says: str) -> None:
    found = problem(io(delegate_cmds=text))
    assert says in found
    assert found.startswith('"io.bpffs.delegate_cmds": ')
    assert len(found) < 600


def test_a_look_alike_is_no_name() -> None:
    assert "can't be the name" in problem(io(delegate_progs="\u212aprobe"))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.option)
def test_a_problem_names_what_the_list_is_of(kind: Kind) -> None:
    assert f"for a {kind.what};" in problem(io(**{kind.option: "5"}))


# ---- the other keys


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/sys/fs/bpf", "/sys/fs/bpf"),
        ("//run///bpf//", "/run/bpf"),
        ("/a", "/a"),
        ("/a b,c:d", "/a b,c:d"),
        ("/...", "/..."),
        ("/a/..b", "/a/..b"),
        ("/stra\u00dfe", "/stra\u00dfe"),
        ("/" + "a" * 4094, "/" + "a" * 4094),
    ],
)
def test_paths(text: str, path: str) -> None:
    assert request(io(delegate_cmds="any", path=text)).path == path


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "begin with /"),
        ("sys/fs/bpf", "begin with /"),
        (" /sys/fs/bpf", "begin with /"),
        ("/sys/fs/bpf\n", "4095 printable characters"),
        ("/a\x00b", "4095 printable characters"),
        ("/a\x7fb", "4095 printable characters"),
        ("/a\u202eb", "4095 printable characters"),
        ("/\ud800", "4095 printable characters"),
        ("/" + "a" * 4095, "4095 printable characters"),
        ("/" + "\u00fc" * 2048, "4095 printable characters"),
        ("/" * 5_000_000 + "a", "4095 printable characters"),
        ("/..", 'has "." or ".." in it'),
        ("/run/../sys", 'has "." or ".." in it'),
        ("/run/./bpf", 'has "." or ".." in it'),
        ("/run/.", 'has "." or ".." in it'),
        ("/", "the container's root itself"),
        ("///", "the container's root itself"),
    ],
)
def test_what_is_no_path(text: str, says: str) -> None:
    found = problem(io(delegate_cmds="any", path=text))
    assert says in found
    assert found.startswith('"io.bpffs.path": ')


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("0", 0),
        ("755", 0o755),
        ("0755", 0o755),
        ("1777", 0o1777),
        ("07777", 0o7777),
        (" 700\n", 0o700),
    ],
)
def test_modes_are_octal(text: str, mode: int) -> None:
    assert request(io(delegate_cmds="any", mode=text)).mode == mode


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8",
        "0o755",
        "0x1ff",
        "10000",
        "-1",
        "+755",
        "7 5",
        "u=rwx",
        "000755",
        "\u0661",
        "1_7",
        "7" * 1_000_000,
    ],
)
def test_what_is_no_mode(text: str) -> None:
    assert "isn't an octal mode; write it as 0755 or 1777" in problem(
        io(delegate_cmds="any", mode=text)
    )


@pytest.mark.parametrize(
    ("text", "drop"), [("fail", False), ("drop", True), (" DROP\n", True), ("Fail", False)]
)
def test_on_unknown(text: str, *, drop: bool) -> None:
    assert request(io(delegate_cmds="any", on_unknown=text)).drop_unknown is drop


@pytest.mark.parametrize("text", ["", "ignore", "true", "fail,drop", "drop\x00"])
def test_what_is_no_on_unknown(text: str) -> None:
    assert 'is neither "fail" nor "drop"' in problem(io(delegate_cmds="any", on_unknown=text))


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("delegate_cmd", "delegate_cmds"),
        ("delegate_attach", "delegate_attachs"),
        ("delegate_attaches", "delegate_attachs"),
        ("DELEGATE_PROGS", "delegate_progs"),
        ("delegate-maps", "delegate_maps"),
        ("modes", "mode"),
        ("Path", "path"),
        ("onunknown", "on_unknown"),
        ("delegate_cmd/web", "delegate_cmds/web"),
        ("delegate_cmds.web", "delegate_cmds"),
    ],
)
def test_a_misspelt_key_is_an_error_with_the_nearest(key: str, near: str) -> None:
    found = problem(io(delegate_cmds="any") | {PREFIX + key: "any"})
    assert found == f'"{PREFIX}{key}" isn\'t a known key; did you mean "{PREFIX}{near}"?'


@pytest.mark.parametrize("key", ["", "xyz", "/", "/web", "\n", "\u00fc" * 100])
def test_a_key_near_to_nothing_gets_the_list(key: str) -> None:
    assert problem(io(delegate_cmds="any") | {PREFIX + key: "any"}).endswith(
        f"isn't a known key; the known keys are {', '.join(KEYS)}"
    )


@pytest.mark.parametrize("key", ["path", "mode", "on_unknown"])
def test_a_key_that_delegates_nothing_is_an_error_alone(key: str) -> None:
    text = {"path": "/run/bpf", "mode": "700", "on_unknown": "drop"}[key]
    said = problem({PREFIX + key: text})
    assert PREFIX + key in said
    assert f"alone delegates nothing; add {PREFIX}profile" in said


# ---- KEY/NAME


@pytest.mark.parametrize(
    "names", [{CRI_O: "web"}, {CONTAINERD: "web"}], ids=["cri-o", "containerd"]
)
def test_a_name_from_the_annotations(names: dict[str, str]) -> None:
    annotations = {f"{PREFIX}delegate_cmds/web": "prog_load", f"{PREFIX}delegate_cmds/db": "any"}
    assert request(annotations | names).lists == {"delegate_cmds": ("prog_load",)}
    assert container_name(names) == "web"


def test_a_name_from_the_engine() -> None:
    annotations = {f"{PREFIX}delegate_cmds/web": "prog_load", f"{PREFIX}delegate_maps/web": "hash"}
    calls: list[int] = []

    def engine() -> str | None:
        calls.append(1)
        return "web"

    assert set(request(annotations, engine).lists) == {"delegate_cmds", "delegate_maps"}
    assert len(calls) == 1
    assert understand(annotations, lambda: "db") is None


def test_the_engine_is_asked_only_where_it_must_be() -> None:
    annotations = {f"{PREFIX}delegate_cmds/web": "prog_load"}
    assert request(annotations | {CRI_O: "web"}, nobody)
    assert request(io(delegate_cmds="any"), nobody)
    with pytest.raises(AssertionError):
        parse(annotations, nobody)


def test_cri_os_name_comes_before_containerds() -> None:
    # Each engine sets its own key itself; a pod's author can add the other's.
    assert container_name({CONTAINERD: "b", CRI_O: "a"}) == "a"
    assert container_name({"io.kubernetes.cri-o.ContainerName": "SPOOF"}) is None


def test_the_name_wins_over_all_whatever_the_order() -> None:
    plain = io(delegate_cmds="any", mode="700", path="/a", on_unknown="drop")
    named = {
        f"{PREFIX}delegate_cmds/web": "prog_load",
        f"{PREFIX}mode/web": "755",
        f"{PREFIX}path/web": "/b",
        f"{PREFIX}on_unknown/web": "fail",
    }
    wanted = Request(
        lists={"delegate_cmds": ("prog_load",)},
        path="/b",
        mode=0o755,
        drop_unknown=False,
        profiles=(),
        record="",
    )
    assert request(plain | named, lambda: "web") == wanted
    assert request(named | plain, lambda: "web") == wanted
    # The others of the pod keep what is for all.
    assert request(plain | named, lambda: "db") == request(plain)


def test_one_container_can_be_left_out() -> None:
    annotations = io(delegate_cmds="any", mode="700") | {f"{PREFIX}delegate_cmds/db": ""}
    assert understand(annotations, lambda: "db") is None
    assert request(annotations, lambda: "web").lists == {"delegate_cmds": ("any",)}


@pytest.mark.parametrize("name", ["we", "web2", "WEB", "web/", "web/x", " web"])
def test_another_containers_annotations_are_not_ours(name: str) -> None:
    annotations = {f"{PREFIX}delegate_cmds/web": "!!", f"{PREFIX}path/web": "no path"}
    assert understand(annotations, lambda: name) is None


def test_a_name_may_have_a_slash() -> None:
    assert request({f"{PREFIX}delegate_cmds/a/b": "any"}, lambda: "a/b")


@pytest.mark.parametrize("key", ["path", "mode", "on_unknown"])
def test_settings_for_all_dont_stop_a_container_that_asks_for_nothing(key: str) -> None:
    text = {"path": "/run/bpf", "mode": "700", "on_unknown": "drop"}[key]
    annotations = {PREFIX + key: text, f"{PREFIX}delegate_cmds/web": "any"}
    assert request(annotations, lambda: "web").lists
    assert understand(annotations, lambda: "sidecar") is None


def test_a_misspelt_key_of_another_container_is_an_error_too() -> None:
    annotations = {f"{PREFIX}delegate_cmd/web": "any"}
    assert 'did you mean "io.bpffs.delegate_cmds/web"?' in problem(annotations, lambda: "db")


@pytest.mark.parametrize("name", [None, ""])
def test_without_a_name_to_compare_with_it_is_an_error(name: str | None) -> None:
    found = problem(
        io(delegate_cmds="any")
        | {f"{PREFIX}delegate_cmds/web": "prog_load", f"{PREFIX}path/web": "/b"},
        lambda: name,
    )
    assert "this engine doesn't tell the container's name" in found
    assert 'leave out "/web"' in found
    assert "the container's name" in problem({f"{PREFIX}delegate_cmds/web": "any", CRI_O: ""})


def test_a_slash_without_a_name_is_an_error() -> None:
    assert problem(io(delegate_cmds="any") | {f"{PREFIX}delegate_maps/": "hash"}, lambda: "web")


# ---- all at once, and nothing raw


def test_all_problems_at_once_each_with_its_key_and_item() -> None:
    found = problems(
        io(
            delegate_cmds="prog_load,5,prog-load",
            delegate_maps="!hash",
            delegate_progs="any,!any",
            delegate_attachs="0x",
            path="tmp",
            mode="9",
            on_unknown="ignore",
            delegate_link="any",
        )
        | {f"{PREFIX}mode/web": "1"},
        lambda: None,
    )
    wanted = [
        ("delegate_link", "isn't a known key"),
        ("mode/web", "the container's name"),
        ("delegate_cmds", '"5" is a decimal number'),
        ("delegate_cmds", '"prog-load" can\'t be the name'),
        ("delegate_maps", '"!hash" takes away from a list that gives nothing'),
        ("delegate_progs", '"!any" leaves nothing of the list'),
        ("delegate_attachs", '"0x" isn\'t a hexadecimal'),
        ("path", '"tmp" isn\'t an absolute path'),
        ("mode", '"9" isn\'t an octal mode'),
        ("on_unknown", '"ignore" is neither'),
    ]
    assert len(found) == len(wanted)
    for text, (key, what) in zip(found, wanted, strict=True):
        assert text.startswith(f'"{PREFIX}{key}"')
        assert what in text


HOSTILE = [
    pytest.param("a\nroot: all is well", id="a line of its own"),
    pytest.param("a\x1b[2J\x07", id="terminal control"),
    pytest.param("a\x00b", id="NUL"),
    pytest.param("\u202e\u2066\u200d", id="bidirectional"),
    pytest.param("\ud800\udfff", id="surrogates"),
    pytest.param('"; exit code 0; "', id="quotes"),
    pytest.param("\\" * 100, id="backslashes"),
    pytest.param("\U0001f600" * 1000, id="emoji"),
    pytest.param("x" * 3_000_000, id="megabytes"),
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("key", KEYS)
def test_hostile_values_stay_out_of_the_message(key: str, text: str) -> None:
    try:
        parse(io(delegate_maps="hash") | io(**{key: text}), nobody)
    except HookError as error:
        check_message(error)
    else:
        # Words, if three megabytes long: whether they are names is for the kernel to say.
        assert key in (*LISTS, "profile")
        assert set(text) <= {*string.ascii_lowercase, *" :\n"}


def check_message(error: HookError) -> None:
    assert error.code == BAD_ANNOTATION
    assert str(error).isascii()
    assert str(error).isprintable()
    assert all(len(each) < 2000 for each in error.sentences)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("base", ["", "path", "delegate_cmds"])
def test_hostile_keys_stay_out_of_the_message(base: str, text: str) -> None:
    for key in (base + text, f"{base}/{text}"):
        with pytest.raises(HookError) as caught:
            parse({PREFIX + key: "!!"}, lambda: None)
        check_message(caught.value)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_stay_out_of_the_message(text: str) -> None:
    with pytest.raises(HookError) as caught:
        parse({f"{PREFIX}delegate_cmds/{text}": "!!", CRI_O: text}, nobody)
    check_message(caught.value)


@pytest.mark.parametrize(
    "text", [case for case in HOSTILE if case.id not in ("quotes", "backslashes")]
)
def test_hostile_names_stay_out_of_the_message_about_a_lonely_key(text: str) -> None:
    with pytest.raises(HookError) as caught:
        parse({f"{PREFIX}mode/{text}": "0700", CRI_O: text}, nobody)
    check_message(caught.value)


def test_a_megabyte_of_problems_is_a_short_message() -> None:
    with pytest.raises(HookError) as caught:
        parse(io(delegate_cmds=" ".join(map(str, range(100_000)))), nobody)
    assert len(caught.value.sentences) == 100_000
    assert len(str(caught.value)) < 5_000


# ---- for all inputs

WORDS = st.text(string.ascii_lowercase + string.digits + "_", min_size=1, max_size=20).filter(
    lambda word: not word.isdecimal() and not word.startswith("0x") and word != "any"
)
MASKS = st.integers(0, (1 << 64) - 1).map(hex)
POSITIVE = WORDS | MASKS | st.just("any")
NEGATIVE = (WORDS | MASKS).map(lambda word: "!" + word)
ITEMS = st.tuples(
    st.lists(POSITIVE, min_size=1, max_size=5), st.lists(NEGATIVE, max_size=3)
).flatmap(lambda both: st.permutations([*both[0], *both[1]]))
LISTS_OF_ITEMS = ITEMS.map(lambda items: tuple(dict.fromkeys(items)))
PARTS = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters="/")
    | st.just(" "),
    min_size=1,
    max_size=30,
).filter(lambda part: part not in (".", ".."))
PROFILES = st.text(string.ascii_letters + string.digits + "_.-", min_size=1, max_size=63)
REQUESTS = st.builds(
    Request,
    lists=st.dictionaries(st.sampled_from(LISTS), LISTS_OF_ITEMS, min_size=1),
    path=st.lists(PARTS, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))
    | st.just(PATH),
    mode=st.integers(0, 0o7777) | st.just(MODE),
    drop_unknown=st.booleans(),
    profiles=st.lists(PROFILES, max_size=3, unique=True).map(tuple),
    record=st.just(""),
)


@settings(deadline=None)
@given(REQUESTS)
def test_a_request_printed_reads_as_itself(wanted: Request) -> None:
    assert request(wanted.annotations()) == wanted


@settings(deadline=None)
@given(REQUESTS, st.data())
def test_what_is_written_in_another_way_is_the_same(wanted: Request, data: st.DataObject) -> None:
    separators = st.sampled_from([",", ":", " ", "\n", " , ", "::", "\t:\r\n"])
    annotations = wanted.annotations()
    for option, items in wanted.lists.items():
        text = data.draw(separators)
        for item in items:
            text += data.draw(st.sampled_from([item, item.upper(), item.title()]))
            text += data.draw(separators)
        annotations[PREFIX + option] = text
    annotations.setdefault(PREFIX + "path", PATH)
    annotations.setdefault(PREFIX + "mode", "01777")
    annotations.setdefault(PREFIX + "on_unknown", "fail")
    assert request(annotations) == wanted


ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()))
LIKELY_TEXT = st.text(st.sampled_from("any!0x1f_,: \n/.7kprobe\ud800\u212a"))
NAMES = st.sampled_from(["", "web", "a/b", "db"])
ANY_KEY = st.builds(
    lambda base, suffix: PREFIX + base + suffix,
    st.sampled_from(KEYS) | ANY_TEXT,
    st.just("") | NAMES.map(lambda name: "/" + name),
)


def test_a_recording() -> None:
    found = request({PREFIX + "record": " my-run.1 ", PREFIX + "path": "/run/bpf"})
    assert (found.record, found.lists, found.profiles, found.path) == (
        *("my-run.1", {}, ()),
        "/run/bpf",
    )
    assert request(found.annotations()) == found
    # Of a pod's containers, one.
    assert parse({PREFIX + "record/web": "x"}, lambda: "db") is None


@pytest.mark.parametrize("name", ["", " ", "a/b", "../x", ".x", "-x", "a b", "x" * 64, "\u00e4"])
def test_no_name_of_a_recording(name: str) -> None:
    with pytest.raises(HookError) as caught:
        request({PREFIX + "record": name})
    assert "can't be the name of a recording" in str(caught.value)


def test_a_recording_is_all_or_nothing() -> None:
    for key, text in (("delegate_cmds", "any"), ("profile", "xdp")):
        with pytest.raises(HookError) as caught:
            request({PREFIX + "record": "x", PREFIX + key: text})
        assert "leave out the lists and profiles" in str(caught.value)


@settings(deadline=None, max_examples=500)
@given(
    st.dictionaries(ANY_KEY | st.sampled_from([CRI_O, CONTAINERD]), ANY_TEXT | LIKELY_TEXT | NAMES),
    st.none() | NAMES,
)
def test_anything_else_is_a_bad_annotation(
    annotations: dict[str, str], engine_name: str | None
) -> None:
    try:
        found = parse(annotations, lambda: engine_name)
    except HookError as error:
        check_message(error)
        return
    if found is not None:
        assert request(found.annotations()) == found
        assert found.lists or found.profiles or found.record
        assert all(found.lists.values())
