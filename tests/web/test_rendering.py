"""A page shows every character of a message, whatever HTML makes of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastchat.serve.web.rendering import shown, typed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one<n>two</n>", "one&lt;n>two&lt;/n>"),
        ("a < b and <!-- gone -->", "a < b and &lt;!-- gone -->"),
        ("`Vec<u8>` is Vec<u8>", "`Vec<u8>` is Vec&lt;u8>"),
        ("```html\n<b>bold</b>\n```\n<b>", "```html\n<b>bold</b>\n```\n&lt;b>"),
        ("```\n<b> while it streams", "```\n<b> while it streams"),
        ("$a<b$ and \\(x<y\\) and $$p<q$$", "$a<b$ and \\(x<y\\) and $$p<q$$"),
    ],
)
def test_tags_are_text_but_code_and_formulas_stay(text: str, expected: str) -> None:
    assert shown(text) == expected


@given(st.text(alphabet="ab<>/`$\n !&", max_size=60))
def test_what_is_edited_is_what_was_typed(text: str) -> None:
    assert typed(shown(text)) == text
