"""One file a workload, each with a ``WORKLOAD``."""
