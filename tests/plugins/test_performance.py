from collections import Counter
from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest

from ufe_core.errors import DataError
from ufe_core.head import ACTIONS, load_head
from ufe_core.recipe import DEFAULT_ANCHORS
from ufe_synthetic.gaze import FARTHEST_MM, HALF_EYE_DISTANCE_MM, NEAREST_MM, Blinks
from ufe_synthetic.people import movement_of
from ufe_synthetic.performance import (
    ANCHOR_PROMPTS,
    FASTEST_GAZE,
    FRAMES_PER_SECOND,
    LARGEST_LID_STEP,
    LARGEST_SLIP,
    LARGEST_SLIP_STEP,
    LARGEST_STEP,
    PROMPTS,
    SCRIPT,
    Performance,
)
from ufe_synthetic.prompts import intent

PEOPLE = (0, 3, 7, 154, 253)
COUNT = SCRIPT[-1].stop
LIDS = np.array([name.startswith("eye") for name in ACTIONS])
BY_NAME = {segment.name: segment for segment in SCRIPT}


def performance(subject, session=0):
    return Performance(subject, movement_of(subject), session)


def column(motion, name):
    return motion.expression[:, ACTIONS.index(name)]


def rows(kind):
    return np.concatenate([np.arange(s.start, s.stop) for s in SCRIPT if s.kind == kind])


@pytest.fixture(scope="module")
def sessions():
    """Whole sessions of several people."""
    out = []
    for subject in PEOPLE:
        one = performance(subject, subject % 2)
        out.append((one, one.motion(range(COUNT))))
    return out


def turning(gaze):
    """Angle in degrees between successive lines of sight, [N - 1, 2 eyes]."""
    eyes = gaze.reshape(-1, 2, 3).astype(float)
    return np.degrees(2 * np.arcsin(np.clip(np.linalg.norm(np.diff(eyes, axis=0), axis=-1) / 2, 0, 1)))


class TestScript:
    def test_it_is_the_papers(self):
        assert Counter(s.kind for s in SCRIPT) == {"expression": 43, "speech": 21, "free": 1}
        frames = Counter()
        for s in SCRIPT:
            frames[s.kind] += s.stop - s.start
        assert frames == {"expression": 344 * 72, "speech": 180 * 72, "free": 40 * 72}
        assert COUNT == 40_608
        assert {s.stop - s.start for s in SCRIPT if s.kind == "expression"} == {576}
        assert all(a.stop == b.start for a, b in pairwise(SCRIPT)) and SCRIPT[0].start == 0
        assert len({s.name for s in SCRIPT}) == 65

    def test_anchors_come_first(self):
        names = [s.name for s in SCRIPT]
        assert names[:43] == list(PROMPTS) and names[:15] == list(ANCHOR_PROMPTS)
        assert tuple(ANCHOR_PROMPTS)[:6] == DEFAULT_ANCHORS

    def test_every_prompt_says_what_to_do_and_no_two_ask_the_same(self):
        assert len({prompt.text for prompt in PROMPTS.values()}) == 43
        asked = {(tuple(intent(p.meant)), p.gaze_deg) for p in PROMPTS.values()}
        assert len(asked) == 43


class TestRandomAccess:
    def test_a_frame_does_not_depend_on_what_is_asked_with_it(self):
        some = [700, 5, COUNT - 1, 25_000, 5]
        together = performance(4).motion(some)
        whole = performance(4).motion(range(COUNT))
        for n, index in enumerate(some):
            alone = performance(4).motion([index])
            for field in fields(together):
                value = getattr(alone, field.name)[0]
                np.testing.assert_array_equal(value, getattr(together, field.name)[n])
                np.testing.assert_array_equal(value, getattr(whole, field.name)[index])

    def test_shapes_and_types(self):
        motion = performance(4).motion([1, 2, 3])
        assert motion.expression.shape == (3, 52) and motion.expression.dtype == np.float32
        assert motion.gaze.shape == (3, 6) and motion.gaze.dtype == np.float32
        assert motion.slip.shape == (3, 6) and motion.slip.dtype == np.float64
        assert motion.pupil.shape == (3,) and motion.pupil.dtype == np.float32
        assert performance(4).motion([]).expression.shape == (0, 52)

    @pytest.mark.parametrize("wrong", [-1, COUNT])
    def test_a_frame_that_is_not_there_is_named(self, wrong):
        with pytest.raises(DataError, match=rf"frames 0 to {COUNT - 1}; {wrong} was asked for"):
            performance(4).motion([0, wrong])

    def test_another_day_is_another_performance_in_the_same_manner(self):
        first, second = performance(4, 0), performance(4, 1)
        assert first.anchors != second.anchors
        a, b = first.motion([300, 30_000]), second.motion([300, 30_000])
        assert not np.allclose(a.expression, b.expression) and not np.allclose(a.slip, b.slip)
        other = performance(5, 0)
        assert abs(first.style.effort - second.style.effort) < 0.15
        np.testing.assert_array_equal(first.style.push, second.style.push)
        assert not np.allclose(first.style.push, other.style.push)


