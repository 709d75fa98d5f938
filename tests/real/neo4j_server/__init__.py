"""sidekey in front of a real Neo4j server."""
