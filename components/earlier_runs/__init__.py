"""What a run asks of the ones before it: the last blessed model, and the previous statistics."""
