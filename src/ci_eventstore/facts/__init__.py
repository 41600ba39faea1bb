"""Facts of all jobs: what happened to any of them, for groups of readers that miss none."""
