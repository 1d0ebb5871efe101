import pytest
import torch
from torchvision.transforms import functional as reference

from sslcollapse.core.errors import DataError
from sslcollapse.domains.vision import operations as ops


def images(samples=6, channels=3, height=20, width=28, seed=0):
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand(samples, channels, height, width, generator=rng)
    x[0] = x[0].round()  # saturated colours, equal channels, black and white
    x[1, :] = x[1, :1]
    return x


def each(function, x, *parameters):
    return torch.stack([function(sample, *values) for sample, *values in zip(x, *parameters, strict=True)])


def close(ours, theirs, atol):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


BOXES = torch.tensor([[0, 0, 20, 28], [3, 5, 9, 7], [19, 27, 1, 1], [2, 0, 18, 3], [0, 10, 2, 18], [7, 7, 12, 12]]).T


@pytest.mark.parametrize("size", [1, 8, 20, 24, 33])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_resized_crop_is_torchvisions_whether_pixels_are_gained_or_lost(size, channels):
    x = images(channels=channels)
    theirs = each(lambda s, *box: reference.resized_crop(s, *box, [size, size]), x, *BOXES.tolist())
    close(ops.resized_crop(x, BOXES, size), theirs, 2e-6)


def test_a_resized_crop_of_bytes_is_that_of_their_fractions():
    x = (images() * 255).to(torch.uint8)
    theirs = each(lambda s, *box: reference.resized_crop(s, *box, [16, 16]), x / 255, *BOXES.tolist())
    close(ops.resized_crop(x, BOXES, 16), theirs, 2e-6)


@pytest.mark.parametrize("size", [8, 33])
def test_flipped_samples_are_mirrored_left_to_right_and_only_they(size):
    x, flip = images(), torch.tensor([True, False, True, True, False, False])
    plain, flipped = ops.resized_crop(x, BOXES, size), ops.resized_crop(x, BOXES, size, flip)
    close(flipped, torch.where(flip[:, None, None, None], reference.hflip(plain), plain), 2e-6)


def test_the_whole_image_at_its_own_size_is_left_as_it_is():
    x = images(height=20, width=20)
    box = torch.tensor([0, 0, 20, 20])[:, None].expand(4, len(x))
    assert torch.equal(ops.resized_crop(x, box, 20), x)


@pytest.mark.parametrize("box", [[0, 0, 21, 28], [-1, 0, 3, 3], [5, 5, 0, 3], [0, 20, 4, 9]])
def test_a_crop_larger_than_the_image_is_refused(box):
    h, w = box[2:]
    with pytest.raises(DataError, match=f"a crop of {h}×{w} pixels .* larger than the image of 20×28"):
        ops.resized_crop(images(2), torch.tensor([[0, 0, 20, 28], box]).T, 16)


