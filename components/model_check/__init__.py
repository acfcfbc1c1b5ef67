"""ModelCheck: sends the exported model the requests that a server would send, before the model is pushed."""
