"""Which files of a folder are its images: links, loops, hidden names, pipes."""

import os
from pathlib import Path

import pytest
from PIL import Image
from torchvision.datasets import ImageFolder as TorchvisionFolder

from sslcollapse.core.errors import DataError, RecipeError
from sslcollapse.domains.vision.data import ImageDataset
from sslcollapse.domains.vision.folder import ImageFolder
from sslcollapse.domains.vision.table import ImageTable


@pytest.fixture
def root(tmp_path) -> Path:
    """Twelve training images of two classes, one in a folder below its class, and four test images."""
    for part, count in (("train", 6), ("test", 2)):
        for name in ("cat", "dog"):
            (tmp_path / part / name / "more").mkdir(parents=True)
            for k in range(count):
                folder = tmp_path / part / name / ("more" if k == 1 else "")
                Image.new("RGB", (4, 4)).save(folder / f"{part}{k}.png")
    return tmp_path


def load(root: Path, **arguments: object) -> ImageDataset:
    return ImageFolder(root, **{"train": "train", "test": "test", "size": 4, **arguments}).load()


def names(dataset: ImageDataset) -> list[str]:
    return dataset.images.paths


def test_the_order_is_torchvisions(root):
    (root / "train/cat/a.b").mkdir()
    Image.new("RGB", (4, 4)).save(root / "train/cat/a.b/x.JPG")
    dataset = load(root)
    expected = [sample for part in ("train", "test") for sample in TorchvisionFolder(root / part).samples]
    assert list(zip(names(dataset), dataset.labels.tolist(), strict=True)) == expected


@pytest.mark.parametrize("follow_links", [False, True])
def test_a_link_to_its_own_folder_adds_no_image(root, follow_links):
    (root / "train/cat/loop").symlink_to(".")
    (root / "train/cat/more/up").symlink_to("..")
    (root / "train/cat/again.png").symlink_to("train0.png")
    assert len(load(root, follow_links=follow_links).images) == 16


@pytest.mark.parametrize("name", [".ipynb_checkpoints", ".hidden"])
def test_hidden_files_and_folders_are_neither_images_nor_classes(root, name):
    for place in (root / "train", root / "train/cat", root / "train/cat/more", root / "test"):
        (place / name).mkdir()
        Image.new("RGB", (4, 4)).save(place / name / "x.png")
    (root / "train/dog/._x.png").write_bytes(b"what a file system leaves beside a file")
    source = ImageFolder(root, train="train", test="test", size=4)
    assert source.num_classes == 2
    assert "2 class folders" in source.describe()
    assert len(source.load().images) == 16


def test_a_link_to_the_training_folder_cannot_be_the_test_folder(root):
    (root / "same").symlink_to("train")
    with pytest.raises(RecipeError, match=r"train and test are both .*/train, so that the test images would be"):
        ImageFolder(root, train="train", test="same", size=4)
    (root / "a.parquet").write_bytes(b"")
    (root / "b.parquet").symlink_to("a.parquet")
    os.link(root / "a.parquet", root / "c.parquet")
    for other in ("b.parquet", "c.parquet"):
        with pytest.raises(RecipeError, match="train and test are both"):
            ImageTable(root, train="a.parquet", test=other)


@pytest.mark.parametrize(("train", "test"), [("train", "train/cat"), ("train/cat", "train"), ("train", "down")])
def test_one_folder_cannot_lie_inside_the_other(root, train, test):
    (root / "down").symlink_to("train/dog")
    with pytest.raises(RecipeError, match=r"lies inside .*/train, so that test images would be trained on"):
        ImageFolder(root, train=train, test=test, size=4)


@pytest.mark.parametrize("follow_links", [False, True])
@pytest.mark.parametrize(
    ("link", "to"),
    [
        ("train/zebra", "../test"),
        ("train/cat/more/t", "../../../test"),
        ("train/cat/t", "../../test/cat"),
        ("train/cat/t.png", "../../test/cat/test0.png"),
        ("train/cat/up", "../.."),
        ("train/cat/up", ".."),
        ("train/cat/d", "../dog"),
        ("test/cat/t.png", "../../train/cat/train0.png"),
    ],
)
def test_a_link_that_would_train_on_test_images_or_give_an_image_two_classes_is_refused(root, link, to, follow_links):
    (root / link).symlink_to(to)
    message = "which also belongs to" if follow_links else r"a link out of its class folder, to .*follow_links=True"
    with pytest.raises(DataError, match=message):
        load(root, follow_links=follow_links)


def test_links_to_images_elsewhere_are_followed_when_told(root):
    (root / "store/birds").mkdir(parents=True)
    for k in range(3):
        Image.new("RGB", (4, 4)).save(root / f"store/birds/{k}.png")
    Image.new("RGB", (4, 4)).save(root / "store/cat9.png")
    (root / "train/bird").symlink_to("../store/birds")
    (root / "train/cat/nine.png").symlink_to("../../store/cat9.png")
    (root / "train/cat/twice.png").symlink_to("../../store/cat9.png")
    with pytest.raises(DataError, match=r"train/bird: a link out of its class folder, to .*/store/birds; remove"):
        load(root)
    dataset = load(root, follow_links=True)
    assert [path for path in names(dataset) if "bird" in path] == [f"{root}/train/bird/{k}.png" for k in range(3)]
    assert sum("nine" in path or "twice" in path for path in names(dataset)) == 1
    assert len(dataset.images) == 20


def test_the_two_folders_may_be_links_themselves(root):
    for part in ("train", "test"):
        (root / f"my_{part}").symlink_to(part)
    assert len(load(root, train="my_train", test="my_test").images) == 16


def test_a_link_to_nothing_among_images_is_named(root):
    (root / "train/cat/gone.png").symlink_to("nothing.png")
    with pytest.raises(DataError, match=r"gone\.png: a link to .*nothing\.png, which is not there"):
        load(root)


def test_a_pipe_among_images_is_refused_and_not_waited_for(root):
    os.mkfifo(root / "train/cat/notes.txt")
    dataset = load(root)
    (root / "train/cat/train0.png").unlink()
    os.mkfifo(root / "train/cat/train0.png")
    with pytest.raises(DataError, match=r"train0\.png: a named pipe, not a regular file"):
        load(root)
    with pytest.raises(DataError, match=r"train0\.png: a named pipe, not a regular file"):
        dataset.images.encoded(0)
