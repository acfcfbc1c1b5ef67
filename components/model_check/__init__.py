"""ModelCheck: asks the exported model what a server would ask it, before it is pushed."""
