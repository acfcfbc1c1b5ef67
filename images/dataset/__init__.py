"""Lists the images of a data set with their labels, groups and splits, without opening them."""
