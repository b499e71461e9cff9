"""The real Argilla server and web page without Docker, Elasticsearch or Redis."""