@pytest.mark.parametrize(
    ("kind", "function"),
    [
        (ops.BRIGHTNESS, reference.adjust_brightness),
        (ops.CONTRAST, reference.adjust_contrast),
        (ops.SATURATION, reference.adjust_saturation),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_brightness_contrast_and_saturation_are_torchvisions(kind, function, channels):
    x, factor = images(channels=channels), torch.tensor([0.0, 0.2, 0.7, 1.0, 1.4, 1.8])
    close(ops.blend(x, torch.full((6,), kind), factor), each(function, x, factor.tolist()), 1e-6)


def test_one_blend_does_something_else_to_each_sample():
    x, kind, factor = images(3), torch.tensor([2, 0, 1]), torch.tensor([0.3, 1.7, 1.5])
    functions = (reference.adjust_brightness, reference.adjust_contrast, reference.adjust_saturation)
    theirs = each(lambda s, k, f: functions[k](s, f), x, kind.tolist(), factor.tolist())
    close(ops.blend(x, kind, factor), theirs, 1e-6)


@pytest.mark.parametrize("shift", [-0.5, -0.31, -0.1, 0.0, 1e-3, 0.2, 0.5])
def test_hue_is_torchvisions(shift):
    x = images()
    close(ops.shift_hue(x, torch.full((6,), shift)), reference.adjust_hue(x, shift), 1e-5)


def test_hue_turns_pure_colours_into_each_other_and_leaves_greys():
    red, green, blue, grey = torch.eye(3)[0], torch.eye(3)[1], torch.eye(3)[2], torch.full((3,), 0.4)
    x = torch.stack([red, green, blue, grey])[:, :, None, None]
    turned = ops.shift_hue(x, torch.full((4,), 1 / 3))
    close(turned.flatten(1), torch.stack([green, blue, red, grey]), 1e-6)


def test_results_may_be_written_over_the_input():
    x, factor = images(), torch.linspace(0.2, 1.8, 6)
    kind = torch.tensor([0, 1, 2, 0, 1, 2])
    for function, parameters in ((ops.blend, (kind, factor)), (ops.shift_hue, (factor - 1,))):
        over = x.clone()
        expected = function(x, *parameters)
        function(over, *parameters, out=over)
        assert torch.equal(over, expected)
        assert torch.equal(x, images())


def test_greyscale_is_torchvisions():
    x = images()
    close(ops.greyscale(x), reference.rgb_to_grayscale(x, 3), 1e-6)


@pytest.mark.parametrize("kernel", [1, 3, 9, 23])
def test_blur_is_torchvisions_with_a_sigma_for_each_sample(kernel):
    x, sigma = images(), torch.tensor([0.1, 0.3, 0.5, 1.0, 1.5, 2.0])
    theirs = each(lambda s, v: reference.gaussian_blur(s, [kernel, kernel], [v, v]), x, sigma.tolist())
    close(ops.gaussian_blur(x, sigma, kernel), theirs, 1e-6)


@pytest.mark.parametrize("kernel", [4, 41])
def test_a_blur_that_cannot_be_reflected_is_refused(kernel):
    with pytest.raises(ValueError, match=f"kernel must be odd and less than twice the image of 20×28, got {kernel}"):
        ops.gaussian_blur(images(), torch.ones(6), kernel)


def test_solarise_is_torchvisions():
    x = images()
    close(ops.solarise(x, 0.5), reference.solarize(x, 0.5), 1e-6)


def test_normalise_is_torchvisions():
    x, mean, std = images(), [0.5, 0.4, 0.3], [0.2, 0.3, 0.25]
    close(ops.normalise(x, mean, std), reference.normalize(x, mean, std), 2e-6)


def test_what_becomes_of_a_sample_does_not_depend_on_the_others():
    x, factor = images(), torch.linspace(0.2, 1.8, 6)
    kind = torch.tensor([0, 1, 2, 2, 1, 0])
    calls = {
        "crop": lambda i: ops.resized_crop(x[i], BOXES[:, i], 24),
        "blend": lambda i: ops.blend(x[i], kind[i], factor[i]),
        "hue": lambda i: ops.shift_hue(x[i], factor[i] - 1),
        "blur": lambda i: ops.gaussian_blur(x[i], factor[i], 5),
    }
    for call in calls.values():
        alone = torch.cat([call(slice(k, k + 1)) for k in range(6)])
        close(call(slice(None)), alone, 1e-6)


@pytest.mark.parametrize("size", [2, 8, 20, 33])
@pytest.mark.parametrize("channels", [1, 3])
def test_crops_one_by_one_are_those_by_matrices_rounded_to_bytes_mirrored_and_in_the_asked_order(size, channels):
    x = (images(channels=channels) * 255).to(torch.uint8)
    samples, flip = torch.tensor([4, 0, 5, 2, 1, 3]), torch.arange(6) % 2 == 0
    box = BOXES[:, samples]
    found = ops.crop_by_sample(x, samples, box.float(), size, flip)
    expected = ops.crop_of(x[samples], box.float(), size, flip)
    close(found, expected, 1.02 / 255)
    assert (found - expected).abs().mean() < 0.3 / 255
    assert torch.equal((255 * found).round(), 255 * found) or torch.allclose((255 * found).round(), 255 * found)
    close(ops.crop_by_sample(x, samples, box.float(), size), ops.crop_of(x[samples], box.float(), size), 1.02 / 255)


def test_a_blur_has_no_weights_that_are_too_small_to_matter_and_too_small_to_be_fast():
    x = images(height=32, width=32)
    for sigma in (0.1, 0.3, 0.8, 2.0):
        theirs = each(lambda s, value: reference.gaussian_blur(s, [23, 23], [value, value]), x, [sigma] * 6)
        close(ops.gaussian_blur(x, torch.full((6,), sigma), 23), theirs, 2e-6)
    smallest = torch.finfo(torch.float32).tiny
    impulse = torch.zeros(1, 1, 64, 64)
    impulse[..., 32, 32] = 1.0
    for sigma in torch.linspace(0.1, 2.0, 60):
        spread = ops.gaussian_blur(impulse, sigma[None], 23)[0, 0, 32]
        assert not ((spread > 0) & (spread < smallest)).any()
