"""Image classification research in JAX and Flax: small, exact, resumable."""
