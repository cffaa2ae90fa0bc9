import numpy as np
import pytest

from ufe_core.head import ACTIONS
from ufe_synthetic.visemes import BILABIALS, SENTENCES, VISEMES, VOWELS, phonemes, speak, syllables, word_phonemes


def say(text, seconds=3.0, rate=4.5, seed=0):
    return speak(text, seconds, rate, np.random.default_rng(seed))


def peak(utterance, action, seconds=3.0):
    return utterance.activations(np.arange(0, seconds, 1 / 72))[:, ACTIONS.index(action)].max()


class TestText:
    @pytest.mark.parametrize(
        ("word", "sounds"),
        [
            ("mother", "M AH DH ER"), ("through", "TH R UW"), ("picnic", "P IH K N IH K"), ("shelf", "SH EH L F"),
            ("baked", "B EY K T"), ("home", "HH OW M"), ("feet", "F IY T"), ("box", "B AA K S"), ("rope", "R OW P"),
            ("catch", "K AE CH"), ("night", "N AY T"),
        ],
    )  # fmt: skip
    def test_words_are_read(self, word, sounds):
        assert word_phonemes(word) == tuple(sounds.split())

    def test_every_sound_of_the_script_has_a_mouth_shape(self):
        spoken = {sound for text in SENTENCES for symbol in say(text, 9.0).symbols for sound in (symbol,)}
        assert spoken <= set(VISEMES)
        assert spoken >= {"P", "B", "M", "F", "V", "TH", "W", "UW", "AA", "IY", "SH", "R"}

    def test_marks_are_pauses(self):
        assert phonemes("Oh, no!") == ("OW", ",", "N", "OW", ".")

    def test_syllables_are_vowels(self):
        assert syllables("My mother baked a plum pie.") == 7


class TestUtterance:
    def test_sounds_tile_the_time(self):
        utterance = say(SENTENCES[0], 9.0)
        assert utterance.starts[0] == 0 and utterance.stops[-1] == 9.0
        np.testing.assert_array_equal(utterance.starts[1:], utterance.stops[:-1])
        assert (utterance.stops > utterance.starts).all()

    @pytest.mark.parametrize("rate", [3.5, 5.0])
    def test_syllables_come_at_the_rate_asked_for(self, rate):
        text = "Maybe we should move the sofa over there."
        utterance = say(text, 6.0, rate)
        spoken = sum(b - a for s, a, b in zip(utterance.symbols, utterance.starts, utterance.stops, strict=True)
                     if s not in ",.")  # fmt: skip
        assert syllables(text) / spoken == pytest.approx(rate, rel=1e-6)

    def test_a_long_text_is_said_faster_rather_than_cut(self):
        utterance = say(SENTENCES[0], 5.0)
        sounds = [s for s in utterance.symbols if s not in ",."]
        assert sum(s in BILABIALS for s in sounds) == sum(s in BILABIALS for s in phonemes(SENTENCES[0]))
        assert utterance.starts[-1] <= 5.0 - 0.44

    def test_vowels_look_as_they_sound(self):
        assert peak(say("Tar."), "jawOpen") > 2 * peak(say("Tea."), "jawOpen")
        assert peak(say("Two."), "mouthPucker") > 0.5 > 0.1 > peak(say("Tea."), "mouthPucker")
        assert peak(say("Tea."), "mouthSmileLeft") > 0.2 > 0.05 > peak(say("Two."), "mouthSmileLeft")

    def test_labiodentals_tuck_the_lower_lip_and_dentals_show_the_tongue(self):
        assert peak(say("Fee."), "mouthRollLower") > 0.3 > 0.1 > peak(say("Tea."), "mouthRollLower")
        assert peak(say("Thin."), "tongueOut") > 0.15 > 0.05 > peak(say("Fin."), "tongueOut")

    def test_rounding_comes_early(self):
        """Co-articulation: the same `t` is rounded before `oo` and not before `ee`."""
        pucker = []
        for text in ("Two.", "Tea."):
            utterance = say(text)
            middle = (utterance.starts[1] + utterance.stops[1]) / 2
            assert utterance.symbols[1] == "T"
            pucker.append(utterance.activations(np.array([middle]))[0, ACTIONS.index("mouthPucker")])
        assert pucker[0] > 0.15 > 0.02 > pucker[1]

    def test_bilabials_alone_seal_the_lips(self):
        utterance = say(SENTENCES[0], 9.0)
        assert len(utterance.closures) == sum(s in BILABIALS for s in phonemes(SENTENCES[0]))
        np.testing.assert_allclose(utterance.seal(utterance.closures), 1)
        free = [
            k for k, symbol in enumerate(utterance.symbols)
            if symbol in VOWELS and not {utterance.symbols[k - 1], utterance.symbols[k + 1]} & BILABIALS
        ]  # fmt: skip
        middle = (utterance.starts + utterance.stops)[free] / 2
        assert len(free) > 5 and utterance.seal(middle).max() < 0.3
        assert say("Six tigers.").seal(np.arange(0, 3, 0.01)).max() == 0
