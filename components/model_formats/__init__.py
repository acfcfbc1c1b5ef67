"""The model in other formats, each tested before it is shipped."""