class TestMotion:
    def test_nothing_jumps(self, sessions):
        for _, motion in sessions:
            step = np.abs(np.diff(motion.expression, axis=0))
            assert step[:, ~LIDS].max() < LARGEST_STEP
            assert step[:, LIDS].max() < LARGEST_LID_STEP
            assert turning(motion.gaze).max() * FRAMES_PER_SECOND < FASTEST_GAZE
            slip = np.linalg.norm(np.diff(motion.slip, axis=0).reshape(-1, 2, 3), axis=-1)
            assert slip.max() < LARGEST_SLIP_STEP
            assert np.abs(np.diff(motion.pupil)).max() < 0.01

    def test_people_rest_between_segments(self, sessions):
        starts = [s.start for s in SCRIPT]
        for one, motion in sessions:
            rest = one.movement.realise(np.zeros((1, 52)))[0]
            still = np.array([not name.startswith("eye") and name != "mouthClose" for name in ACTIONS])
            lookless = motion.expression[starts][:, still]
            assert np.abs(lookless - rest[still]).max() < 0.2  # gaze may drag others along, by the person's couplings

    def test_values_are_what_they_are_called(self, sessions):
        for _, motion in sessions:
            assert motion.expression.min() >= 0 and motion.expression.max() <= 1
            np.testing.assert_allclose(np.linalg.norm(motion.gaze.reshape(-1, 3), axis=1), 1, atol=1e-6)
            assert 0.8 <= motion.pupil.min() < 0.93 and 1.07 < motion.pupil.max() <= 1.25
            assert (motion.expression.max(0) > 0.3).sum() >= 50, "nearly every action occurs"

    def test_expressions_are_posed_two_or_three_times(self, sessions):
        for name, action in (("lip_pucker", "mouthPucker"), ("tongue_out", "tongueOut"), ("jaw_open", "jawOpen")):
            segment = BY_NAME[name]
            for _, motion in sessions:
                curve = column(motion, action)[segment.start : segment.stop]
                up = curve > 0.6 * curve.max()
                assert 2 <= (up[1:] & ~up[:-1]).sum() <= 3

    def test_lips_never_cross(self, sessions):
        for _, motion in sessions:
            assert (column(motion, "mouthClose") <= column(motion, "jawOpen")).all()


