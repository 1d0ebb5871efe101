"""Views by torchvision's transforms: the same for a key, of the sizes that are asked for, and mistakes named."""

import inspect
import re

import pytest
import torch
from torchvision.transforms import v2

from sslcollapse.core.errors import RecipeError
from sslcollapse.core.registry import VISION_VIEWS
from sslcollapse.core.types import Context
from sslcollapse.domains.vision.domain import VisionDomain
from sslcollapse.domains.vision.torchvision import NAMED, OTHERS, TorchvisionViews
from sslcollapse.domains.vision.views import contact_sheet
from sslcollapse.recipe import extend, resolve

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.25]
USABLE = sorted(
    name for name, c in vars(v2).items() if inspect.isclass(c) and issubclass(c, v2.Transform) and name not in OTHERS
)
ARGUMENTS = {
    "ColorJitter": {"brightness": 0.4},
    "ElasticTransform": {"sigma": 1.0},
    "Grayscale": {"num_output_channels": 3},
    "Pad": {"padding": 2},
    "RandomAffine": {"degrees": 10},
    "RandomApply": {"transforms": [{"type": "RandomInvert", "p": 1.0}]},
    "RandomChoice": {"transforms": [{"type": "RandomInvert"}, {"type": "RandomSolarize", "threshold": 100}]},
    "RandomOrder": {"transforms": [{"type": "RandomInvert"}, {"type": "RandomSolarize", "threshold": 100}]},
    "RandomAdjustSharpness": {"sharpness_factor": 2},
    "RandomPosterize": {"bits": 3},
    "RandomResize": {"min_size": 20, "max_size": 30},
    "RandomRotation": {"degrees": 10},
    "RandomShortestSize": {"min_size": [20]},
    "RandomSolarize": {"threshold": 100},
    "ScaleJitter": {"target_size": [24, 24]},
    "JPEG": {"quality": [40, 90]},
}
RESIZE = {"type": "Resize", "size": [16, 16]}


def images(samples=6, channels=3):
    rng = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (samples, channels, 20, 28), generator=rng, dtype=torch.uint8)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def made(size=16, channels=3, **spec):
    return TorchvisionViews(**spec).augmentations(size, channels, MEAN[:channels], STD[:channels])


@pytest.mark.parametrize("name", USABLE)
def test_every_transform_of_one_image_makes_a_view_that_depends_on_the_key_alone(name):
    (view,) = made(pipeline=[{"type": name, **ARGUMENTS.get(name, {})}, RESIZE], count=1)
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first = view(images(), rng())
    assert torch.equal(state, torch.random.get_rng_state())  # nobody else's draws are changed
    torch.rand(9)
    assert torch.equal(first, view(images(), rng()))
    assert first.shape == (6, 3, 16, 16)
    assert first.dtype == torch.float32
    assert torch.isfinite(first).all()


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_named_pipeline_draws_for_each_sample_and_each_key_anew(name, channels):
    (view, again) = made(pipeline=name, channels=channels)
    same = images(1, channels).expand(6, -1, -1, -1)
    views = view(same, rng())
    assert len({tuple(sample.flatten().tolist()) for sample in views}) > 1
    assert torch.equal(views, again(same, rng()))
    assert not torch.equal(views, view(same, rng(1)))


