"""Side-by-side runs against other packages; ``python -m benchmarks`` runs them. Never part of the test run."""
