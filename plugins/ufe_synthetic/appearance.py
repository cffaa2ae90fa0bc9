"""How a simulated person looks: infrared and visible skin, hair, relief, wrinkles and eyes, drawn from their number.

Skin is a layer of melanin and one of blood over white tissue (Beer-Lambert). Both absorb far less in near infrared
than in visible light, which is why faces look brighter and more even there: lips and freckles nearly vanish.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from ufe_core.head import EYE_LEFT, EYE_RIGHT, EYE_SOCKET, MOUTH_CAVITY, SKIN, TONGUE, Head
from ufe_synthetic.hair import FACIAL_HAIR, brows, facial_hair, growth_area, ramp
from ufe_synthetic.people import body_of, rng_of
from ufe_synthetic.texels import TexelLayout
from ufe_synthetic.wrinkles import FOLDS, wrinkle_gain, wrinkle_map

#: Red, green, blue, infrared: of tissue without pigment, and the optical depth of one unit of melanin and of blood.
_TISSUE = np.array([0.80, 0.68, 0.58, 0.67], np.float32)
_MELANIN = np.array([0.62, 0.95, 1.30, 0.13], np.float32)
_BLOOD = np.array([0.07, 0.62, 0.46, 0.04], np.float32)
#: Albedo of hair: red, green, blue, infrared, and how often people have it.
_HAIR = {
    "black": ((0.030, 0.026, 0.022, 0.17), 0.30),
    "dark brown": ((0.060, 0.042, 0.028, 0.23), 0.30),
    "brown": ((0.120, 0.078, 0.046, 0.30), 0.22),
    "red": ((0.240, 0.100, 0.045, 0.38), 0.05),
    "blond": ((0.300, 0.210, 0.115, 0.42), 0.13),
    "grey": ((0.350, 0.315, 0.275, 0.42), 0.0),
}
#: Linear RGB of irises, infrared albedo, and how often people with light skin have them.
_IRIS = {
    "brown": ((0.085, 0.040, 0.018), 0.46, 0.45),
    "hazel": ((0.150, 0.095, 0.040), 0.44, 0.18),
    "green": ((0.150, 0.160, 0.085), 0.42, 0.12),
    "blue": ((0.140, 0.200, 0.270), 0.40, 0.25),
}
_FACIAL_HAIR_SHARE = (0.30, 0.28, 0.14, 0.12, 0.16)
_NO_RELIEF_MM = 1.6  # texels coarser than this cannot hold pores


@dataclass(frozen=True)
class Eye:
    """One look for both eyes of a person.

    `pupil_deg` and `iris_deg` are angular radii seen from the eyeball's centre; `iris_rgb` and `sclera_rgb` linear
    float32 [3]; `texture` float32 [R, A], a factor on the iris' albedo, radius (pupil to border) by turn, its last
    column the same as its first.
    """

    pupil_deg: float
    iris_deg: float
    iris_ir: float
    iris_rgb: np.ndarray
    sclera_ir: float
    sclera_rgb: np.ndarray
    texture: np.ndarray


@dataclass(frozen=True)
class Appearance:
    """A person's maps, T x T texels.

    `infrared` uint8 [T, T] and `rgb` uint8 [3, T, T] are linear albedo, `gloss` uint8 [T, T] the strength of the
    specular lobe. `relief` float32 [T, T] mm is always there, `wrinkles` float32 [T, T] mm comes on top at full
    wrinkling; `wrinkle_gain` float32 [52, V] is how much an action at 1 raises wrinkling at a vertex. `traits` is what
    was drawn.
    """

    infrared: np.ndarray
    rgb: np.ndarray
    gloss: np.ndarray
    relief: np.ndarray
    wrinkles: np.ndarray
    wrinkle_gain: np.ndarray
    eye: Eye
    traits: dict[str, float | str | bool]


@dataclass(frozen=True)
class Traits:
    """What is drawn about a person's looks.

    `femininity` is anny's gender (0 male, 1 female); `melanin` and `redness` are optical units; `freckles`, `moles`
    and `brow_hairs` counts (hairs of one brow); `beard_per_cm2` hairs; `wrinkling` how readily skin folds. Only
    `beard_mm` and `oiliness` change from day to day.
    """

    age_years: float
    sex: str
    femininity: float
    melanin: float
    redness: float
    freckles: int
    moles: int
    hair: str
    cropped: bool
    facial_hair: str
    beard_per_cm2: float
    beard_mm: float
    brow_hairs: int
    brow_mm: float
    brow_arch_mm: float
    lip_fullness_mm: float
    under_eye: float
    wrinkling: float
    oiliness: float
    eye: str


def traits_of(subject: int, session: int = 0) -> Traits:
    """A subject's looks as numbers; another session is another day of the same person."""
    rng, day = rng_of(subject, "looks"), rng_of(subject, f"looks of day {session}")
    body = body_of(subject)
    years, femininity = 25 + 130 * (body["age"] - 0.5), body["gender"]
    tone = rng.uniform()
    melanin = float(0.06 + 1.55 * tone**1.3)
    hair = str(rng.choice(list(_HAIR), p=[share for _, share in _HAIR.values()]))
    if tone > 0.55:
        hair = str(rng.choice(["black", "dark brown"]))
    if rng.uniform() < np.clip((years - 45) / 50, 0, 0.65):
        hair = "grey"
    eye = str(rng.choice(list(_IRIS), p=[share for *_, share in _IRIS.values()])) if tone < 0.5 else "brown"
    freckled = rng.uniform() < 0.45 * (1 - tone)
    freckles = int(rng.integers(40, 260))
    male = femininity < 0.5
    kind = str(rng.choice(FACIAL_HAIR, p=_FACIAL_HAIR_SHARE))
    dense = float(rng.uniform(22, 48))
    grown = {"none": day.uniform(0.2, 0.5), "stubble": day.uniform(0.7, 2.4)}
    trimmed = {"moustache": rng.uniform(5, 9), "goatee": rng.uniform(3, 9), "beard": rng.uniform(4, 11)}
    return Traits(
        age_years=years, sex="male" if male else "female", femininity=femininity,
        melanin=melanin, redness=float(rng.uniform(0.18, 0.42)),
        freckles=freckles if freckled else 0, moles=int(rng.poisson(5)), hair=hair,
        cropped=bool(rng.uniform() < 0.75), facial_hair=kind if male else "none",
        beard_per_cm2=dense if male else 0.0, beard_mm=float((grown | trimmed)[kind]) if male else 0.0,
        brow_hairs=int(rng.uniform(220, 520) + (130 if male else 0)),
        brow_mm=float(rng.uniform(2.2, 4.4) + (0.6 if male else 0)), brow_arch_mm=float(rng.uniform(3.5, 8.0)),
        lip_fullness_mm=float(rng.normal(0, 0.9) - 0.9 * np.clip((years - 45) / 40, 0, 1)),
        under_eye=float(rng.uniform(0.03, 0.24)),
        wrinkling=float(np.clip((years - 12) / 50, 0.3, 1.15) * np.exp(rng.normal(0, 0.2))),
        oiliness=float(day.uniform(0.2, 1.0)), eye=eye,
    )  # fmt: skip


