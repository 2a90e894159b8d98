"""Components in a cluster: what there is of them, and what a deploy does to them."""
