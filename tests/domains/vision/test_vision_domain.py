"""The vision domain: order, sharding, equal feeds, exact resume, randomness, and the probe set."""

from collections.abc import Sequence
from itertools import islice

import pytest
import torch
from PIL import Image

from sslcollapse.core.errors import DataError, MissingDataError, RecipeError, RunError
from sslcollapse.core.registry import DOMAINS
from sslcollapse.core.types import Context
from sslcollapse.domains.vision.domain import VisionDomain

FAKE = dict(type="fake", train=50, test=10, size=12, classes=4)


def domain(root=None, dataset=FAKE, batch_size=8, **arguments):
    return VisionDomain(root, dataset=dataset, batch_size=batch_size, **arguments)


def first(made, count, start=0, **context):
    return list(islice(made.batches(start, Context(**context)), count))


def equal(a, b):
    same = torch.equal(a.index, b.index) and torch.equal(a.labels, b.labels)
    return same and all(torch.equal(x, y) for x, y in zip(a.views, b.views, strict=True))


@pytest.fixture
def folder(tmp_path):
    """20 training and 4 test images in two class folders."""
    for part, count in (("train", 10), ("test", 2)):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            for k in range(count):
                Image.effect_noise((14 + k, 12), 90).convert("RGB").save(tmp_path / part / name / f"{k}.png")
    return tmp_path


FOLDER = dict(type="image_folder", train="train", test="test", size=10)


def test_in_shape_and_classes_are_known_before_reading(tmp_path):
    made = domain(tmp_path)
    assert (made.in_shape, made.num_classes, made._dataset) == ((3, 12, 12), 4, None)
    assert domain(tmp_path, size=16).in_shape == (3, 16, 16)
    absent = dict(type="image_table", train="a.parquet", test="b.parquet", mode="L")
    assert domain(tmp_path, dataset=absent, size=16).in_shape == (1, 16, 16)
    with pytest.raises(MissingDataError, match=r"a\.parquet"):
        _ = domain(tmp_path, dataset=absent).in_shape


def test_it_is_built_from_a_resolved_recipe(tmp_path):
    spec = dict(type="vision", dataset=dict(type="digits"), views=dict(preset="weak"), batch_size=4)
    batch = next(DOMAINS.build(spec, tmp_path).batches(0, Context()))
    assert [view.shape for view in batch.views] == [(4, 1, 8, 8)] * 2
    assert all(view.dtype == torch.float32 for view in batch.views)
    assert batch.labels.dtype == batch.index.dtype == torch.int64
    assert not batch.replicated


def test_an_epoch_visits_training_images_once_without_the_last_incomplete_batch():
    made = domain()
    epoch = torch.cat([batch.index for batch in first(made, 6)])
    assert len(epoch.unique()) == 48
    assert epoch.max() < 50
    following = torch.cat([batch.index for batch in first(made, 6, start=6)])
    assert not torch.equal(epoch, following)
    assert not torch.equal(epoch, torch.cat([batch.index for batch in first(made, 6, seed=1)]))


def test_labels_are_those_of_the_index():
    made = domain()
    labels = made.probe_set().labels
    for batch in first(made, 3):
        assert torch.equal(batch.labels, labels[batch.index])


def test_no_test_image_is_pretrained_on():
    made = domain(dataset=dict(type="digits"), batch_size=100)
    seen = torch.cat([batch.index for batch in first(made, 5)]).unique()
    split = made.probe_set().splits["public"][0]
    assert sorted(seen.tolist()) == sorted([*split.train, *split.validation])


@pytest.mark.parametrize("feed", ["resident", "streamed"])
def test_ranks_in_turn_hold_the_batch_of_one_process(feed):
    made = domain(feed=feed, workers=0)
    alone = first(made, 8)
    shares = [first(made, 8, rank=rank, world_size=2) for rank in range(2)]
    for whole, *parts in zip(alone, *shares, strict=True):
        assert torch.equal(torch.cat([part.index for part in parts]), whole.index)
        assert torch.equal(torch.cat([part.labels for part in parts]), whole.labels)
        assert all(len(part.index) == 4 and part.equal for part in parts)