class TestAnchors:
    def test_they_show_what_they_are_called_in_the_first_repetition(self):
        for subject in range(0, 40):
            one = performance(subject, subject % 2)
            names = list(one.anchors)
            assert names == list(ANCHOR_PROMPTS)
            motion = one.motion(list(one.anchors.values()))
            shown = dict(zip(names, motion.expression, strict=True))
            for name, index in one.anchors.items():
                assert BY_NAME[name].start + 40 < index < BY_NAME[name].start + 300
            assert shown["neutral"].mean() < 0.1
            assert shown["jaw_open"][ACTIONS.index("jawOpen")] > 0.4
            for side in ("Left", "Right"):
                blink = ACTIONS.index(f"eyeBlink{side}")
                assert shown["eyes_closed"][blink] > 0.8
                open_eyes = [value[blink] for name, value in shown.items() if name != "eyes_closed"]
                assert max(open_eyes) < 0.4, "nobody blinks in an anchor"
            ahead = motion.gaze[:, [2, 5]].min()
            assert ahead > np.cos(np.radians(15))

    def test_the_anchor_is_an_apex(self, sessions):
        for one, motion in sessions:
            for name, action in (("lip_pucker", "mouthPucker"), ("cheek_puff", "cheekPuff"), ("jaw_open", "jawOpen")):
                segment = BY_NAME[name]
                curve, at = column(motion, action), one.anchors[name]
                assert curve[at] > 0.8 * curve[segment.start : at + 36].max()
                before = curve[segment.start : at]
                assert not (before[np.argmax(before > 0.5 * curve[at]) :] < 0.4 * curve[at]).any(), (
                    "the first repetition"
                )

    def test_they_are_imprecise(self):
        """A face that obeys exactly shows what is meant: less than was asked for, and a little besides."""

        class Obedient:
            def realise(self, meant):
                return meant.astype(np.float32)

        amounts, besides, off_axis = [], [], []
        for subject in range(12):
            one = Performance(subject, Obedient(), 0)
            motion = one.motion(list(one.anchors.values()))
            for name, shown in zip(one.anchors, motion.expression, strict=True):
                asked = intent(PROMPTS[name].meant)
                face = ~LIDS & (np.array(ACTIONS) != "mouthClose")
                amounts += list(shown[face & (asked > 0)] / asked[face & (asked > 0)])
                besides.append(shown[face & (asked == 0)].max())
            off_axis += list(np.degrees(np.arccos(motion.gaze[:, 2])))
        assert min(amounts) > 0.5 and np.quantile(amounts, 0.95) < 1.1
        assert 0.75 < np.mean(amounts) < 0.95 and np.std(amounts) > 0.05
        assert 0.03 < np.mean(besides) < 0.25
        assert 1 < np.median(off_axis) < 8


class TestSpeech:
    def test_bilabials_close_the_lips_of_everybody(self, sessions):
        head = load_head()
        lips = head.topology.region("lip_centres")
        rest = head.template[lips[1]] - head.template[lips[0]]
        opening = (head.actions[:, lips[1]] - head.actions[:, lips[0]])[:, 1]  # [52] mm
        for one, motion in sessions:
            gap = rest[1] + motion.expression @ opening
            closed = [frame for segment in SCRIPT for frame in one.closures(segment)]
            assert len(closed) > 100
            assert np.quantile(gap[closed], 0.95) < rest[1] + 1.0, "mm"
            spoken = gap[rows("speech")]
            assert np.quantile(spoken, 0.95) > rest[1] + 4, "and in between they open"
            assert column(motion, "jawOpen")[rows("speech")].max() < 0.8

    def test_closures_lie_in_their_segment_and_only_in_speech(self):
        one = performance(3)
        for segment in SCRIPT:
            found = one.closures(segment)
            assert all(segment.start < frame < segment.stop for frame in found)
            assert bool(found) == (segment.kind == "speech")