def appearance_of(subject: int, head: Head, layout: TexelLayout, session: int = 0) -> Appearance:
    """Paint a subject; a pure function of its arguments.

    Args:
        subject: the person's number.
        head: the mean head, whose texels `layout` describes.
        layout: from `texel_layout(head, T)`; 512 texels hold hairs and pores, fewer give the same person coarser.
        session: another day, with another stubble and other oil on the skin.
    """
    return _Painter(subject, head, layout, traits_of(subject, session)).paint()


def noise(position: np.ndarray, rng: np.random.Generator, wavelength_mm: float, waves: int = 14) -> np.ndarray:
    """Smooth noise float32 [...] of mean 0 and variance 1 at points [..., 3]: a field over space has no seams."""
    k = rng.normal(size=(3, waves))
    k *= rng.uniform(0.7, 1.4, waves) * 2 * np.pi / (wavelength_mm * np.linalg.norm(k, axis=0))
    phase = position.reshape(-1, 3) @ k.astype(np.float32) + rng.uniform(0, 2 * np.pi, waves).astype(np.float32)
    total = np.cos(phase, out=phase).sum(1) * np.float32(np.sqrt(2 / waves))
    return np.asarray(total.reshape(position.shape[:-1]), np.float32)


class _Painter:
    """Paints one person: pigments first, then what lies over the skin, then channels."""

    def __init__(self, subject: int, head: Head, layout: TexelLayout, traits: Traits) -> None:
        self.subject, self.head, self.layout, self.traits = subject, head, layout, traits
        self.x, self.y, self.z = np.moveaxis(layout.position, -1, 0)
        self.skin = layout.part == SKIN
        rng = rng_of(subject, "skin noise")
        self.broad, self.patchy, self.mottled, self.grainy, self.pores = (
            noise(layout.position, rng, wavelength) for wavelength in (70.0, 22.0, 7.0, 3.2, 1.4)
        )
        self.lips = self._lips()

    def paint(self) -> Appearance:
        """All maps."""
        traits, layout = self.traits, self.layout
        melanin, blood, raised = self._pigments()
        brow = brows(
            layout, rng_of(self.subject, "brows"), traits.brow_hairs, traits.brow_mm, traits.brow_arch_mm
        )  # fmt: skip
        beard = self._beard()
        wrinkles = wrinkle_map(layout, rng_of(self.subject, "wrinkles"), self._dimples())
        albedo = _TISSUE * np.exp(-melanin[..., None] * _MELANIN - blood[..., None] * _BLOOD)
        self._cover(albedo, np.maximum(brow, beard) * 0.92, np.array(_HAIR[traits.hair][0], np.float32))
        self._cover(albedo, self._scalp(), np.array(_HAIR[traits.hair][0], np.float32))
        self._cover(albedo, self._lash_line(), np.array([0.05, 0.035, 0.03, 0.16], np.float32))
        eye = eye_of(self.subject, traits.eye)
        self._inside(albedo, eye)
        folds = rng_of(self.subject, "folds")
        strength = {name: traits.wrinkling * float(np.exp(folds.normal(0, 0.25))) for name in FOLDS}
        grey = np.clip(albedo * 255 + 0.5, 0, 255).astype(np.uint8)
        return Appearance(
            np.ascontiguousarray(grey[..., 3]), np.ascontiguousarray(np.moveaxis(grey[..., :3], -1, 0)),
            self._gloss(beard), self._relief(raised, brow, beard, wrinkles), wrinkles,
            wrinkle_gain(self.head, strength), eye, asdict(traits),
        )  # fmt: skip

    def _lips(self) -> np.ndarray:
        """The red of the lips in [0, 1], with a soft border whose shape is the person's."""
        rng, full = rng_of(self.subject, "lips"), self.traits.lip_fullness_mm
        peak, notch, corner = rng.uniform(4.5, 6.5), rng.uniform(0.6, 2.2), rng.uniform(23.5, 26)
        x = np.abs(self.x)
        upper = np.interp(x, [0, peak, 14, corner], [57.8 + notch, 57.4, 60.6, 67.0]).astype(np.float32)
        lower = np.interp(x, [0, 8, 17, corner], [81.0, 80.2, 75.0, 67.0]).astype(np.float32)
        fade = np.clip(1 - (x / corner) ** 2, 0, 1)
        inside = np.minimum(self.y - upper + full * fade, lower + full * fade - self.y)
        lips = ramp(inside + 0.25 * self.mottled + 0.2 * self.grainy, -0.7, 0.9) * ramp(x, corner + 2, corner - 1)
        return np.asarray(lips * (self.z > 8) * self.skin, np.float32)

    def _pigments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Melanin, blood, and how far moles stand out (mm), float32 [T, T] each."""
        traits, (x, y, z) = self.traits, (np.abs(self.x), self.y, self.z)
        varied = 1 + 0.06 * self.broad + 0.04 * self.patchy + 0.03 * self.mottled + 0.025 * self.grainy
        melanin = (traits.melanin + 0.05) * varied
        near_lid = np.exp(-(((self.layout.lid_mm - 2) / 6) ** 2))
        upper_lid = near_lid * ramp(y, 4, -3)
        lower_lid = np.exp(-(((self.layout.lid_mm - 9) / 6) ** 2)) * ramp(y, 2, 10) * ramp(x, 54, 38) * ramp(x, 12, 22)
        melanin += (0.10 + 0.12 * traits.melanin) * (upper_lid + 0.6 * near_lid) + traits.under_eye * lower_lid
        flush = 0.20 * np.exp(-(((x - 42) / 17) ** 2) - ((y - 34) / 16) ** 2)
        flush += 0.26 * np.exp(-((x / 13) ** 2) - ((y - 36) / 12) ** 2) * (z > 18)
        flush += 0.10 * np.exp(-((x / 14) ** 2) - ((y - 100) / 10) ** 2) * (z > 0) + 0.2 * (x > 66) * (z < -40)
        blood = traits.redness * (1 + 0.10 * self.patchy + 0.11 * self.mottled + 0.08 * self.grainy)
        blood += flush * (1 + 0.25 * self.mottled) + 0.55 * traits.under_eye * lower_lid + 0.25 * near_lid
        blood += self.lips * (0.55 + 0.08 * self.grainy)
        spots, raised = self._spots()
        melanin += spots + (0.12 - 0.10 * (traits.melanin > 1.1)) * self.lips
        return np.maximum(melanin, 0.02).astype(np.float32), np.maximum(blood, 0).astype(np.float32), raised

    def _spots(self) -> tuple[np.ndarray, np.ndarray]:
        """Melanin of freckles and moles, and the moles' height in mm."""
        import cv2

        traits, rng, size = self.traits, rng_of(self.subject, "spots"), self.layout.size
        canvas = np.zeros((2 * size, 2 * size), np.uint8)
        where = rng.normal([0, 18], [30, 26], (traits.freckles, 2))
        finer = size / 256
        for (column, row), radius, level in zip(
            self.layout.texels_in_front(where) * 2 + 0.5, rng.gamma(4, 0.15, traits.freckles),
            rng.uniform(50, 190, traits.freckles), strict=True,
        ):  # fmt: skip
            cv2.circle(canvas, (round(column * 16), round(row * 16)), round(radius / 0.55 * finer / 2 * 16), level, -1,
                       cv2.LINE_AA, 4)  # fmt: skip
        spots = cv2.resize(cv2.GaussianBlur(canvas, (3, 3), 0), (size, size), interpolation=cv2.INTER_AREA)
        melanin, raised = spots.astype(np.float32) / 255 * (1.3 * self.skin * (1 - self.lips)), np.zeros_like(self.x)
        moles = np.stack([rng.uniform(-58, 58, traits.moles), rng.uniform(-70, 112, traits.moles)], -1)
        for column, row in self.layout.texels_in_front(moles):
            radius, dark, height = rng.gamma(4, 0.22) + 0.3, rng.uniform(0.5, 1.8), rng.uniform(0, 0.35)
            reach = int(12 * size / 512) + 1
            r, c = int(np.clip(row, reach, size - reach - 1)), int(np.clip(column, reach, size - reach - 1))
            window = np.s_[r - reach : r + reach + 1, c - reach : c + reach + 1]
            away2 = ((self.layout.position[window] - self.layout.position[r, c]) ** 2).sum(-1) / radius**2
            blot = (np.exp(-(away2**2)) * self.skin[window] * (self.z[r, c] > -30)).astype(np.float32)
            melanin[window] += dark * blot
            raised[window] += height * blot
        return melanin, raised

    def _beard(self) -> np.ndarray:
        """Coverage of facial hair, with the shade of what is shaved under it."""
        traits = self.traits
        if traits.beard_per_cm2 == 0:
            return np.zeros_like(self.x)
        rng = rng_of(self.subject, "beard")
        area = growth_area(self.layout, "stubble", self.lips, 1.6 * self.mottled + 2.5 * self.patchy)
        area *= np.clip(1 + 0.18 * self.mottled + 0.12 * self.patchy, 0, 1.2)
        dots = area
        if traits.facial_hair in ("moustache", "goatee"):
            dots = growth_area(self.layout, traits.facial_hair, self.lips, 1.2 * self.mottled)
        shaven = 0.10 * area * traits.beard_per_cm2 / 48
        return np.maximum(facial_hair(self.layout, rng, dots, self._per_cm2, traits.beard_mm), shaven)

    @property
    def _per_cm2(self) -> float:
        """Hairs that are drawn: long ones cover one another, so fewer do."""
        return self.traits.beard_per_cm2 * (2.2 if self.traits.beard_mm > 3 else 3.0)

    def _scalp(self) -> np.ndarray:
        """Coverage of the scalp by hair cropped to the skin's shape."""
        if not self.traits.cropped:
            return np.zeros_like(self.x)
        receding = 10 * np.clip((self.traits.age_years - 40) / 40, 0, 1) * (self.traits.femininity < 0.5)
        line = np.interp(self.z, [-140, -75, -55, -20, 20], [70, 40, -20, -66, -76 - receding])
        above = ramp(line - self.y + 2.5 * self.patchy + 1.5 * self.mottled, -3, 7)
        coverage = above * np.clip(0.78 + 0.16 * self.grainy + 0.10 * self.mottled, 0, 1) * self.skin
        return np.asarray(coverage * (1 - ramp(np.abs(self.x), 76, 82)), np.float32)

    def _lash_line(self) -> np.ndarray:
        """Coverage of the lids' edges by the roots of the lashes, thicker above."""
        upper, lid = self.layout.lid_upper, self.layout.lid_mm
        width = np.where(upper, 1.0, 0.6)
        patchy = np.clip(0.85 + 0.2 * self.grainy, 0, 1)
        at_corner = ramp(np.abs(self.x), 20.5, 24.0)
        return np.asarray(
            np.where(upper, 0.95, 0.65) * np.exp(-(((lid - 0.2) / width) ** 2)) * patchy * at_corner, np.float32
        )

    @staticmethod
    def _cover(albedo: np.ndarray, coverage: np.ndarray, colour: np.ndarray) -> None:
        albedo += coverage[..., None] * (colour - albedo)

    def _inside(self, albedo: np.ndarray, eye: Eye) -> None:
        """Mouth, tongue, sockets and the whites, in place."""
        part = self.layout.part
        wet = 1 + 0.08 * self.mottled + 0.05 * self.grainy
        albedo[part == MOUTH_CAVITY] = np.array([0.30, 0.10, 0.10, 0.28])
        tongue = part == TONGUE
        albedo[tongue] = np.array([0.52, 0.25, 0.24, 0.46]) * wet[tongue][:, None]
        albedo[part == EYE_SOCKET] = np.array([0.45, 0.22, 0.20, 0.42])
        white = (part == EYE_LEFT) | (part == EYE_RIGHT)
        albedo[white] = np.array([*eye.sclera_rgb, eye.sclera_ir])
        vein = np.clip(1 - np.abs(self.patchy[white] + 0.4 * self.mottled[white]) / 0.07, 0, 1) * (self.z[white] < 13)
        albedo[white] *= 1 - vein[:, None] * np.array([0.04, 0.30, 0.26, 0.02], np.float32)

    def _gloss(self, beard: np.ndarray) -> np.ndarray:
        """Strength of the specular lobe, uint8 [T, T]."""
        x, y, z = np.abs(self.x), self.y, self.z
        oily = 0.55 * np.exp(-((x / 30) ** 2) - ((y + 45) / 22) ** 2) + 0.7 * np.exp(
            -((x / 11) ** 2) - ((y - 26) / 22) ** 2
        )
        oily += 0.4 * np.exp(-((x / 15) ** 2) - ((y - 100) / 12) ** 2) + 0.3 * np.exp(
            -(((x - 40) / 14) ** 2) - ((y - 22) / 12) ** 2
        )
        gloss = 0.24 + self.traits.oiliness * oily * (z > -20) * 0.75
        gloss = gloss * (1 + 0.12 * self.mottled + 0.12 * self.grainy) * (1 - 0.6 * np.clip(beard, 0, 1))
        line = np.exp(-(((y - 67 - 0.6 * (y > 67)) / 5.5) ** 2))
        gloss = gloss * (1 - self.lips) + self.lips * (0.42 + 0.4 * line + 0.06 * self.grainy)
        gloss = np.maximum(gloss, 0.85 * ramp(self.layout.lid_mm, 0.0, -1.2))
        gloss = np.where(self.layout.part == SKIN, gloss, 0.9)
        return np.clip(gloss * 255 + 0.5, 0, 255).astype(np.uint8)

    def _dimples(self) -> np.ndarray:
        return noise(self.layout.position, rng_of(self.subject, "dimples"), 5.0)

    def _relief(
        self, raised: np.ndarray, brow: np.ndarray, beard: np.ndarray, wrinkles: np.ndarray
    ) -> np.ndarray:  # fmt: skip
        """Relief of the relaxed face, float32 [T, T] mm."""
        years = self.traits.age_years
        coarse = float(np.clip(0.6 + (years - 30) / 70, 0.6, 1.3))
        hold = ramp(self.layout.coarseness, _NO_RELIEF_MM, 0.5 * _NO_RELIEF_MM)
        nose = np.exp(-((self.x / 26) ** 2) - ((self.y - 30) / 24) ** 2)
        near_lid = np.exp(-((self.layout.lid_mm / 5) ** 2))
        pores = (0.016 + 0.014 * nose) * np.minimum(self.pores, 0.8) * (1 - 0.7 * near_lid) + 0.014 * self.grainy
        skin = coarse * hold * (pores + 0.03 * self.mottled) * (1 - self.lips)
        shifted = self.x + 0.35 * self.mottled + 0.12 * (self.y - 67) * np.sign(self.x) * np.abs(self.x) / 20
        creases = np.minimum(
            np.cos(2.9 * shifted + 1.2 * self.patchy) + 0.5 * np.cos(5.3 * shifted + self.mottled), 0.35
        )
        hairs = 0.06 * brow + min(0.02 + 0.01 * self.traits.beard_mm, 0.09) * beard
        held = 0.04 + 0.32 * float(np.clip((years - 35) / 45, 0, 1))
        return np.asarray(
            self.skin * (skin + 0.055 * creases * self.lips + hairs + raised + held * wrinkles), np.float32
        )  # fmt: skip


