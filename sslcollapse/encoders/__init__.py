"""Encoders: one view in, representations [N, out_dim] out."""

BUILTIN = {
    "encoder": {
        "gcn": "gcn:GCN",
        "sage": "sage:SAGE",
        "gat": "gat:GAT",
        "mlp": "mlp:MLP",
        "linear": "linear:DeepLinear",
        "pyg": "pyg:PyG",
        "resnet18": "resnet:ResNet18",
        "resnet34": "resnet:ResNet34",
        "resnet50": "resnet:ResNet50",
        "resnet_narrow": "resnet:NarrowResNet",
        "timm": "timm:Timm",
    },
}
"""Kind → name → module of this room and attribute; imported when first used."""