class TestGaze:
    def test_lines_of_sight_meet_at_targets_in_range(self, sessions):
        for _, motion in sessions:
            left, right = motion.gaze[::50, :3].astype(float), motion.gaze[::50, 3:].astype(float)
            centres = np.array([-HALF_EYE_DISTANCE_MM, 0, 0]), np.array([HALF_EYE_DISTANCE_MM, 0, 0])
            between = centres[1] - centres[0]
            normal = np.cross(left, right)
            assert np.abs(normal @ between / np.linalg.norm(normal, axis=1)).max() < 0.5, "mm apart at the closest"
            reach = np.einsum("ni,ni->n", np.cross(between, right), normal) / np.einsum("ni,ni->n", normal, normal)
            distance = np.linalg.norm(centres[0] + reach[:, None] * left, axis=1)
            assert 0.99 * NEAREST_MM < distance.min() < 450
            assert 2000 < distance.max() < 1.01 * FARTHEST_MM

    def test_the_left_eye_turns_towards_the_nose_for_near_targets(self, sessions):
        for _, motion in sessions:
            assert (motion.gaze[:, 0] >= motion.gaze[:, 3]).all()

    def test_it_ranges_widely(self, sessions):
        for _, motion in sessions:
            azimuth = np.degrees(np.arctan2(motion.gaze[:, 0], motion.gaze[:, 2]))
            altitude = np.degrees(np.arcsin(-motion.gaze[:, 1]))
            assert azimuth.max() > 20 and azimuth.min() < -20 and np.abs(azimuth).max() < 36
            assert altitude.max() > 14 and altitude.min() < -17

    def test_prompts_say_where_to_look(self, sessions):
        for name, axis, sign in (("look_up", 1, -1), ("look_down", 1, 1), ("look_left", 0, -1), ("look_right", 0, 1)):
            segment = BY_NAME[name]
            for _, motion in sessions:
                towards = sign * motion.gaze[segment.start : segment.stop, axis]
                assert (towards > np.sin(np.radians(12))).mean() > 0.3

    def test_saccades_keep_to_the_main_sequence(self, sessions):
        lengths, amplitudes, peaks = [], [], []
        for _, motion in sessions:
            both = motion.gaze[:, :3] + motion.gaze[:, 3:]  # without vergence, which is slower
            moved = turning(np.tile(both / np.linalg.norm(both, axis=1, keepdims=True), 2))[:, 0]
            fast = np.flatnonzero(np.diff(np.concatenate([[0], moved * FRAMES_PER_SECOND > 35, [0]])))
            for start, stop in fast.reshape(-1, 2):
                lengths.append(stop - start)
                amplitudes.append(moved[start:stop].sum())
                peaks.append(moved[start:stop].max() * FRAMES_PER_SECOND)
        lengths, amplitudes, peaks = map(np.array, (lengths, amplitudes, peaks))
        single = (amplitudes > 2) & (lengths <= 8)
        assert single.sum() > 500 and (lengths > 8).mean() < 0.03
        small, large = single & (amplitudes < 6), single & (amplitudes > 15)
        assert np.median(peaks[large]) > 2 * np.median(peaks[small])
        assert 2 <= lengths[small].mean() < 4 < lengths[large].mean() < 7
        assert 1 < len(amplitudes) / (len(sessions) * COUNT / FRAMES_PER_SECOND) < 4, "per second"

    def test_lids_follow_the_eyes(self, sessions):
        for one, motion in sessions:
            up = motion.gaze[:, 1] < -0.2
            assert (column(motion, "eyeLookUpLeft")[up] > 0.05).all()
            assert column(motion, "eyeLookDownLeft")[up].max() <= one.movement.realise(np.zeros((1, 52))).max()


class TestBlinks:
    def test_their_rate_and_duration_are_natural(self, sessions):
        for _, motion in sessions:
            closed = np.minimum(column(motion, "eyeBlinkLeft"), column(motion, "eyeBlinkRight"))[rows("speech")] > 0.5
            edges = np.flatnonzero(np.diff(np.concatenate([[0], closed, [0]])))
            lengths = np.diff(edges)[::2]
            assert 9 <= len(lengths) / 3 <= 21, "per minute"
            assert 0.06 < np.median(lengths) / FRAMES_PER_SECOND < 0.25

    def test_lids_close_faster_than_they_open(self):
        t = np.arange(0, 1, 0.001)
        closed = Blinks(np.array([0.2]), np.array([1.0]), np.array([0.03])).closed(t)
        closing = t[np.argmax(closed > 0.99)] - 0.2
        opening = t[len(t) - 1 - np.argmax(closed[::-1] > 0.01)] - t[len(t) - 1 - np.argmax(closed[::-1] > 0.99)]
        assert 0.05 < closing < 0.09 < 0.12 < opening < 0.17
        assert closed[0] == closed[-1] == 0


class TestSlip:
    def test_it_starts_at_nothing_and_stays_small(self, sessions):
        for _, motion in sessions:
            np.testing.assert_allclose(motion.slip[0], 0, atol=5e-3)
            size = np.linalg.norm(motion.slip.reshape(-1, 2, 3), axis=-1)
            assert size.max() < LARGEST_SLIP
            assert size.max(0).min() > 0.4, "and it does move"

    def test_expression_pushes_the_headset(self, sessions):
        for one, motion in sessions:
            segment = BY_NAME["smile_teeth"]
            smile = column(motion, "mouthSmileLeft")[segment.start : segment.stop]
            slip = motion.slip[segment.start : segment.stop]
            slip = slip - np.linspace(slip[0], slip[-1], len(slip))  # less the drift
            along = slip @ (one.style.push[ACTIONS.index("mouthSmileLeft")])
            assert np.corrcoef(smile, along)[0, 1] > 0.7

    def test_it_goes_on_after_the_anchors(self, sessions):
        for one, motion in sessions:
            enrolled = motion.slip[list(one.anchors.values())[:6]].mean(0)
            later = motion.slip[COUNT // 2 :] - enrolled
            assert np.abs(later).max() > 0.4
