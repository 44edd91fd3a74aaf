"""Sentences that a rule writes, and their labels: eight classification tasks, some of which take more than one word.

A sentence says who does what to whom, in one of three tenses, active or passive, with adjectives before both nouns:
'today the kind nurses are not being chased by my angry dog'. Verbs prefer one kind of agent, and one of those to whom
it is done, and a sentence is in one mood, so that there is something to learn from text alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

NOUNS = {
    "animal": ["dog", "cat", "horse", "bird", "snake", "mouse"],
    "person": ["girl", "boy", "king", "nurse", "farmer", "child"],
    "machine": ["robot", "train", "crane", "clock", "pump", "radio"],
    "plant": ["tree", "rose", "fern", "vine", "moss", "palm"],
}
VERBS = {"hunt": ["chas", "bit"], "speech": ["prais", "advis"], "work": ["mov", "rais"], "growth": ["shad", "embrac"]}
"""Stems of the verbs that each kind of noun prefers, in the order of ``NOUNS``."""
ADJECTIVES = {
    "bad": ["angry", "ugly", "weak", "broken", "dirty"],
    "plain": ["red", "tall", "old", "round", "quiet"],
    "good": ["kind", "lovely", "strong", "clever", "clean"],
}
STARTS = ["today", "often", "here", "perhaps"]
DETERMINERS = ["the", "my", "our", "your"]
BE = {"past": ("was", "were"), "present": ("is", "are"), "future": ("is", "are")}
PREFERS = 0.85  # share of verbs that go with their agent, and of those to whom it is done that go with the verb
IN_MOOD = 0.8  # share of adjectives that are of the sentence's mood
PADDING, MASK = 0, 1  # numbers of the two words that are none
LENGTH = 18  # of the longest sentence, in words

TASKS: dict[str, tuple[str, ...]] = {
    "subject": tuple(NOUNS),
    "agent": tuple(NOUNS),
    "number": ("one", "many"),
    "tense": tuple(BE),
    "sentiment": tuple(ADJECTIVES),
    "voice": ("active", "passive"),
    "adjectives": ("none", "one", "two", "three or four"),
    "action": tuple(VERBS),
}
"""{task: its classes}. ``agent`` is the kind of who acts, in a passive the second noun; ``number`` is the subject's."""

_WORDS = [
    *(f"{noun}{ending}" for nouns in NOUNS.values() for noun in nouns for ending in ("", "s")),
    *(f"{stem}{ending}" for stems in VERBS.values() for stem in stems for ending in ("e", "ed", "ing")),
    *(word for words in ADJECTIVES.values() for word in words),
    *STARTS,
    *DETERMINERS,
    *["was", "were", "is", "are", "not", "to", "be", "being", "by"],
]
VOCABULARY = {word: number for number, word in enumerate(_WORDS, start=MASK + 1)}
"""{word: number}."""


class Text(NamedTuple):
    """Sentences as numbers.

    Args:
        words: int64 (N, ``LENGTH``) of ``VOCABULARY``, ``PADDING`` behind the last word.
        labels: {task: class numbers int64 (N,)}.
    """

    words: Tensor
    labels: dict[str, Tensor]


def sentences(count: int, seed: int) -> Text:
    """Sentences at random, all different draws of one stream.

    Args:
        count: how many.
        seed: of the stream; other seeds give other sentences.
    """
    draw = np.random.default_rng(seed)
    words = torch.full((count, LENGTH), PADDING)
    labels = {task: torch.empty(count, dtype=torch.int64) for task in TASKS}
    for row in range(count):
        text, meant = _sentence(draw)
        words[row, : len(text)] = torch.tensor([VOCABULARY[word] for word in text])
        for task, label in meant.items():
            labels[task][row] = TASKS[task].index(label)
    return Text(words, labels)


def _sentence(draw: np.random.Generator) -> tuple[list[str], dict[str, str]]:
    """Words of a sentence, and the class of every task."""
    tense, passive, negated = _one(draw, list(BE)), bool(draw.integers(2)), bool(draw.integers(2))
    agent, action, other = _event(draw)
    kinds = [other, agent] if passive else [agent, other]
    many = [bool(draw.integers(2)) for _ in range(2)]
    mood = _one(draw, list(ADJECTIVES))
    described = [[_adjective(draw, mood) for _ in range(draw.integers(3))] for _ in range(2)]
    phrases = [_phrase(draw, *one) for one in zip(kinds, many, described, strict=True)]
    verb = [
        BE[tense][many[0]],
        *(["not"] if negated else []),
        *_verb(_one(draw, VERBS[action]), tense, passive),
    ]
    start = [_one(draw, STARTS)] if draw.integers(2) else []
    adjectives = [kind for kinds_of in described for kind in kinds_of]
    balance = adjectives.count("good") - adjectives.count("bad")
    meant = {
        "subject": kinds[0],
        "agent": agent,
        "number": "many" if many[0] else "one",
        "tense": tense,
        "sentiment": "good" if balance > 0 else "bad" if balance < 0 else "plain",
        "voice": "passive" if passive else "active",
        "adjectives": TASKS["adjectives"][min(len(adjectives), 3)],
        "action": action,
    }
    return [*start, *phrases[0], *verb, *phrases[1]], meant


def _event(draw: np.random.Generator) -> tuple[str, str, str]:
    """Kinds of who acts, of the verb, and of whom it is done to: where preferred, the kind behind that of the agent."""
    nouns, verbs = list(NOUNS), list(VERBS)
    agent = draw.integers(len(nouns))
    action = agent if draw.random() < PREFERS else draw.integers(len(verbs))
    other = (action + 1) % len(nouns) if draw.random() < PREFERS else draw.integers(len(nouns))
    return nouns[agent], verbs[action], nouns[other]


def _adjective(draw: np.random.Generator, mood: str) -> str:
    """Kind of an adjective in a sentence of some mood."""
    return mood if draw.random() < IN_MOOD else _one(draw, list(ADJECTIVES))


def _phrase(draw: np.random.Generator, kind: str, many: bool, described: list[str]) -> list[str]:
    adjectives = [_one(draw, ADJECTIVES[one]) for one in described]
    return [_one(draw, DETERMINERS), *adjectives, _one(draw, NOUNS[kind]) + ("s" if many else "")]


def _verb(stem: str, tense: str, passive: bool) -> list[str]:
    """The verb behind 'is' or 'was': 'is chasing', 'is to chase', 'is being chased by', 'is to be chased by'."""
    if passive:
        return [*{"past": [], "present": ["being"], "future": ["to", "be"]}[tense], f"{stem}ed", "by"]
    return ["to", f"{stem}e"] if tense == "future" else [f"{stem}ing"]


def _one(draw: np.random.Generator, choices: list[str]) -> str:
    return choices[draw.integers(len(choices))]
