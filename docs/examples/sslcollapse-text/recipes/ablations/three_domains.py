"""Does WERank do in language what it does elsewhere? Three domains, three objectives, with and without it: five seeds.

The same digits as a graph and as images, and docstrings as texts. Objectives, projectors and WERank's coefficient are
the same everywhere and nothing is tuned; encoders, views and steps are those of the domain's own recipe. Needs the
recipes of sslcollapse itself, which are in the same clone.
"""

ablation = dict(
    name="three_domains",
    base={
        "digits as graph": "../simclr_digits_graph.py",
        "digits as images": "../../../../../recipes/simclr_digits.py",
        "docstrings": "../simclr_text.py",
    },
    axes={
        "objective": [
            dict(type="simclr", projector=[128, 64], temperature=0.2),
            dict(type="byol", projector=[128, 64], predictor_hidden=128, momentum=0.99),
            dict(type="vicreg", projector=[128, 128]),
        ],
        "regularizers.werank": [None, dict(type="werank", coefficient=1e-3)],
    },
    seeds=5,
    baseline={"regularizers.werank": None},
)
