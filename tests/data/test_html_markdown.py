"""Saved pages become Markdown; code is kept to the letter, and text is not taken for HTML."""

from __future__ import annotations

import html

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastchat.data.html_markdown import html_to_markdown, is_html

CODE_BLOCK = (
    '<pre><div class="bg-black"><div><span>python</span><button>Copy code</button></div>'
    '<div><code class="hljs language-python">{}</code></div></div></pre>'
)


@pytest.mark.parametrize(
    ("source", "markdown"),
    [
        ("<p>a\n b</p><p>c</p>", "a b\n\nc"),
        ("<h2>A <b>b</b></h2><p>c</p>", "## A **b**\n\nc"),
        ("<p>a<br>b<br/>c</p>", "a\nb\nc"),
        ("<p><strong>a </strong>b <em>c</em> <del>d</del></p>", "**a** b *c* ~~d~~"),
        ("<p>x <code>a  b</code> <code>`</code></p>", "x `a b` `` ` ``"),
        ("<p>1 &lt; 2 &amp; a < b</p>", "1 < 2 & a < b"),
        ('<p><a href="http://x.y">here</a> <a href="u">u</a></p>', "[here](http://x.y) u"),
        ('<p><img alt="cat" src="c.png"></p>', "![cat](c.png)"),
        ("<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul>", "- a\n- b\n  - c"),
        ("<ol start=9><li><p>a</p></li><li>b</ol>", "9. a\n10. b"),
        ("<ol><li><p>a</p><p>b</p></li></ol>", "1. a\n\n   b"),
        ("<ul><li>a</li><ul><li>b</li></ul></ul>", "- a\n  - b"),
        ("<blockquote><p>a</p><p>b</p></blockquote>", "> a\n>\n> b"),
        ("<p>a<hr>b</p>", "a\n\n---\n\nb"),
        ("<p>a<p>b", "a\n\nb"),
        ("<div>a<span>b</span><div>c</div>d</div>", "ab\n\nc\n\nd"),
        ('<div class="x whitespace-pre-wrap">a\n  b</div>', "a\n  b"),
        ("<p>a</p><script>b()</script><style>c</style>", "a"),
        (
            "<table><tr><th>A</th><th>B|</th></tr><tbody><tr><td>1</td></tr></tbody></table>",
            "| A | B\\| |\n| --- | --- |\n| 1 |  |",
        ),
        ("<pre><code>```\nx\n```</code></pre>", "````\n```\nx\n```\n````"),
        ("<table></table>", ""),
    ],
)
def test_every_form(source: str, markdown: str) -> None:
    assert html_to_markdown(source) == markdown


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t `<&")))
def test_code_is_kept_to_the_letter(code: str) -> None:
    code = f"x{code}x"
    markdown = html_to_markdown(CODE_BLOCK.format(html.escape(code)))
    fence, rest = markdown.split("python\n", 1)
    assert set(fence) == {"`"}
    assert rest == f"{code}\n{fence}"


@given(st.text(st.sampled_from("<>/ab \"'=&;#p!-")))
def test_no_text_breaks_the_reader(text: str) -> None:
    html_to_markdown(text)


def test_no_depth_breaks_the_reader() -> None:
    for tag in ("div", "b", "ul", "blockquote"):
        assert "deep" in html_to_markdown(f"<{tag}>" * 5_000 + "deep")


@pytest.mark.parametrize(
    ("text", "answer", "question"),
    [
        ('<div class="markdown prose">a</div>', True, True),
        ('\n<div id="x" class="a whitespace-pre-wrap"><p>a</p></div>\n', True, True),
        ("<p>a</p>", True, False),
        ("<ol><li>a</li></ol>", True, False),
        ("<div><p>a</p></div>", False, False),
        ("a < b and b > c", False, False),
        ("<p> is a tag", False, False),
        ("What does </p>", False, False),
        ("```html\n<p>a</p>\n```", False, False),
        ("<html><body><p>a</p></body></html>", False, False),
        ("# Title\n<br>\n- a", False, False),
        ("", False, False),
    ],
)
def test_what_counts_as_html(text: str, answer: bool, question: bool) -> None:
    assert is_html(text) is answer
    assert is_html(text, answer=False) is question
