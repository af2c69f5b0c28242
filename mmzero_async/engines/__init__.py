"""vLLM: the server process, the client and the publishing of adapters."""
