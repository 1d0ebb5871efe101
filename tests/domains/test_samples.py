"""``SampleDomain``: batches, ranks, splits and probe sets of anything that has a length and an item."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from sslcollapse import Context, DataError, RecipeError, SampleDomain, Samples, Split, fraction_split, testing
from sslcollapse.core.seeding import generator
from sslcollapse.domains.base import Order, flat_rows


class Points(SampleDomain):
    """Points in the plane; a view moves them a little."""

    kind, in_shape = "vector", (2,)
    data, labels, splits, pretrain = torch.arange(80.0).view(40, 2), None, None, None

    def read(self):
        return Samples(self.data, self.labels, self.splits, self.pretrain)

    def augment(self, batch, rng):
        return batch + 0.01 * torch.randn(batch.shape, generator=rng)


def points(batch_size=8, **attributes) -> Points:
    domain = Points(Path(), batch_size=batch_size)
    for name, value in attributes.items():
        setattr(domain, name, value)
    return domain


def loaded(**attributes) -> Points:
    domain = points(**attributes)
    domain.load()
    return domain


def test_a_domain_that_writes_its_samples_and_its_view_alone_keeps_the_contract():
    testing.check_domain(points())
    testing.check_domain(points(labels=np.arange(40) % 4, num_classes=4))


@pytest.mark.parametrize("missing", ["read", "augment"])
def test_a_domain_without_its_data_or_its_view_cannot_be_made(missing):
    members = {name: getattr(Points, name) for name in ("read", "augment", "kind", "in_shape") if name != missing}
    with pytest.raises(TypeError, match=missing):
        type("Half", (SampleDomain,), members)(Path())


def test_an_epoch_visits_every_sample_once_in_an_order_of_seed_and_epoch():
    stream = loaded(data=torch.arange(32.0).view(16, 2)).batches(0, Context(seed=3))
    first, second = (torch.cat([next(stream).index for _ in range(2)]) for _ in range(2))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(16))
    assert first.tolist() != second.tolist()


def test_the_shares_of_two_ranks_in_turn_are_the_batch_of_one():
    domain = loaded()
    shares = [next(domain.batches(7, Context(seed=1, rank=rank, world_size=2))).index for rank in range(2)]
    assert torch.equal(torch.cat(shares), next(domain.batches(7, Context(seed=1))).index)


def test_the_order_of_a_small_set_is_the_permutation_that_recorded_runs_had():
    drawn = torch.randperm(100, generator=generator(torch.device("cpu"), "order", 3, 2))
    assert next(Order(torch.arange(100), 25, Context(seed=3)).places(9)).rows.tolist() == drawn[25:50].tolist()


def test_an_epoch_of_a_large_set_is_a_permutation_that_resumes_exactly_and_that_ranks_share(monkeypatch):
    monkeypatch.setattr("sslcollapse.domains.base.KEYED_ORDER", 50)
    rows = torch.arange(100, 200)
    every = [place.rows for place in islice(Order(rows, 20, Context(seed=3)).places(0), 15)]
    epochs = [torch.cat(every[k : k + 5]) for k in (0, 5, 10)]
    assert all(epoch.sort().values.tolist() == rows.tolist() for epoch in epochs)
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 3
    resumed = [place.rows for place in islice(Order(rows, 20, Context(seed=3)).places(7), 8)]
    assert all(map(torch.equal, resumed, every[7:]))
    shares = [[p.rows for p in islice(Order(rows, 20, Context(3, rank, 4)).places(0), 15)] for rank in range(4)]
    assert all(torch.equal(torch.cat(parts), whole) for *parts, whole in zip(*shares, every, strict=True))


def test_a_hundred_million_samples_have_an_order_that_is_never_made(monkeypatch):
    monkeypatch.setattr(torch, "randperm", lambda *_, **__: pytest.fail("a permutation of all samples was drawn"))
    rows = _Numbers(100_000_000)
    places = list(islice(Order(rows, 512, Context(seed=1)).places(195_311), 4))  # over the end of the first epoch
    assert rows.most == 512
    drawn = torch.cat([place.rows for place in places])
    assert 0 <= drawn.min() < drawn.max() < len(rows)
    assert len(drawn.unique()) > 2000


class _Numbers:
    """As ``torch.arange(count)``, without its memory; ``most`` is how many were asked for at a time."""

    def __init__(self, count):
        self.count, self.most = count, 0

    def __len__(self):
        return self.count

    def __getitem__(self, rows):
        self.most = max(self.most, len(rows))
        return rows


def test_images_of_the_vision_domain_come_in_the_same_order():
    from sslcollapse.domains.vision.domain import VisionDomain

    images = VisionDomain(Path(), dataset={"type": "digits"}, batch_size=64)
    context = Context(seed=5)
    order = Order(images.dataset.pretrain, 64, context)
    assert torch.equal(next(images.batches(3, context)).index, next(order.places(3)).rows)


@pytest.mark.parametrize(
    ("data", "kind"),
    [(torch.zeros(40, 2), torch.Tensor), (np.zeros((40, 2)), torch.Tensor), ([{"a": i} for i in range(40)], list)],
)
def test_samples_may_be_a_tensor_an_array_or_anything_that_is_indexed(data, kind):
    domain = loaded(data=data)
    taken = domain.take(torch.tensor([3, 1]))
    assert isinstance(taken, kind)
    assert len(taken) == 2
    if kind is list:
        assert taken == [{"a": 3}, {"a": 1}]


def test_labelled_samples_have_one_split_by_class_and_its_training_rows_are_trained_on():
    domain = loaded(data=torch.zeros(100, 2), labels=np.arange(100) % 2)
    (split,) = domain.probe_set().splits["public"]
    assert [len(part) for part in (split.train, split.validation, split.test)] == [80, 10, 10]
    assert all(np.bincount(part % 2).tolist() == [len(part) // 2] * 2 for part in vars(split).values())
    assert domain.samples.pretrain.tolist() == split.train.tolist()
    assert next(domain.batches(0, Context())).labels is None, "num_classes does not say that there are labels"


def test_labels_of_batches_are_those_of_the_samples_where_the_domain_says_how_many_classes_there_are():
    batch = next(loaded(labels=np.arange(40) % 4, num_classes=4).batches(0, Context()))
    assert torch.equal(batch.labels, batch.index % 4)


def test_rows_of_no_class_are_in_no_part_of_a_split():
    split = fraction_split(np.array([-1] * 20 + [0] * 20 + [1] * 20))
    rows = np.concatenate([split.train, split.validation, split.test])
    assert sorted(rows.tolist()) == list(range(20, 60))


def test_too_few_labels_for_three_parts_are_refused():
    with pytest.raises(DataError, match=r"2 labels give parts of \[2, 0, 0\] rows .*give splits of your own"):
        fraction_split(np.array([0, 1]))


def test_several_labels_a_sample_make_a_multi_label_probe_set():
    probe_set = loaded(labels=torch.arange(80).view(40, 2) % 2).probe_set()
    assert probe_set.multilabel
    assert probe_set.num_classes == 2


def test_the_probe_set_is_made_a_batch_at_a_time_and_measured_on_evenly_spaced_samples():
    probe_set = loaded(data=torch.arange(2400.0).view(1200, 2)).probe_set().to(torch.device("cpu"))
    assert [len(view) for view in probe_set.views] == [512, 512, 176]
    views, rows = probe_set.measured(3)
    assert rows is None
    assert [view[:, 0].tolist() for view in views] == [[0.0, 1198.0, 2398.0]]
    with pytest.raises(IndexError, match="batch 3 of 3"):
        probe_set.views[3]


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (dict(labels=[0, 1]), r"Points: 40 samples and 2 labels; every sample needs one, or -1"),
        (dict(labels=np.arange(40), num_classes=5), r"num_classes is 5, and there is a label 39"),
        (dict(labels=torch.ones(40, 3), num_classes=2), r"num_classes is 2, and there is a label 2"),
        (dict(read=lambda: [1, 2]), r"Points.read\(\) must return sslcollapse.Samples, got a list"),
        (dict(num_classes=5), r"num_classes is 5, and read\(\) gave no labels"),
        (dict(pretrain=range(41)), r"a split or pretrain names a row outside 0..39"),
        (
            dict(labels=np.zeros(40), splits={"x": [Split(np.array([-1]), np.array([0]), np.array([1]))]}),
            r"names a row outside 0..39",
        ),
    ],
)
def test_samples_that_do_not_go_together_are_refused_by_name(attributes, message):
    with pytest.raises(DataError, match=message):
        loaded(**attributes)


def test_a_batch_that_cannot_be_filled_or_shared_is_refused():
    with pytest.raises(RecipeError, match=r"domain.batch_size: 64 is more than the 40 samples to pre-train on"):
        loaded(batch_size=64)
    with pytest.raises(RecipeError, match=r"domain.batch_size: 8 samples cannot be shared equally by 3 ranks"):
        points().check(3)
    with pytest.raises(RecipeError, match=r"domain.batch_size: must be >= 2, got 1"):
        points(batch_size=1)


def test_views_of_numbers_are_measurable_and_those_of_token_numbers_are_not():
    domain = points()
    assert torch.equal(domain.measurable(torch.ones(3, 2, 2)), torch.ones(3, 4))
    assert domain.measurable(torch.ones(3, 2, dtype=torch.long)) is None
    assert domain.measurable([1, 2]) is None
    assert flat_rows(torch.ones(1, 4000)) is None


@pytest.mark.parametrize("shape", [(40, 2), (40, 6, 6), (40, 3, 6, 6), (40, 1, 9)])
def test_views_of_vectors_and_pictures_are_drawn(shape, tmp_path):
    loaded(data=torch.rand(shape)).draw(tmp_path / "new" / "sheet.png", 2, seed=0)
    assert (tmp_path / "new" / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_a_view_that_nobody_can_draw_says_what_the_domain_has_to_add(tmp_path):
    domain = loaded()
    domain.plain = lambda batch: (batch,)
    with pytest.raises(RecipeError, match=r"the views of Points cannot be drawn: a view is a tuple; give it a method"):
        domain.draw(tmp_path / "sheet.png", 2, seed=0)


@pytest.mark.parametrize("data", [torch.zeros(40, 2), ["words"] * 40])
@pytest.mark.parametrize("made", [0, 7, 9])
def test_a_view_of_another_number_of_samples_than_the_batch_is_refused_with_both(data, made):
    domain = loaded(data=data)
    domain.augment = lambda batch, rng: batch[:1].repeat(made, 1) if isinstance(batch, torch.Tensor) else ["w"] * made
    said = rf"domain.augment: Points.augment returned a view of {made} samples for a batch of 8"
    with pytest.raises(RecipeError, match=said):
        next(domain.batches(0, Context()))
    with pytest.raises(RecipeError, match=said):
        testing.check_domain(domain)


def test_a_view_in_parts_is_not_counted():
    domain = loaded()
    domain.augment = lambda batch, rng: [batch, batch > 0, len(batch)]
    assert len(next(domain.batches(0, Context())).views[0]) == 3
    domain.augment = lambda batch, rng: {"points": batch}
    assert set(next(domain.batches(0, Context())).views[0]) == {"points"}


@pytest.mark.parametrize("method", ["augment", "take", "plain"])
def test_an_error_in_a_method_of_a_domain_names_it_and_the_line_of_its_file(method):
    domain = loaded()

    def wrong(*given):
        return {}["no such key"]

    setattr(domain, method, wrong)
    use = (lambda: domain.probe_set().views[0]) if method == "plain" else lambda: next(domain.batches(0, Context()))
    line = wrong.__code__.co_firstlineno + 1
    with pytest.raises(
        RecipeError, match=rf"domain: Points.{method} raised KeyError: 'no such key' \(.*test_samples.py:{line}\)$"
    ):
        use()
    setattr(domain, method, lambda *given: None)
    with pytest.raises(RecipeError, match=rf"domain: Points.{method} returned None; let it return what it has made"):
        use()


def test_an_error_in_read_is_named_and_one_of_the_system_stays_what_it_is():
    with pytest.raises(RecipeError, match=r"domain: Points.read raised ZeroDivisionError: .*test_samples.py:\d+\)"):
        loaded(read=lambda: 1 / 0)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        loaded(read=lambda: Path("/nowhere").read_text())
