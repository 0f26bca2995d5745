"""Which language a text is in, told by its characters and most frequent words; pure.

Scripts that one language mostly uses give that language away. What is written in Latin
letters is put to a vote of short, frequent words. That is enough to sort a data set; it is
no judgement on a single short text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

UNKNOWN = "un"
"""What has too few letters, or Latin letters without a word that is known."""

# Ranges of characters, and how many Latin letters one of them is worth: a Chinese character
# says about as much as half an English word.
_SCRIPTS: Mapping[str, tuple[re.Pattern[str], int]] = {
    name: (re.compile(f"[{characters}]"), worth)
    for name, characters, worth in (
        ("han", "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff", 3),
        ("kana", "\u3040-\u30ff\uff66-\uff9d", 3),
        ("ko", "\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3", 3),
        ("th", "\u0e00-\u0e7f", 1),
        ("cyrillic", "\u0400-\u04ff", 1),
        ("arabic", "\u0600-\u06ff\u0750-\u077f", 1),
        ("he", "\u0590-\u05ff", 1),
        ("el", "\u0370-\u03ff", 1),
        ("hi", "\u0900-\u097f", 1),
        ("latin", "A-Za-z\u00c0-\u024f\u1e00-\u1eff", 1),
    )
}
_UKRAINIAN = re.compile("[іїєґІЇЄҐ]")
_PERSIAN = re.compile("[پچژگ]")
_VIETNAMESE = re.compile("[ăđơưĂĐƠƯ\u1ea0-\u1ef9]")
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+", re.DOTALL)
_WORD = re.compile(r"[a-z\u00df-\u024f]+")

_FREQUENT_WORDS = {
    "en": "the of and to is that it for you with this are be on as have not what can how i my "
    "your an we will which do if please",
    "de": "der die das und ist nicht ein eine ich zu mit den von "  # codespell:ignore ist
    "für auf sie wie es im dem auch "  # codespell:ignore sie
    "sind wir kann werden oder was bitte",  # codespell:ignore oder
    "fr": "le la les et est une des du que qui dans pour pas vous je sur avec ce il sont plus "
    "nous au ou par comment votre",
    "es": "el los las y es una que en del por con para no se lo como más su al cómo qué pero "
    "puede muy está son",
    "pt": "o os as e é um uma que não em do da para com se por mais dos como você são ao mas na "
    "no isso pode",
    "it": "il lo gli e è un una che non di per con del della sono si come più questo nel anche "
    "ma ho le alla può",
}
_FREQUENT = {language: frozenset(words.split()) for language, words in _FREQUENT_WORDS.items()}

LANGUAGES = (
    *("zh", "ja", "ko", "th", "ru", "uk", "ar", "fa", "he", "el", "hi", "vi"),
    *_FREQUENT_WORDS,
    UNKNOWN,
)
"""Everything that `language_of` says."""


def language_of(text: str) -> str:
    """The code of the language that most of a text is in; code and addresses do not count.

    The script with most characters decides: with kana beside Chinese characters it is `ja`,
    without them `zh`; Cyrillic is `ru`, or `uk` with letters that Russian lacks; Arabic is
    `ar`, or `fa` with letters that Arabic lacks. Latin text is `vi` with Vietnamese letters,
    or the language of which it holds the most frequent words.
    """
    text = _CODE.sub(" ", text)
    weights = {
        name: len(pattern.findall(text)) * worth for name, (pattern, worth) in _SCRIPTS.items()
    }
    kana = weights.pop("kana")
    weights["han"] += kana
    script = max(weights, key=weights.__getitem__)
    if not weights[script]:
        return UNKNOWN
    if script == "han":
        return "ja" if kana * 10 >= weights["han"] else "zh"
    if script == "cyrillic":
        return "uk" if _UKRAINIAN.search(text) else "ru"
    if script == "arabic":
        return "fa" if _PERSIAN.search(text) else "ar"
    if script == "latin":
        return _latin(text, weights[script])
    return script


def _latin(text: str, letters: int) -> str:
    if len(_VIETNAMESE.findall(text)) * 20 > letters:
        return "vi"
    votes = dict.fromkeys(_FREQUENT, 0)
    for word in _WORD.findall(text.lower()):
        for language, words in _FREQUENT.items():
            votes[language] += word in words
    winner = max(votes, key=votes.__getitem__)
    return winner if votes[winner] else UNKNOWN
