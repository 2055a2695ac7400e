"""Reading a rulebook: what is taken, and what the author of a wrong one is told."""

from __future__ import annotations

import pytest

from spdify.errors import RulebookError
from spdify.rulebook import Match, Rulebook, parse_rulebook

HEAD = 'schema = 1\nsummary = "s"\n'
RULE = '[[rule]]\nname = "a"\nrewrite = "replace"\n'
POLICY = '[[rule]]\nname = "a"\nrewrite = "keep"\n'
MISNAMED = '[[rule]]\nname = "A b"\nrewrite = "replace"\n'


def parse(text: str) -> Rulebook:
    return parse_rulebook(text.encode(), name="mine", file="mine.toml")


def fault(text: str | bytes) -> str:
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(RulebookError) as caught:
        parse_rulebook(data, name="mine", file="mine.toml")
    assert "mine.toml" in caught.value.message
    return str(caught.value)


def match_of(table: str) -> Match:
    return parse(f"{HEAD}{RULE}match = {table}\n").rules[0].match


def test_a_full_rulebook_is_read() -> None:
    book = parse(
        f"{HEAD}"
        '[source]\npaper = "arXiv:2208.03641"\nsection = "3"\n'
        f'{RULE}match = {{ operator = ["conv", "slice"], kernel = 3, stride = [2, 1], resolution = {{ min = 8 }} }}\n'
        'params = { size = 3, share = 0.5, on = true, form = "x" }\n'
        '[[rule]]\nname = "b-2"\nrewrite = "keep"\nreason = "so"\nmatch = {}\n'
    )
    assert (book.name, book.schema_version, book.summary) == ("mine", 1, "s")
    assert str(book.source) == "arXiv:2208.03641, section 3"
    first, second = book.rules
    assert first.match.operator == ("conv", "slice")
    assert (first.match.kernel, first.match.stride) == (3, (2, 1))
    assert first.params == {"size": 3, "share": 0.5, "on": True, "form": "x"}
    assert [type(value) for value in first.params.values()] == [int, float, bool, str]
    assert not first.keeps
    assert second.keeps


def test_a_rulebook_survives_json() -> None:
    book = parse(f'{HEAD}{RULE}match = {{ path = "a*", exclude = "b", kernel = [3, 1], position = -1 }}\n')
    assert Rulebook.model_validate_json(book.model_dump_json()) == book


def test_the_source_may_be_missing_in_part() -> None:
    assert str(parse(f"{HEAD}{RULE}match = {{}}\n").source) == ""
    assert str(parse(f'{HEAD}source.section = "3"\n{RULE}match = {{}}\n').source) == "section 3"


def test_a_byte_order_mark_and_windows_line_ends_are_taken() -> None:
    text = f"{HEAD}{RULE}match = {{}}\n".replace("\n", "\r\n")
    assert parse_rulebook(b"\xef\xbb\xbf" + text.encode(), name="mine", file="mine.toml").summary == "s"


def test_one_glob_and_a_list_of_one_are_the_same() -> None:
    assert match_of('{ path = "a" }') == match_of('{ path = ["a"] }')


@pytest.mark.parametrize(
    ("table", "key", "wanted", "found"),
    [
        ('{ operator = "konv" }', "operator[0]", "one of conv, conv1d", "'konv'"),
        ('{ operator = ["conv", 2] }', "operator", "a string or a list of strings", "['conv', 2]"),
        ("{ type = 3 }", "type", "a string or a list of strings", "3"),
        ("{ path = [] }", "path", "none of them empty", "[]"),
        ('{ exclude = "" }', "exclude", "none of them empty", "''"),
        ("{ kernel = 0 }", "kernel", "a positive integer", "0"),
        ("{ kernel = true }", "kernel", "a positive integer", "True"),
        ("{ stride = [2, 2, 2, 2] }", "stride", "a list of 1 to 3", "[2, 2, 2, 2]"),
        ("{ dilation = 1.0 }", "dilation", "a positive integer", "1.0"),
        ('{ groups = "many" }', "groups", "'dense', 'depthwise' or 'grouped'", "'many'"),
        ('{ resolution = { min = "8" } }', "resolution.min", "a valid integer", "'8'"),
        ("{ resolution = { min = 9, max = 8 } }", "resolution", "min not above max", "a table with min, max"),
        ("{ resolution = {} }", "resolution", "min, max or both", "a table with no keys"),
        ('{ position = "1:2:3" }', "position", "an index or a range", "'1:2:3'"),
        ("{ position = true }", "position", "an index or a range", "True"),
        ('{ position = "٣" }', "position", "an index or a range", "'٣'"),
    ],
)
def test_a_wrong_match_is_named(table: str, key: str, wanted: str, found: str) -> None:
    line = fault(f"{HEAD}{RULE}match = {table}\n").splitlines()[-1]
    assert line.startswith(f"  rule[0].match.{key}: expected ")
    assert wanted in line
    assert line.endswith(f"got {found}")


