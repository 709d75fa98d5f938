"""sidekey in front of Ory Hydra, the engine of Neon's authorization server."""
