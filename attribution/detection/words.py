"""What a prompt names: its nouns, as phrases a detector can look for. Rules only, no model.

>>> nouns("a motorcycle and a stop sign, by Ann and Bob")
('motorcycle', 'stop sign')
>>> as_prompt(nouns("queen of hearts, playing card, by Nicu Buculei"))
'queen of hearts. playing card.'
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from attribution.types import UserError

MAX_PHRASES = 16
MAX_LETTERS = 200

_ARTICLES = r"(?:an?|the|one|two|three|four|five|some|several|his|her|their|its|my|your)"
_ARTICLE = re.compile(rf"^{_ARTICLES}\s+")
# "by" names the artist, unless a place follows: "by the sea".
_ARTIST = re.compile(r"(?:^|[,\s])\s*by\s+(?!(?:the|a|an)\s).*$", re.IGNORECASE | re.DOTALL)
_JOINTS = (
    r"(?:next to|in front of|on top of|and|with|on|in|under|near|beside|behind|above|below|over|at"
    r"|holding|riding|wearing|carrying|beneath|between|against)"
)
# Before an article such a word begins another object: "a dog with a hat". Without one it may belong
# to a name ("treble staff with notes"); only "and" still parts two objects then.
_BEFORE_ARTICLE = re.compile(rf"\s+{_JOINTS}\s+(?={_ARTICLES}\s)")
_AND = re.compile(r"\s+(?:and|&|or)\s+")
# "white and black swans" is one object: the word before "and" describes what follows.
_DESCRIBES = frozenset(
    {
        *("black", "white", "grey", "gray", "red", "green", "blue", "yellow", "orange", "purple"),
        *("pink", "brown", "golden", "silver", "forward", "left", "right", "up", "down", "big"),
        *("small", "large", "little", "old", "young", "hot", "cold", "round", "square", "long"),
        *("short", "dark", "light"),
    }
)
_SMALL = frozenset(("of", "the", "an", "and", "with", "for", "on", "in", "at", "to", "from"))
_MANNERS = frozenset({"black and white", "white on black", "black on white", "silhouette"})


def nouns(prompt: str) -> tuple[str, ...]:
    """Phrases of a prompt that name things, lower case, without articles, each once.

    The artist (", by …") and manners of drawing ("black and white") are left out. Empty where the
    prompt names nothing.
    """
    text = _ARTIST.sub("", " ".join(prompt.lower().split()))
    found: list[str] = []
    for segment in re.split(r"[,;.!?:()\n]+", text):
        words = segment.strip()
        if words and words not in _MANNERS:
            found += [_bare(part) for part in _objects(words)]
    named = dict.fromkeys(phrase for phrase in found if re.search(r"\w", phrase))
    return tuple(phrase for phrase in named if len(phrase) <= MAX_LETTERS)[:MAX_PHRASES]


def _objects(words: str) -> list[str]:
    """One segment of a prompt at the joints between its objects."""
    return [part for piece in _BEFORE_ARTICLE.split(words) for part in _at_and(piece)]


def _at_and(words: str) -> list[str]:
    parts = _AND.split(words)
    if any(part.split()[-1] in _DESCRIBES for part in parts[:-1] if part.split()):
        return [words]
    return parts


def _bare(phrase: str) -> str:
    """Without the article, and without quotation marks around it."""
    return _ARTICLE.sub("", phrase.strip(" \"'-–")).strip()


def phrases(text: object) -> tuple[str, ...]:
    """What a user wants found: phrases parted by dots, commas, semicolons or lines, lower case.

    UserError for text that names nothing, more than 16 phrases, or an endless one.
    """
    if not isinstance(text, str):
        raise UserError("what to detect has to be text")
    parts = (" ".join(part.split()) for part in re.split(r"[.,;?!\n]+", text.lower()))
    found = tuple(dict.fromkeys(part for part in parts if re.search(r"\w", part)))
    if not found:
        raise UserError("what to detect is empty: name it, as in 'stop sign'")
    if len(found) > MAX_PHRASES:
        raise UserError(f"{len(found)} things to detect; the limit is {MAX_PHRASES}")
    longest = max(found, key=len)
    if len(longest) > MAX_LETTERS:
        raise UserError(f"{longest[:30]!r}… is no name: the limit is {MAX_LETTERS} letters")
    return found


def as_prompt(names: Sequence[str]) -> str:
    """The form GroundingDINO expects: lower case, each phrase ended by a dot."""
    return " ".join(f"{name.lower().strip(' .')}." for name in names)


def stems(phrase: str) -> frozenset[str]:
    """Words of a phrase that say what it is, without a plural's s: what two names may share."""
    said = (word for word in words_of(phrase) if word not in _SMALL and len(word) > 1)
    return frozenset(word.removesuffix("s") for word in said)


def words_of(text: str) -> list[str]:
    """Words of a text in lower case, without the punctuation around them."""
    bare = (word.strip(".,;:!?\"'()[]") for word in text.lower().split())
    return [word for word in bare if word]


def find(phrase: str, prompt: str) -> list[int]:
    """Positions, among the prompt's white-space separated words, of a phrase's words.

    The whole phrase in a row where it stands so, else each of its words that occurs; empty where
    none does.
    """
    wanted = words_of(phrase)
    there = [word.strip(".,;:!?\"'()[]") for word in prompt.lower().split()]
    for start in range(len(there) - len(wanted) + 1):
        if wanted and there[start : start + len(wanted)] == wanted:
            return list(range(start, start + len(wanted)))
    return [place for place, word in enumerate(there) if word in wanted]
