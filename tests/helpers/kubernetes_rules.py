"""What Kubernetes does to a container's command, arguments and variables, by its own documentation and third_party/forked/
golang/expansion: `$(NAME)` is replaced if there is such a variable, and `$$` becomes `$`."""

import re
from collections.abc import Mapping


def expand(text: str, variables: Mapping[str, str]) -> str:
    """A command, an argument or a variable's value as the container gets it."""

    def replaced(match: re.Match[str]) -> str:
        name = match["name"]
        if name is None:
            return "$"
        return variables.get(name, match[0])

    return re.sub(r"\$\$|\$\((?P<name>[^)]*)\)", replaced, text)
