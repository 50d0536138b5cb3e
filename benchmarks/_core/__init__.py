"""Parts of the core benchmark: what is measured, in which environments, and what is asked of it."""
