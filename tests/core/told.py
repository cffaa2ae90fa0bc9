"""A listener to progress."""


class Told(list):
    """It remembers."""

    def __call__(self, progress):
        self.append(progress)

    def of(self, stage):
        return [progress for progress in self if progress.stage == stage]
