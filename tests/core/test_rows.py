"""The table of people's rows: Adam on what is used, nothing on the rest, and exact after any interruption."""

import errno
import os

import numpy as np
import pytest
import torch

from ufe_core.errors import ArtifactError
from ufe_core.training.rows import LearnedRows, RowTable

CPU = torch.device("cpu")


def table(folder, rows=6, seed=3):
    return RowTable(folder, rows, (2, 2), seed=seed)


def use(rows, chosen, *, rate=0.1):
    """A step whose loss pulls each row to its number."""
    values = rows.gather(np.array(chosen), CPU)
    goals = torch.tensor(chosen, dtype=torch.float32).view(-1, 1, 1)
    ((values - goals) ** 2).sum().backward()
    rows.step(rate)


def test_it_is_adam_row_by_row(tmp_path):
    """Each row walks as torch's Adam walks a parameter that is used at the same steps."""
    rows, steps = table(tmp_path), [[0, 2], [2, 5], [2, 0], [5, 2]]
    start = {row: torch.from_numpy(rows.values([row])[0]).clone().requires_grad_() for row in (0, 2, 5)}
    adams = {row: torch.optim.Adam([value], lr=0.1, betas=(0.9, 0.98)) for row, value in start.items()}
    for chosen in steps:
        use(rows, chosen)
        for row in chosen:
            adams[row].zero_grad()
            ((start[row] - row) ** 2).sum().backward()
            adams[row].step()
    for row, value in start.items():
        np.testing.assert_allclose(rows.values([row])[0], value.detach().numpy(), atol=1e-6)


def test_rows_have_a_pace_of_their_own(tmp_path):
    slow = RowTable(tmp_path / "slow", 6, (2, 2), seed=3)
    fast = RowTable(tmp_path / "fast", 6, (2, 2), seed=3, pace=10.0)
    use(slow, [1, 4], rate=0.1)
    use(fast, [1, 4], rate=0.01)
    np.testing.assert_allclose(slow.values(range(6)), fast.values(range(6)), atol=1e-6)


def test_rows_that_nobody_used_stay_what_they_were(tmp_path):
    rows = table(tmp_path)
    before = rows.values(range(6))
    use(rows, [1, 4])
    after = rows.values(range(6))
    assert np.array_equal(before[[0, 2, 3, 5]], after[[0, 2, 3, 5]]) and not np.allclose(before[[1, 4]], after[[1, 4]])


def test_rows_begin_where_they_are_told_also_after_a_kill(tmp_path):
    rows = table(tmp_path)
    others = rows.values([2])
    rows.start(1, np.full((2, 2), 7.0))
    rows.start(4, np.full((2, 2), 8.0))
    use(rows, [4])
    rows.commit()
    again = table(tmp_path)  # as after a kill, with the checkpoint that belongs to it
    again.restore({})
    assert (again.values([1]) == 7).all() and np.array_equal(again.values([2]), others)
    moved, plain = again.values([4])[0], table(tmp_path / "plain")
    np.testing.assert_allclose(moved, 8 - 0.1, atol=1e-6)  # the first step of Adam is as long as its rate
    use(again, [1])
    np.testing.assert_allclose(again.values([1])[0], 7 - 0.1, atol=1e-6)
    again.reset()
    assert np.array_equal(again.values([1]), plain.values([1]))


def test_first_values_depend_on_the_seed_and_the_row(tmp_path):
    first = table(tmp_path / "a").values(range(6))
    assert np.array_equal(first, table(tmp_path / "b").values(range(6)))
    assert not np.allclose(first, table(tmp_path / "c", seed=4).values(range(6)))
    assert len({row.tobytes() for row in first}) == 6 and 0.005 < first.std() < 0.05


@pytest.mark.parametrize("killed", ["before the checkpoint", "before it reaches its places", "halfway there", "after"])
def test_a_run_goes_on_from_what_its_checkpoint_says(tmp_path, killed):
    """Whatever reached the files when it was killed."""
    straight = table(tmp_path / "straight")
    for step in ([0, 1], [1, 2], [2, 3], [0, 3]):
        use(straight, step)
    rows = table(tmp_path / "killed")
    use(rows, [0, 1])
    use(rows, [1, 2])
    kept = {name: value.clone() for name, value in rows.pending().items()}
    if killed == "halfway there":
        rows._put({name: value[:1] for name, value in kept.items()})
    elif killed == "after":
        rows.commit()
        use(rows, [4, 5])
    if killed == "before the checkpoint":
        kept = {}
    again = table(tmp_path / "killed")
    again.restore(kept)
    for step in ([0, 1], [1, 2])[: 2 if killed == "before the checkpoint" else 0]:
        use(again, step)
    for step in ([2, 3], [0, 3]):
        use(again, step)
    assert np.array_equal(straight.values(range(6)), again.values(range(6)))


def test_begun_anew_it_forgets(tmp_path):
    rows = table(tmp_path)
    first = rows.values(range(6))
    use(rows, [0, 5])
    rows.commit()
    rows.reset()
    assert np.array_equal(rows.values(range(6)), first)


def test_memory_holds_what_changed_since_the_checkpoint_alone(tmp_path):
    rows = RowTable(tmp_path, 10_000, (8, 2, 2), seed=0)
    for k in range(5):
        use_rows = np.array([k, 9_999 - k])
        rows.gather(use_rows, CPU).sum().backward()
        rows.step(0.1)
    assert rows.changed == 10
    rows.commit()
    assert rows.changed == 0


def test_a_full_disk_is_met_before_the_first_row_is_written(tmp_path, monkeypatch):
    """A mapped page that finds no room ends the process without a word."""
    rows = table(tmp_path / "there")
    on_disk = sum(file.stat().st_blocks * 512 for file in (tmp_path / "there").iterdir())
    assert on_disk >= 6 * 3 * 4 * 4, "the room is taken"

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ArtifactError, match=r"Cannot write 'rows\.npy'.*the disk is full"):
        table(tmp_path / "new")
    with pytest.raises(ArtifactError, match=r"Cannot write 'people\.npy'.*the disk is full"):
        rows.finish(tmp_path / "people.npy")


def test_a_finished_table_has_everybodys_values_and_can_only_be_read(tmp_path):
    rows = table(tmp_path)
    use(rows, [1, 3])
    rows.finish(tmp_path / "people.npy")
    learned = LearnedRows(tmp_path / "people.npy")
    np.testing.assert_array_equal(learned.values(range(6)), rows.values(range(6)))
    np.testing.assert_allclose(learned.mean(), rows.values(range(6)).mean(0), atol=1e-7)
    (tmp_path / "people.npy").write_bytes(b"no array")
    for name in ("people.npy", "elsewhere.npy"):
        with pytest.raises(ArtifactError, match="holds no rows of people"):
            LearnedRows(tmp_path / name)


def test_a_table_that_is_lost_is_told(tmp_path):
    assert not table(tmp_path).was_there and table(tmp_path).was_there
    (tmp_path / "rows.npy").write_bytes((tmp_path / "rows.npy").read_bytes()[:200])
    assert not table(tmp_path).was_there
    assert not table(tmp_path, rows=7).was_there, "of other people"
