"""Rules of decoders."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ufe_core.conformance import props
from ufe_core.conformance.examine import Candidate
from ufe_core.conformance.rule import Broken, require, rule
from ufe_core.interfaces.decoder import Decoder
from ufe_core.types import Avatar, Identity

_SIDE, _CLOSE = 32, 2e-4
_REGIONS = ("face", "lower_face", "mouth_corners", "lip_centres")


def made(candidate: Candidate) -> Decoder[Any]:
    """The decoder."""
    decoder: Decoder[Any] = candidate.factory(candidate.config)
    return decoder.eval().requires_grad_(False)


def people(decoder: Decoder[Any], count: int = 2) -> Identity:
    """Identities of people whose neutral faces are the decoder's own surface, a little moved."""
    vertices, side = decoder.topology.vertex_count, decoder.reads_texture or 64
    make = torch.Generator().manual_seed(0)
    shape = torch.randn(1, vertices, 3, generator=make) * torch.tensor([40.0, 50.0, 20.0])
    geometry = shape + torch.randn(count, vertices, 3, generator=make)
    return decoder.identity(torch.rand(count, 3, side, side, generator=make), geometry)


def codes(decoder: Decoder[Any], count: int = 3) -> tuple[Tensor, Tensor]:
    """Small codes and gazes."""
    return 0.1 * props.drawn(count, decoder.code_space.size), props.gazes(count)


def driven(decoder: Decoder[Any], expression: Tensor, gaze: Tensor) -> Avatar:
    """The avatars of two people in turn, in these codes."""
    rows = torch.arange(len(gaze)) % 2
    return decoder.decode(expression, gaze, people(decoder).rows(rows))


@rule("decoder", "its code space, its mesh and the regions that metrics need are there")
def says_what_it_is(candidate: Candidate) -> None:
    decoder = made(candidate)
    space, topology = decoder.code_space, decoder.topology
    require(space.size > 0 and space.name, "`code_space` needs a name and a size")
    require(not space.entries or len(space.entries) == space.size, "`code_space.entries` must name every entry")
    missing = [name for name in _REGIONS if name not in topology.regions]
    require(not missing, f"the topology has no region {', '.join(missing)}, which metrics look at")
    for name, rows in topology.regions.items():
        require(rows.max() < topology.vertex_count, f"region {name!r} names vertices that do not exist")


@rule("decoder", "the name of a code space that is learned tells the weights that it was learned with")
def names_its_codes(candidate: Candidate) -> None:
    decoder, sha256 = made(candidate), candidate.factory.weights_sha256(candidate.config)
    if not decoder.reads_texture or sha256 is None:
        return
    start = sha256[:8]
    require(
        start in decoder.code_space.name,
        f"`code_space.name` is {decoder.code_space.name!r} whatever the weights: put the start of their sha256, "
        f"{start}, into it, or encoders of other weights are taken for its own",
    )


@rule("decoder", "a code becomes a mesh, each frame by itself, and the same one each time")
@torch.no_grad()
def decodes(candidate: Candidate) -> None:
    decoder = made(candidate)
    expression, gaze = codes(decoder)
    avatar = driven(decoder, expression, gaze)
    require(bool(torch.isfinite(avatar.geometry).all()), "the geometry has NaN or infinity in it")
    require(torch.equal(avatar.geometry, driven(decoder, expression, gaze).geometry), "decoding twice differs")
    one = people(decoder)
    alone = [
        decoder.decode(expression[k : k + 1], gaze[k : k + 1], one.rows(torch.tensor([k % 2]))).geometry
        for k in range(len(gaze))
    ]
    require((torch.cat(alone) - avatar.geometry).abs().max() < 1e-2, "a frame's mesh depends on the frames beside it")


@rule("decoder", "geometry and image are differentiable in the code and the gaze")
def carries_gradients(candidate: Candidate) -> None:
    decoder = made(candidate)
    for what in ("geometry", "image"):
        expression, gaze = (value.requires_grad_() for value in codes(decoder))
        avatar = driven(decoder, expression, gaze)
        out = avatar.geometry if what == "geometry" else decoder.render(avatar, decoder.frontal_camera(_SIDE))
        out.square().sum().backward()
        require(expression.grad is not None and expression.grad.abs().max() > 0, f"no gradient from the {what} to the "
                "code: an encoder could not learn through it")  # fmt: skip
    require(gaze.grad is not None, "no gradient from the image to the gaze")


@rule("decoder", "it renders images in [0, 1] on black, of the camera's size")
@torch.no_grad()
def renders(candidate: Candidate) -> None:
    decoder = made(candidate)
    camera = decoder.frontal_camera(_SIDE)
    require((camera.width, camera.height) == (_SIDE, _SIDE), "`frontal_camera(size)` is of another size")
    image = decoder.render(driven(decoder, *codes(decoder)), camera)
    require(tuple(image.shape) == (3, 3, _SIDE, _SIDE), f"an image of shape {list(image.shape)} for three frames")
    require(bool(torch.isfinite(image).all()) and image.min() >= 0 and image.max() <= 1, "pixels leave [0, 1]")


@rule("decoder", "W1 is where the frontal camera sees the face, and pixels inside it do not depend on it")
@torch.no_grad()
def masks(candidate: Candidate) -> None:
    decoder = made(candidate)
    mask, camera = decoder.face_mask(_SIDE), decoder.frontal_camera(_SIDE)
    require(
        mask.dtype == torch.bool and tuple(mask.shape) == (_SIDE, _SIDE), "`face_mask(size)` must be bool [size, size]"
    )
    share = float(mask.float().mean())
    require(0.02 < share < 0.98, f"`face_mask` covers {share:.0%} of the image")
    avatar = driven(decoder, *codes(decoder))
    apart = (decoder.render(avatar, camera) - decoder.render(avatar, camera, mask=mask)).abs()[:, :, mask]
    require(apart.max() < _CLOSE, "pixels inside the mask change where a mask is given")


@rule("decoder", "its state restores it")
@torch.no_grad()
def is_restored(candidate: Candidate) -> None:
    decoder, other = made(candidate), made(candidate)
    make = torch.Generator().manual_seed(0)
    for value in decoder.parameters():  # as training would
        value.data += 0.01 * torch.randn(value.shape, generator=make)
    try:
        other.load_state_dict(decoder.state_dict())
    except RuntimeError as error:
        raise Broken(f"its own state does not load: {str(error).splitlines()[-1].strip()}") from error
    one, again = (driven(each, *codes(decoder)).geometry for each in (decoder, other))
    require(bool((one - again).abs().max() < 1e-3), "with its state loaded another one decodes "
            "otherwise: keep everything in parameters and buffers")  # fmt: skip


@rule("decoder", "one that reads codes off faces gives finite codes of its size")
@torch.no_grad()
def reads(candidate: Candidate) -> None:
    decoder = made(candidate)
    side = decoder.reads_texture
    if not side:
        return
    make = torch.Generator().manual_seed(0)
    texture = torch.rand(2, 3, side, side, generator=make)
    mesh = torch.randn(2, decoder.topology.vertex_count, 3, generator=make)
    found = decoder.read(texture, mesh, texture, mesh)
    require(tuple(found.shape) == (2, decoder.code_space.size), f"`read` gave codes of shape {list(found.shape)}")
    require(bool(torch.isfinite(found).all()), "`read` gave NaN or infinity")