@pytest.mark.parametrize("value", ["[1]", "{ a = 1 }", "nan", "-inf", "2020-01-01"])
def test_a_parameter_is_a_plain_value(value: str) -> None:
    text = fault(f"{HEAD}{RULE}match = {{}}\nparams = {{ size = {value} }}\n")
    assert "rule[0].params.size: expected a string, an integer, a finite number, true or false, got " in text


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (f"sumary = 1\n{HEAD}{RULE}match = {{}}\n", "sumary: expected no such key. Did you mean 'summary'?"),
        (f"rules = 1\n{HEAD}{RULE}match = {{}}\n", "rules: expected no such key. Did you mean 'rule'?"),
        (f"{HEAD}{RULE}matches = {{}}\nmatch = {{}}\n", "rule[0].matches: expected no such key. Did you mean 'match'?"),
        (
            f"{HEAD}{RULE}match = {{ kernal = 3 }}\n",
            "rule[0].match.kernal: expected no such key. Did you mean 'kernel'",
        ),
        (
            f"{HEAD}{RULE}match = {{ resolution.mim = 3 }}\n",
            "match.resolution.mim: expected no such key. Did you mean ",
        ),
        (f"{HEAD}source.zzz = 1\n{RULE}match = {{}}\n", "source.zzz: expected no such key. Known: paper, section."),
    ],
)
def test_an_unknown_key_gets_its_nearest_relative(text: str, hint: str) -> None:
    # It comes first, before what follows from the slip (the right key is missing).
    assert fault(text).splitlines()[1].startswith("  ")
    assert hint in fault(text).splitlines()[1]


def test_the_name_is_that_of_the_file() -> None:
    assert "name: expected no such key" in fault(f'name = "mine"\n{HEAD}{RULE}match = {{}}\n')


@pytest.mark.parametrize("schema", ["2", "true", '"1"', "1.5"])
def test_another_schema_is_refused(schema: str) -> None:
    text = fault(f'schema = {schema}\nsummary = "s"\n{RULE}match = {{}}\n')
    assert "schema: expected 1, the only form that this version of spdify reads, got " in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "schema: expected a value, got nothing"),
        (f"{HEAD}rule = []\n", "rule: expected at least one [[rule]], got []"),
        (f'{HEAD}rule = {{ name = "a" }}\n', "rule: expected a list, got a table with name"),
        (f"{HEAD}rule = [3]\n", "rule[0]: expected a table, got 3"),
        (f"{HEAD}{RULE}", "rule[0].match: expected a value, got nothing"),
        (f"{HEAD}{MISNAMED}match = {{}}\n", "rule[0].name: expected lower-case words"),
        (f"{HEAD}{RULE}match = {{}}\n{RULE}match = {{}}\n", "but 'a' is used more than once"),
        (f'schema = 1\nsummary = " "\n{RULE}match = {{}}\n', "summary: expected one sentence on one line, got ' '"),
        (f"{HEAD}{POLICY}match = {{}}\n", "rule[0]: expected a `reason`"),
        (
            f'{HEAD}{POLICY}reason = "r"\nmatch = {{}}\nparams.x = 1\n',
            "rule[0]: expected no `params`",
        ),
    ],
)
def test_a_wrong_rulebook_is_explained(text: str, message: str) -> None:
    assert message in fault(text)