def test_the_union_over_four_ranks_is_the_same_too():
    made = domain()
    whole = first(made, 1, start=7)[0].index
    parts = [first(made, 1, start=7, rank=rank, world_size=4)[0].index for rank in range(4)]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("workers", [0, 2])
def test_both_feeds_give_the_same_batches(folder, workers):
    made = [domain(folder, FOLDER, feed=feed, workers=workers) for feed in ("resident", "streamed")]
    for a, b in zip(*(first(each, 7, seed=5, rank=1, world_size=2) for each in made), strict=True):
        assert equal(a, b)


@pytest.mark.parametrize(("feed", "workers"), [("resident", 0), ("streamed", 0), ("streamed", 1)])
def test_resuming_at_any_step_gives_the_same_batches(feed, workers):
    made = domain(feed=feed, workers=workers)
    whole = first(made, 15)
    for start in (1, 6, 13):
        for a, b in zip(whole[start:], first(domain(feed=feed, workers=workers), 15 - start, start), strict=True):
            assert equal(a, b)


def test_resuming_late_reads_nothing_before(folder, monkeypatch):
    made = domain(folder, FOLDER, feed="streamed", workers=0)
    read = []
    images = made.dataset.images
    monkeypatch.setattr(images, "encoded", lambda row, encoded=images.encoded: read.append(row) or encoded(row))
    batch = first(made, 1, start=1_000_001)[0]
    assert read == batch.index.tolist()


def test_view_randomness_differs_over_views_ranks_steps_epochs_and_seeds():
    # Pre-training on 8 images with a batch of 8: every step is an epoch, and the same images return.
    made = domain(dataset=dict(FAKE, train=8), batch_size=8)

    def views(**context):
        batch = first(made, 1, context.pop("start", 0), **context)[0]
        return [view[batch.index.argsort()] for view in batch.views]

    reference = views()
    assert not torch.equal(*reference)
    assert not torch.equal(views(start=1)[0], reference[0])
    assert not torch.equal(views(seed=1)[0], reference[0])
    assert all(map(torch.equal, views(), reference))


def test_view_randomness_differs_over_ranks():
    made = domain(dataset=dict(FAKE, train=8))
    made.dataset.images.pixels[:] = made.dataset.images.pixels[:1].clone()  # so that only the draws can differ
    a, b = (first(made, 1, rank=rank, world_size=2)[0].views[0] for rank in range(2))
    assert not torch.equal(a, b)


def test_making_batches_leaves_the_global_generator_alone():
    made = domain(feed="streamed", workers=1)
    made.load()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first(made, 2)
    assert torch.equal(torch.get_rng_state(), state)


def test_size_resizes_views_and_probe_images():
    made = domain(size=10)
    assert first(made, 1)[0].views[0].shape == (8, 3, 10, 10)
    assert made.probe_set().views[0].shape == (60, 3, 10, 10)


def test_views_grow_at_the_batches_that_say_so_and_are_those_of_a_domain_of_that_size():
    grown = first(domain(grow=[[2, 6], [3, 8]]), 5)
    assert [batch.views[0].shape[-1] for batch in grown] == [6, 6, 8, 12, 12]
    for size, steps in ((6, [0, 1]), (8, [2]), (None, [3, 4])):
        whole = first(domain(size=size), 5)
        assert all(equal(grown[step], whole[step]) for step in steps)
    assert equal(first(domain(grow=[[2, 6], [3, 8]]), 1, start=2)[0], grown[2])
    assert domain(grow=[[2, 6]]).in_shape == (3, 12, 12)
    assert domain(grow=[[2, 6]]).probe_set().views[0].shape == (60, 3, 12, 12)


@pytest.mark.parametrize("grow", [[[2]], [[2, 6, 1]], [[2, 6], [2, 8]], [[2, 8], [4, 8]]])
def test_a_growth_that_is_none_is_refused(grow):
    with pytest.raises(
        RecipeError, match=r"domain.grow: needs pairs \[until, size\] in which both become larger, got \["
    ):
        domain(grow=grow)


