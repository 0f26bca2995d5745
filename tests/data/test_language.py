"""The language of plain texts, code aside."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastchat.data.language import LANGUAGES, language_of

TEXTS = {
    "zh": "请用Python写一个快速排序，并解释它的时间复杂度。",
    "ja": "日本の首都は東京です。とても大きな都市です。",
    "ko": "대한민국의 수도는 서울입니다.",
    "th": "กรุงเทพเป็นเมืองหลวงของประเทศไทย",
    "ru": "Москва является столицей России.",
    "uk": "Київ є столицею України.",
    "ar": "القاهرة هي عاصمة مصر.",
    "fa": "پایتخت ایران تهران است و گرم است.",
    "he": "ירושלים היא עיר הבירה.",
    "el": "Η Αθήνα είναι η πρωτεύουσα.",
    "hi": "दिल्ली भारत की राजधानी है।",
    "vi": "Hà Nội là thủ đô của nước Việt Nam, một thành phố lớn.",
    "en": "What is the capital of France, and how big is it?",
    "de": "Die Hauptstadt von Frankreich ist Paris, und sie ist sehr groß.",
    "fr": "La capitale de la France est Paris, et elle est très grande pour les gens.",
    "es": "La capital de España es Madrid, y es muy grande para los que viven allí.",
    "pt": "A capital do Brasil não é o Rio, e isso é uma coisa que você pode ver.",
    "it": "La capitale dell'Italia è Roma, che è una città molto grande e non piccola.",
    "un": "1 + 1 = 2",
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_text_of_each_language(language: str) -> None:
    assert language_of(TEXTS[language]) == language


def test_code_and_addresses_do_not_count() -> None:
    code = "```python\n" + "for item in the_list: print(item)\n" * 20 + "```"
    assert language_of(f"这段代码是什么意思？\n{code}\nhttps://example.org/the/of/and") == "zh"


@given(st.text())
def test_every_text_has_a_known_answer(text: str) -> None:
    assert language_of(text) in LANGUAGES
