"""The mathematics of the method: pure functions of networks, samples and times."""