def test_auto_feeds_small_sets_resident_and_large_ones_streamed(folder, monkeypatch):
    from sslcollapse.domains.vision import domain as module
    from sslcollapse.domains.vision.data import MemoryImages

    assert isinstance(domain(folder, FOLDER).dataset.images, MemoryImages)
    monkeypatch.setattr(module, "RESIDENT_BYTES", 24 * 3 * 10 * 10 - 1)
    assert not isinstance(domain(folder, FOLDER).dataset.images, MemoryImages)


BYTES = 24 * 3 * 10 * 10
"""Of the folder's images, decoded."""


@pytest.fixture
def machine(monkeypatch):
    """Gives the machine so many bytes of memory, and the run so many processes on it."""

    def given(memory, processes):
        monkeypatch.setattr("sslcollapse.core.memory.machine_memory", lambda: memory)
        monkeypatch.setattr("sslcollapse.domains.vision.domain.machine_memory", lambda: memory)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))

    return given


@pytest.mark.parametrize(
    ("memory", "processes", "resident"), [(4, 2, True), (4, 3, False), (2, 1, True), (1, 1, False)]
)
def test_auto_is_resident_while_all_processes_of_the_machine_take_half_of_its_memory(
    folder, machine, memory, processes, resident
):
    machine(memory * BYTES, processes)
    made = domain(folder, FOLDER)
    made.load()
    assert (made.loaded() is not None) == resident
    told = made.notice(processes)
    if resident:
        assert told is None
    else:
        assert told.startswith(
            f"domain.feed: images are streamed: decoded they take 7200 bytes in each of {processes} pro"
        )
        assert len(next(made.batches(0, Context())).index) == 8


def test_images_that_are_to_be_resident_and_do_not_fit_are_refused_before_any_is_decoded(folder, machine, monkeypatch):
    machine(2 * BYTES, 3)
    made = domain(folder, FOLDER, feed="resident")
    monkeypatch.setattr(made, "_decoded", lambda data: pytest.fail("decoded"))
    with pytest.raises(
        RunError, match=r'24 decoded images, held by each of 3 proc.*"streamed".*21600 bytes.*14400 byt'
    ):
        made.load()


def test_the_probe_set_is_every_labelled_image_un_augmented():
    made = domain()
    probe = made.probe_set()
    pixels = made.dataset.images.pixels.float() / 255
    expected = (pixels - 0.5) / 0.3
    assert torch.allclose(torch.cat(list(probe.views)), expected, atol=1e-5)
    assert (len(probe.labels), probe.num_classes, probe.multilabel) == (60, 4, False)
    assert probe.splits["public"][0].test.tolist() == list(range(50, 60))
    assert probe.to(torch.device("cpu")).views[-1].shape == (60, 3, 12, 12)


def test_probe_images_come_in_batches_of_which_a_subset_is_evenly_spaced():
    views = domain(dataset=dict(FAKE, train=1000, test=100, size=4)).probe_set().views
    assert [len(view) for view in views] == [512, 512, 76]
    with pytest.raises(IndexError, match="batch 3 of 3"):
        _ = views[3]
    some = views.subset(5)
    assert some.rows.tolist() == [0, 274, 549, 824, 1099]
    assert torch.equal(some[0][2], views[1][549 - 512])
    assert views.subset(5000) is views
    assert not isinstance(views, Sequence)  # the types' sign of views that are made lazily


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(batch_size=1), r"domain.batch_size: must be >= 2, got 1"),
        (dict(batch_size=51), r"domain.batch_size: 51 is more than the 50 images to pre-train on"),
    ],
)
def test_batches_too_small_or_too_large_are_refused(arguments, message):
    with pytest.raises(RecipeError, match=message):
        domain(**arguments).load()


def test_a_batch_that_ranks_cannot_share_is_refused():
    with pytest.raises(RecipeError, match=r"domain.batch_size: 9 images cannot be shared equally by 2 ranks"):
        domain(batch_size=9).check(2)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named_whichever_process_meets_it(folder, workers):
    for path in (folder / "train").rglob("*.png"):
        path.write_bytes(b"damaged")
    made = domain(folder, FOLDER, feed="streamed", workers=workers)
    with pytest.raises(DataError, match=r"^\S+/train/[ab]/\d.png: not a readable image") as error:
        first(made, 1)
    assert "Traceback" not in str(error.value)
    with pytest.raises(DataError, match="not a readable image"):
        domain(folder, FOLDER).load()
