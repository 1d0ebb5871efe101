"""Image datasets: torchvision's values, splits, errors for missing or damaged files and folders."""

import hashlib
import os
import pickle
import shutil
import struct

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from torchvision import datasets as torchvision_datasets

from sslcollapse.core.errors import DataError, MissingDataError, RecipeError
from sslcollapse.core.registry import VISION_DATASETS
from sslcollapse.core.types import Split
from sslcollapse.domains.graph.synthetic import DigitsGraph
from sslcollapse.domains.vision.data import ImageDataset, MemoryImages, check_dataset, official_split
from sslcollapse.domains.vision.datasets import CIFAR10, CIFAR100, MNIST, STL10, SVHN
from sslcollapse.domains.vision.embedded import Digits, FakeData
from sslcollapse.domains.vision.folder import ImageFolder

pytestmark = pytest.mark.usefixtures("no_network")
STORED = (CIFAR10, CIFAR100, STL10, SVHN, MNIST)


def contents(root):
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_cifar10(monkeypatch, root, train=20, test=6):
    """A tiny CIFAR-10 in the real layout, whose checksums torchvision is told."""
    rng = np.random.default_rng(0)
    folder = root / "vision" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    names = [f"data_batch_{k}" for k in range(1, 6)]
    counts = dict.fromkeys(names, train // 5) | {"test_batch": test}
    for name, count in counts.items():
        data = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        entry = {"data": data, "labels": [k % 10 for k in range(count)]}
        (folder / name).write_bytes(pickle.dumps(entry))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    loader = torchvision_datasets.CIFAR10
    monkeypatch.setattr(loader, "train_list", [[name, md5(folder / name)] for name in names])
    monkeypatch.setattr(loader, "test_list", [["test_batch", md5(folder / "test_batch")]])
    monkeypatch.setattr(loader, "meta", {**loader.meta, "md5": md5(folder / "batches.meta")})
    return folder


def write_stl10(monkeypatch, root):
    rng = np.random.default_rng(0)
    folder = root / "vision" / "stl10_binary"
    folder.mkdir(parents=True)
    for name, count in (("train", 5), ("test", 3), ("unlabeled", 4)):
        (folder / f"{name}_X.bin").write_bytes(rng.integers(0, 256, count * 3 * 96 * 96, dtype=np.uint8).tobytes())
        if name != "unlabeled":
            (folder / f"{name}_y.bin").write_bytes(bytes(range(1, count + 1)))
    for attribute in ("train_list", "test_list"):
        files = [[name, md5(folder / name)] for name, _ in getattr(torchvision_datasets.STL10, attribute)]
        monkeypatch.setattr(torchvision_datasets.STL10, attribute, files)


def write_mnist(root):
    folder = root / "vision" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", 10), ("t10k", 4)):
        images = struct.pack(">4i", 0x803, count, 28, 28) + rng.bytes(count * 784)
        labels = struct.pack(">2i", 0x801, count) + bytes(range(count))
        for kind, data in (("images-idx3", images), ("labels-idx1", labels)):
            (folder / f"{part}-{kind}-ubyte").write_bytes(data)
    return folder


def write_folder(root, counts, size=(12, 10), suffix=".png"):
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for k in range(count):
            Image.new("RGB", size, (10 * k, 0, 0)).save(root / name / f"{k}{suffix}")


def test_constructing_and_describing_touches_no_files(tmp_path):
    for kind in STORED:
        dataset = kind(tmp_path)
        assert f"{dataset.num_classes} classes" in dataset.describe()
        assert f"{dataset.channels}x{dataset.size}x{dataset.size}" in dataset.describe()
        assert f"{len(dataset.files())} of {len(dataset.files())} files to be downloaded" in dataset.describe()
    assert contents(tmp_path) == set()


def test_missing_files_without_a_network_name_files_folder_and_an_embedded_recipe(tmp_path):
    for kind in STORED:
        dataset = kind(tmp_path)
        with pytest.raises(MissingDataError, match=r"download failed.*recipes/simclr_digits.py") as error:
            dataset.load()
        for file in dataset.files():
            assert file.name in str(error.value)
            assert str(file.parent) in str(error.value)
        assert contents(tmp_path) == set(), kind


def test_cifar10_rows_are_torchvisions_training_then_test_images(tmp_path, monkeypatch):
    write_cifar10(monkeypatch, tmp_path)
    dataset = CIFAR10(tmp_path).load()
    images = dataset.images.read(torch.arange(26))
    for train, offset in ((True, 0), (False, 20)):
        loader = torchvision_datasets.CIFAR10(tmp_path / "vision", train=train)
        for k, (image, label) in enumerate(loader):
            assert np.array_equal(np.asarray(image), images[offset + k].permute(1, 2, 0).numpy())
            assert dataset.labels[offset + k] == label
    assert images.is_contiguous()
    assert dataset.pretrain.tolist() == list(range(20))
    (split,) = dataset.splits["public"]
    assert split.test.tolist() == list(range(20, 26))
    assert (len(split.train), len(split.validation)) == (18, 2)
    assert sorted([*split.train, *split.validation]) == list(range(20))


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_cifar_file_does_not_run_even_with_the_right_checksum(tmp_path, monkeypatch):
    folder = write_cifar10(monkeypatch, tmp_path)
    evil = folder / "test_batch"
    evil.write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    monkeypatch.setattr(torchvision_datasets.CIFAR10, "test_list", [["test_batch", md5(evil)]])
    with pytest.raises(DataError, match=r"test_batch: refused: its pickle asks for \w+\.mkdir"):
        CIFAR10(tmp_path).load()
    assert not (tmp_path / "ran").exists()


def test_mnist_is_read_from_its_raw_files_and_never_from_a_processed_cache(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "vision/MNIST/processed").mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save(Evil(tmp_path / "ran"), tmp_path / "vision/MNIST/processed" / name)
    assert len(MNIST(tmp_path).load().images) == 14
    assert not (tmp_path / "ran").exists()


def test_a_damaged_file_is_an_error_that_names_the_folder(tmp_path, monkeypatch):
    folder = write_cifar10(monkeypatch, tmp_path)
    (folder / "data_batch_2").write_bytes(b"damaged")
    with pytest.raises(DataError, match=rf"CIFAR10 cannot be read.*{folder} is truncated or corrupt"):
        CIFAR10(tmp_path).load()


def test_a_download_is_moved_into_place_only_when_complete(tmp_path, monkeypatch):
    source = tmp_path / "server"
    write_mnist(source)
    dataset = MNIST(tmp_path / "data")

    def half(root):
        (root / "MNIST/raw").mkdir(parents=True)
        shutil.copy(source / "vision" / dataset.raw[0], root / dataset.raw[0])
        raise OSError("connection lost")

    monkeypatch.setattr(dataset, "fetch", half)
    with pytest.raises(MissingDataError, match="connection lost"):
        dataset.load()
    assert not (tmp_path / "data").exists()
    monkeypatch.setattr(dataset, "fetch", lambda root: shutil.copytree(source / "vision", root, dirs_exist_ok=True))
    assert len(dataset.load().images) == 14
    assert all(file.is_file() for file in dataset.files())
    assert not list((tmp_path / "data").rglob(".partial-*"))


def test_mnist_is_grey(tmp_path):
    write_mnist(tmp_path)
    dataset = MNIST(tmp_path, validation=0.3).load()
    assert dataset.images.shape == (1, 28, 28)
    assert dataset.labels.tolist() == [*range(10), *range(4)]
    assert len(dataset.splits["public"][0].validation) == 3


def test_a_truncated_mnist_file_is_an_error(tmp_path):
    path = write_mnist(tmp_path) / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="MNIST cannot be read"):
        MNIST(tmp_path).load()


