"""Images: datasets, views and batches."""

BUILTIN = {
    "vision_dataset": {
        "cifar10": "datasets:CIFAR10",
        "cifar100": "datasets:CIFAR100",
        "stl10": "datasets:STL10",
        "svhn": "datasets:SVHN",
        "mnist": "datasets:MNIST",
        "image_folder": "folder:ImageFolder",
        "image_table": "table:ImageTable",
        "fake": "embedded:FakeData",
        "digits": "embedded:Digits",
    },
    "vision_views": {
        "torchvision": "torchvision:TorchvisionViews",
    },
}
"""Kind → name → module of this room and attribute; imported when first used."""
