"""``bgrl_products`` with WERank on every encoder layer; nothing else differs."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("bgrl_products.py"),
    dict(name="bgrl_werank_products", regularizers=dict(werank=dict(type="werank", coefficient=1e-2))),
)