def test_svhn_has_digit_zero_as_class_zero(tmp_path, monkeypatch):
    (tmp_path / "vision").mkdir()
    known = {}
    for part, labels in (("train", [1, 10, 3, 4]), ("test", [10, 9])):
        path = tmp_path / "vision" / f"{part}_32x32.mat"
        pixels = np.arange(32 * 32 * 3 * len(labels), dtype=np.uint8).reshape(32, 32, 3, -1)
        scipy.io.savemat(path, {"X": pixels, "y": np.array(labels, dtype=np.uint8)[:, None]})
        known[part] = ["", path.name, md5(path)]
    monkeypatch.setattr(torchvision_datasets.SVHN, "split_list", known)
    dataset = SVHN(tmp_path).load()
    assert dataset.labels.tolist() == [1, 0, 3, 4, 0, 9]
    assert dataset.images.read(torch.tensor([1]))[0, 2, 5, 7] == pixels_at(5, 7, 2, 1, 4)


def pixels_at(y, x, channel, image, images):
    return ((y * 32 + x) * 3 + channel) * images + image & 255


def test_stl10_pretrains_on_unlabelled_and_training_images_but_no_test_images(tmp_path, monkeypatch):
    write_stl10(monkeypatch, tmp_path)
    dataset = STL10(tmp_path).load()
    assert dataset.pretrain.tolist() == [0, 1, 2, 3, 4, 8, 9, 10, 11]
    assert dataset.labels.tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert dataset.all_labels().tolist() == [0, 1, 2, 3, 4, 0, 1, 2, -1, -1, -1, -1]
    theirs = torchvision_datasets.STL10(str(tmp_path / "vision"), split="unlabeled")
    assert np.array_equal(dataset.images.read(torch.tensor([9]))[0].numpy(), theirs.data[1])
    assert STL10(tmp_path, pretrain="train").load().pretrain.tolist() == [0, 1, 2, 3, 4]


