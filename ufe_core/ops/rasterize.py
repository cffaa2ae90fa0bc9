"""Triangle rasterisation and perspective-correct interpolation: one kernel source for CPU and CUDA.

Visibility is a z-buffer of 64-bit keys (depth above face number), so the nearest face wins, ties go to the lower
face number, and the result does not depend on the order of execution. Interpolation is differentiable in the
vertex attributes and in the screen positions; visibility itself is not (silhouettes give no gradient).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ufe_core.ops.kernels import kernels, warp

EMPTY_KEY = 0x7FFFFFFFFFFFFFFF
_NEAR_MM = 3.0
_KERNELS = "ufe_core.ops.rasterize_warp"


def rasterize(screen: Tensor, faces: Tensor, *, height: int, width: int, cull: bool = True) -> Tensor:
    """The nearest face of each pixel.

    Args:
        screen: float32 [B, V, 3]: pixel x, pixel y, depth in mm. Faces with a corner nearer than 3 mm are dropped.
        faces: int32 [F, 3], counter-clockwise seen from outside.
        height: rows of the image.
        width: columns of the image.
        cull: drop faces seen from behind.

    Returns:
        int32 [B, H, W]: face number, -1 where no face covers the pixel's centre.
    """
    return key_faces(depth_keys(screen, faces, height=height, width=width, cull=cull))


def depth_keys(screen: Tensor, faces: Tensor, *, height: int, width: int, cull: bool = True) -> Tensor:
    """The z-buffer itself, for shaders that need depth as well: `rasterize`'s arguments, int64 [B, H, W].

    A key is `farness << 31 | face`, or `EMPTY_KEY` where no face covers the pixel's centre; `key_depths` reads it.
    """
    wp, module = warp(), kernels(_KERNELS, screen.device)
    screen = screen.detach().contiguous()
    batch = screen.shape[0]
    keys = torch.full((batch, height, width), EMPTY_KEY, dtype=torch.int64, device=screen.device)
    with wp.ScopedDevice(wp.device_from_torch(screen.device)):
        wp.launch(
            module.depth_test,
            dim=(batch, -(-faces.shape[0] // int(module.RUN))),
            inputs=[
                wp.from_torch(screen, dtype=wp.vec3),
                wp.from_torch(faces.contiguous(), dtype=wp.vec3i),
                _NEAR_MM, int(cull), wp.from_torch(keys),
            ],
        )  # fmt: skip
    return keys


def key_faces(keys: Tensor) -> Tensor:
    """Face number int32 that keys of `depth_keys` hold; -1 where they are empty."""
    return torch.where(keys == EMPTY_KEY, -1, (keys & 0x7FFFFFFF).to(torch.int32))


def key_depths(keys: Tensor) -> Tensor:
    """Depth (mm, float64) that keys of `depth_keys` hold; infinite where they are empty."""
    module = kernels(_KERNELS)
    nearest, ticks = float(module._NEAREST), float(module._TICKS)
    return torch.where(keys == EMPTY_KEY, torch.inf, 1 / (nearest - (keys >> 31).double() / ticks))


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, screen: Tensor, attributes: Tensor, faces: Tensor, attribute_faces: Tensor, ids: Tensor
    ) -> Tensor:
        screen, attributes = screen.contiguous(), attributes.contiguous()
        out = attributes.new_zeros(*ids.shape, attributes.shape[-1])
        _launch("interpolate", screen, attributes, faces, attribute_faces, ids, out)
        ctx.save_for_backward(screen, attributes, faces, attribute_faces, ids)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        screen, attributes, faces, attribute_faces, ids = ctx.saved_tensors
        screen_grad, attribute_grad = torch.zeros_like(screen), torch.zeros_like(attributes)
        _launch(
            "interpolate_backward", screen, attributes, faces, attribute_faces, ids, grads[0].contiguous(),
            screen_grad, attribute_grad,
        )  # fmt: skip
        return screen_grad, attribute_grad, None, None, None


def _launch(name: str, screen: Tensor, attributes: Tensor, faces: Tensor, attribute_faces: Tensor, ids: Tensor,
            out: Tensor, screen_grad: Tensor | None = None, attribute_grad: Tensor | None = None) -> None:  # fmt: skip
    """Run an interpolation kernel over every pixel of `ids`."""
    wp = warp()
    inputs = [
        wp.from_torch(screen.detach(), dtype=wp.vec3), wp.from_torch(attributes.detach()),
        wp.from_torch(faces, dtype=wp.vec3i), wp.from_torch(attribute_faces, dtype=wp.vec3i), wp.from_torch(ids),
        wp.from_torch(out),
    ]  # fmt: skip
    if screen_grad is not None:
        inputs += [wp.from_torch(screen_grad, dtype=wp.vec3), wp.from_torch(attribute_grad)]
    with wp.ScopedDevice(wp.device_from_torch(screen.device)):
        wp.launch(getattr(kernels(_KERNELS, screen.device), name), dim=tuple(ids.shape), inputs=inputs)


def interpolate(
    screen: Tensor, attributes: Tensor, faces: Tensor, ids: Tensor, *, attribute_faces: Tensor | None = None
) -> Tensor:
    """Perspective-correct attributes at each pixel; zero where there is no face.

    Args:
        screen: float32 [B, V, 3] as for `rasterize`.
        attributes: float32 [B, N, K], or [1, N, K] where all views share them.
        faces: int32 [F, 3], into `screen`.
        ids: int32 [B, H, W] from `rasterize`.
        attribute_faces: int32 [F, 3], into `attributes`, where their indices differ from the vertices' (UV seams).

    Returns:
        float32 [B, H, W, K], differentiable in `screen` and `attributes`.
    """
    faces = faces.contiguous()
    corners = faces if attribute_faces is None else attribute_faces.contiguous()
    result: Tensor = _Interpolate.apply(screen, attributes, faces, corners, ids.contiguous())
    return result