def eye_of(subject: int, colour: str) -> Eye:
    """A subject's eyes; `colour` is one of the irises' names."""
    rng = rng_of(subject, "iris")
    rgb, infrared, _ = _IRIS[colour]
    white = 0.70 + rng.uniform(-0.05, 0.04)
    return Eye(
        pupil_deg=float(rng.uniform(9, 15)), iris_deg=float(rng.uniform(25, 29)),
        iris_ir=float(infrared * np.exp(rng.normal(0, 0.12))),
        iris_rgb=(np.array(rgb) * np.exp(rng.normal(0, 0.15) + rng.normal(0, 0.06, 3))).astype(np.float32),
        sclera_ir=float(rng.uniform(0.62, 0.70)), sclera_rgb=(white * np.array([1, 0.95, 0.90])).astype(np.float32),
        texture=_iris_texture(rng),
    )  # fmt: skip


def _iris_texture(rng: np.random.Generator, radii: int = 32, turns: int = 192) -> np.ndarray:
    """Fibres that run outward, a collarette, crypts and a darker rim, float32 [radii, turns], 1 on average."""
    r, a = np.meshgrid(np.linspace(0, 1, radii), np.linspace(0, 2 * np.pi, turns), indexing="ij")
    fibres = np.zeros_like(r)
    for k in rng.integers(9, 56, 16):
        sway = 0.5 * np.sin(3 * r * rng.uniform(0.5, 2) + rng.uniform(0, 6.3))
        fibres += np.cos(k * a + rng.uniform(0, 6.3) + sway) * np.exp(rng.normal(0, 0.3)) / 3.2
    ring = 0.30 + 0.03 * np.cos(7 * a + rng.uniform(0, 6.3)) + 0.02 * np.cos(13 * a + rng.uniform(0, 6.3))
    texture = 1 + rng.uniform(0.10, 0.20) * fibres + 0.16 * np.exp(-(((r - ring) / 0.06) ** 2))
    texture -= 0.14 * np.exp(-(((r - ring + 0.2) / 0.12) ** 2))
    for _ in range(int(rng.integers(3, 12))):  # crypts
        turn, at = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.6)
        away = np.abs((a - turn + np.pi) % (2 * np.pi) - np.pi)
        texture -= rng.uniform(0.1, 0.3) * np.exp(-((away / rng.uniform(0.04, 0.12)) ** 2) - ((r - at) / 0.1) ** 2)
    texture *= 1 - 0.3 * np.clip((r - 0.78) / 0.22, 0, 1) ** 1.5
    texture[:, -1] = texture[:, 0]
    return np.asarray(np.clip(texture / texture.mean(), 0.2, 2.0), np.float32)