def test_digits_have_the_samples_and_the_split_of_the_graph(tmp_path):
    images, graph = Digits(tmp_path).load(), DigitsGraph(tmp_path).load()
    assert torch.equal(images.labels, graph.graphs[0].y)
    levels = images.images.read(torch.arange(1797)).flatten(1).float() / 255
    assert torch.allclose(levels, graph.graphs[0].x, atol=0.5 / 255)
    ours, theirs = images.splits["public"][0], graph.splits["public"][0]
    for part in ("train", "validation", "test"):
        assert np.array_equal(getattr(ours, part), getattr(theirs, part))


def test_digits_pretrain_on_no_test_image_unless_told(tmp_path):
    dataset = Digits(tmp_path, train_per_class=40).load()
    split = dataset.splits["public"][0]
    assert dataset.pretrain.tolist() == sorted([*split.train, *split.validation])
    assert len(dataset.pretrain) == 700
    assert len(Digits(tmp_path, pretrain="all").load().pretrain) == 1797


def test_known_means_and_deviations_are_those_of_the_digits():
    pixels = Digits(None).load().images.pixels / 255
    assert Digits.mean == pytest.approx([float(pixels.mean())], abs=2e-4)
    assert Digits.std == pytest.approx([float(pixels.std())], abs=2e-4)


def test_fake_data_depend_on_their_seed_only(tmp_path):
    torch.manual_seed(3)
    state = torch.get_rng_state()
    a, b, c = (FakeData(tmp_path, train=6, test=3, size=8, seed=seed).load() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(a.images.pixels, b.images.pixels)
    assert not torch.equal(a.images.pixels, c.images.pixels)
    assert a.images.shape == (3, 8, 8)
    assert a.pretrain.tolist() == list(range(6))


def test_validation_is_the_same_in_every_run_and_never_empty():
    assert official_split(100, 10, 0.1).validation.tolist() == official_split(100, 10, 0.1).validation.tolist()
    assert len(official_split(5, 1, 0.01).validation) == 1
    with pytest.raises(DataError, match="1 training and 4 test images cannot be divided"):
        official_split(1, 4, 0.5)


@pytest.mark.parametrize("validation", [0.0, 1.0, -0.2])
def test_a_validation_share_outside_0_to_1_is_refused(tmp_path, validation):
    with pytest.raises(RecipeError, match="validation must be between 0 and 1, got"):
        CIFAR10(tmp_path, validation=validation)


def test_a_label_that_is_no_class_is_refused():
    split = Split(np.array([0]), np.array([1]), np.array([2]))
    images = MemoryImages(torch.zeros(3, 1, 2, 2, dtype=torch.uint8))
    dataset = ImageDataset("tiny", images, torch.tensor([0, 3, 1]), 3, {"public": (split,)}, torch.arange(2))
    with pytest.raises(DataError, match="tiny: label 3 of row 1 is not one of 3 classes"):
        check_dataset(dataset)


def test_image_folder_resizes_and_takes_the_middle(tmp_path):
    write_folder(tmp_path / "pets/train", {"cat": 4, "dog": 3})
    write_folder(tmp_path / "pets/test", {"dog": 2})
    source = ImageFolder(tmp_path, train="pets/train", test=str(tmp_path / "pets/test"), size=6)
    assert (source.title, source.num_classes, source.channels) == ("pets", 2, 3)
    dataset = source.load()
    assert dataset.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1]
    images = dataset.images.read(torch.tensor([3, 8]), threads=2)
    assert images.shape == (2, 3, 6, 6)
    assert images[:, 0].unique().tolist() == [10, 30]
    assert dataset.pretrain.tolist() == list(range(7))
    assert "2 class folders" in source.describe()


