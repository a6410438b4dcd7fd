"""One slow, obvious implementation of docs/, to hold the fast ones against.

The sampler: Python integers only, one example at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

# --- Random draws ---

WORD = 1 << 32
SHUFFLE, PAIR, MASK = 0, 1, 2
# P(a span has at most n words), for n from 1 to 10, as thresholds of a word.
AT_MOST = [round((1 - Fraction(4, 5) ** n) / (1 - Fraction(4, 5) ** 10) * WORD) for n in range(1, 11)]


def philox4x32(counter: Sequence[int], key: Sequence[int], rounds: int = 10) -> tuple[int, int, int, int]:
    """Philox4x32 of Salmon et al. (2011)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        product0, product1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (
            (product1 // WORD) ^ c1 ^ k0,
            product1 % WORD,
            (product0 // WORD) ^ c3 ^ k1,
            product0 % WORD,
        )
        k0, k1 = (k0 + 0x9E3779B9) % WORD, (k1 + 0xBB67AE85) % WORD
    return c0, c1, c2, c3


def draw(seed: int, stream: int, place: int, index: int, slot: int) -> tuple[int, int, int, int]:
    return philox4x32((index % WORD, index // WORD, slot, stream + 256 * place), (seed % WORD, seed // WORD))


def bounded64(low: int, high: int, n: int) -> int:
    """A number in [0, n) from two words."""
    return (low + WORD * high) * n // WORD**2


# --- The sampler ---


class Example(NamedTuple):
    """One example, before and after masking."""

    original: list[int]
    input_ids: list[int]
    token_type_ids: list[int]
    masked_positions: list[int]
    labels: list[int]
    not_next: int


def permute(seed: int, epoch: int, i: int, count: int) -> int:
    bits = max(2, (count - 1).bit_length())
    while True:
        left_bits, right_bits = bits // 2, bits - bits // 2
        left, right = i >> right_bits, i % 2**right_bits
        for place in range(8):
            word = draw(seed, SHUFFLE, place, epoch, right)[0]
            left, right = right, left ^ word % 2**left_bits
            left_bits, right_bits = right_bits, left_bits
        i = (left << right_bits) + right
        if i < count:
            return i


def divide(documents: list[list[list[int]]], config: Any) -> list[list[list[int]]]:
    """The documents with the sentences divided whose last token no example would hold."""
    if config.too_long == "drop":
        return documents
    pairs = config.objective != "none"
    budget = config.max_len - (3 if pairs else 2)
    most = budget // 2 if pairs else budget

    def kept(document: int, s: int) -> int:
        """How many tokens are left of the sentence, as the second one, in the pair that leaves the most."""
        if not pairs:
            return budget
        text = documents[document]
        partners = [text[i] for i in (s - 1, s + 1) if 0 <= i < len(text)]
        if config.objective == "nsp":
            for other, sentences in enumerate(documents):
                if other != document or config.negatives == "any":
                    partners += sentences[:-1]
        best = 0
        for partner in {len(partner) for partner in partners}:
            a, b = partner, len(text[s])
            while a + b > budget:
                a, b = (a - 1, b) if a > b else (a, b - 1)
            best = max(best, b)
        return best

    found = []
    for document, text in enumerate(documents):
        found.append([])
        for s, sentence in enumerate(text):
            count = -(-len(sentence) // most) if kept(document, s) < len(sentence) else 1
            cuts = [len(sentence) * i // count for i in range(count + 1)]
            found[-1] += [sentence[first:last] for first, last in itertools.pairwise(cuts)]
    return found


class Reference:
    """Examples of `documents`, lists of sentences, which are lists of token ids.

    special: the special tokens' ids, with attributes cls, sep, mask; continuation: ids that go on with a word.
    """

    def __init__(
        self,
        documents: list[list[list[int]]],
        config: Any,
        vocab_size: int,
        special: Any,
        continuation: set[int],
    ) -> None:
        self.documents, self.config, self.vocab_size = divide(documents, config), config, vocab_size
        documents = self.documents
        self.special, self.continuation = special, continuation
        self.fill = config.segments == "fill" or (config.segments == "auto" and config.objective == "none")
        self.budget = config.max_len - (2 if config.objective == "none" else 3)
        # An anchor: a document's number and a sentence's number in it.
        last = 0 if config.objective == "none" else 1
        self.anchors = [(d, s) for d, text in enumerate(documents) for s in range(len(text) - last)]
        if config.too_long == "drop":
            self.anchors = [
                (d, s) for d, s in self.anchors if len(documents[d][s]) + len(documents[d][s + 1]) <= self.budget
            ]

    def negative(self, document: int, words: tuple[int, ...]) -> tuple[int, int]:
        """The document and the sentence of a wrong next one."""
        if self.config.negatives == "any":
            choices = list(range(len(self.documents)))
        else:
            choices = [d for d in range(len(self.documents)) if d != document]
        chosen = choices[bounded64(words[0], words[1], len(choices))]
        return chosen, bounded64(words[2], words[3], len(self.documents[chosen]))

    def segments(self, g: int) -> tuple[list[int], list[int], int]:
        config, documents = self.config, self.documents
        epoch, i = divmod(g, len(self.anchors))
        d, s = self.anchors[permute(config.seed, epoch, i, len(self.anchors))]
        coin, short, length, length_of_a = draw(config.seed, PAIR, 0, g, 1)
        not_next = int(config.objective != "none" and coin >= 2**31)

        other, begin = d, s + 1
        if not_next and config.objective == "nsp":
            other, begin = self.negative(d, draw(config.seed, PAIR, 0, g, 0))
            if config.too_long == "drop":
                for t in range(32):
                    if len(documents[d][s]) + len(documents[other][begin]) <= self.budget:
                        break
                    other, begin = self.negative(d, draw(config.seed, PAIR, 0, g, 2 + t))

        a = list(documents[d][s])
        b = [] if config.objective == "none" else list(documents[other][begin])
        if self.fill:
            target = self.budget
            if config.objective == "none":
                following = [sentence for document in documents[d + 1 :] for sentence in document]
                for sentence in documents[d][s + 1 :] + following:
                    if len(a) + len(sentence) > target:
                        break
                    a = a + sentence
            else:
                if short < round(config.short_seq_prob * WORD):
                    target = 2 + length * (config.max_len - 4) // WORD
                most = 1 + length_of_a * (target - 1) // WORD
                for sentence in reversed(documents[d][:s]):
                    if len(sentence) + len(a) > most:
                        break
                    a = sentence + a
                for sentence in documents[other][begin + 1 :]:
                    if len(a) + len(b) + len(sentence) > target:
                        break
                    b = b + sentence
        if not_next and config.objective == "sop":
            a, b = b, a
        return *self.truncate(a, b), not_next

    def truncate(self, a: list[int], b: list[int]) -> tuple[list[int], list[int]]:
        """BERT's way, a token at a time: the longer loses its last one. Among equals it is B's turn."""
        a, b = list(a), list(b)
        while len(a) + len(b) > self.budget:
            (a if len(a) > len(b) else b).pop()
        return a, b

    def count(self, length: int, candidates: int) -> int:
        """Python's round is half to even, and here exact."""
        millionths = round(self.config.mlm_probability * 10**6)
        whole, rest = divmod(length * millionths, 10**6)
        if rest * 2 > 10**6 or (rest * 2 == 10**6 and whole % 2 == 1):
            whole += 1
        return min(candidates, max(1, whole))

    def span_words(self, g: int, position: int) -> int:
        """How many words a span wants: the least n whose P(at most n) exceeds the draw; geometric, at most 10."""
        drawn = draw(self.config.seed, MASK, 1, g, position)[0]
        return next(n for n, threshold in enumerate(AT_MOST, 1) if drawn < threshold)

    def example(self, g: int) -> Example:
        config, special = self.config, self.special
        a, b, not_next = self.segments(g)
        tokens, types = [special.cls, *a, special.sep], [0] * (len(a) + 2)
        if b:
            tokens, types = [*tokens, *b, special.sep], types + [1] * (len(b) + 1)
        words = [draw(config.seed, MASK, 0, g, p) for p in range(len(tokens))]
        starts = [1, len(a) + 2]
        candidates = [p for p in range(1, len(tokens) - 1) if p != len(a) + 1]
        k = self.count(len(tokens), len(candidates))

        # The positions of each segment's words.
        segments: list[list[list[int]]] = []
        for p in candidates:
            if p in starts:
                segments.append([])
            if config.masking != "token" and tokens[p] in self.continuation and p not in starts:
                segments[-1][-1].append(p)
            else:
                segments[-1].append([p])
        groups = [(segment, i) for segment in segments for i in range(len(segment))]
        # Predicted positions, each with the one whose action decides what replaces it.
        decider: dict[int, int] = {}
        for segment, i in sorted(groups, key=lambda group: (words[group[0][group[1]][0]][0], group[0][group[1]][0])):
            start = segment[i][0]
            wanted = self.span_words(g, start) if config.masking == "span" else 1
            for word in segment[i : i + wanted]:
                if word[0] in decider or len(decider) + len(word) > k:
                    break
                decider.update({p: start if config.masking == "span" else p for p in word})
        chosen = sorted(decider)

        masked = list(tokens)
        for p in chosen:
            _, _, low, high = words[p]
            action = words[decider[p]][1]
            if action < round(config.mask_share * WORD):
                masked[p] = special.mask
            elif action < round((config.mask_share + config.random_share) * WORD):
                plain = [t for t in range(self.vocab_size) if t not in set(special)]
                masked[p] = plain[bounded64(low, high, len(plain))]
        return Example(tokens, masked, types, chosen, [tokens[p] for p in chosen], not_next)