def test_a_view_without_draws_is_torchvisions_normalised():
    (view,) = made(pipeline=[RESIZE, {"type": "Grayscale", "num_output_channels": 3}], count=1)
    expected = v2.Compose(
        [v2.Resize([16, 16]), v2.Grayscale(3), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    )
    torch.testing.assert_close(view(images(), rng()), torch.stack([expected(image) for image in images()]))


def test_multi_crop_has_as_many_views_of_each_size_and_scale_as_count_says():
    views = made(pipeline=[{"type": "RandomResizedCrop"}], count=[2, 3], sizes=[16, 8], scales=[[1.0, 1.0], [0.1, 0.2]])
    assert [view.size for view in views] == [16, 16, 8, 8, 8]
    assert [view(images(), rng()).shape[-1] for view in views] == [16, 16, 8, 8, 8]
    assert [view.transform.transforms[0].scale for view in views[1:3]] == [[1.0, 1.0], [0.1, 0.2]]


def test_each_number_of_count_may_have_a_pipeline_of_its_own():
    views = made(pipeline=["augmix", [{"type": "RandomResizedCrop"}]], count=[1, 2])
    assert [type(view.transform.transforms[-1]).__name__ for view in views] == ["AugMix"] + ["RandomResizedCrop"] * 2


def test_words_stand_for_what_a_recipe_cannot_say():
    crop = {"type": "RandomResizedCrop", "interpolation": "bicubic"}
    policy = {"type": "AutoAugment", "policy": "cifar10"}
    (view,) = made(pipeline=[crop, policy, {"type": "GaussianBlur"}], count=1, size=64)
    first, second, third = view.transform.transforms
    assert first.interpolation is v2.InterpolationMode.BICUBIC
    assert second.policy is v2.AutoAugmentPolicy.CIFAR10
    assert tuple(third.kernel_size) == (7, 7)


def domain(**views):
    spec = {"type": "torchvision", **views}
    return VisionDomain(None, dataset={"type": "digits"}, views=spec, batch_size=8)


def test_a_batch_depends_on_seed_step_and_rank_alone_as_with_our_own_views():
    made = domain(pipeline="randaugment", count=[1, 2], sizes=[8, 6])
    stream = made.batches(0, Context(seed=1))
    batches = [next(stream) for _ in range(3)]
    again = next(domain(pipeline="randaugment", count=[1, 2], sizes=[8, 6]).batches(2, Context(seed=1)))
    assert all(torch.equal(a, b) for a, b in zip(batches[2].views, again.views, strict=True))
    assert [view.shape for view in again.views] == [(8, 1, 8, 8), (8, 1, 6, 6), (8, 1, 6, 6)]
    assert not torch.equal(again.views[1], again.views[2])
    for other in (Context(seed=2), Context(seed=1, rank=1, world_size=2)):
        assert not torch.equal(next(made.batches(2, other)).views[0][:4], again.views[0][:4])


def test_a_contact_sheet_shows_small_crops_in_a_frame(tmp_path):
    contact_sheet(images(2), made(count=[1, 1], sizes=[16, 7]), MEAN, STD, tmp_path / "sheet.png", 0)
    assert (tmp_path / "sheet.png").stat().st_size > 0


def recipe(views):
    base = {
        "name": "views",
        "domain": {"type": "vision", "dataset": {"type": "digits"}, "batch_size": 8, "views": {"preset": "byol"}},
        "encoder": {"type": "resnet_narrow"},
        "objective": {"type": "simclr"},
        "optim": {"type": "sgd", "lr": 0.1},
        "train": {"steps": 1},
    }
    return resolve(extend(base, {"domain": {"views": views}}))


def test_a_type_replaces_the_fields_of_our_own_views_and_its_defaults_are_in_the_recipe():
    assert recipe({"type": "torchvision"})["domain"]["views"] == {
        "type": "torchvision",
        "pipeline": "simclr",
        "count": 2,
        "sizes": None,
        "scales": None,
    }
    assert recipe({"strength": 0.5})["domain"]["views"]["preset"] == "byol"


def test_what_makes_views_may_come_from_another_package(own_components):
    class Twice:
        """The images themselves."""

        def __init__(self, *, count: int = 2) -> None:
            self.count = count

        def augmentations(self, size, channels, mean, std):
            return [lambda images, rng: images.float()] * self.count

    VISION_VIEWS.register("twice")(Twice)
    own = VisionDomain(None, dataset={"type": "digits"}, views={"type": "twice", "count": 3}, batch_size=8)
    assert len(next(own.batches(0, Context())).views) == 3


@pytest.mark.parametrize(
    ("views", "message"),
    [
        (
            dict(type="torchvison"),
            r"domain.views.type: unknown vision_views 'torchvison'; did you mean 'torchvision'\?",
        ),
        (dict(type="torchvision", pipeline="randaug"), r"domain.views: pipeline: unknown pipeline 'randaug'; did you"),
        (dict(type="torchvision", pipeline=[]), r"needs a name \(simclr, .*\) or a list of transforms, got \[\]"),
        (
            dict(type="torchvision", pipeline=[dict(type="RandomFlip")]),
            r"pipeline\[0\].type: 'RandomFlip' is no transform",
        ),
        (dict(type="torchvision", pipeline=[dict(type="MixUp")]), "'MixUp' does not make an image of one image"),
        (
            dict(type="torchvision", pipeline=[dict(type="RandomResizedCrop", scales=[0.1, 1])]),
            r"pipeline\[0\].scales: RandomResizedCrop has no such argument; did you mean 'scale'\?",
        ),
        (
            dict(type="torchvision", pipeline=[dict(type="RandomApply", transforms=[dict(type="JPEG", quality=900)])]),
            r"pipeline\[0\].transforms\[0\]: torchvision's JPEG refuses",
        ),
        (
            dict(type="torchvision", count=[2, 4], sizes=[32]),
            r"sizes: needs one for each number in count \[2, 4\], got 1",
        ),
        (dict(type="torchvision", scales=[[0.5, 0.1]]), r"scales: needs a smallest and a largest area above 0"),
        (dict(type="torchvision", count=0), "domain.views.count: "),
    ],
)
def test_a_mistake_in_a_recipe_is_named_with_its_place(views, message):
    with pytest.raises(RecipeError, match=message):
        recipe(views)


def test_a_pipeline_that_makes_another_size_is_refused_with_what_it_makes():
    with pytest.raises(RecipeError, match=re.escape("makes [1, 8, 8] of an image, where [1, 6, 6] is needed; end it")):
        next(domain(pipeline=[dict(type="RandomInvert")], sizes=[6]).batches(0, Context()))
