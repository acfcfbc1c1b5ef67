"""Which images a data set has, with their labels, groups and splits, before any is opened."""