def test_all_faults_are_listed_up_to_a_bound() -> None:
    text = fault(HEAD + "".join(f"[[rule]]\nname = {i}\nrewrite = 1\nmatch = 1\n" for i in range(9)))
    assert "rule[1].name" in text
    assert text.splitlines()[-1] == "  and 17 more"


def test_a_long_value_is_cut() -> None:
    long = "x" * 9999
    assert len(fault(f"{HEAD}{RULE}match = {{{{ groups = '{long}' }}}}\n")) < 300


def test_braces_in_a_message_stay_as_they_are() -> None:
    rule = RULE.replace('"a"', '"{what}"')
    assert "got '{what}'" in fault(f"{HEAD}{rule}match = {{}}\n")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("schema = \n", "line 1, column 10"),
        ("a = 1\nb = [1,\n2", "line 3, column 2, the end"),
        ("a = '\n", "line 2, column 1"),
    ],
)
def test_toml_faults_have_line_and_column(text: str, place: str) -> None:
    assert "expected TOML, got: " in fault(text)
    assert place in fault(text)


def test_other_encodings_are_named() -> None:
    assert "expected UTF-8, got byte 0xff on line 2" in fault(b"schema = 1\nsummary = '\xff'\n")
    assert "expected UTF-8" in fault("schema = 1".encode("utf-16"))


@pytest.mark.parametrize("value", ["[" * 5000, "9" * 5000])
def test_what_breaks_the_toml_reader_is_an_error_like_others(value: str) -> None:
    assert "expected TOML" in fault(f"a = {value}")


@pytest.mark.parametrize("text", ["[" + ".a" * 90_000 + "]", "a" + ".a" * 90_000 + " = 1"])
def test_keys_with_parts_without_end(text: str) -> None:
    assert "expected at most 500 dots in a line" in fault(f"{HEAD}{text}")


def test_globs_without_end() -> None:
    many = [f"a{i}" for i in range(1000)]
    assert match_of(f"{{ path = {many} }}").path == tuple(many)
    words = "expected at most 1,000 globs of at most 256 characters, got "
    for key in ("type", "parent", "path", "exclude"):
        assert f"rule[0].match.{key}: {words}" in fault(f"{HEAD}{RULE}match = {{ {key} = {[*many, 'b']} }}\n")
        assert f"rule[0].match.{key}: {words}" in fault(f"{HEAD}{RULE}match = {{ {key} = '{'[' * 257}' }}\n")
    rules = [f"{RULE}match = {{ path = {many} }}\n".replace('"a"', f'"a{i}"') for i in range(11)]
    assert "expected at most 10,000 globs in all rules, got 11,000" in fault(HEAD + "".join(rules))
    assert len(parse(HEAD + "".join(rules[:10])).rules) == 10


@pytest.mark.parametrize("number", ["0x" + "f" * 5000, "9" * 100], ids=["long", "large"])
@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("schema = {}\nsummary = 's'\n" + RULE + "match = {{}}\n", "schema"),
        (HEAD + "group = {}\n" + RULE + "match = {{}}\n", "group"),
        (HEAD + RULE + "match = {{ position = {} }}\n", "rule[0].match.position"),
        (HEAD + RULE + "match = {{ path = [{}] }}\n", "rule[0].match.path"),
        (HEAD + RULE + "match = {{ kernel = {} }}\n", "rule[0].match.kernel"),
        (HEAD + RULE + "match = {{ stride = [1, {}] }}\n", "rule[0].match.stride"),
        (HEAD + RULE + "match = {{ resolution.min = {} }}\n", "rule[0].match.resolution.min"),
        (HEAD + RULE + "match = {{}}\nparams.size = {}\n", "rule[0].params.size"),
    ],
    ids=range(8),
)
def test_numbers_without_end(text: str, key: str, number: str) -> None:
    words = fault(text.format(number))
    assert f"  {key}: expected " in words
    assert len(words) < 300
