"""A page shows every character of a message, whatever HTML makes of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastchat.serve.web.rendering import first_shown
from fastchat.shown_text import shown, written


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one<n>two</n>", "one&#000060;n>two&#000060;/n>"),
        ("a < b and <!-- gone -->", "a < b and &#000060;!-- gone -->"),
        ("`Vec<u8>` is Vec<u8>", "`Vec<u8>` is Vec&#000060;u8>"),
        ("```html\n<b>bold</b>\n```\n<b>", "```html\n<b>bold</b>\n```\n&#000060;b>"),
        ("```\n<b> while it streams", "```\n<b> while it streams"),
        ("是$a<b$，\\(x<y\\) and $$p<q$$", "是$\u2060a<b\u2060$，\\(x<y\\) and $$p<q$$"),
        ("$5 or $10, US$5/HK$6, $HOME/$USER", "$5 or $10, US$5/HK$6, $HOME/$USER"),
        ("&lt; stays", "&lt; stays"),
    ],
)
def test_tags_are_text_but_code_and_formulas_stay(text: str, expected: str) -> None:
    assert shown(text) == expected


@given(count=st.integers(0, 500), earlier=st.integers(0, 10).map(lambda times: 40 * times))
def test_a_long_conversation_is_shown_from_near_its_end(count: int, earlier: int) -> None:
    first = first_shown(count, earlier)
    assert 0 <= first <= count
    assert first % 2 == 0  # a question comes first
    assert first == 0 or 20 < count - first - earlier <= 40
    if count % 20 != 1:  # a turn rarely moves it
        assert first_shown(max(0, count - 1), earlier) == first


@given(st.text(alphabet="ab1<>/`$\n !&lt;", max_size=60))
def test_what_is_copied_is_what_was_written(text: str) -> None:
    assert written(shown(text)) == text
