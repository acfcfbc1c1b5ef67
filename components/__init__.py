"""TFX components of this project, one folder each: component.py defines inputs and outputs, executor.py does the work."""
