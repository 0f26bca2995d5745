"""Stop strings: found across pieces, never shown, and nothing else is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fastchat.engine.stop import StopMatcher

letters = st.text("ab ", max_size=12)


@given(pieces=st.lists(letters), stops=st.lists(st.text("ab ", max_size=4), max_size=4))
def test_pieces_end_where_the_whole_does(pieces: list[str], stops: list[str]) -> None:
    matcher = StopMatcher(stops)
    released = [matcher.push(piece) for piece in pieces] + [matcher.finish()]
    whole = "".join(pieces)
    # A stop string is noticed once it is complete, so the first to be complete wins.
    found = [(whole.find(stop) + len(stop), whole.find(stop)) for stop in stops if stop in whole]
    found = [(end, start) for end, start in found if end > start]
    text = "".join(released)
    assert matcher.stopped == bool(found)
    if found:
        assert whole.startswith(text)
        assert text in {whole[:start] for _, start in found}
        assert not any(stop and stop in text for stop in stops)
    else:
        assert text == whole


@given(pieces=st.lists(letters), stop=st.text("ab", min_size=1, max_size=4))
def test_one_stop_string_cuts_at_its_first_occurrence(pieces: list[str], stop: str) -> None:
    matcher = StopMatcher([stop])
    text = "".join([*(matcher.push(piece) for piece in pieces), matcher.finish()])
    assert text == "".join(pieces).partition(stop)[0]


def test_text_that_only_looked_like_a_stop_is_released() -> None:
    matcher = StopMatcher(["END"])
    assert matcher.push("the E") == "the "
    assert matcher.push("N") == ""
    assert matcher.push("jo") == "ENjo"
    assert matcher.push("y EN") == "y "
    assert matcher.finish() == "EN"


@given(
    text=st.text("ab", max_size=60),
    stops=st.lists(st.text("ab", min_size=1, max_size=7), max_size=8),
    size=st.integers(1, 9),
)
def test_what_is_held_back_could_still_begin_a_stop_string(
    text: str, stops: list[str], size: int
) -> None:
    """Against the plain definition, after every piece."""
    matcher = StopMatcher(stops)
    released, seen = "", ""
    for start in range(0, len(text), size):
        for character in text[start : start + size]:
            seen += character
            ended = [stop for stop in stops if seen.endswith(stop)]
            if ended:
                seen = seen.removesuffix(max(ended, key=len))
                break
        else:
            ended = []
        released += matcher.push(text[start : start + size])
        if ended:
            assert matcher.stopped
            assert released + matcher.finish() == seen
            return
        ends = [seen[len(seen) - n :] for n in range(len(seen), 0, -1)]
        held = next((end for end in ends if any(stop.startswith(end) for stop in stops)), "")
        assert released == seen.removesuffix(held)
    assert not matcher.stopped
    assert released + matcher.finish() == text


def test_a_thousand_long_stop_strings_that_nearly_match() -> None:
    """The worst there is: everything begins alike, and nothing is ever complete."""
    stops = ["a" * 999 + chr(0x4E00 + each) for each in range(500)]
    stops += ["a" * each + "b" for each in range(1, 501)]
    matcher = StopMatcher(stops)
    text = ("a" * 700 + "c") * 40
    assert "".join([*(matcher.push(each) for each in text), matcher.finish()]) == text
    assert matcher.push("a" * 1500 + chr(0x4E00)) == "a" * 501
    assert matcher.stopped
