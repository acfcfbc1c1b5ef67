"""TFX components that the stock set lacks, a folder each: component.py says what goes in and out, executor.py works."""
