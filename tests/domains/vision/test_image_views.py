from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as reference

from sslcollapse.core.errors import DataError, RecipeError
from sslcollapse.domains.vision import augment
from sslcollapse.domains.vision.augment import Augmentation, ViewSettings, plain, random_box
from sslcollapse.domains.vision.views import PRESETS, ImageViews, contact_sheet
from sslcollapse.recipe.check import check

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.25]
FULL = ViewSettings(jitter=(0.8, 0.8, 0.8, 0.2), jitter_p=0.8, grey=0.2, blur=0.5, solarise=0.3)


def images(samples=12, channels=3, height=20, width=28):
    rng = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (samples, channels, height, width), generator=rng, dtype=torch.uint8)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def by_torchvision(image, parameters, k, augmentation):
    """Sample k alone, one torchvision function after another."""
    p, size = parameters, augmentation.size
    x = reference.resized_crop(image / 255, *p.box[:, k].tolist(), [size, size])
    x = reference.hflip(x) if p.flip[k] else x
    changes = [reference.adjust_brightness, reference.adjust_contrast, reference.adjust_saturation]
    steps = [(changes[i], float(p.factors[i, k])) for i in p.order[:, k].tolist()]
    steps.insert(int(p.hue_position[k]), (reference.adjust_hue, float(p.hue[k])))
    for function, value in steps if p.jitter[k] else []:
        x = function(x, value)
    if p.grey[k]:
        x = reference.rgb_to_grayscale(x, image.shape[0])
    if p.blur[k]:
        x = reference.gaussian_blur(x, [augmentation.kernel] * 2, [float(p.sigma[k])] * 2)
    if p.solarise[k]:
        x = reference.solarize(x, 0.5)
    return reference.normalize(x, augmentation.mean, augmentation.std)


@pytest.mark.parametrize("size", [16, 64])
@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_a_view_is_what_torchvision_makes_of_each_sample_with_the_same_parameters(size, chunk, monkeypatch):
    monkeypatch.setattr(augment, "CHUNK", chunk)
    x, made = images(64), Augmentation(replace(FULL, solarise=0.0), size, 3, MEAN, STD)
    parameters = made.draw(64, 20, 28, rng())
    theirs = torch.stack([by_torchvision(image, parameters, k, made) for k, image in enumerate(x)])
    torch.testing.assert_close(made.apply(x, parameters), theirs, atol=1e-4, rtol=0)


def test_a_view_solarises_as_torchvision():
    x, made = images(), Augmentation(ViewSettings(flip=0.5, solarise=0.5), 16, 3, MEAN, STD)
    parameters = made.draw(12, 20, 28, rng())
    theirs = torch.stack([by_torchvision(image, parameters, k, made) for k, image in enumerate(x)])
    assert 0 < int(parameters.solarise.sum()) < 12
    torch.testing.assert_close(made.apply(x, parameters), theirs, atol=1e-4, rtol=0)


def test_one_channel_has_no_hue_saturation_or_grey():
    x, made = images(channels=1), Augmentation(replace(FULL, solarise=0.0), 16, 1, [0.5], [0.2])
    parameters = made.draw(12, 20, 28, rng())
    theirs = torch.stack([by_torchvision(image, parameters, k, made) for k, image in enumerate(x)])
    torch.testing.assert_close(made.apply(x, parameters), theirs, atol=1e-4, rtol=0)


def test_the_same_seed_gives_the_same_view_and_another_seed_another():
    x, made = images(), Augmentation(FULL, 16, 3, MEAN, STD)
    assert torch.equal(made(x, rng(3)), made(x, rng(3)))
    assert not torch.equal(made(x, rng(3)), made(x, rng(4)))


def test_a_view_moves_neither_the_global_generator_nor_the_images():
    x, before = images(), torch.get_rng_state()
    Augmentation(FULL, 28, 3, MEAN, STD)(x, rng())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(x, images())