def test_image_folder_errors_name_the_folder(tmp_path):
    write_folder(tmp_path / "train", {"a": 2, "b": 0})
    write_folder(tmp_path / "ok", {"a": 3})
    write_folder(tmp_path / "test", {"c": 1})
    (tmp_path / "nothing").mkdir()

    def load(train, test):
        return ImageFolder(tmp_path, train=train, test=test, size=4).load()

    with pytest.raises(MissingDataError, match=r"the folder .*absent is not there.*recipes/simclr_digits.py"):
        load("absent", "ok")
    with pytest.raises(DataError, match=r"nothing: no class folders"):
        load("nothing", "ok")
    with pytest.raises(DataError, match=r"train/b: an empty class folder"):
        load("train", "ok")
    with pytest.raises(DataError, match=r"test: the class folder 'c' is not among those of .*ok \(a\)"):
        load("ok", "test")


def test_an_image_file_that_cannot_be_read_is_an_error_with_a_way_out(tmp_path):
    write_folder(tmp_path / "train", {"a": 3})
    write_folder(tmp_path / "test", {"a": 1})
    dataset = ImageFolder(tmp_path, train="train", test="test", size=4).load()
    (tmp_path / "train/a/2.png").unlink()
    with pytest.raises(DataError, match=r"train/a/2.png: cannot be read \(No such file.*; replace or remove it"):
        dataset.images.read(torch.arange(3))


def test_training_images_cannot_be_the_test_images_too(tmp_path):
    with pytest.raises(RecipeError, match=r"train and test are both .*/x, .*trained on; give test images"):
        ImageFolder(tmp_path, train="x", test="y/../x", size=4)


def test_a_corrupt_image_file_is_an_error_that_names_it(tmp_path):
    write_folder(tmp_path / "train", {"a": 3}, suffix=".jpg")
    broken = tmp_path / "train/a/1.jpg"
    broken.write_bytes(broken.read_bytes()[:-60])
    write_folder(tmp_path / "test", {"a": 1})
    dataset = ImageFolder(tmp_path, train="train", test="test", size=4).load()
    with pytest.raises(DataError, match=r"train/a/1.jpg: not a readable image"):
        dataset.images.read(torch.arange(3))


def test_statistics_must_fit_the_mode(tmp_path):
    with pytest.raises(RecipeError, match="mean needs 1 numbers for mode L"):
        ImageFolder(tmp_path, train="a", test="b", size=4, mode="L", mean=[0.1, 0.2, 0.3])
    with pytest.raises(RecipeError, match="std must be > 0"):
        ImageFolder(tmp_path, train="a", test="b", size=4, std=[0.1, 0.0, 0.1])


def test_every_registered_dataset_is_here():
    names = {"cifar10", "cifar100", "stl10", "svhn", "mnist", "image_folder", "image_table", "fake", "digits"}
    assert set(VISION_DATASETS.names()) == names
    for name in names:
        assert VISION_DATASETS.parameters(name)
