"""Speech: text to phonemes to mouth shapes, with co-articulation.

Words are looked up in a small dictionary of irregular words, the rest is read by a compact rule set. Both cover the
sentences below; they are no general English pronunciation. Phonemes are ARPAbet's, without stress.

Each phoneme pulls each articulator towards its target with a dominance that falls off in time; the mouth follows the
weighted mean (the dominance functions of Cohen and Massaro 1993).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from ufe_synthetic.curves import minimum_jerk
from ufe_synthetic.prompts import intent

#: What is said in the 21 speech segments.
SENTENCES = (
    "My mother baked a plum pie for the big family picnic. We ate most of it by the pond. It was gone by noon.",
    "Please put the blue cup back on the top shelf. Bob will be upset if it breaks. He is very proud of it.",
    "How far is it to the village? My phone has no map, and my feet hurt. Maybe we should ask somebody.",
    "We watched five white sheep move through the fog. They seemed to have no shepherd. Then a dog appeared.",
    "Could you bring me some pepper, and a bowl of warm soup? I am really hungry. Bread would be fine too.",
    "Her brother plays the piano every Monday. He works more than anybody I know. You should hear him.",
    "The judge put on a huge purple robe. Everyone in the room began to chuckle. It was far too big for him.",
    "Maybe we should move the sofa over there. The window gets more sun in the morning. What do you think?",
    "I forgot my umbrella on the bus. By the time I got home, I was soaked. I had to change my shoes and socks.",
    "What a beautiful evening! Shall we walk by the river, and feed the ducks? I saved some bread for them.",
    "Peter bumped his thumb with a hammer. He jumped about and shouted for a minute. Now he laughs about it.",
    "Very few people believe the story. Most of them have never been to the farm. I saw it myself in May.",
    "Open the box, pull out the paper, and push the button. Then wait for the beep. It may take a moment.",
    "She sells fresh fish at the harbour. You have to get up early to buy any. The best is gone by five.",
    "Our new neighbour whistles all day. Yesterday he chose a song from an old film. I quite like his voice.",
    "Three thin brothers threw stones at the tree. Not one of them hit the branch. They gave up before lunch.",
    "I would rather go by boat than fly. The view of the shore is so much better. We have plenty of time.",
    "Would you mind closing the door? The dog keeps running off with my shoes. I bought them for my birthday.",
    "Number four is empty, number five is full. Bring both of them to me tomorrow. Put the bottles in a box.",
    "Oh no, you broke the vase! Never mind, we can glue it with a bit of patience. Pass me the small brush.",
    "Thank you for coming such a long way. It was lovely to meet all of your family. Come back before summer.",
)

_WORDS = """
a AH|about AH B AW T|all AO L|am AE M|any EH N IY|anybody EH N IY B AA D IY|appeared AH P IH R D|ask AE S K
beautiful B Y UW T AH F AH L|been B IH N|before B IH F AO R|began B IH G AE N|believe B IH L IY V|be B IY
birthday B ER TH D EY|both B OW TH|bottles B AA T AH L Z|bought B AO T|bowl B OW L|branch B R AE N CH
bread B R EH D|breaks B R EY K S|brother B R AH DH ER|brothers B R AH DH ER Z|bumped B AH M P T|button B AH T AH N
change CH EY N JH|chuckle CH AH K AH L|closing K L OW Z IH NG|come K AH M|coming K AH M IH NG|could K UH D
day D EY|do D UW|door D AO R|early ER L IY|empty EH M P T IY|evening IY V N IH NG|every EH V R IY
everyone EH V R IY W AH N|family F AE M L IY|fly F L AY|for F AO R|four F AO R|from F R AH M|full F UH L
gone G AO N|harbour HH AA R B ER|have HH AE V|he HH IY|hear HH IH R|his HH IH Z|has HH AE Z|huge HH Y UW JH
is IH Z|judge JH AH JH|jumped JH AH M P T|keeps K IY P S|know N OW|laughs L AE F S|long L AO NG|lovely L AH V L IY
lunch L AH N CH|maybe M EY B IY|me M IY|mind M AY N D|minute M IH N AH T|moment M OW M AH N T|monday M AH N D EY
most M OW S T|mother M AH DH ER|move M UW V|my M AY|myself M AY S EH L F|neighbour N EY B ER|never N EH V ER
no N OW|now N AW|of AH V|off AO F|old OW L D|one W AH N|open OW P AH N|over OW V ER|paper P EY P ER
patience P EY SH AH N S|people P IY P AH L|peter P IY T ER|phone F OW N|piano P IY AE N OW|pie P AY
plenty P L EH N T IY|proud P R AW D|pull P UH L|push P UH SH|put P UH T|quite K W AY T|rather R AE DH ER
really R IH L IY|river R IH V ER|running R AH N IH NG|saved S EY V D|shepherd SH EH P ER D
shoes SH UW Z|should SH UH D|so S OW|sofa S OW F AH|some S AH M|somebody S AH M B AA D IY|soup S UW P
story S T AO R IY|stones S T OW N Z|take T EY K|than DH AE N|thank TH AE NG K|the DH AH|them DH EH M|then DH EH N
there DH EH R|they DH EY|think TH IH NG K|threw TH R UW|through TH R UW|thumb TH AH M|to T UW|tomorrow T AH M AA R OW
too T UW|umbrella AH M B R EH L AH|upset AH P S EH T|very V EH R IY|view V Y UW|village V IH L IH JH|voice V OY S
vase V EY Z|walk W AO K|warm W AO R M|was W AA Z|watched W AA CH T|we W IY|what W AH T|whistles W IH S AH L Z
window W IH N D OW|with W IH DH|works W ER K S|would W UH D|yesterday Y EH S T ER D EY|you Y UW|your Y AO R
shouted SH AW T AH D|how HH AW|summer S AH M ER|small S M AO L|oh OW|go G OW|she SH IY|i AY
by B AY|buy B AY|our AW ER|chose CH OW Z|please P L IY Z
"""
_DICTIONARY = {
    entry.split()[0]: tuple(entry.split()[1:]) for entry in _WORDS.replace("\n", "|").split("|") if entry.strip()
}

#: Spelling to phonemes, tried in order at each letter; `$` stands for the end of the word.
_RULES = tuple(
    (re.compile(pattern), tuple(sounds.split()))
    for pattern, sounds in (
        (r"tion", "SH AH N"), (r"igh", "AY"), (r"tch", "CH"), (r"dge", "JH"), (r"ck", "K"), (r"ch", "CH"),
        (r"sh", "SH"), (r"th", "TH"), (r"ph", "F"), (r"wh", "W"), (r"qu", "K W"), (r"ng", "NG"), (r"wr", "R"),
        (r"kn", "N"), (r"mb$", "M"), (r"ee|ea|ie", "IY"), (r"oo|ew|ue", "UW"), (r"ou|ow$", "AW"), (r"ow", "OW"),
        (r"ai|ay", "EY"), (r"oa", "OW"), (r"oi|oy", "OY"), (r"au|aw", "AO"), (r"(?:e|i|u)r", "ER"), (r"ar", "AA R"),
        (r"or(?:e$)?", "AO R"), (r"le$", "AH L"), (r"a(?=[bcdfgklmnpstvz]e[sd]?$)", "EY"),
        (r"i(?=[bcdfgklmnpstvz]e[sd]?$)", "AY"), (r"o(?=[bcdfgklmnpstvz]e[sd]?$)", "OW"),
        (r"u(?=[bcdfgklmnpstvz]e[sd]?$)", "UW"), (r"(?<=[td])ed$", "AH D"), (r"(?<=[kpsf])ed$", "T"), (r"ed$", "D"),
        (r"e$|(?<=[bcdfgklmnpstvz])e(?=s$)", ""), (r"bb|b", "B"), (r"c(?=[eiy])", "S"), (r"cc|c", "K"), (r"dd|d", "D"),
        (r"ff|f", "F"), (r"gg|g", "G"), (r"h", "HH"), (r"j", "JH"), (r"k", "K"), (r"ll|l", "L"), (r"mm|m", "M"),
        (r"nn|n", "N"), (r"pp|p", "P"), (r"rr|r", "R"), (r"ss|(?<=[ptkf])s$|s(?!$)", "S"), (r"s", "Z"),
        (r"tt|t", "T"), (r"v", "V"), (r"w", "W"), (r"x", "K S"), (r"^y", "Y"), (r"y", "IY"), (r"zz|z", "Z"),
        (r"a", "AE"), (r"e", "EH"), (r"i", "IH"), (r"o", "AA"), (r"u", "AH"),
    )
)  # fmt: skip

VOWELS = frozenset(("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW"))
BILABIALS = frozenset("PBM")
_DIPHTHONGS = {"AY": ("AA", "IY"), "AW": ("AA", "UW"), "OY": ("AO", "IY"), "EY": ("EH", "IY"), "OW": ("AO", "UW")}


@cache
def word_phonemes(word: str) -> tuple[str, ...]:
    """Phonemes of one lower-case word: from the dictionary, else by rule."""
    if word in _DICTIONARY:
        return _DICTIONARY[word]
    sounds: list[str] = []
    at = 0
    while at < len(word):
        match, found = next(((m, s) for rule, s in _RULES if (m := rule.match(word, at))), (None, ()))
        sounds += found
        at = match.end() if match else at + 1
    return tuple(sounds)


@cache
def phonemes(text: str) -> tuple[str, ...]:
    """Phonemes of a text; `,` and `.` stand for the pauses at punctuation marks."""
    sounds: list[str] = []
    for token in re.findall(r"[a-z]+|[,.!?]", text.lower()):
        sounds += word_phonemes(token) if token.isalpha() else ["," if token == "," else "."]
    return tuple(sounds)


def syllables(text: str) -> int:
    """Number of syllables of a text."""
    return sum(sound in VOWELS for sound in phonemes(text))


@dataclass(frozen=True)
class Viseme:
    """A mouth shape: `targets` by action, how strongly jaw, lips and tongue insist on theirs, and how briefly.

    `rate` (1/s) is how fast the dominance falls before and after the sound: rounding starts early, a closure is brief.
    """

    targets: Mapping[str, float]
    jaw: float = 1.0
    lips: float = 0.6
    tongue: float = 0.4
    rate: tuple[float, float] = (20.0, 20.0)


_BILABIAL = Viseme({"jawOpen": 0.05, "mouthPress*": 0.45, "mouthRollLower": 0.12}, 0.8, 2.0, rate=(30.0, 30.0))
_LABIODENTAL = Viseme(
    {"jawOpen": 0.05, "mouthRollLower": 0.55, "mouthUpperUp*": 0.25, "mouthShrugLower": 0.15},
    0.9,
    1.8,
    rate=(26.0, 26.0),
)
_DENTAL = Viseme({"jawOpen": 0.12, "tongueOut": 0.35, "mouthLowerDown*": 0.2}, 0.8, 0.6, 2.0, (24.0, 24.0))
_ALVEOLAR = Viseme({"jawOpen": 0.07, "mouthLowerDown*": 0.15, "mouthUpperUp*": 0.08}, 0.7, 0.25, 0.8)
_VELAR = Viseme({"jawOpen": 0.13, "mouthLowerDown*": 0.08}, 0.4, 0.15)
_SIBILANT = Viseme(
    {"jawOpen": 0.03, "mouthStretch*": 0.25, "mouthLowerDown*": 0.35, "mouthUpperUp*": 0.15, "mouthSmile*": 0.1},
    1.4,
    0.6,
)
_HUSH = Viseme({"jawOpen": 0.05, "mouthFunnel": 0.5, "mouthLowerDown*": 0.2, "mouthPucker": 0.15}, 1.2, 1.2)
_SILENCE = Viseme({}, 0.5, 0.5, 0.5, (9.0, 13.0))

#: Mouth shapes by phoneme; jaw targets are small because the full range of `jawOpen` is a yawn.
VISEMES: dict[str, Viseme] = {
    **dict.fromkeys(("P", "B", "M"), _BILABIAL), **dict.fromkeys(("F", "V"), _LABIODENTAL),
    **dict.fromkeys(("TH", "DH"), _DENTAL), **dict.fromkeys(("T", "D", "N", "L"), _ALVEOLAR),
    **dict.fromkeys(("K", "G", "NG", "HH"), _VELAR), **dict.fromkeys(("S", "Z"), _SIBILANT),
    **dict.fromkeys(("SH", "CH", "JH", "ZH"), _HUSH), **dict.fromkeys((",", "."), _SILENCE),
    "R": Viseme({"jawOpen": 0.1, "mouthFunnel": 0.3, "mouthPucker": 0.15}, 0.5, 0.7),
    "W": Viseme({"jawOpen": 0.06, "mouthPucker": 0.85, "mouthFunnel": 0.25}, 0.8, 1.6, rate=(13.0, 20.0)),
    "Y": Viseme({"jawOpen": 0.08, "mouthSmile*": 0.25, "mouthStretch*": 0.2}, 0.6, 0.5),
    "AA": Viseme({"jawOpen": 0.55, "mouthLowerDown*": 0.25}, 1.3),
    "AE": Viseme({"jawOpen": 0.5, "mouthLowerDown*": 0.3, "mouthStretch*": 0.25, "mouthUpperUp*": 0.15}, 1.3, 0.7),
    "AH": Viseme({"jawOpen": 0.3, "mouthLowerDown*": 0.15}, 0.8, 0.4),
    "AO": Viseme({"jawOpen": 0.44, "mouthFunnel": 0.55, "mouthPucker": 0.1}, 1.2, 1.1, rate=(13.0, 15.0)),
    "EH": Viseme({"jawOpen": 0.36, "mouthLowerDown*": 0.3, "mouthStretch*": 0.2, "mouthSmile*": 0.1}, 1.1),
    "ER": Viseme({"jawOpen": 0.19, "mouthFunnel": 0.35, "mouthPucker": 0.15}, 0.8, 0.8),
    "IH": Viseme({"jawOpen": 0.22, "mouthLowerDown*": 0.25, "mouthSmile*": 0.15, "mouthStretch*": 0.1}, 0.8),
    "IY": Viseme({"jawOpen": 0.12, "mouthSmile*": 0.45, "mouthStretch*": 0.3, "mouthLowerDown*": 0.25}, 1.1, 1.0),
    "UH": Viseme({"jawOpen": 0.2, "mouthPucker": 0.45, "mouthFunnel": 0.3}, 0.8, 0.9, rate=(13.0, 15.0)),
    "UW": Viseme({"jawOpen": 0.12, "mouthPucker": 0.85, "mouthFunnel": 0.35}, 1.0, 1.5, rate=(12.0, 14.0)),
}  # fmt: skip

_ARTICULATORS = (
    "jawOpen", "mouthPress*", "mouthRollLower", "mouthUpperUp*", "mouthShrugLower", "tongueOut", "mouthLowerDown*",
    "mouthStretch*", "mouthSmile*", "mouthFunnel", "mouthPucker",
)  # fmt: skip
_SYMBOLS = tuple(VISEMES)
_TARGETS = np.array([[VISEMES[s].targets.get(a, 0.0) for a in _ARTICULATORS] for s in _SYMBOLS])
_DOMINANCE = np.array([
    [VISEMES[s].jaw if a == "jawOpen" else VISEMES[s].tongue if a == "tongueOut" else VISEMES[s].lips
     for a in _ARTICULATORS] for s in _SYMBOLS
])  # fmt: skip
_RATES = np.array([VISEMES[s].rate for s in _SYMBOLS])
_BASIS = np.stack([intent({a: 1.0}) for a in _ARTICULATORS])
_ROUNDED_TIP_S = 0.02
_SEAL_RAMP_S = 0.09


@dataclass(frozen=True)
class Utterance:
    """Sounds that follow each other without gaps: `symbols` [P] into `VISEMES`, `starts` and `stops` [P] s."""

    symbols: tuple[str, ...]
    starts: np.ndarray
    stops: np.ndarray

    def activations(self, t: np.ndarray) -> np.ndarray:
        """Intended activations [N, 52] at times `t`."""
        rows = np.array([_SYMBOLS.index(symbol) for symbol in self.symbols])
        inset = np.where([s in ",." for s in self.symbols], 0.0, 0.35) * (self.stops - self.starts)
        early = (self.starts + inset - t[:, None]).astype(np.float32)
        late = (t[:, None] - self.stops + inset).astype(np.float32)
        fall = _RATES[rows].astype(np.float32)
        tip = np.float32(_ROUNDED_TIP_S)
        away = np.hypot(np.maximum(np.maximum(early, late), 0), tip) - tip
        pull = np.exp(-away * np.where(early > 0, fall[:, 0], fall[:, 1])).astype(np.float64)
        weight = _DOMINANCE[rows]
        blend: np.ndarray = (pull @ (weight * _TARGETS[rows])) / (pull @ weight)
        return blend @ _BASIS

    def seal(self, t: np.ndarray) -> np.ndarray:
        """How firmly the lips are meant to be shut, [N] in 0..1: 1 in the middle half of each bilabial."""
        shut = [k for k, symbol in enumerate(self.symbols) if symbol in BILABIALS]
        inset = 0.25 * (self.stops - self.starts)[shut]
        rise = minimum_jerk((t[:, None] - self.starts[shut] - inset) / _SEAL_RAMP_S + 1)
        fall = minimum_jerk((self.stops[shut] - inset - t[:, None]) / _SEAL_RAMP_S + 1)
        firm: np.ndarray = (rise * fall).max(1, initial=0.0)
        return firm

    @property
    def closures(self) -> np.ndarray:
        """When bilabial closures are at their firmest, [K] s."""
        middle = (self.starts + self.stops) / 2
        return middle[[k for k, symbol in enumerate(self.symbols) if symbol in BILABIALS]]

    @property
    def vowels(self) -> np.ndarray:
        """When vowels start, [K] s."""
        return self.starts[[k for k, s in enumerate(self.symbols) if s in VOWELS]]


def speak(text: str, seconds: float, syllables_per_second: float, rng: np.random.Generator) -> Utterance:
    """Say a text within `seconds`, at that rate but for pauses; faster where the time would not do.

    A syllable takes longer before a pause than elsewhere.
    """
    sounds = (*phonemes(text.rstrip(" ,.!?")), ".")
    quiet = np.array([sound in ",." for sound in sounds])
    length = np.array([0.0 if q else _nominal_s(s) for s, q in zip(sounds, quiet, strict=True)])
    length *= np.exp(rng.normal(0, 0.12, len(sounds)))
    length[:-1] *= np.where(quiet[1:], 1.35, 1.0)
    pause = quiet * np.where([s == "," for s in sounds], rng.uniform(0.16, 0.3), rng.uniform(0.35, 0.6))
    lead = float(rng.uniform(0.35, 0.6))
    length *= syllables(text) / syllables_per_second / length.sum()
    pause[-1] = 0.0
    room = seconds - lead - 0.45
    total = length + pause
    stops = lead + np.cumsum(total * min(1.0, room / total.sum()))
    starts = np.append(lead, stops[:-1])
    symbols, edges = ["."], [0.0]
    for sound, start, stop in zip(sounds[:-1], starts, stops, strict=False):
        parts = _DIPHTHONGS.get(sound, (sound,))
        symbols += parts
        edges += [start + k * 0.6 * (stop - start) for k in range(len(parts))]
    marks = np.array([*edges, stops[-2], seconds])
    return Utterance((*symbols, "."), marks[:-1], marks[1:])


def _nominal_s(sound: str) -> float:
    """Usual length of a sound before scaling to a person's rate, s."""
    if sound in _DIPHTHONGS:
        return 0.15
    if sound in VOWELS:
        return 0.085 if sound in ("AH", "IH", "UH") else 0.115
    return {"S": 0.09, "SH": 0.1, "CH": 0.1, "F": 0.085, "P": 0.085, "B": 0.075, "M": 0.075}.get(sound, 0.062)