def test_a_sample_does_not_depend_on_the_others_for_given_parameters():
    x, made = images(), Augmentation(FULL, 16, 3, MEAN, STD)
    parameters = made.draw(12, 20, 28, rng())
    whole = made.apply(x, parameters)
    for some in (torch.tensor([5]), torch.tensor([11, 0, 7])):
        torch.testing.assert_close(made.apply(x[some], parameters.of(some)), whole[some], atol=1e-5, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_view_that_was_prepared_is_the_view_and_other_draws_make_another(channels):
    x, mean, std = images(channels=channels), MEAN[:channels], STD[:channels]
    made = Augmentation(FULL, 16, channels, mean, std)
    prepared, other = (made.prepare(made.draw(12, 20, 28, rng(seed)), 20, 28) for seed in (3, 4))
    assert torch.equal(made.make(x, prepared), made(x, rng(3)))
    assert not torch.equal(made.make(x, other), made(x, rng(3)))
    out = torch.empty(12, channels, 16, 16)
    assert made.make(x, prepared.of(iter(prepared.tensors)), out) is out
    assert torch.equal(out, made(x, rng(3)))


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize(("size", "height", "width"), [(20, 20, 28), (64, 20, 20), (20, 20, 20), (12, 33, 7)])
def test_strength_zero_is_the_plain_image(preset, size, height, width):
    x = images(height=height, width=width)
    for made in ImageViews(preset=preset, strength=0.0).augmentations(size, 3, MEAN, STD):
        torch.testing.assert_close(made(x, rng()), plain(x, size, MEAN, STD), atol=1e-5, rtol=0)


def test_plain_resizes_and_normalises_as_torchvision():
    x = images()
    resized = reference.resize(x / 255, [16, 16], antialias=True)
    torch.testing.assert_close(plain(x, 16, MEAN, STD), reference.normalize(resized, MEAN, STD), atol=2e-5, rtol=0)
    square = images(height=20, width=20)
    theirs = reference.normalize(square / 255, MEAN, STD)
    torch.testing.assert_close(plain(square, 20, MEAN, STD), theirs, atol=2e-6, rtol=0)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_strength_is_monotone_and_one_is_the_preset(preset):
    steps = [ImageViews(preset=preset, strength=s).settings(64)[1] for s in (0.0, 0.3, 0.6, 1.0)]
    assert steps[-1] == PRESETS[preset][-1]
    for weak, strong in pairwise(steps):
        assert weak.crop_scale[0] > strong.crop_scale[0]
        assert weak.crop_relative > strong.crop_relative
        for field in ("flip", "jitter", "jitter_p", "grey", "blur", "solarise"):
            assert getattr(weak, field) <= getattr(strong, field)


def test_a_stronger_view_is_further_from_the_image():
    x = images(200, height=20, width=20)
    distances = []
    for strength in (0.0, 0.25, 0.5, 1.0):
        made = ImageViews(strength=strength).augmentations(20, 3, MEAN, STD)[0]
        distances.append(float((made(x, rng()) - plain(x, 20, MEAN, STD)).square().mean()))
    assert distances == sorted(distances)
    assert distances[0] < 1e-9 < distances[1]


def test_operations_happen_as_often_and_as_far_as_the_settings_say():
    p = Augmentation(FULL, 32, 3, MEAN, STD).draw(4000, 32, 32, rng())
    for name, probability in (("flip", 0.5), ("jitter", 0.8), ("grey", 0.2), ("blur", 0.5), ("solarise", 0.3)):
        assert float(getattr(p, name).float().mean()) == pytest.approx(probability, abs=0.03)
    assert 0.2 <= float(p.factors.min()) < 0.21
    assert 1.79 < float(p.factors.max()) <= 1.8
    assert -0.2 <= float(p.hue.min()) < -0.19
    assert 0.19 < float(p.hue.max()) <= 0.2
    orders = {(*order, place) for order, place in zip(p.order.T.tolist(), p.hue_position.tolist(), strict=True)}
    assert len(orders) == 24


def boxes(height, width, samples=3000, settings=PRESETS["simclr"][0]):
    shapes = torch.rand(2, 10, samples, generator=rng())
    return random_box(shapes, torch.rand(2, samples, generator=rng(1)), height, width, settings)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 28), (8, 8), (3, 50), (50, 3), (1, 1)])
def test_boxes_lie_in_the_image(height, width):
    top, left, h, w = boxes(height, width)
    assert min(int(top.min()), int(left.min()), int(h.min()) - 1, int(w.min()) - 1) >= 0
    assert int((top + h).max()) <= height
    assert int((left + w).max()) <= width


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 28), (12, 30)])
def test_boxes_are_distributed_as_torchvisions(height, width):
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    draws = [RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)]
    theirs, ours = torch.tensor(draws).T.double(), boxes(height, width).double()
    spread = theirs.std(1, keepdim=True)
    torch.testing.assert_close(
        ours.mean(1, keepdim=True) / spread, theirs.mean(1, keepdim=True) / spread, atol=0.1, rtol=0
    )
    torch.testing.assert_close(torch.cov(ours / spread), torch.cov(theirs / spread), atol=0.15, rtol=0)


def test_where_no_box_fits_the_largest_central_one_in_range_is_taken():
    whole = ViewSettings(crop_scale=(1.0, 1.0))
    assert boxes(30, 90, 1, whole)[:, 0].tolist() == [0, 25, 30, 40]
    assert boxes(90, 30, 1, whole)[:, 0].tolist() == [25, 0, 40, 30]


def test_small_images_are_not_blurred_unless_asked_for():
    assert [s.blur for s in ImageViews(preset="byol").settings(32)] == [0.0, 0.0]
    assert [s.blur for s in ImageViews(preset="byol").settings(96)] == [1.0, 0.1]
    assert [s.blur for s in ImageViews(preset="byol", blur=0.3).settings(32)] == [0.3, 0.3]
    assert [s.solarise for s in ImageViews(preset="byol").settings(32)] == [0.0, 0.2]


