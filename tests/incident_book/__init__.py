"""What the package `incidents` does: states, clocks, fingerprints, what a deploy makes of them."""
