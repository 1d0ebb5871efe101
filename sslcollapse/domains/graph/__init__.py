"""The graph domain: datasets, views by edge dropping and feature masking, batches."""

BUILTIN = {
    "graph_dataset": {
        "planetoid": "datasets:Planetoid",
        "citation_full": "datasets:CitationFull",
        "amazon": "datasets:Amazon",
        "coauthor": "datasets:Coauthor",
        "webkb": "datasets:WebKB",
        "wikics": "datasets:WikiCS",
        "ppi": "datasets:PPI",
        "ogbn": "ogb:OGBN",
        "ogbn_large": "ogb_large:LargeOGBN",
        "digits": "synthetic:DigitsGraph",
        "csbm": "synthetic:CSBM",
        "csbm_streamed": "blocks:StreamedCSBM",
        "stored": "packed:PackedGraph",
    },
    "graph_view": {
        "edge_drop": "views:EdgeDrop",
        "feature_mask": "views:FeatureMask",
        "node_mask": "node_views:NodeMask",
        "half_hop": "node_views:HalfHop",
    },
    "graph_views": {
        "chain": "views:ViewChain",
    },
    "graph_batching": {
        "full": "batching:Full",
        "neighbours": "roots:NeighbourBatches",
        "parts": "parts:PartBatches",
        "ego": "ego:EgoBatches",
    },
}
"""Kind → name → module of this room and attribute; imported when first used."""
