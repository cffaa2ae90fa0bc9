"""Dense reference of `ufe_avatar.raymarch`: every ray, every step, every primitive, in plain torch of any type."""

import torch


def march(rays, primitives, *, step):
    """Colour and opacity [R, 4]."""
    rank, count = primitives.rank, primitives.position.shape[1]
    order = visiting_order(count) if rank is None else rank.argsort().tolist()
    out = [
        _one(rays, r, *(t[int(rays.image[r])] for t in primitives.tensors), order=order, step=step)
        for r in range(len(rays))
    ]
    return torch.stack(out) if out else rays.direction.new_zeros(0, 4)


def visiting_order(count):
    """Leaves from left to right of the complete binary tree whose node n has the children 2 n + 1 and 2 n + 2."""
    order = []

    def walk(node):
        if node >= count - 1:
            order.append(node - (count - 1))
        else:
            walk(2 * node + 1)
            walk(2 * node + 2)

    walk(0)
    return order


def _one(rays, r, position, rotation, scale, slab, *, order, step):
    near, far = float(rays.near[r]), float(rays.far[r])
    steps = max(0, int((far + 1e-5 - near) / step) + 2)
    t = near + step * torch.arange(steps, dtype=slab.dtype)
    t = t[t < far + 1e-5]
    point = rays.origin[int(rays.image[r])] + t[:, None] * rays.direction[r]  # [N, 3]
    y = scale * torch.einsum("kji,nkj->nki", rotation, point[:, None] - position)
    y = y[:, order]
    values = torch.stack([_trilinear(slab[k], y[:, n]) for n, k in enumerate(order)], 1)
    inside = (y.abs() < 1).all(-1)
    weight = values[..., 3].clamp_min(0) * torch.exp(-8 * (y**8).sum(-1)) * step * inside
    total = weight.reshape(-1).cumsum(0)
    clipped = total.clamp_max(1)
    share = torch.diff(clipped, prepend=clipped.new_zeros(1))
    colour = (values[..., :3].reshape(-1, 3) * share[:, None]).sum(0)
    return torch.cat([colour, clipped[-1:] if len(clipped) else clipped.new_zeros(1)])


def _trilinear(slab, y):
    """Values [N, 4] of a slab [D, H, W, 4] at points y [N, 3]; outer voxels lie at -1 and 1."""
    size = torch.tensor(slab.shape[:3][::-1])
    place = (y + 1) / 2 * (size - 1)
    low = place.detach().floor().long().clamp_min(0).minimum(size - 2)
    part = place - low
    out = 0
    for corner in range(8):
        bit = torch.tensor([corner & 1, corner >> 1 & 1, corner >> 2])
        x, row, layer = (low + bit).unbind(-1)
        share = torch.where(bit.bool(), part, 1 - part).prod(-1)
        out = out + share[:, None] * slab[layer, row, x]
    return out
