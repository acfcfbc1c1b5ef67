"""The network and its data contract. Imports none of the project's other packages, so that it can be used without them."""