@pytest.mark.parametrize(("size", "kernel"), [(8, 3), (32, 3), (96, 9), (224, 23)])
def test_the_kernel_of_a_blur_is_a_tenth_of_the_image_and_never_nothing(size, kernel):
    settings = ViewSettings(crop_scale=(1.0, 1.0), crop_relative=1.0, flip=0.0, blur=1.0, sigma=(1.0, 1.0))
    made, x = Augmentation(settings, size, 3, MEAN, STD), images(2, height=size, width=size)
    blurred = reference.gaussian_blur(x / 255, [kernel, kernel], [1.0, 1.0])
    torch.testing.assert_close(made(x, rng()), reference.normalize(blurred, MEAN, STD), atol=2e-5, rtol=0)


def test_each_view_may_have_a_preset_and_probabilities_of_its_own():
    first, second, third = ImageViews(preset=["weak", "byol", "simclr"], count=3, flip=[0.0, 0.1, 0.2]).settings(64)
    assert (first.crop_scale, second.solarise, third.jitter[0]) == ((0.6, 1.0), 0.2, 0.8)
    assert (first.flip, second.flip, third.flip) == (0.0, 0.1, 0.2)


def test_overrides_replace_the_presets_values():
    views = ImageViews(crop_scale=[0.2, 0.9], jitter=[0.4, 0.4, 0.2, 0.1], jitter_p=0.5, grey=0.0, sigma=[0.5, 1.0])
    settings = views.settings(64)[0]
    assert (settings.crop_scale, settings.jitter) == ((0.2, 0.9), (0.4, 0.4, 0.2, 0.1))
    assert (settings.jitter_p, settings.grey, settings.sigma) == (0.5, 0.0, (0.5, 1.0))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"preset": "simlcr"}, "views: preset: unknown preset 'simlcr'; did you mean 'simclr'?"),
        ({"preset": ["simclr", "weak", "byol"]}, "preset: needs one value, or one for each of 2 views"),
        ({"strength": 1.5}, r"strength: must be in \[0, 1\], got 1.5"),
        ({"count": 0}, r"views.count: must be in \[1, 100\], got 0"),
        ({"crop_scale": [0.5, 1.2]}, r"views.crop_scale\[1\]: must be in \(0, 1\], got 1.2"),
        ({"crop_scale": [0.9, 0.5]}, "crop_scale: needs a smallest and a largest value above 0"),
        ({"jitter": [0.4, 0.4, 0.4]}, "jitter: needs the largest change of brightness"),
        ({"jitter": [0.4, 0.4, 0.4, 0.6]}, r"hue in \[0, 0.5\], got \[0.4, 0.4, 0.4, 0.6\]"),
        ({"grey": 1.2}, r"views.grey: must be in \[0, 1\], got 1.2"),
        ({"flip": [0.5]}, "flip: needs one value, or one for each of 2 views"),
        ({"sigma": [0.0, 1.0]}, r"views.sigma\[0\]: must be > 0, got 0.0"),
        ({"blurr": 0.1}, "views.blurr: .*did you mean 'blur'?"),
    ],
)
def test_a_wrong_field_is_refused_by_name(fields, message):
    with pytest.raises(RecipeError, match=message):
        check(fields, ImageViews, "views")


def test_images_of_another_kind_are_refused():
    made = Augmentation(FULL, 16, 3, MEAN, STD)
    with pytest.raises(DataError, match=r"uint8 images \[B, 3, H, W\], got torch.float32 \[12, 3, 20, 28\]"):
        made(images().float(), rng())
    with pytest.raises(DataError, match=r"got torch.uint8 \[12, 1, 20, 28\]"):
        made(images(channels=1), rng())
    with pytest.raises(DataError, match=r"got torch.uint8 \[0, 3, 20, 28\]"):
        made(images(0), rng())
    with pytest.raises(DataError, match="1 or 3 channels, got 4; set jitter_p=0 and grey=0"):
        Augmentation(FULL, 16, 4, [*MEAN, 0.1], [*STD, 0.1])
    with pytest.raises(DataError, match="mean and std need a number for each of 3 channels, got 1, 1"):
        Augmentation(FULL, 16, 3, [0.5], [0.2])


def test_a_contact_sheet_has_a_row_a_sample_and_draws_of_every_view(tmp_path):
    from PIL import Image

    views = ImageViews(preset="byol").augmentations(20, 3, MEAN, STD)
    path = tmp_path / "new" / "sheet.png"
    contact_sheet(images(4, height=20, width=20), views, MEAN, STD, path, seed=0, draws=3)
    with Image.open(path) as picture:
        columns, rows = (side // (3 * 20 + 2) for side in picture.size)  # magnified to be legible
        colours = picture.convert("RGB").getcolors(1 << 20)
    assert (columns, rows) == (1 + 2 * 3, 4)
    assert len(colours) > 1000
