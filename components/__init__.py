"""TFX components that the stock set lacks, a folder each."""
