"""No text that a client sends breaks the screen."""

import unicodedata

from hypothesis import example, given, settings, strategies as st
from rich.style import Style

from sparkplug_payloads import part, whole

from appliance.ui import payload
from appliance.ui.lines import strip_of
from appliance.ui.text import cut, cut_start, fit, fit_right, for_clipboard, printable, width, wrap

NASTY = "\x1b[2J\x9b1m\x07\r\n\t\u202e\u2066\u200b\u200d\ufeff\u2028e\u0301\u0301\u0301\u0301日本🇩🇪👍🏽\udc80\U000e0041\u3164"


SPARKPLUG = part(2, whole(4, 12) + part(15, b"x" * 3_000_000))


def is_harmless(text):
    return all(
        unicodedata.category(one) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} for one in text
    )


@given(st.text())
@example(NASTY)
def test_no_character_that_a_terminal_obeys_gets_through(text):
    """A topic can't clear the screen, turn the line around or hide a part of itself."""
    assert is_harmless(printable(text))


@given(st.text())
@example(NASTY)
def test_making_text_printable_twice_changes_nothing(text):
    """The gate before the terminal may be passed by text that was made safe before."""
    assert printable(printable(text)) == printable(text)


def test_what_was_hidden_is_seen():
    """An operator sees that there was an escape, not a topic that looks like another."""
    assert printable("a\x1b[31mb") == "a␛[31mb"
    assert printable("pay\u202eload") == "pay�load"
    assert printable("plc\u200b-1") != "plc-1"


@given(st.text())
@example(NASTY)
def test_what_is_pasted_into_a_terminal_commands_nothing(text):
    """A copied payload keeps its lines and tabs; no escape sequence in it ends a bracketed paste."""
    copied = for_clipboard(text)
    assert not any(unicodedata.category(one) == "Cc" and one not in "\n\t" for one in copied)
    assert for_clipboard("a\r\n\tb\x1b[201~c") == "a\n\tb␛[201~c"


def test_marks_do_not_pile_up_over_other_lines():
    """Twenty marks on one letter take the place of one letter."""
    assert len(printable("z" + "\u0301" * 20)) <= 4


@settings(max_examples=50)
@given(st.text(), st.integers(0, 40))
@example(NASTY, 7)
def test_a_column_is_exactly_as_wide_as_it_should_be(text, cells):
    """Wide characters and marks never push the next column out of line."""
    safe = printable(text)
    assert width(fit(safe, cells)) == cells
    assert width(fit_right(safe, cells)) == cells
    assert width(cut(safe, cells)) <= cells
    assert width(cut_start(safe, cells)) <= cells


@given(st.text(), st.integers(2, 30))
def test_wrapping_loses_nothing(text, cells):
    """A long payload is broken into lines, not cut."""
    safe = printable(text)
    pieces = wrap(safe, cells)
    assert "".join(pieces) == safe
    assert all(width(piece) <= cells for piece in pieces)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.text(), st.sampled_from(["", "bad", "dim"]))), st.integers(0, 60))
@example([(NASTY, ""), (NASTY, "bad")], 33)
def test_every_line_on_the_screen_is_safe_and_fits(line, cells):
    """The gate to the terminal lets nothing through, even if a view forgot to make it safe."""
    strip = strip_of(line, cells, Style(), {"bad": Style(bold=True)})
    assert is_harmless(strip.text)
    assert width(strip.text) == cells


@settings(max_examples=50)
@given(st.binary())
@example(NASTY.encode("utf-8", "surrogatepass"))
@example(b"\x00" * 20)
def test_any_payload_can_be_shown_in_every_form(data):
    """No bytes make the detail fail."""
    for form in (payload.pretty, payload.raw, payload.hexdump):
        assert all(is_harmless(line) for line in form(data))
    assert is_harmless(payload.preview(data))
    assert payload.kind(data)


@settings(max_examples=40)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda child: st.lists(child) | st.dictionaries(st.text(), child),
        max_leaves=12,
    )
)
def test_pretty_json_is_the_same_json(value):
    """Indenting changes blanks and line breaks only."""
    import json

    text = json.dumps(value)  # ASCII: printable() changes nothing in it
    assert json.loads("\n".join(payload.pretty(text.encode()))) == value


def test_numbers_and_double_keys_stay_as_they_were_sent():
    """1.10 is not turned into 1.1, and a key that comes twice is shown twice."""
    assert payload.pretty(b'{"a":1.10,"a":[1e400]}') == [
        "{",
        '  "a": 1.10,',
        '  "a": [',
        "    1e400",
        "  ]",
        "}",
    ]
    assert payload.pretty(b'{"a":NaN}') == ["{", '  "a": NaN', "}"]


def test_a_cut_payload_says_how_long_it_was():
    """What is long or binary is marked as such in a list."""
    assert payload.preview(b"\xff\xd8\xff\x00", 512_000) == "<jpeg 512 KB>"
    assert payload.preview(b"x" * 4096, 9000).startswith("<9.0 KB> xxx")
    assert payload.preview(b"") == "<empty>"


def test_deep_json_does_not_break_the_detail():
    """A payload made to exhaust the parser is shown raw."""
    assert payload.pretty(b"[" * 100_000)


def test_difference_to_the_message_before():
    """What changed is marked with a sign, not with a colour alone."""
    assert ("-", '  "v": 1') in payload.diff(b'{"v":1}', b'{"v":2}')
    assert ("+", '  "v": 2') in payload.diff(b'{"v":1}', b'{"v":2}')


def test_the_text_of_a_huge_payload_is_bounded():
    """The UI's thread makes it safe character by character; the end says how much is not shown."""
    huge = b"\x1b" * 3_000_000
    for lines in (payload.raw(huge), payload.pretty(huge), payload.sparkplug_b(SPARKPLUG, {})[0]):
        assert sum(map(len, lines)) < 600_000
        assert lines[-1].endswith("more characters")
    assert payload.raw(b"x\n" * 6000)[-1] == "… 1,001 more lines"
    assert payload.raw(b"x" * 600_000 + b"\n" + b"y" * 7)[-1] == "… 100,007 more characters"


def test_what_is_no_sparkplug_is_shown_as_what_it_is():
    topic = "spBv1.0/g/NDATA/n"
    assert payload.preview(SPARKPLUG, None, topic) == "<Sparkplug B 3.0 MB>"
    assert payload.preview(b'{"a": 1}', None, topic) == '{"a": 1}'
    assert payload.preview(b"\x00\x01", None, topic) == "<binary 2 B>"


def test_a_huge_payload_is_named_by_its_beginning():
    assert payload.kind(b"[" * 3_000_000) == "JSON"
    assert payload.kind(b"x" * 3_000_000) == "text"
