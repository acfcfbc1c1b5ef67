"""What a run needs from earlier runs: the last blessed model and the previous statistics."""
